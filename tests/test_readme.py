"""Runs every command and snippet of the README, long ones in a small form."""

import gzip
import re
import shlex
import struct
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from typer.testing import CliRunner

from convjax.data import load
from experiments.cli.app import app
from tests.helpers import SPREADSHEET, free_port

pytestmark = pytest.mark.usefixtures("compiled_once")

ROOT = Path(__file__).parents[1]
DOCS = list((ROOT / "docs").glob("*.md"))

# Outputs of README commands that later commands read.
MADE = ("ledger", "runs/", "comparison.html")


def blocks(language, file="README.md"):
    text = (ROOT / file).read_text()
    return re.findall(rf"^```{language}\n(.*?)^```", text, re.MULTILINE | re.DOTALL)


def commands():
    """Returns the README's commands in order, grouped by the folders that they share.

    The chapter without options is left out: .ci/run runs its small form on Python 3.12.
    """
    lines = [line for block in blocks("bash") for line in block.splitlines()]
    found = [line.partition("-m experiments ")[2] for line in lines if "-m experiments" in line]
    found.remove("run chapter")
    groups = {}
    for command in dict.fromkeys(found):
        made = next((made for made in MADE if f" {made}" in command), command)
        groups.setdefault(made, []).append(command)
    return list(groups.values())


@pytest.fixture(scope="module")
def mnist_folder(tmp_path_factory):
    """The images of mnist5k in MNIST's files, so that compiled programs are reused."""
    folder = tmp_path_factory.mktemp("mnist")
    dataset = load("mnist5k")
    for prefix, split in (("train", dataset.train), ("t10k", dataset.test)):
        images, labels = np.asarray(split.images)[..., 0], np.asarray(split.labels, np.uint8)
        for name, magic, array in (("images-idx3", 2051, images), ("labels-idx1", 2049, labels)):
            content = struct.pack(f">i{array.ndim}i", magic, *array.shape) + array.tobytes()
            (folder / f"{prefix}-{name}-ubyte.gz").write_bytes(gzip.compress(content))
    return folder


@pytest.mark.slow
@pytest.mark.parametrize("group", commands(), ids=lambda group: group[0][:60])
def test_readme_commands_run(group, mnist_folder, tmp_path, monkeypatch):
    monkeypatch.chdir(ROOT)
    processes = []
    for command in group:
        words = shlex.split(command.replace("MNIST_FOLDER", str(mnist_folder)))
        if words[0] == "explore" and "--spreadsheet" in words and not SPREADSHEET.exists():
            pytest.skip(f"the chapter's spreadsheet is not at {SPREADSHEET}")
        words = small(words, tmp_path)
        if "--coordinator" in words:
            processes.append(words)
            continue
        result = CliRunner().invoke(app, words)
        assert result.exit_code == 0, f"{command}: {result.output}"
    if processes:
        run_together(processes)


def small(words, folder):
    """Returns a command in its small form, with outputs in a folder."""
    name, *words = words
    words = [str(folder / w) if w.startswith(MADE) else w for w in words]
    words = [str(SPREADSHEET) if w.endswith(".xlsx") else w for w in words]
    words = [w for w in words if w != "&"]
    if name in ("list", "table", "parity", "report", "events"):
        return [name, *words]
    if "--out" not in words:
        words += ["--out", "out"]
    out = words.index("--out") + 1
    words[out] = str(folder / words[out])
    for option in ("--seeds", *([] if SPREADSHEET.exists() else ["--spreadsheet"])):
        if option in words:
            del words[words.index(option) : words.index(option) + 2]
    known = name == "explore" or (name == "train" and {"--resume", "--config"} & set(words))
    return [name, *words, *([] if known else ["--quick"])]


def run_together(commands):
    """Runs the processes of one training at the same time."""
    port = str(free_port())
    processes = [
        subprocess.Popen(
            [sys.executable, "-m", "experiments", *(w.replace("7000", port) for w in words)],
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
        )
        for words in commands
    ]
    try:
        assert len(processes) == 2
        for process in processes:
            output = process.communicate(timeout=300)[0]
            assert process.returncode == 0, output
    finally:
        for process in processes:
            process.kill()
            process.communicate()


