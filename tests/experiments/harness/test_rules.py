import pytest

from experiments.harness.rules import all_hold, every, exactly, on_digits, within_spread


def test_within_spread_by_hand():
    rule = within_spread([("accuracy", 0.97)], test_size=100)
    # mean 0.95, standard deviation 0.01: 0.97 lies within 3·0.01 + 0.01, 0.90 does not.
    assert rule.decide({"accuracy": [0.94, 0.95, 0.96]}).holds
    far = within_spread([("accuracy", 0.90)], test_size=100).decide(
        {"accuracy": [0.94, 0.95, 0.96]}
    )
    assert not far.holds
    assert "0.9 is outside 0.9500 ± 0.0400" in far.reason


def test_every_and_exactly_by_hand():
    assert every("a", 0.5).decide({"a": [0.5, 0.9]}).holds
    low = every("a", 0.5).decide({"a": [0.4, 0.9]})
    assert not low.holds
    assert "1 of 2 seeds (farthest: 0.4)" in low.reason
    assert "farthest: 5" in every("a", 0, 0).decide({"a": [0, 0, 5]}).reason
    assert every("a", 0, 0).decide({"a": [0]}).holds
    assert not every("a", 0, 0).decide({"a": [1]}).holds
    assert exactly(a=3).decide({"a": [3]}).holds
    assert exactly(a=3).decide({"a": [4]}).reason == "a is 4, not 3"
    assert exactly(a=3).decide({"a": [3, 4]}).reason == "a is 4, not 3"


def test_on_digits_sets_the_expected_verdict_of_each_data_set():
    rules = on_digits(every("a", 0.5), mnist5k="refuted")
    assert {data: rule.expected for data, rule in rules.items()} == {
        "mnist": "reproduced",
        "mnist5k": "refuted",
    }


@pytest.mark.parametrize(
    ("parts", "holds"),
    [
        ([True, True], True),
        ([True, None], None),
        ([None, False], False),
    ],
)
def test_all_hold_by_hand(parts, holds):
    assert all_hold(parts) is holds
