"""The notebooks, executed from top to bottom, and what they print and draw."""

import json
import re
from pathlib import Path

import matplotlib.pyplot as plt
import pytest

FOLDER = Path(__file__).parents[1] / "docs/notebooks"
NOTEBOOKS = sorted(path.stem for path in FOLDER.glob("*.ipynb"))
PAGE = Path(__file__).parents[1] / "docs/learner.md"


def cells(name):
    """Returns the code of a notebook's cells; the first installs, which is not needed here."""
    found = json.loads((FOLDER / f"{name}.ipynb").read_text())["cells"]
    sources = ["".join(cell["source"]) for cell in found if cell["cell_type"] == "code"]
    assert "%pip install" in sources[0]
    return sources[1:]


def run(name, monkeypatch, folder):
    """Executes a notebook and returns its variables."""
    monkeypatch.chdir(folder)
    names: dict[str, object] = {}
    exec("import convjax", names)
    for number, source in enumerate(cells(name)):
        exec(compile(source, f"{name}, cell {number}", "exec"), names)
    plt.close("all")
    return names


def test_notebooks_have_no_outputs():
    for name in NOTEBOOKS:
        for cell in json.loads((FOLDER / f"{name}.ipynb").read_text())["cells"]:
            assert not cell.get("outputs"), name
            assert not cell.get("execution_count"), name


@pytest.mark.slow
def test_why_not_learning_finds_each_fault_and_cures_it(monkeypatch, tmp_path, capsys):
    run("why-not-learning", monkeypatch, tmp_path)
    said = capsys.readouterr().out
    found = re.findall(
        r"^(nothing found|[a-z -]+?)(?: in [\w.]+)?(?:, from step \d+)?$", said, re.M
    )
    assert found == [
        "nothing found",
        "softmax applied twice",
        "labels out of range",
        "shapes of output and target differ",
        "learning rate too high",
        "inputs and labels do not match",
    ]
    losses = [float(after) for after in re.findall(r"^loss \S+ → ([\d.]+|nan)", said, re.M)]
    healthy, softmax, nan, counted, pairs, paired, high, shuffled = losses
    assert healthy < 0.6
    assert softmax > 1.5
    assert nan != nan
    assert counted < 1
    assert paired < 0.02 < 0.1 < pairs
    assert min(high, shuffled) > 2.2


@pytest.mark.slow
def test_chapter_fails_at_a_constant_rate_and_works_with_batch_norm(monkeypatch, tmp_path, capsys):
    names = run("chapter", monkeypatch, tmp_path)
    said = capsys.readouterr().out
    assert "total                                             6,722           58,608" in said
    assert "learning rate too high, from step 0" in said
    assert said.rstrip().endswith("nothing found")
    assert names["learn"].validate().accuracy > 0.95


@pytest.mark.slow
@pytest.mark.parametrize("name", sorted({*NOTEBOOKS} - {"why-not-learning", "chapter"}))
def test_notebook_runs(name, monkeypatch, tmp_path):
    assert "convjax" in run(name, monkeypatch, tmp_path)


def test_questionnaire_answers_all_questions():
    text = (FOLDER / "questionnaire.ipynb").read_text()
    assert [int(n) for n in re.findall(r"\*\*(\d+)\. ", text)] == list(range(1, 41))


def test_table_of_names_is_of_names_that_exist():
    import convjax
    from convjax.learner.views import Recorded, RecordedActivations

    rows = re.findall(r"^\| (.*?) \| (.*?) \|", PAGE.read_text(), re.M)
    assert len(rows) > 10
    places = (convjax, convjax.nn, convjax.plots, convjax.data, convjax.train, convjax.Learner)
    known = {name for place in (*places, Recorded, RecordedActivations) for name in dir(place)}
    for _, ours in rows[2:]:
        for name in re.findall(r"`(?:\w+\.)*(\w+)[(`]", ours):
            assert name in known, ours
