"""The choice of layers: the default, names, patterns, indices, and mistakes."""

from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from convjax.diagnosis._diagnose import Diagnosis, Finding, diagnose
from convjax.plots.layer_choice import MAX_LAYERS, choose, describe_choice
from tests.helpers import make_record

RECORD = make_record(steps=2, layers=1)
NAMES = tuple(f"layers[{i}].conv" for i in range(40))
HEALTHY = Diagnosis((), (), {})


def finding(where):
    return Finding("dead layer", where, 0, 1.0, 0.9, "", "", "")


@given(st.integers(0, 500))
def test_choose_draws_few_layers_evenly_with_both_ends(count):
    chosen = choose(RECORD, list(map(str, range(count))), diagnosis=HEALTHY)
    assert len(chosen) == min(count, MAX_LAYERS)
    if count:
        assert (chosen[0], chosen[-1]) == (0, count - 1)
        gaps = np.diff(chosen)
        assert not len(gaps) or gaps.max() - gaps.min() <= 1


def test_choose_adds_the_layers_of_findings_and_of_their_kernels():
    found = Diagnosis((finding("layers[5].conv.kernel"), finding("")), (finding(NAMES[6]),), {})
    evenly = choose(RECORD, NAMES, diagnosis=HEALTHY)
    assert not {5, 6} & set(evenly)
    assert choose(RECORD, NAMES, diagnosis=found) == sorted([*evenly, 5, 6])
    kernels = [f"{name}.kernel" for name in NAMES]
    assert choose(RECORD, kernels, diagnosis=found) == sorted([*evenly, 5, 6])


def test_choose_diagnoses_the_record_itself():
    record = make_record(steps=120, layers=40)
    std = record.std.copy()
    std[:, 0], std[:, 5] = 1, 1e6
    # Against the size of the input; weights that never change would be another finding.
    layers = ("input", *record.layers[1:])
    record = replace(record, mean=0 * std, std=std, layers=layers, parameters=None)
    assert [f.where for f in diagnose(record).findings] == [record.layers[5]]
    assert 5 in choose(record, record.layers)
    assert 5 not in choose(record, record.layers, diagnosis=HEALTHY)


@pytest.mark.parametrize(
    ("layers", "chosen"),
    [
        ("layers[3].conv", [3]),
        ("layers[3]", [3]),  # what lies below it
        ("layers[3?].conv", range(30, 40)),
        ("*5].conv", [5, 15, 25, 35]),
        ("layers[[]3].*", [3]),  # as fnmatch writes it
        ("*", range(40)),
        (-1, [39]),
        (np.int64(2), [2]),
        ([7, "layers[3]", "layers[3].conv", -40], [0, 3, 7]),
    ],
)
def test_choose_takes_names_patterns_and_indices(layers, chosen):
    assert choose(RECORD, NAMES, layers) == list(chosen)


def test_choose_takes_a_name_before_what_lies_below_it():
    names = ("block", "block.conv", "block.conv#2", "blocks")
    assert choose(RECORD, names, "block") == [0]
    assert choose(RECORD, names, "block*") == [0, 1, 2, 3]
    assert choose(RECORD, names, "block.conv") == [1]


def test_choose_rejects_mistakes():
    with pytest.raises(ValueError, match=r"one of 40 names, got 'layers\[40\]\.conv'; did you"):
        choose(RECORD, NAMES, "layers[40].conv")
    with pytest.raises(ValueError, match=r"got 'x'\. The names: layers\[0\]\.conv.* …\.$"):
        choose(RECORD, NAMES, "x")
    with pytest.raises(ValueError, match=r"The names: none\."):
        choose(RECORD, (), "x")
    with pytest.raises(ValueError, match="at least one, got none"):
        choose(RECORD, NAMES, [])
    with pytest.raises(IndexError, match="index of 40 names, got 40"):
        choose(RECORD, NAMES, 40)
    for wrong in (True, 1.5, [None], {"conv"}, np.arange(2)):
        with pytest.raises(TypeError, match="layers must be a name, a pattern, an index"):
            choose(RECORD, NAMES, wrong)


def test_describe_choice():
    assert describe_choice(12, 2400, "kernels") == "12 of 2,400 kernels"
