"""Runs every command and snippet of the README and of docs/, long ones in a small form."""

import gzip
import re
import shlex
import struct
import subprocess
import sys
import types
from collections import Counter
from pathlib import Path

import numpy as np
import pytest
from typer.testing import CliRunner

from convjax.data import load
from experiments.cli.app import app
from tests.figures import RESULTS, figures, measured_figures, saved_claims
from tests.helpers import SPREADSHEET, command_app, free_port

pytestmark = pytest.mark.usefixtures("compiled_once")

ROOT = Path(__file__).parents[1]
DOCS = sorted((ROOT / "docs").glob("*.md"))
PAGES = ["README.md", *(f"docs/{page.name}" for page in DOCS)]

# Outputs of commands that later commands read.
MADE = ("ledger", "runs/", "comparison.html")


# The words after the name of a program.
COMMAND = re.compile(r"(?:-m experiments|(?:^|/)convjax) (.*)")


def blocks(language, file="README.md"):
    text = (ROOT / file).read_text()
    return re.findall(rf"^```{language}\n(.*?)^```", text, re.MULTILINE | re.DOTALL)


def commands():
    """Returns the commands of all pages in order, grouped by the folders that they share."""
    lines = [
        line for page in PAGES for block in blocks("bash", page) for line in block.splitlines()
    ]
    found = [match[1] for line in lines if (match := COMMAND.search(line))]
    # .ci/run runs its small form, on Python 3.12.
    found = [command for command in found if not command.startswith("run chapter")]
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
def test_commands_run(group, mnist_folder, tmp_path, monkeypatch):
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
        result = CliRunner().invoke(command_app(words[0])[1], words)
        assert result.exit_code == 0, f"{command}: {result.output}"
    if processes:
        run_together(processes)


def small(words, folder):
    """Returns a command in its small form, with outputs in a folder."""
    name, *words = words
    words = [str(folder / w) if w.startswith(MADE) else w for w in words]
    words = [str(SPREADSHEET) if w.endswith(".xlsx") else w for w in words]
    words = [w for w in words if w != "&"]
    if name in ("list", "table", "parity", "report", "events", "doctor", "layouts"):
        return [name, *words]
    if "--out" not in words:
        words += ["--out", "out"]
    out = words.index("--out") + 1
    words[out] = str(folder / words[out])
    for option in ("--seeds", *([] if SPREADSHEET.exists() else ["--spreadsheet"])):
        if option in words:
            del words[words.index(option) : words.index(option) + 2]
    known = name in ("explore", "demo") or (
        name == "train" and {"--resume", "--config"} & set(words)
    )
    return [name, *words, *([] if known else ["--quick"])]


