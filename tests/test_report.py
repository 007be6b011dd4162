import base64
import os
import re
import sys
from dataclasses import replace
from io import BytesIO
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image

from convjax.diagnose import diagnose
from convjax.predictions import PredictionsError
from convjax.record import RecordError
from convjax.report import comparison, report, write_report
from convjax.reporting import blocks, tables
from convjax.reporting.answers import data_url
from convjax.reporting.arrays import Arrays
from convjax.reporting.saved import names_of
from convjax.runs import RunError
from tests.helpers import make_record, without_histograms, without_layers
from tests.reported import Numbers, left_run, rough, some_predictions, without_scripts


@pytest.fixture(scope="module")
def record():
    return rough(make_record(steps=30, layers=3, every=2))


@pytest.fixture(scope="module")
def page(tmp_path_factory, record):
    return report(left_run(tmp_path_factory.mktemp("run") / "plain" / "seed-0", record=record))


def test_the_lines_are_the_record(page, record):
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


def test_the_dimensions_are_the_histograms(page, record):
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


def test_a_long_record_is_merged_and_says_so(tmp_path):
    long = replace(make_record(steps=2001, layers=1), parameters=None)
    page = report(left_run(tmp_path / "long", record=long))
    numbers = Numbers(page)
    assert len(numbers.trace("loss", "training, each batch")[1]) == 2001
    spec = numbers.charts["dimension-0"][0]
    merged = long.merged(1000)
    assert merged.watched_count.tolist() == [4] * 500 + [1]
    # Counts of a step, whatever the columns hold.
    np.testing.assert_array_equal(
        numbers.of(spec["counts"]), (merged.hist[:, 0] / merged.watched_count[:, None]).T
    )
    assert "the mean of up to 4 neighbouring watched steps" in page
    assert "Each point is one step." in page
    bounded = left_run(tmp_path / "bounded", record=long.merged(600))
    assert "A point is the mean of up to 4 steps." in report(bounded)


def test_nan_is_nowhere_and_not_outside(tmp_path, record):
    hist, under, over = record.hist.copy(), record.under.copy(), record.over.copy()
    hist[-1, 0], under[-1, 0], over[-1, 0] = 0, 0, 0
    gone = replace(record, hist=hist, under=under, over=over)
    numbers = Numbers(report(left_run(tmp_path / "run", record=gone)))
    spec = numbers.charts["dimension-0"][0]
    for name in ("counts", "over", "under"):
        assert np.isnan(numbers.of(spec[name])[..., -1]).all()
        assert np.isfinite(numbers.of(spec[name])[..., :-1]).all()


def test_nothing_is_there_twice(page):
    arrays = Numbers(page).arrays
    kept = {(a.dtype.str, a.shape, a.tobytes()) for a in arrays}
    assert len(kept) == len(arrays)
    assert page.count("plotly.js v") == 1


def test_no_address_but_in_links(page):
    rest = re.sub(r'<a href="https://[^"]*"', "", without_scripts(page))
    assert not re.search(r"https?:|src=\"(?!data:image/png)|url\(|@import", rest)
    own = page[page.rindex('<script type="module">') :]
    assert "http" not in own
    assert str(Path.home()) not in without_scripts(page)


def test_tables(page):
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


def test_names_are_escaped(page):
    assert "<b>one" not in without_scripts(page)
    assert "&lt;b&gt;one&lt;/b&gt;" in page
    assert "two &amp; more → nought" in page


def test_a_confusion_matrix(page):
    table = page[page.index('<table class="confusion">') :]
    cells = re.findall(r'<td class="number([^"]*)"[^>]*>(\d+)</td>', table)
    assert [int(count) for _, count in cells] == some_predictions().confusion.ravel().tolist()
    assert [i for i, (kind, _) in enumerate(cells) if kind] == [0, 4, 8]


def test_many_classes(tmp_path):
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


def test_a_training_that_diverged(tmp_path):
    record = make_record(steps=20, layers=2)
    gone = {name: getattr(record, name) * 0 for name in ("hist", "under", "over")}
    gone |= {name: getattr(record, name) * np.nan for name in ("loss", "mean", "std", "eval_loss")}
    page = report(left_run(tmp_path / "run", record=replace(record, **gone)))
    numbers = Numbers(page)
    assert np.isnan(numbers.trace("loss", "training")[1]).all()
    assert np.isnan(numbers.of(numbers.charts["dimension-0"][0]["counts"])).all()


@pytest.mark.parametrize("channels", [1, 2, 3])
def test_pictures_are_the_images(channels):
    image = np.random.default_rng(0).integers(0, 256, (5, 4, channels), np.uint8)
    start, _, data = data_url(image).partition(",")
    assert start == "data:image/png;base64"
    with Image.open(BytesIO(base64.b64decode(data))) as picture:
        found = np.asarray(picture)
    np.testing.assert_array_equal(found, image if channels == 3 else image[..., 0])


def test_findings(tmp_path):
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


