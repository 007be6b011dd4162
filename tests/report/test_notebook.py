import subprocess
import sys
from dataclasses import replace
from functools import cache

import numpy as np
import pytest
from flax import nnx
from hypothesis import given

from convjax import broken_net, digits_net
from convjax.analysis._summary import summary
from convjax.data.dataset import Dataset, Split
from convjax.diagnosis._diagnose import Diagnosis, Finding, diagnose
from convjax.plots import new_figure
from convjax.report.notebook import paragraph, pictures, run_html
from convjax.runs.run import Run
from convjax.stats.smoothing import smooth
from convjax.train._sweep import Sweep
from convjax.train.lr_finder import LRFind
from tests.helpers import make_record, without_histograms, without_layers
from tests.report.test_table import Texts, cells, parsed, texts

RECORD = make_record(steps=7, layers=3)
EVIL = "<script>alert('&amp;')</script>"


def split(examples=30, channels=1, classes=3):
    rng = np.random.default_rng(0)
    images = rng.integers(0, 256, (examples, 4, 5, channels), np.uint8)
    return Split(images, (np.arange(examples) % classes).astype(np.int32))


def found_rates(steps=100, diverged=False):
    rates = 1e-7 * 1e8 ** (np.arange(steps) / steps)
    loss = 2.3 - 2 * np.exp(-((np.log10(rates) + 1) ** 2) / 2)
    if diverged:
        loss[:] = np.nan
    return LRFind(steps, rates, loss, loss)


FINDING = Finding(
    *("dead layer", "blocks.0", 1200, 0.987, 0.9, "share of dead", "smaller rate", "A."),
    against=("it learns", "few steps"),
    decides="train longer",
)

# Each object with a display, and the number of its plots.
SHOWN = {
    "record": (RECORD, 2),
    "merged record": (RECORD.merged(2), 2),
    "no histograms": (without_histograms(RECORD), 1),
    "no layers": (without_layers(RECORD), 1),
    "no steps": (RECORD.between(3, 3), 0),
    "one step": (RECORD.between(3, 4), 1),
    "findings": (Diagnosis((FINDING,), (FINDING,), {"collapse": ("classes",)}), 0),
    "no findings": (Diagnosis((), (), {}), 0),
    "of a record": (diagnose(RECORD, classes=10), 0),
    "summary": (summary(nnx.eval_shape(lambda: broken_net(rngs=nnx.Rngs(0)))), 0),
    "split": (split(), 1),
    "one image": (split(1), 1),
    "colour": (split(channels=3), 1),
    "two channels": (split(channels=2), 1),
    "dataset": (Dataset("shapes", split(30), split(6), ("a", "b", "c")), 1),
    "rates": (found_rates(), 1),
    "few rates": (found_rates(10), 1),
    "diverged": (found_rates(diverged=True), 1),
    "sweep": (Sweep(np.ones((2, 3, 4)), np.ones((2, 3)), np.arange(6).reshape(2, 3) / 8), 1),
    "one setting": (Sweep(np.ones((1, 1, 4)), np.ones((1, 1)), np.ones((1, 1))), 0),
}
shown = pytest.mark.parametrize("name", SHOWN)


@cache
def html_of(name):
    """The display of an object, kept because drawing takes longer than the tests."""
    return SHOWN[name][0]._repr_html_()


def shown_text(html):
    return Texts(html).found


@shown
def test_repr_html_is_a_title_and_self_contained_plots(name):
    html, (value, count) = html_of(name), SHOWN[name]
    assert len(list(parsed(html).iter("img"))) == count
    tags = {element.tag for element in parsed(html).iter()}
    assert not tags & {"script", "style", "link", "a", "iframe"}
    assert "http" not in html
    assert shown_text(html).startswith(type(value).__name__ + ": ")


@shown
def test_repr_is_one_short_line(name):
    value = SHOWN[name][0]
    assert len(repr(value).splitlines()) == 1
    assert len(repr(value)) < 120
    assert repr(value).startswith(type(value).__name__ + "(")


@shown
def test_repr_html_without_matplotlib_has_tables_and_a_hint(name, monkeypatch):
    with_pictures, (value, count) = html_of(name), SHOWN[name]
    for name in [name for name in sys.modules if name.partition(".")[0] == "matplotlib"]:
        monkeypatch.delitem(sys.modules, name)
    monkeypatch.setitem(sys.modules, "matplotlib", None)  # as if it were not installed
    html = value._repr_html_()
    assert "<img" not in html
    assert ('pip install "convjax[plots]"' in shown_text(html)) == (count > 0)
    assert cells(html) == cells(with_pictures)