@pytest.mark.slow
def test_readme_snippets_run(tmp_path, monkeypatch, capsys):
    run = ["run", "one-cycle", "--quick", "--out", str(tmp_path / "FOLDER")]
    assert CliRunner().invoke(app, run).exit_code == 0
    snippets = blocks("python")
    assert len(snippets) == 8
    monkeypatch.chdir(tmp_path)
    for snippet in snippets:
        exec(compile(snippet, "README.md", "exec"), {})
    assert {"color-dim.png", "field.png", "loss.png", "updates.png"} <= {
        p.name for p in tmp_path.iterdir()
    }
    (shown,) = blocks("text")
    printed = capsys.readouterr().out
    for line in shown.splitlines():  # except the figure, whose last digits depend on the machine
        assert re.sub(r": [0-9.]+, above", ": ", line) in re.sub(r": [0-9.]+, above", ": ", printed)


@pytest.mark.slow
def test_own_loops_run_and_record_everything(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    loops = blocks("python", "docs/own-loops.md")
    assert len(loops) == 5
    for loop in loops:
        names: dict[str, object] = {}
        exec(compile(loop, "own-loops.md", "exec"), names)
        record = names["recorder"].record()
        assert [loop.count(f"  # {mark}") for mark in ("1\n", "2, instead of ", "3\n")] == [1, 1, 1]
        assert record.steps == len(record.watched) == len(record.parameters.watched) == 40
        assert record.layers[:2] == ("input", "labels")
        assert len(record.layers) >= 4
        assert np.median(record.loss[-5:]) < np.median(record.loss[:5])  # it trains
        assert len(record.active) == len(record.parameters.update_hist) == 40
        assert capsys.readouterr().out.startswith("nothing found")


def test_docs_of_the_diagnosis_print_what_they_say(capsys):
    (code,), (said,) = (blocks(kind, "docs/diagnosis.md") for kind in ("python", "text"))
    exec(compile(code, "diagnosis.md", "exec"), {})
    assert capsys.readouterr().out == said


def test_docs_of_layouts_compare_them(capsys):
    (code,) = blocks("python", "docs/layouts.md")
    exec(compile(code, "layouts.md", "exec"), {})
    first, head, *_, advice = capsys.readouterr().out.splitlines()
    assert first.startswith("images (64, 28, 28, 1), forward and backward, in a loop")
    (columns,) = re.findall(r"\| column .*?\n\n", (ROOT / "docs/layouts.md").read_text(), re.S)
    for column in ("ms", "cycles", "launches", "MiB touched", "in memory", "computed by"):
        assert column in head
        assert column in columns
    assert "moves" in advice


@pytest.mark.parametrize("file", ["README.md", *sorted(f"docs/{p.name}" for p in DOCS)])
def test_links_exist(file):
    targets = re.findall(r"\]\((?!http)([^)#]+)\)", (ROOT / file).read_text())
    assert all(((ROOT / file).parent / target).exists() for target in targets)


@pytest.mark.parametrize(
    "name",
    [
        "devices",
        "stream",
        "mnist",
        "diagnosis",
        "diagnosis_sets",
        "bench",
        "quantities",
        "record",
        "sweep",
        "fields",
        "layouts",
        "layouts_by_target",
        "targets",
        "cifar10",
        "residual",
    ],
)
def test_readme_tables_equal_the_saved_results(name):
    saved = CliRunner().invoke(app, ["table", str(ROOT / f"experiments/results/{name}.json")])
    assert saved.exit_code == 0
    texts = [file.read_text() for file in (ROOT / "README.md", *DOCS)]
    assert any(saved.stdout.strip() in text for text in texts)


@pytest.mark.parametrize("text", ["[]", "{}", '{"claims": 1}', "not JSON"])
def test_table_rejects_a_file_without_results(text, tmp_path):
    (tmp_path / "results.json").write_text(text)
    result = CliRunner().invoke(app, ["table", str(tmp_path / "results.json")])
    assert result.exit_code == 2
    assert "is not a results.json" in result.stderr


def test_table_rejects_a_missing_file(tmp_path):
    result = CliRunner().invoke(app, ["table", str(tmp_path / "none.json")])
    assert result.exit_code == 2
    assert "none.json cannot be read: No such file" in result.stderr