@pytest.mark.parametrize(
    ("how", "sentences"),
    [
        ({"predictions": False}, ["There are no predictions"]),
        ({"metrics": False}, ["There are no metrics yet"]),
        ({"record": False}, ["There is no record of the steps yet"]),
        ({"record": "without histograms"}, ["The record has no histograms"]),
        ({"record": "without layers"}, ["no statistics of layers", "no gradients and updates"]),
        ({"steps": 60, "record": "begun"}, ["Not finished: 30 of 60 steps so far."]),
        ({"record": False, "metrics": False, "predictions": False}, ["no metrics", "no record"]),
    ],
)
def test_what_is_missing_is_said(tmp_path, record, how, sentences):
    records = {
        "without histograms": without_histograms(record),
        "without layers": without_layers(record),
        "begun": record,
    }
    how = how | {"record": records.get(how.get("record"), how.get("record", record))}
    page = without_scripts(report(left_run(tmp_path / "run", **how)))
    for sentence in sentences:
        assert sentence in page
    other = left_run(tmp_path / "other", record=record)
    assert "2 trainings compared" in comparison([tmp_path / "run", other])


def test_an_environment_that_was_not_written(tmp_path, record):
    path = left_run(tmp_path / "run", record=record)
    (path / "config.json").write_text('{"seed": 1}')
    assert "The versions and the device were not written down." in report(path)


def test_written_whole(tmp_path, record):
    path = left_run(tmp_path / "run", record=record)
    out = write_report(path)
    assert out == path / "report.html"
    assert out.read_text(encoding="utf-8") == report(path)
    before = out.read_bytes()
    (path / "record.npz").write_bytes(b"PK not a zip")
    with pytest.raises(RecordError, match=r"record\.npz"):
        write_report(path)
    assert out.read_bytes() == before
    assert not list(path.glob(".*partial"))


def test_damaged_files(tmp_path, record):
    path = left_run(tmp_path / "run", record=record)
    (path / "predictions.npz").write_bytes(b"PK not a zip")
    with pytest.raises(PredictionsError, match=r"predictions\.npz"):
        report(path)
    for name, text in (
        ("metrics.jsonl", "[1]"),
        ("metrics.jsonl", "{half"),
        ("metrics.jsonl", "[" * 100_000),
        ("config.json", "[1]"),
        ("config.json", "\xff"),
        ("config.json", '{"seed": NaN}'),
    ):
        (path / name).write_text(text, encoding="latin-1")
        with pytest.raises(RunError, match=f"run is damaged: .*{name}.* Take another copy"):
            report(path)


def test_folders_that_hold_no_run(tmp_path, record, monkeypatch):
    monkeypatch.chdir(tmp_path)
    with pytest.raises(RunError, match=r"nowhere does not exist\. Give the folder of a run"):
        report("nowhere")
    Path("file").write_text("")
    with pytest.raises(RunError, match="file is no folder"):
        report("file")
    Path("empty").mkdir()
    with pytest.raises(RunError, match=r"empty holds no run: .* such as runs/DATE/"):
        report("empty")
    for i in range(7):
        left_run(Path("runs/now/runs/plain") / f"seed-{i}", metrics=False, predictions=False)
    first = os.path.join("runs", "now", "runs", "plain", "seed-0")
    with pytest.raises(RunError, match=rf"folders below it do\..*: {first}, .*seed-4 …$"):
        report("runs")


@pytest.fixture(scope="module")
def two(tmp_path_factory, record):
    """Two runs that differ in the seed and in a layer, and their comparison."""
    folder = tmp_path_factory.mktemp("two")
    second = replace(rough(record, seed=1), layers=("blocks.0.conv", "blocks.1.conv", "head"))
    records = record, second
    paths = [left_run(folder / f"seed-{i}", record=r, seed=i) for i, r in enumerate(records)]
    return records, [f"{folder.name}/seed-{i}" for i in range(2)], comparison(paths), paths


def test_a_comparison_has_the_lines_of_each(two):
    records, names, page, _ = two
    numbers = Numbers(page)
    layers = re.findall(r'<option value="\d+"( selected)?>([^<]*)</option>', page)
    # Each select has all layers of both, and the one before the last of them chosen.
    expected = ["blocks.0.conv", "blocks.1.conv", "blocks.2.conv", "head"]
    assert [name for _, name in layers] == 2 * expected
    assert [name for chosen, name in layers if chosen] == 2 * ["blocks.2.conv"]
    for record, name in zip(records, names, strict=True):
        np.testing.assert_array_equal(numbers.trace("loss", name)[1], record.smoothed_loss())
        np.testing.assert_array_equal(numbers.trace("learning-rate", name)[1], record.learning_rate)
        for i, layer in enumerate(record.layers):
            _, shown = numbers.trace("layers-mean", name, expected.index(layer))
            np.testing.assert_array_equal(shown, record.mean[:, i])
    assert [t["name"] for t in numbers.charts["layers-mean"][3]["traces"]] == names[1:]


