"""The notebooks, executed from top to bottom, what they print and draw, and the figures in them."""

import ast
import json
import re
from pathlib import Path

import matplotlib.pyplot as plt
import numpy as np
import pytest

import convjax
from tests.figures import MEASURED, RESULTS, figures, unmeasured

FOLDER = Path(__file__).parents[1] / "docs/notebooks"
NOTEBOOKS = sorted(path.stem for path in FOLDER.glob("*.ipynb"))
PAGE = Path(__file__).parents[1] / "docs/learner.md"


def sources(name, kind):
    """Returns the texts of a notebook's cells of one kind, "code" or "markdown"."""
    found = json.loads((FOLDER / f"{name}.ipynb").read_text())["cells"]
    return ["".join(cell["source"]) for cell in found if cell["cell_type"] == kind]


def cells(name):
    """Returns the code of a notebook's cells; the first installs, which is not needed here."""
    first, *others = sources(name, "code")
    assert "%pip install" in first
    return others


def run(name, monkeypatch, folder):
    """Executes a notebook and checks that its drawings are pictures; returns its variables."""
    monkeypatch.chdir(folder)
    names: dict[str, object] = {}
    exec("import convjax", names)
    for number, source in enumerate(cells(name)):
        place, tree = f"{name}, cell {number}", ast.parse(source)
        last = tree.body.pop() if isinstance(tree.body[-1], ast.Expr) else None
        exec(compile(tree, place, "exec"), names)
        if last:
            value = eval(compile(ast.Expression(last.value), place, "eval"), names)
            if draws(last):
                assert value._repr_png_().startswith(b"\x89PNG"), place
    plt.close("all")
    return names


def draws(statement):
    """Whether a statement is a call of a drawing."""
    call = statement.value if isinstance(statement, ast.Expr) else None
    name = getattr(getattr(call, "func", None), "attr", "")
    return name.startswith(("show_", "plot_", "color_dim"))


def test_notebooks_have_no_outputs():
    for name in NOTEBOOKS:
        for cell in json.loads((FOLDER / f"{name}.ipynb").read_text())["cells"]:
            assert not cell.get("outputs"), name
            assert not cell.get("execution_count"), name


@pytest.mark.parametrize("name", NOTEBOOKS)
def test_drawings_end_their_cells(name):
    """A notebook shows only the value of the last line, and not where a semicolon follows."""
    for source in cells(name):
        assert not source.rstrip().endswith(";"), source
        assert not any(map(draws, ast.parse(source).body[:-1])), source


@pytest.mark.parametrize("name", NOTEBOOKS)
def test_measured_figures_are_those_of_the_saved_claims(name):
    assert [wrong for text in sources(name, "markdown") for wrong in unmeasured(text)] == []


@pytest.mark.parametrize("name", NOTEBOOKS)
def test_other_figures_are_those_of_the_code(name):
    data = convjax.data.load("mnist5k")
    known = {
        *figures("\n".join(sources(name, "code"))),
        str(len(data.train.labels) + len(data.test.labels)),
        f"{np.log(10):.2f}",
    }
    for text in sources(name, "markdown"):
        # Without links and names such as h100. Whole numbers of two digits count and number things.
        rest = re.sub(r"\]\([^)]*\)|[A-Za-z]\w*", " ", MEASURED.sub("", text))
        assert {n for n in figures(rest) if len(n) > 2} <= known, text


def test_unmeasured_by_hand():
    # The saved reasons: "2 of 5 seeds fail" on MNIST, "4 of 5 seeds fail" on the sample.
    assert unmeasured("9 *Measured:* on MNIST 2 of 5 fail (claim baseline-fails).") == []
    assert unmeasured("*Measured:* on these\ndigits 4 of 5 (claim baseline-fails).") == []
    ((figure, _),) = unmeasured("*Measured:* on MNIST 4 of 5 fail (claim baseline-fails).")
    assert figure == "4"
    # The figures of a claim are not those of another, and none may follow the last claim.
    ((figure, part),) = unmeasured("*Measured:* so (claim faster) and 17.\n\n18")
    assert (figure, part) == ("17", " and 17.")
    with pytest.raises(AssertionError, match="no claim slower is saved"):
        unmeasured("*Measured:* 1 (claim slower)")
    with pytest.raises(AssertionError, match="one set of images"):
        unmeasured("*Measured:* on MNIST and these digits 2 of 5 (claim baseline-fails)")


def test_layouts_cost_the_same_but_for_the_network_that_is_named():
    """On GPUs the cost is the bytes that a step touches, on TPUs the compiler's cycles."""
    costs: dict[tuple[str, str, str], list[float]] = {}
    saved = json.loads((RESULTS / "layouts_by_target.json").read_text())["layouts_by_target"]
    for row in saved:
        if not row["force"]:
            key = row["network"], row["dtype"], row["target"]
            cost = row["program"]["cycles"] or row["program"]["bytes"]
            costs.setdefault(key, []).append(cost)
    assert {len(of_layouts) for of_layouts in costs.values()} == {3}
    assert len({network for network, _, _ in costs}) == 3
    assert len({target for _, _, target in costs}) == 4
    apart = {key for key, of_layouts in costs.items() if max(of_layouts) > 1.02 * min(of_layouts)}
    assert apart == {("chapter's network", "bfloat16", target) for target in ("v5e", "v6e")}
    words = (
        "four chips",
        "three networks",
        "three layouts cost the same within 2 %",
        "bfloat16 on TPUs",
    )
    text = " ".join(" ".join(sources("layouts", "markdown")).split())
    assert all(word in text for word in words)


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
    learn, digits = names["learn"], names["digits"]
    assert learn.validate().accuracy > 0.95
    # The steps of an epoch that the text names: the last batch of 4,000 images is dropped.
    text = " ".join("\n".join(sources("chapter", "markdown")).split())
    assert learn.recorder.record.steps == 5 * (len(digits.train.labels) // 64) == 5 * 62
    assert "An epoch of these digits has 7 steps at batch 512, and 62 at batch 64" in text


@pytest.mark.slow
@pytest.mark.parametrize("name", sorted({*NOTEBOOKS} - {"why-not-learning", "chapter"}))
def test_notebook_runs(name, monkeypatch, tmp_path):
    assert "convjax" in run(name, monkeypatch, tmp_path)


def test_questionnaire_answers_all_questions():
    text = (FOLDER / "questionnaire.ipynb").read_text()
    assert [int(n) for n in re.findall(r"\*\*(\d+)\. ", text)] == list(range(1, 41))


def test_table_of_names_is_of_names_that_exist():
    from convjax.learner.views import Recorded, RecordedActivations

    rows = re.findall(r"^\| (.*?) \| (.*?) \|", PAGE.read_text(), re.M)
    assert len(rows) > 10
    places = (convjax, convjax.nn, convjax.plots, convjax.data, convjax.train, convjax.Learner)
    known = {name for place in (*places, Recorded, RecordedActivations) for name in dir(place)}
    for _, ours in rows[2:]:
        for name in re.findall(r"`(?:\w+\.)*(\w+)[(`]", ours):
            assert name in known, ours