@pytest.mark.slow
def test_repr_html_imports_nothing_heavy():
    code = (
        "import sys; from tests.report.test_notebook import SHOWN\n"
        "before = set(sys.modules)\n"  # Flax imports IPython where it is installed
        "for name in ('one step', 'one image', 'few rates', 'sweep'):\n"
        "    SHOWN[name][0]._repr_html_()\n"
        "print([name for name in ('matplotlib.pyplot', 'jinja2', 'plotly', 'IPython') "
        "if name in sys.modules and (name not in before or name != 'IPython')])"
    )
    found = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert found.stdout.strip() == "[]"


# --- contents ------------------------------------------------------------------------------------


def test_record_html_has_the_last_statistics_of_each_layer():
    (headings, *rows) = cells(html_of("record"))
    assert headings == [
        "layer",
        "values per step",
        "channels",
        "mean",
        "standard deviation",
        "x ≤ 0.05",
        "|x| ≤ 0.05",
    ]
    assert rows == [
        ["blocks.0.conv", "1,000", "3", "6", "7", "6.0 %", "3.0 %"],
        ["blocks.1.conv", "1,000", "3", "6.1", "7.1", "6.1 %", "3.1 %"],
        ["blocks.2.conv", "1,000", "3", "6.2", "7.2", "6.2 %", "3.1 %"],
    ]
    assert repr(RECORD) == "Record(7 steps, 3 layers)"
    assert repr(RECORD.merged(2)) == "Record(7 steps in 2 rows, 3 layers)"
    assert repr(RECORD.parameters) == "ParameterRecord(7 rows, 2 parameters)"
    assert "No layer was watched." in shown_text(html_of("no layers"))


def test_run_html():
    config = {"setting": {"lr": 0.06, "sizes": [1, 2]}, "seed": 0, "name": EVIL}
    metrics = [{"step": 3, "valid_loss": 0.5}, {"step": 7, "valid_loss": 0.25, "accuracy": 0.97}]
    html = run_html(Run(config, metrics, RECORD))
    assert shown_text(html).startswith("Run: 7 steps, 3 layers, 2 evaluations")
    assert cells(html)[1:4] == [["setting", "lr 0.06, sizes 1, 2"], ["seed", "0"], ["name", EVIL]]
    assert cells(html)[5:8] == [["step", "7"], ["valid_loss", "0.25"], ["accuracy", "0.97"]]
    assert cells(html)[8:] == cells(html_of("record"))
    bare = without_layers(RECORD)
    assert "No evaluation yet." in shown_text(run_html(Run(config, [], bare)))
    # Rows without a validation loss have no point in the picture.
    assert run_html(Run(config, [{"epoch": 0}], bare)).count("<img") == 1


def test_diagnosis_html():
    value = Diagnosis((FINDING,), (FINDING, FINDING), {"collapse": ("classes", "units")})
    assert cells(value._repr_html_())[1] == [
        "dead layer",
        "blocks.0",
        "1,200",
        "share of dead",
        "0.987",
        "above 0.9",
        "it learns; few steps",
        "smaller rate",
        "train longer",
        "A.",
    ]
    endless = replace(FINDING, threshold=np.inf)
    assert cells(Diagnosis((endless,), (), {})._repr_html_())[1][5] == ""
    assert "Possible consequences, also found: dead layer." in shown_text(value._repr_html_())
    assert "Not checked: 1, for lack of classes, units." in shown_text(value._repr_html_())
    low = replace(FINDING, figure=0.1)
    assert cells(Diagnosis((low,), (), {})._repr_html_())[1][5] == "below 0.9"
    assert shown_text(Diagnosis((), (), {})._repr_html_()) == "Diagnosis: nothing found"
    assert repr(value) == "Diagnosis(dead layer in blocks.0)"


def test_summary_html_has_the_figures_of_its_text():
    found = summary(nnx.eval_shape(lambda: digits_net(norm="batch", rngs=nnx.Rngs(0))))
    rows = cells(found._repr_html_())
    as_text = [line for line in str(found).splitlines()[1:] if not line.startswith("-")]
    assert [row[0] for row in rows] == [line.split()[0] for line in as_text[: len(rows)]]
    assert all(
        " ".join(row).split() == line.split() for row, line in zip(rows, as_text, strict=False)
    )
    assert f"in addition to the parameters: {found.batch_statistics:,}." in shown_text(
        found._repr_html_()
    )
    unknown = replace(found, rows=(replace(found.rows[0], multiplications=None),))
    assert "are unknown" in shown_text(unknown._repr_html_())
    assert cells(unknown._repr_html_())[1][4] == "–"


