"""The page that compares runs."""

import re
from dataclasses import replace

import numpy as np
import pytest

from convjax.report.build import comparison
from tests.helpers import make_record
from tests.report.reported import Numbers, left_run, rough


@pytest.fixture(scope="module")
def record():
    return rough(make_record(steps=30, layers=3, every=2))


@pytest.fixture(scope="module")
def two(tmp_path_factory, record):
    """Two runs that differ in the seed and in a layer, and their comparison."""
    folder = tmp_path_factory.mktemp("two")
    second = replace(rough(record, seed=1), layers=("blocks.0.conv", "blocks.1.conv", "head"))
    records = record, second
    paths = [left_run(folder / f"seed-{i}", record=r, seed=i) for i, r in enumerate(records)]
    return records, [f"{folder.name}/seed-{i}" for i in range(2)], comparison(paths), paths


def test_comparison_has_the_lines_of_each_run(two):
    records, names, page, _ = two
    numbers = Numbers(page)
    layers = re.findall(r'<option value="\d+"( selected)?>([^<]*)</option>', page)
    # Each select has all layers of both runs, with the one before the last chosen.
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


def test_comparison_has_one_colour_scale(two):
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


def test_comparison_lists_the_differences(two):
    _, names, page, _ = two
    part = page[page.index('id="differences"') : page.index('id="outcome"')]
    assert re.findall(r'<th scope="col"[^>]*>([^<]*)', part) == ["run", "seed"]
    assert re.findall(r"<td[^>]*>([^<]*)", part) == ["0", "1"]
    assert "Environment: no difference." in part
    assert part.count(names[0]) == 1


def test_comparison_rejects_too_few_or_equal_folders(two):
    paths = two[-1]
    with pytest.raises(ValueError, match="at least two runs, got 1"):
        comparison(paths[:1])
    with pytest.raises(ValueError, match=r"paths must differ, got .*seed-0 twice"):
        comparison([*paths, paths[0]])
