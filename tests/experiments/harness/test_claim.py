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
)

PUBLISHED = Published(figures={"accuracy": 0.9})


def lab(data="mnist", seeds=5, quick=False):
    config = {"layout": "auto", "quick": quick}
    return SimpleNamespace(
        data=data,
        seeds=tuple(range(seeds)),
        quick=quick,
        config=config,
        earlier_seconds=0.0,
        pictures=["c-picture"],
    )


def claim(values, **rules):
    return Claim("c", "says", PUBLISHED, lambda lab: {"accuracy": values}, rules)


def test_published_is_one_kind():
    figures = Published(figures={"a": 2, "b": "hundreds"})
    assert figures.as_json() == {"a": 2, "b": "hundreds"}
    assert Published(picture="plot").as_json() == {"picture": "plot"}
    assert Published(question="which").as_json() == {"question": "which"}
    for published in (figures, Published(picture="plot"), Published(question="which")):
        assert Published.from_json(published.as_json()) == published


@pytest.mark.parametrize(
    ("kinds", "given"), [({}, "none"), ({"picture": "a", "question": "b"}, "picture and question")]
)
def test_published_rejects_none_and_two_kinds(kinds, given):
    with pytest.raises(ValueError, match=rf"published must be one of .*, got {given}\. Keep one"):
        Published(**kinds)


@pytest.mark.parametrize(
    ("options", "verdict", "reason"),
    [
        ({}, "reproduced", "yes"),
        ({"seeds": 4}, "undecided", "needs 5 seeds, got 4"),
        ({"quick": True}, "undecided", "quick run"),
        ({"data": "photos"}, "undecided", "no rule"),
    ],
)
def test_judge_by_hand(options, verdict, reason):
    rule = Rule("r", lambda measured: Decision(True, "yes"), min_seeds=5)
    result = judge(claim([0.9], mnist=rule), lab(**options))
    assert result.verdict == result.expected == verdict
    assert reason in result.reason
    assert result.measured == {"accuracy": [0.9]}


@pytest.mark.parametrize("holds", [False, None])
def test_judge_keeps_verdict_and_expectation_apart(holds):
    rule = Rule("r", lambda measured: Decision(holds, "no"), expected="reproduced")
    result = judge(claim([0.9], any=rule), lab())
    assert result.verdict == {False: "refuted", None: "undecided"}[holds]
    assert result.expected == "reproduced"


def test_judge_gives_the_reason_of_what_cannot_be_measured():
    def measure(lab):
        raise NotMeasuredError("no such classes")

    rule = Rule("r", lambda measured: Decision(True, "yes"))
    result = judge(Claim("c", "says", PUBLISHED, measure, {"any": rule}), lab())
    assert (result.measured, result.rule, result.reason) == ({}, "r", "no such classes")
    assert result.verdict == result.expected == "undecided"


def test_judge_keeps_figures_that_this_machine_cannot_decide():
    def decide(measured):
        raise NotMeasuredError("no GPU")

    result = judge(claim([0.9], any=Rule("r", decide)), lab())
    assert (result.measured, result.reason) == ({"accuracy": [0.9]}, "no GPU")
    assert result.verdict == result.expected == "undecided"


def test_judge_skips_a_comparison_with_too_few_seeds():
    rule = Rule("r", lambda measured: Decision(True, "yes"), min_seeds=5)
    compares = replace(claim([0.9], any=rule), compares=True)
    assert judge(compares, lab(seeds=4)).measured == {}
    assert judge(compares, lab(seeds=4, quick=True)).measured == {"accuracy": [0.9]}
    assert judge(compares, lab()).verdict == "reproduced"
    without_rule = judge(replace(compares, rules={}), lab())
    assert (without_rule.measured, without_rule.reason) == ({}, "no rule for the data 'mnist'")


def test_judge_takes_the_brief_form_and_marks_it():
    rule = Rule("r", lambda measured: Decision(True, "yes", "short"), min_seeds=5)
    whole = replace(claim([0.9], any=rule), compares=True)
    shortened = replace(whole, brief=lambda lab: {"accuracy": [0.8]})
    result = judge(shortened, lab(), brief=True)
    assert (result.measured, result.verdict) == ({"accuracy": [0.8]}, "reproduced")
    assert result.reason == "yes; in its brief form, the whole one: `run c`"
    assert (result.short, result.pictures) == ("short", ("c-picture",))
    assert result.brief
    assert result.config["brief"] is True
    again = judge(shortened, lab(), result, brief=True)
    assert replace(again, seconds=result.seconds) == result
    assert "brief" not in judge(shortened, lab()).config
    # A form that is both is not marked, and a comparison without one is left out.
    both = judge(replace(whole, brief=whole.measure), lab(), brief=True)
    assert (both.reason, both.brief) == ("yes", False)
    out = judge(whole, lab(), brief=True, left_out="left out, 1 min: `run c --seeds 5`")
    assert (out.measured, out.verdict, out.reason) == (
        {},
        "undecided",
        "left out, 1 min: `run c --seeds 5`",
    )
    without_rule = judge(replace(whole, rules={}), lab(), brief=True)
    assert without_rule.reason == "no rule for the data 'mnist'"
    # What is no comparison is measured whole.
    assert judge(claim([0.9], any=rule), lab(), brief=True).measured == {"accuracy": [0.9]}


def test_result_json_has_the_documented_form_and_is_read_again():
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
        short="few",
        pictures=("c",),
    )
    entry = json.loads(json.dumps(nonfinite_to_null(result.as_json()), allow_nan=False))
    assert entry["measured"] == {
        "a": {"mean": 2.0, "std": 2**0.5, "values": [1, 3]},
        "never": {"mean": None, "std": 0.0, "values": [None]},
    }
    assert list(entry)[:6] == ["id", "data", "config", "seeds", "published", "measured"]
    assert list(entry)[6:] == [
        "rule",
        "verdict",
        "expected",
        "reason",
        "seconds",
        "short",
        "pictures",
    ]
    found = Result.from_json(entry)
    assert math.isnan(found.measured["never"][0])
    earlier = {name: entry[name] for name in entry if name not in ("short", "pictures")}
    assert Result.from_json(earlier).pictures == ()
    restored = {**found.measured, "never": [math.inf]}
    assert replace(found, measured=restored) == replace(result, seconds=1.23)
