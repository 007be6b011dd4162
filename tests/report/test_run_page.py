import re
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from convjax.diagnosis._diagnose import diagnose
from convjax.report.build import report
from convjax.report.named_run import NamedRun
from convjax.report.run_page import _classes
from tests.helpers import make_record
from tests.report.reported import Numbers, left_run, rough, some_predictions, without_scripts


@pytest.fixture(scope="module")
def record():
    return rough(make_record(steps=30, layers=3, every=2))


@pytest.fixture(scope="module")
def page(tmp_path_factory, record):
    return report(left_run(tmp_path_factory.mktemp("run") / "plain" / "seed-0", record=record))


def test_report_lines_are_the_record(page, record):
    numbers = Numbers(page)
    steps, loss = numbers.trace("loss", "training, each batch")
    np.testing.assert_array_equal(steps, np.arange(30))
    np.testing.assert_array_equal(loss, record.loss)
    np.testing.assert_array_equal(numbers.trace("loss", "training")[1], record.smoothed_loss())
    assert [list(a) for a in numbers.trace("loss", "validation")] == [[15, 30], [1.85, 1.7]]
    assert [list(a) for a in numbers.trace("accuracy", "validation")] == [[15, 30], [0.15, 0.3]]
    for name, column in (("learning-rate", "learning_rate"), ("momentum", "momentum")):
        np.testing.assert_array_equal(numbers.trace(name, "this run")[1], getattr(record, column))
    for i, layer in enumerate(record.layers):
        for chart, values in (
            ("layers-mean", record.mean),
            ("layers-std", record.std),
            ("layers-near-zero", np.float32(100) * record.near_zero),
            ("layers-abs-near-zero", np.float32(100) * record.abs_near_zero),
        ):
            steps, shown = numbers.trace(chart, layer)
            np.testing.assert_array_equal(steps, record.watched)
            np.testing.assert_array_equal(shown, values[:, i])
    parameters = record.parameters
    steps, ratio = numbers.trace("update-ratio", "conv.kernel")
    np.testing.assert_array_equal(steps, parameters.watched)
    np.testing.assert_array_equal(
        ratio, parameters.update_norm[:, 1] / parameters.weight_norm[:, 1]
    )
    np.testing.assert_array_equal(
        numbers.trace("gradient-norm", "conv.kernel")[1], parameters.grad_norm[:, 1]
    )


def test_report_heatmaps_are_the_histograms(page, record):
    numbers = Numbers(page)
    specs = [numbers.charts[f"dimension-{i}"][0] for i in range(3)]
    assert {spec["top"] for spec in specs} == {record.hist.max()}
    for i, spec in enumerate(specs):
        np.testing.assert_array_equal(numbers.of(spec["counts"]), record.hist[:, i].T)
        np.testing.assert_array_equal(numbers.of(spec["bins"]), np.arange(41) / 4)
        np.testing.assert_array_equal(
            numbers.of(spec["columns"]), np.append(np.arange(0, 30, 2), 30) - 0.5
        )
        for name in ("under", "over"):
            share = (100 * getattr(record, name)[:, i] / 1000).astype(np.float32)
            np.testing.assert_array_equal(numbers.of(spec[name]), share)
            assert share.max() < spec["strip"]


def test_report_merges_a_long_record(tmp_path):
    long = replace(make_record(steps=2001, layers=1), parameters=None)
    page = report(left_run(tmp_path / "long", record=long))
    numbers = Numbers(page)
    assert len(numbers.trace("loss", "training, each batch")[1]) == 2001
    spec = numbers.charts["dimension-0"][0]
    merged = long.merged(1000)
    assert merged.watched_count.tolist() == [4] * 500 + [1]
    # Counts are per step, however many steps a column has.
    np.testing.assert_array_equal(
        numbers.of(spec["counts"]), (merged.hist[:, 0] / merged.watched_count[:, None]).T
    )
    assert "the mean of up to 4 neighbouring watched steps" in page
    assert "Each point is one step." in page
    bounded = left_run(tmp_path / "bounded", record=long.merged(600))
    assert "A point is the mean of up to 4 steps." in report(bounded)


def test_report_shows_nan_neither_inside_nor_outside_the_bins(tmp_path, record):
    hist, under, over = record.hist.copy(), record.under.copy(), record.over.copy()
    hist[-1, 0], under[-1, 0], over[-1, 0] = 0, 0, 0
    gone = replace(record, hist=hist, under=under, over=over)
    numbers = Numbers(report(left_run(tmp_path / "run", record=gone)))
    spec = numbers.charts["dimension-0"][0]
    for name in ("counts", "over", "under"):
        assert np.isnan(numbers.of(spec[name])[..., -1]).all()
        assert np.isfinite(numbers.of(spec[name])[..., :-1]).all()


