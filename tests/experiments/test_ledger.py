import json
from types import SimpleNamespace

import pytest

from experiments.ledger import (
    Claim,
    Decision,
    NotMeasuredError,
    Result,
    Rule,
    every,
    exactly,
    judge,
    within_spread,
)


def lab(data="mnist", seeds=5, quick=False):
    return SimpleNamespace(data=data, seeds=tuple(range(seeds)), quick=quick)


def claim(values, **rules):
    return Claim("c", "says", {"accuracy": 0.9}, lambda lab: {"accuracy": values}, rules)


def test_within_spread_by_hand():
    rule = within_spread([("accuracy", 0.97)], test_size=100)
    # mean 0.95, standard deviation 0.01: 0.97 lies within 3·0.01 + 0.01, 0.90 does not.
    assert rule.decide({"accuracy": [0.94, 0.95, 0.96]}).holds
    far = within_spread([("accuracy", 0.90)], test_size=100).decide(
        {"accuracy": [0.94, 0.95, 0.96]}
    )
    assert not far.holds
    assert "0.9 is outside 0.9500 ± 0.0400" in far.reason


def test_every_and_exactly():
    assert every("a", 0.5).decide({"a": [0.5, 0.9]}).holds
    low = every("a", 0.5).decide({"a": [0.4, 0.9]})
    assert not low.holds
    assert "1 of 2 seeds" in low.reason
    assert every("a", 0, 0).decide({"a": [0]}).holds
    assert not every("a", 0, 0).decide({"a": [1]}).holds
    assert exactly(a=3).decide({"a": [3]}).holds
    assert exactly(a=3).decide({"a": [4]}).reason == "a is 4, not 3"


@pytest.mark.parametrize(
    ("options", "verdict", "reason"),
    [
        ({}, "reproduced", "yes"),
        ({"seeds": 4}, "undecided", "needs 5 seeds, got 4"),
        ({"quick": True}, "undecided", "quick run"),
        ({"data": "photos"}, "undecided", "no rule"),
    ],
)
def test_judge(options, verdict, reason):
    rule = Rule("r", lambda measured: Decision(True, "yes"), min_seeds=5)
    _, _, found, expected, why = judge(claim([0.9], mnist=rule), lab(**options))
    assert found == expected == verdict
    assert reason in why


def test_a_departing_verdict_is_seen():
    rule = Rule("r", lambda measured: Decision(False, "no"), expected="reproduced")
    _, _, verdict, expected, _ = judge(claim([0.9], any=rule), lab())
    assert (verdict, expected) == ("refuted", "reproduced")


def test_what_cannot_be_measured_is_undecided_with_its_reason():
    def measure(lab):
        raise NotMeasuredError("no such classes")

    rule = Rule("r", lambda measured: Decision(True, "yes"))
    found = judge(Claim("c", "says", {}, measure, {"any": rule}), lab())
    assert found == ({}, "r", "undecided", "undecided", "no such classes")


def test_a_measurement_that_cannot_tell_is_undecided():
    rule = Rule("r", lambda measured: Decision(None, "no GPU"), expected="refuted")
    found = judge(claim([0.9], any=rule), lab())
    assert found == ({"accuracy": [0.9]}, "r", "undecided", "undecided", "no GPU")


def test_json_has_the_documented_form():
    result = Result(
        claim([0.9]), "mnist", {}, (0, 1), {"a": [1, 3]}, "r", "refuted", "refuted", "no", 1.234
    )
    entry = json.loads(json.dumps(result.as_json()))
    assert entry["measured"] == {"a": {"mean": 2.0, "std": 2**0.5, "values": [1, 3]}}
    assert list(entry)[:6] == ["id", "data", "config", "seeds", "published", "measured"]
    assert list(entry)[6:] == ["rule", "verdict", "expected", "reason", "seconds"]
