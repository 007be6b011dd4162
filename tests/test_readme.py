"""Every command and snippet of the README runs, in its small form where it would take long."""

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

from experiments.cli import app
from tests.helpers import free_port

# The chapter's file, which is not part of the project.
SPREADSHEET = Path(__file__).parents[1] / "../shared/data/conv-example.xlsx"

# Where the README's commands put what they make.
MADE = ("runs/mine", "runs/higher", "runs/both", "comparison.html")


def blocks(root, language):
    text = (root / "README.md").read_text()
    return re.findall(rf"^```{language}\n(.*?)^```", text, re.MULTILINE | re.DOTALL)


@pytest.fixture
def mnist_folder(tmp_path):
    """A small stand-in with MNIST's file names; what it shows does not matter here."""
    random = np.random.default_rng(0)
    for prefix, count in (("train", 1200), ("t10k", 100)):
        images = random.integers(0, 256, (count, 28, 28), np.uint8)
        labels = np.arange(count, dtype=np.uint8) % 10
        for name, magic, array in (("images-idx3", 2051, images), ("labels-idx1", 2049, labels)):
            content = struct.pack(f">i{array.ndim}i", magic, *array.shape) + array.tobytes()
            (tmp_path / f"{prefix}-{name}-ubyte.gz").write_bytes(gzip.compress(content))
    return tmp_path


@pytest.mark.usefixtures("compiled_once")
def test_commands(request, mnist_folder, monkeypatch):
    root = request.config.rootpath
    monkeypatch.chdir(root)
    lines = [line for block in blocks(root, "bash") for line in block.splitlines()]
    commands = dict.fromkeys(
        line[line.index("-m experiments") + len("-m experiments ") :]
        for line in lines
        if "-m experiments" in line
    )
    assert len(commands) >= 4
    together = []
    # In the README's order: a command that resumes or shows a run comes after the one that made it.
    for i, command in enumerate(commands):
        words = [w.replace("MNIST_FOLDER", str(mnist_folder)) for w in shlex.split(command)]
        if words[0] in ("explore", "gallery"):
            if "--spreadsheet" in words and not SPREADSHEET.exists():
                continue
            words = [str(SPREADSHEET) if w.endswith(".xlsx") else w for w in words]
            words += ["--quick"] if words[0] == "gallery" else []
            out = words.pop(words.index("--out") + 1) if "--out" in words else f"page{i}.html"
            words = [w for w in words if w != "--out"] + ["--out", str(mnist_folder / out)]
        elif words[0] in ("train", "report", "events"):
            words = [str(mnist_folder / w) if w.startswith(MADE) else w for w in words]
            new = words[0] == "train" and "--resume" not in words and "--config" not in words
            words += ["--quick"] if new else []
            if "--coordinator" in words:
                together.append([w for w in words if w != "&"])
                continue
        elif words[0] not in ("list", "table", "parity"):
            out = words[words.index("--out") + 1] if "--out" in words else f"out{i}"
            # The chapter's spreadsheet is not part of the project.
            for option in ("--seeds", "--out", "--spreadsheet"):
                if option in words:
                    del words[words.index(option) : words.index(option) + 2]
            words += ["--quick", "--out", str(mnist_folder / out)]
        result = CliRunner().invoke(app, words)
        assert result.exit_code == 0, f"{command}: {result.output}"
    assert len(together) == 2
    port = str(free_port())
    processes = [
        subprocess.Popen(
            [sys.executable, "-m", "experiments", *(w.replace("7000", port) for w in words)],
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
        )
        for words in together
    ]
    for process in processes:
        told = process.communicate(timeout=300)[0]
        assert process.returncode == 0, told


def test_snippets(request, tmp_path, monkeypatch, capsys):
    root = request.config.rootpath
    run = ["run", "one-cycle", "--quick", "--out", str(tmp_path / "FOLDER")]
    assert CliRunner().invoke(app, run).exit_code == 0
    snippets = blocks(root, "python")
    assert len(snippets) == 7
    monkeypatch.chdir(tmp_path)
    for snippet in snippets:
        exec(compile(snippet, "README.md", "exec"), {})
    assert {"color-dim.png", "field.png", "loss.png", "updates.png"} <= {
        p.name for p in tmp_path.iterdir()
    }
    (shown,) = blocks(root, "text")
    printed = capsys.readouterr().out
    for line in shown.splitlines():  # but for the figure, whose last digits are the machine's
        assert re.sub(r": [0-9.]+, above", ": ", line) in re.sub(r": [0-9.]+, above", ": ", printed)


def test_links_lead_to_files(request):
    root = request.config.rootpath
    targets = re.findall(r"\]\((?!http)([^)#]+)\)", (root / "README.md").read_text())
    assert all((root / target).exists() for target in targets)


@pytest.mark.parametrize(
    "name",
    [
        "devices",
        "stream",
        "mnist",
        "diagnosis",
        "bench",
        "quantities",
        "record",
        "sweep",
        "fields",
        "layouts",
        "cifar10",
    ],
)
def test_tables_are_those_of_the_saved_results(name, request):
    root = request.config.rootpath
    saved = CliRunner().invoke(app, ["table", str(root / f"experiments/results/{name}.json")])
    assert saved.exit_code == 0
    assert saved.stdout.strip() in (root / "README.md").read_text()


@pytest.mark.parametrize("text", ["[]", "{}", '{"claims": 1}', "not JSON"])
def test_a_file_that_is_no_ledger(text, tmp_path):
    (tmp_path / "results.json").write_text(text)
    result = CliRunner().invoke(app, ["table", str(tmp_path / "results.json")])
    assert result.exit_code == 2
    assert "is not a results.json" in result.stderr


def test_a_file_that_is_not_there(tmp_path):
    result = CliRunner().invoke(app, ["table", str(tmp_path / "none.json")])
    assert result.exit_code == 2
    assert "none.json cannot be read: No such file" in result.stderr
