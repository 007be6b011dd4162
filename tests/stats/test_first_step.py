"""The fitting of later steps to the first."""

import pytest

from convjax.stats.bins import FASTAI, PRESETS
from convjax.stats.first_step import Traits, fit

FIRST = Traits("layers", {"a": 3, "b": 0, "c": 1}, ("histograms",), FASTAI)


def test_fit_of_the_same_layers_is_without_columns():
    assert fit(FIRST, FIRST) == (True, None, {})


def test_fit_keeps_the_order_of_the_first_step():
    fits, columns, complaints = fit(FIRST, FIRST._replace(entries={"c": 1, "a": 3, "b": 0}))
    assert (fits, columns.tolist(), complaints) == (True, [1, 2, 0], {})


def test_fit_leaves_out_what_the_first_step_lacks():
    now = Traits("layers", {"d": 9, **FIRST.entries}, ("histograms", "units"), FASTAI)
    fits, columns, complaints = fit(FIRST, now)
    assert (fits, columns.tolist()) == (True, [1, 2, 3])
    assert list(complaints) == ["more", "more quantities"]
    assert complaints["more"].endswith(
        "got d, too, left out. Pass the same layers, or give each network a Recorder of its own."
    )


@pytest.mark.parametrize(
    ("changed", "kind", "message"),
    [
        ({"entries": {"a": 3}}, "lacking", "got no b, c. The steps are recorded without layers."),
        ({"entries": {"a": 3, "b": 0, "c": 2}}, "changed", "another number of channels in c."),
        ({"quantities": ()}, "fewer", "got no histograms."),
        ({"bins": PRESETS["symmetric"]}, "bins", "got Bins(low=-5.0"),
    ],
)
def test_fit_rejects_what_lacks_something_of_the_first_step(changed, kind, message):
    fits, _, complaints = fit(FIRST, FIRST._replace(**changed))
    assert not fits
    assert list(complaints) == [kind]
    assert message in complaints[kind]


def test_fit_names_five_of_many():
    many = FIRST._replace(entries={f"l{i}": 0 for i in range(9)})
    _, _, complaints = fit(many, FIRST._replace(entries={}))
    assert "got no l0, l1, l2, l3, l4 and 4 more." in complaints["lacking"]
