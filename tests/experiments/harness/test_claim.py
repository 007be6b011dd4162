import json
import math
from dataclasses import replace
from types import SimpleNamespace

import pytest

from convjax.io.json_files import nonfinite_to_null
from experiments.harness.claim import Claim, Published, Result, judge
from experiments.harness.rules import (
    Decision,
    NotMeasuredError,
    Rule,
    every,
    exactly,
    on_digits,
    within_spread,
)

PUBLISHED = Published(figures={"accuracy": 0.9})


def lab(data="mnist", seeds=5, quick=False):
    config = {"layout": "auto", "quick": quick}
    return SimpleNamespace(
        data=data, seeds=tuple(range(seeds)), quick=quick, config=config, earlier_seconds=0.0
    )


def claim(values, **rules):
    return Claim("c", "says", PUBLISHED, lambda lab: {"accuracy": values}, rules)


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
    assert "1 of 2 seeds (farthest: 0.4)" in low.reason
    assert "farthest: 5" in every("a", 0, 0).decide({"a": [0, 0, 5]}).reason
    assert every("a", 0, 0).decide({"a": [0]}).holds
    assert not every("a", 0, 0).decide({"a": [1]}).holds
    assert exactly(a=3).decide({"a": [3]}).holds
    assert exactly(a=3).decide({"a": [4]}).reason == "a is 4, not 3"
    assert exactly(a=3).decide({"a": [3, 4]}).reason == "a is 4, not 3"


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
    result = judge(claim([0.9], mnist=rule), lab(**options))
    assert result.verdict == result.expected == verdict
    assert reason in result.reason
    assert result.measured == {"accuracy": [0.9]}


@pytest.mark.parametrize("holds", [False, None])
def test_a_departing_verdict_is_seen(holds):
    rule = Rule("r", lambda measured: Decision(holds, "no"), expected="reproduced")
    result = judge(claim([0.9], any=rule), lab())
    assert result.verdict == {False: "refuted", None: "undecided"}[holds]
    assert result.expected == "reproduced"


def test_what_cannot_be_measured_is_undecided_with_its_reason():
    def measure(lab):
        raise NotMeasuredError("no such classes")

    rule = Rule("r", lambda measured: Decision(True, "yes"))
    result = judge(Claim("c", "says", PUBLISHED, measure, {"any": rule}), lab())
    assert (result.measured, result.rule, result.reason) == ({}, "r", "no such classes")
    assert result.verdict == result.expected == "undecided"


def test_what_this_machine_cannot_decide_keeps_its_figures():
    def decide(measured):
        raise NotMeasuredError("no GPU")

    result = judge(claim([0.9], any=Rule("r", decide)), lab())
    assert (result.measured, result.reason) == ({"accuracy": [0.9]}, "no GPU")
    assert result.verdict == result.expected == "undecided"


def test_a_comparison_is_not_measured_where_its_seeds_do_not_suffice():
    rule = Rule("r", lambda measured: Decision(True, "yes"), min_seeds=5)
    compares = replace(claim([0.9], any=rule), compares=True)
    assert judge(compares, lab(seeds=4)).measured == {}
    assert judge(compares, lab(seeds=4, quick=True)).measured == {"accuracy": [0.9]}
    assert judge(compares, lab()).verdict == "reproduced"
    without_rule = judge(replace(compares, rules={}), lab())
    assert (without_rule.measured, without_rule.reason) == ({}, "no rule for the data 'mnist'")


def test_one_rule_for_two_data_sets_with_the_verdict_seen_on_each():
    rules = on_digits(every("a", 0.5), mnist5k="refuted")
    assert {data: rule.expected for data, rule in rules.items()} == {
        "mnist": "reproduced",
        "mnist5k": "refuted",
    }


def test_json_has_the_documented_form_and_comes_back():
    result = Result(
        id="c",
        data="mnist",
        config={"layout": "auto", "quick": False},
        seeds=(0, 1),
        published=Published(figures={"a": 2}),
        measured={"a": [1, 3], "never": [math.inf]},
        rule="r",
        verdict="refuted",
        expected="refuted",
        reason="no",
        seconds=1.234,
    )
    entry = json.loads(json.dumps(nonfinite_to_null(result.as_json()), allow_nan=False))
    assert entry["measured"] == {
        "a": {"mean": 2.0, "std": 2**0.5, "values": [1, 3]},
        "never": {"mean": None, "std": 0.0, "values": [None]},
    }
    assert list(entry)[:6] == ["id", "data", "config", "seeds", "published", "measured"]
    assert list(entry)[6:] == ["rule", "verdict", "expected", "reason", "seconds"]
    found = Result.from_json(entry)
    assert math.isnan(found.measured["never"][0])
    back = {**found.measured, "never": [math.inf]}
    assert replace(found, measured=back) == replace(result, seconds=1.23)