def run_together(commands):
    """Runs the processes of one training at the same time."""
    port = str(free_port())
    processes = [
        subprocess.Popen(
            [sys.executable, "-m", "convjax", *(w.replace("7000", port) for w in words)],
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
def test_readme_snippet_prints_what_it_says(tmp_path, monkeypatch, capsys):
    (snippet,), (of_demo, said) = blocks("python"), blocks("text")
    monkeypatch.chdir(tmp_path)
    exec(compile(snippet, "README.md", "exec"), {})
    assert (tmp_path / "report.html").exists()
    figure = re.compile(r": [0-9.]+, above")  # its last digits depend on the machine
    assert figure.sub(": ", capsys.readouterr().out) == figure.sub(": ", said)
    # `convjax demo` prints it, see its test.
    assert of_demo.splitlines()[0] == "learning rate too high, from step 0"


@pytest.mark.slow
@pytest.mark.parametrize("page", ["library.md", "runs.md", "receptive-fields.md"])
def test_snippets_of_a_page_run(page, tmp_path, monkeypatch):
    run = ["run", "one-cycle", "--quick", "--out", str(tmp_path / "FOLDER")]
    if page == "library.md":
        assert CliRunner().invoke(app, run).exit_code == 0
    monkeypatch.chdir(tmp_path)
    logged = {}
    for name, method in (("wandb", "log"), ("mlflow", "log_metrics")):  # which need not be there
        module = types.ModuleType(name)
        module.init = lambda **settings: None
        setattr(module, method, lambda scalars, step: logged.setdefault(step, {}).update(scalars))
        monkeypatch.setitem(sys.modules, name, module)
    snippets = blocks("python", f"docs/{page}")
    assert snippets
    for snippet in snippets:
        variables = {}
        exec(compile(snippet, page, "exec"), variables)
        if "MlflowWriter" in variables:
            assert sorted(logged) == list(range(9))
            assert "evaluation/accuracy" in logged[8]
            variables["MlflowWriter"]().write_scalars(51, {"training/loss": 1.0})
            assert 51 not in logged
            variables["MlflowWriter"]().write_scalars(100, {"training/loss": 1.0})
            assert logged.pop(100) == {"training/loss": 1.0}
    assert bool(logged) == (page == "runs.md")
    drawn = {"library.md": {"color-dim.png", "loss.png", "updates.png"}, "runs.md": set()}
    assert drawn.get(page, {"field.png"}) <= {path.name for path in tmp_path.iterdir()}


def test_readme_is_short():
    text = (ROOT / "README.md").read_text()
    assert text.count("\n") <= 200
    assert len(text.encode()) <= 12_000


def test_readme_claims_and_speed_are_those_of_the_results():
    text = (ROOT / "README.md").read_text()
    found = {name: claim for name, (claim,) in saved_claims("mnist").items()}
    verdicts = Counter(claim["verdict"] for claim in found.values())
    counts = [verdicts[verdict] for verdict in ("reproduced", "refuted", "undecided")]
    assert "{} are reproduced, {} refuted and {} undecided".format(*counts) in text
    rows = re.findall(r"^\| ([a-z-]+) \| (.*) \| (.*) \| (reproduced|refuted) \|$", text, re.M)
    assert len(rows) == 10
    assert {name for name, *_, verdict in rows if verdict == "refuted"} == {
        name for name, claim in found.items() if claim["verdict"] == "refuted"
    }
    for name, _, measured, verdict in rows:
        claim = found[name]
        assert claim["verdict"] == verdict
        assert {*figures(measured)} <= measured_figures(claim), name
    bars = CliRunner().invoke(app, ["table", str(RESULTS / "bench.json")]).stdout.splitlines()
    (table,) = re.findall(r"\| figure \|.*?\n\n", text, re.S)
    shown = table.strip().splitlines()[2:]
    assert len(shown) == 4
    assert set(shown) <= set(bars)


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
    code, own = blocks("python", "docs/layouts.md")
    names = {}
    exec(compile(code, "layouts.md", "exec"), names)
    first, head, *_, advice = capsys.readouterr().out.splitlines()
    assert first.startswith("images (64, 28, 28, 1), forward and backward, in a loop")
    (columns,) = re.findall(r"\| column .*?\n\n", (ROOT / "docs/layouts.md").read_text(), re.S)
    for column in ("ms", "cycles", "launches", "MiB touched", "in memory", "computed by"):
        assert column in head
        assert column in columns
    assert "moves" in advice
    exec(compile(own, "layouts.md", "exec"), names)
    assert [row.layout for row in names["found"].rows] == ["NHWC", "NCHW", "CHWN"]


@pytest.mark.parametrize("file", PAGES)
def test_links_exist(file):
    targets = re.findall(r"\]\((?!http)([^)#]+)\)", (ROOT / file).read_text())
    # The build of the site writes reference/, and fails where a link into it leads nowhere.
    kept = [target for target in targets if not target.startswith("reference/")]
    assert [target for target in kept if not ((ROOT / file).parent / target).exists()] == []


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
        "mnist5k",
        "residual",
    ],
)
def test_tables_equal_the_saved_results(name):
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