def test_a_comparison_has_one_scale_of_colours(two):
    records, _, page, _ = two
    numbers = Numbers(page)
    specs = [*numbers.charts["dimension-0"], *numbers.charts["dimension-1"]]
    drawn = [spec for spec in specs if spec["kind"] == "dimension"]
    assert len(drawn) == 6
    assert {spec["top"] for spec in drawn} == {max(r.hist.max() for r in records)}
    assert {spec["text"] for spec in specs if spec["kind"] == "none"} == {
        "This run has no layer head.",
        "This run has no layer blocks.2.conv.",
    }
    for i, record in enumerate(records):
        spec = numbers.charts[f"dimension-{i}"][0]
        np.testing.assert_array_equal(numbers.of(spec["counts"]), record.hist[:, 0].T)


def test_a_comparison_says_what_differs(two):
    _, names, page, _ = two
    part = page[page.index('id="differences"') : page.index('id="outcome"')]
    assert re.findall(r'<th scope="col"[^>]*>([^<]*)', part) == ["run", "seed"]
    assert re.findall(r"<td[^>]*>([^<]*)", part) == ["0", "1"]
    assert "Environment: no difference." in part
    assert part.count(names[0]) == 1


def test_mistakes_of_a_comparison(two):
    paths = two[-1]
    with pytest.raises(ValueError, match="at least two runs, got 1"):
        comparison(paths[:1])
    with pytest.raises(ValueError, match=r"paths must differ, got .*seed-0 twice"):
        comparison([*paths, paths[0]])


def test_without_plotly(two, monkeypatch):
    monkeypatch.setitem(sys.modules, "plotly.offline", None)  # as if it were not installed
    with pytest.raises(ImportError, match=r'pip install "convjax\[pages\]"'):
        report(two[-1][0])


def test_names_tell_folders_apart():
    paths = [Path("/a/x/one/seed-0"), Path("/a/y/one/seed-0"), Path("/a/y/two/seed-0")]
    assert names_of(paths) == ["x/one/seed-0", "y/one/seed-0", "y/two/seed-0"]
    assert names_of(paths[1:]) == ["one/seed-0", "two/seed-0"]
    assert names_of([paths[0]] * 2) == ["one/seed-0"] * 2


@given(st.lists(st.lists(st.sampled_from("ab"), min_size=1, max_size=4), min_size=1, max_size=6))
def test_names_are_alike_for_the_same_folder_alone(parts):
    paths = [Path("/", *of) for of in parts]
    names = names_of(paths)
    assert len(set(names)) == len(set(paths))
    assert all(str(path).endswith(name) for path, name in zip(paths, names, strict=True))


@pytest.mark.parametrize(
    ("value", "short", "exact"),
    [
        (None, "none", "none"),
        (True, "yes", "yes"),
        (12345, "12,345", "12345"),
        (0.13085988895558223, "0.1309", "0.13085988895558223"),
        (1.0, "1", "1.0"),
        (1234.56, "1,234.6", "1234.56"),
        (float("nan"), "NaN", "nan"),
        (float("-inf"), "-inf", "-inf"),
        ([1, [2.5]], "1, 2.5", "1, 2.5"),
        ("<b>", "<b>", "<b>"),
        (np.float32(0.25), "0.25", "0.25"),
        (np.int64(1000), "1,000", "1,000"),
    ],
)
def test_values_in_words(value, short, exact):
    assert tables.shown(value) == short
    assert tables.exact(value) == exact


@given(st.lists(st.one_of(st.integers(), st.floats(width=32)), max_size=5))
def test_arrays_keep_their_numbers(values):
    for dtype in (np.float32, np.float64, None):
        given_values = np.array(values, dtype or object)
        if dtype is None:
            given_values = np.array([int(v) for v in values if v == v and abs(v) < 2**52], np.int64)
        with np.errstate(over="ignore"):
            arrays = Arrays()
            first, second = arrays.add(given_values), arrays.add(given_values.copy())
        assert first == second == {"array": 0}
        (plain,) = arrays.plain()
        found = np.frombuffer(base64.b64decode(plain["data"]), "<" + plain["type"])
        np.testing.assert_array_equal(found.reshape(plain["shape"]), given_values)


def luminance(colour):
    """WCAG's relative luminance of #rrggbb."""
    share = np.frombuffer(bytes.fromhex(colour[1:]), np.uint8) / 255
    linear = np.where(share <= 0.04045, share / 12.92, ((share + 0.055) / 1.055) ** 2.4)
    return float(linear @ [0.2126, 0.7152, 0.0722])


@pytest.mark.parametrize("lines", [blocks.told_apart, blocks.in_order])
def test_lines_are_seen_on_both_grounds(lines):
    names = [f"{i}" for i in range(33)]
    found = lines(names)
    assert [line.name for line in found] == names
    assert len({(line.colour, line.dash) for line in found}) >= 32
    for line in found:
        for colour, ground in zip(
            re.findall("#[0-9a-f]{6}", line.colour), ("#ffffff", "#16181c"), strict=True
        ):
            dark, light = sorted((luminance(colour), luminance(ground)))
            # WCAG 2.1, level AA, for what is no text.
            assert (light + 0.05) / (dark + 0.05) > 3, line