def test_split_html_and_dataset_html():
    assert cells(split(7)._repr_html_()) == [
        ["label", "images"],
        ["0", "3"],
        ["1", "2"],
        ["2", "2"],
    ]
    value = Dataset(EVIL, split(30), split(7), ("a", EVIL, "c"))
    assert cells(value._repr_html_())[1:] == [["a", "10", "3"], [EVIL, "10", "2"], ["c", "10", "2"]]
    (image,) = parsed(value._repr_html_()).iter("img")
    # Twelve of thirty images, evenly spread; their labels are 0, 1, 2, 0, …
    places = [0, 3, 5, 8, 11, 13, 16, 18, 21, 24, 26, 29]
    assert image.get("alt") == "images of " + ", ".join(value.class_names[i % 3] for i in places)


def test_split_html_of_many_labels_is_cut():
    html = split(50, classes=30)._repr_html_()
    assert len(cells(html)) == 1 + 20
    assert "… and 10 more labels." in shown_text(html)


def test_lr_find_html():
    value = SHOWN["rates"][0]
    expected = [[name, f"{rate:.4g}"] for name, rate in value.suggestions().items()]
    assert cells(html_of("rates"))[1:] == expected
    assert "too few steps" in shown_text(html_of("few rates"))
    assert repr(value) == "LRFind(100 of 100 steps, rates 1.0e-07 to 8.3e+00)"


def test_sweep_html():
    loss = np.ones((2, 2, 4))
    loss[1, 1, 2] = np.nan
    value = Sweep(loss, loss[..., 0], np.array([[0.25, 0.5], [0.75, 0.5]]))
    std = f"{np.sqrt(0.125):.4g}"  # (0.25² + 0.25²) / (2 − 1)
    assert cells(value._repr_html_())[1:] == [
        ["0", "0.5", std, "0.25", "0.75", "0"],
        ["1", "0.5", "0", "0.5", "0.5", "1"],
    ]
    assert cells(html_of("one setting"))[1] == ["0", "1", "–", "1", "1", "0"]
    assert repr(value) == "Sweep(2 seeds, 2 settings, 4 steps)"


def test_record_html_escapes_names_of_layers():
    value = replace(RECORD.between(0, 2), layers=(EVIL, "$x^2$ #2", "_"))
    assert [row[0] for row in cells(value._repr_html_())[1:]] == list(value.layers)


def test_record_html_of_a_diverged_training():
    mean, loss = RECORD.mean * np.nan, np.full(7, np.inf)
    value = replace(RECORD, mean=mean, loss=loss, hist=RECORD.hist * 0, under=RECORD.under * 0)
    assert not np.isfinite(smooth(value.loss)).any()
    assert cells(value._repr_html_())[1][3] == "NaN"
    assert value._repr_html_().count("<img") == 2


def test_pictures_have_alternative_texts():
    html = pictures(('a "b" <c>', lambda: new_figure(1, 1)), ("d", lambda: new_figure(1, 1)))
    found = list(parsed(html).iter("img"))
    assert [image.get("alt") for image in found] == ['a "b" <c>', "d"]
    assert all(image.get("src").startswith("data:image/png;base64,iVBOR") for image in found)
    assert pictures() == ""


def test_pictures_without_matplotlib_say_how_to_install_it():
    def draw():
        raise ImportError('plots need matplotlib. Run: pip install "convjax[plots]"')

    html = pictures(("a", draw))
    assert Texts(html).found == 'plots need matplotlib. Run: pip install "convjax[plots]"'
    assert "<img" not in html


def test_pictures_do_not_hide_other_errors():
    with pytest.raises(ZeroDivisionError):
        pictures(("a", lambda: 1 / 0))


@given(texts)
def test_paragraph_shows_any_text_and_nothing_else(text):
    parsed(paragraph(text))
    assert Texts(paragraph(text)).tags == {"p"}
    assert Texts(paragraph(text)).found == text


def test_record_html_of_many_layers_is_short():
    record = make_record(steps=120, layers=240)
    html = record._repr_html_()
    assert len(html) < 200_000
    first, details = parsed(html).find("div[2]"), parsed(html).find("details")
    assert 12 <= len(list(first.iter("tr"))) - 1 <= 15
    assert details.find("summary").text.endswith("of 240 layers; all:")
    assert all(f"\n{name} " in details.find("pre").text for name in record.layers)
    findings = diagnose(record).findings
    assert findings
    assert f"Found by convjax.diagnose(record): {findings[0].symptom}" in shown_text(html)