def test_report_stores_every_array_once(page):
    arrays = Numbers(page).arrays
    kept = {(a.dtype.str, a.shape, a.tobytes()) for a in arrays}
    assert len(kept) == len(arrays)
    assert page.count("plotly.js v") == 1


def test_report_has_addresses_in_links_only(page):
    rest = re.sub(r'<a href="https://[^"]*"', "", without_scripts(page))
    assert not re.search(r"https?:|src=\"(?!data:image/png)|url\(|@import", rest)
    own = page[page.rindex('<script type="module">') :]
    assert "http" not in own
    assert str(Path.home()) not in without_scripts(page)


def test_report_tables(page):
    text = re.sub(r"\s+", " ", re.sub(r"<[^>]*>", " ", without_scripts(page)))
    for words in (
        "steps 30 evaluations 2",
        "accuracy 0.3 highest accuracy 0.3",
        "training and evaluation, s 2.5",
        "compilation, s 1",
        "data mnist5k",
        "blocks.0.conv 1,000",
        "3 of 6 answers are right, 3 are wrong.",
        "5.0 % → 90.0 %",
        "13.5 % → 75.0 %",
    ):
        assert words in text, words
    assert "plain/seed-0" in text


def test_report_escapes_names(page):
    assert "<b>one" not in without_scripts(page)
    assert "&lt;b&gt;one&lt;/b&gt;" in page
    assert "two &amp; more → nought" in page


def test_report_confusion_matrix(page):
    table = page[page.index('<table class="confusion">') :]
    cells = re.findall(r'<td class="number([^"]*)"[^>]*>(\d+)</td>', table)
    assert [int(count) for _, count in cells] == some_predictions().confusion.ravel().tolist()
    assert [i for i, (kind, _) in enumerate(cells) if kind] == [0, 4, 8]


def test_report_of_many_classes_lists_pairs(tmp_path):
    names = tuple(f"class {i}" for i in range(100))
    few = some_predictions()
    many = replace(few, labels=few.labels + 90, answers=few.answers + 90, class_names=names)
    path = left_run(tmp_path / "run", predictions=False)
    many.save(path / "predictions.npz")
    page = report(path)
    assert 'class="confusion"' not in page
    table = page[page.index("Confused most often, of 100 classes") :]
    cells = re.findall(r"<t[hd][^>]*>([^<]*)</t[hd]>", table[: table.index("</table>")])
    assert cells[3:] == [
        *("class 90", "class 91", "1"),
        *("class 92", "class 90", "1"),
        *("class 92", "class 91", "1"),
    ]


def test_report_of_a_diverged_training(tmp_path):
    record = make_record(steps=20, layers=2)
    gone = {name: getattr(record, name) * 0 for name in ("hist", "under", "over")}
    gone |= {name: getattr(record, name) * np.nan for name in ("loss", "mean", "std", "eval_loss")}
    page = report(left_run(tmp_path / "run", record=replace(record, **gone)))
    numbers = Numbers(page)
    assert np.isnan(numbers.trace("loss", "training")[1]).all()
    assert np.isnan(numbers.of(numbers.charts["dimension-0"][0]["counts"])).all()


@pytest.mark.parametrize(
    "config",
    [
        {"batch_size": 100},
        {"setting": {"batch_size": 100}},
        {"a": {"b": {"batch_size": 100}}, "batch_size": 7},
    ],
)
def test_diagnosis_finds_the_batch_size_at_any_depth(tmp_path, config):
    record = make_record(steps=5, layers=1)  # of 1,000 values
    classes = [f"{i}" for i in range(10)]
    run = NamedRun.read(left_run(tmp_path / "run", record=record, classes=classes, **config))
    assert _classes(run, record) == 10
    other = NamedRun.read(left_run(tmp_path / "other", record=record, classes=classes))
    assert _classes(other, record) is None


def test_report_findings(tmp_path):
    stuck = replace(make_record(steps=200, layers=2), loss=np.full(200, np.log(3), np.float32))
    page = report(left_run(tmp_path / "run", record=stuck, metrics=False))
    text = re.sub(r"\s+", " ", re.sub(r"<[^>]*>", "", without_scripts(page)))
    found = diagnose(stuck)
    assert found.findings
    for finding in (*found.findings, *found.consequences):
        assert f"{finding.figure:.3g}" in text
        assert f"{finding.threshold:.3g}." in text
        assert f"from step {finding.step}" in text
        assert finding.where in text
        assert f"Try: {finding.change}." in text
        assert f'href="https://{finding.reference.partition("https://")[2]}"' in page
    for symptom, lacking in found.unchecked.items():
        assert f"{symptom} ({', '.join(lacking)})" in text
    marks = Numbers(page).charts["loss"][0]["marks"]
    assert marks == [[finding.step, i + 1] for i, finding in enumerate(found.findings)]
