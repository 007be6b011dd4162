import json
from dataclasses import replace

import pytest

from convjax.chapter.observer import Observer
from experiments.harness import runner, saved_results
from experiments.harness.claim import Claim, Published
from experiments.harness.lab import Lab
from experiments.harness.planned import Planned
from experiments.harness.rules import Decision, NotMeasuredError, Rule
from experiments.harness.saved_results import ResultsError


class RecordingObserver(Observer):
    """Records what it is notified of."""

    def __init__(self):
        self.claims, self.verdicts, self.already = [], [], 0

    def resumed(self, claims):
        self.already = claims

    def claim(self, id, number, total, seconds_left):
        self.claims.append((id, number, total, seconds_left))

    def judged(self, id, verdict, reason):
        self.verdicts.append((id, verdict, reason))


def claim(id, calls, text="r", stops=False):
    def measured(lab):
        calls.append(id)
        if stops:
            raise KeyboardInterrupt
        return {"a": [len(calls)] * len(lab.seeds)}

    rule = Rule(text, lambda found: Decision(True, "yes"))
    return Claim(id, "says", Published(question="how much"), measured, {"any": rule})


@pytest.fixture
def calls():
    """The ids of measured claims."""
    return []


def measure_claims(claims, lab, command, brief=False):
    """Measures claims of a chapter that has three, with the lab's seeds."""
    planned = [Planned(claim, len(lab.seeds), brief) for claim in claims]
    return runner.measure_claims(planned, lab, command, ("one", "two", "three"))


def lab(out, **options):
    return Lab(out=out, observer=RecordingObserver(), **options)


def ids(out):
    return [entry["id"] for entry in json.loads((out / "results.json").read_text())["claims"]]


def test_measure_claims_resumes_a_stopped_run(calls, tmp_path):
    claims = [claim("one", calls), claim("two", calls, stops=True), claim("three", calls)]
    with pytest.raises(KeyboardInterrupt):
        measure_claims(claims, lab(tmp_path), ["command"])
    assert ids(tmp_path) == ["one"]
    claims[1] = claim("two", calls)
    resumed = lab(tmp_path, resume=True)
    results = measure_claims(claims, resumed, ["command"])
    assert calls == ["one", "two", "two", "three"]
    assert [result.measured["a"] for result in results] == [[1.0], [3.0], [4.0]]
    assert ids(tmp_path) == ["one", "two", "three"]
    assert [call[:3] for call in resumed.observer.claims] == [("two", 2, 3), ("three", 3, 3)]
    assert resumed.observer.verdicts == [(id, "reproduced", "yes") for id in ("two", "three")]
    assert resumed.observer.already == 1


def test_measure_claims_repeats_a_claim_with_new_figures(calls, tmp_path):
    measure_claims([claim("one", calls)], lab(tmp_path), [])
    other = claim("one", calls)
    rules = {"any": replace(other.rules["any"], decide=lambda found: Decision(True, found["new"]))}
    other = replace(other, measure=lambda lab: {"new": [1]}, rules=rules)
    (found,) = measure_claims([other], lab(tmp_path, resume=True), [])
    assert found.measured == {"new": [1.0]}


def test_measure_claims_writes_results_only_when_they_change(calls, tmp_path):
    measure_claims([claim("one", calls)], lab(tmp_path), [])
    before = (tmp_path / "results.json").stat().st_mtime_ns
    claims = [claim("one", calls), claim("two", calls, stops=True)]
    with pytest.raises(KeyboardInterrupt):
        measure_claims(claims, lab(tmp_path, resume=True), [])
    assert (tmp_path / "results.json").stat().st_mtime_ns == before


def test_measure_claims_keeps_results_of_other_claims(calls, tmp_path):
    measure_claims([claim("three", calls)], lab(tmp_path), [])
    assert [
        r.id for r in measure_claims([claim("one", calls)], lab(tmp_path, resume=True), [])
    ] == ["one"]
    assert ids(tmp_path) == ["one", "three"]


@pytest.mark.parametrize(("seeds", "text"), [(2, "r"), (1, "another rule")])
def test_measure_claims_repeats_a_claim_for_more_seeds_or_another_rule(
    seeds, text, calls, tmp_path
):
    measure_claims([claim("one", calls)], lab(tmp_path), [])
    found = measure_claims([claim("one", calls, text)], lab(tmp_path, resume=True, seeds=seeds), [])
    assert len(calls) == 2
    assert len(found[0].measured["a"]) == seeds


def test_measure_claims_repeats_what_could_not_be_measured(calls, tmp_path):
    def missing(lab):
        raise NotMeasuredError("no such file")

    (first,) = measure_claims([replace(claim("one", calls), measure=missing)], lab(tmp_path), [])
    assert first.verdict == "undecided"
    (second,) = measure_claims([claim("one", calls)], lab(tmp_path, resume=True), [])
    assert second.verdict == "reproduced"


def test_measure_claims_applies_a_new_expectation(calls, tmp_path):
    measure_claims([claim("one", calls)], lab(tmp_path), [])
    expects = claim("one", calls)
    rules = {"any": replace(expects.rules["any"], expected="refuted")}
    (found,) = measure_claims([replace(expects, rules=rules)], lab(tmp_path, resume=True), [])
    assert (found.verdict, found.expected) == ("reproduced", "refuted")


def rewrite(file, **changes):
    """Changes saved results; returns the new text."""
    found = json.loads(file.read_text())
    found["environment"] |= changes.pop("environment", {})
    for entry in found["claims"]:
        entry |= changes
    file.write_text(json.dumps(found))
    return file.read_text()


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"environment": {"jax": "0.1"}}, r"jax '0\.1', not "),
        ({"data": "mnist"}, "data 'mnist', not 'mnist5k'"),
        ({"config": {"layout": "NCHW", "quick": False}}, "layout 'NCHW', not 'auto'"),
        ({"config": {"layout": "auto", "quick": True}}, "quick True, not False"),
        ({"config": {"sha256": "of other images"}}, "sha256 'of other images', not "),
    ],
)
def test_measure_claims_rejects_incomparable_results(changes, message, calls, tmp_path):
    measure_claims([claim("one", calls)], lab(tmp_path), [])
    before = rewrite(tmp_path / "results.json", **changes)
    with pytest.raises(ResultsError, match=rf"was measured with .*{message}.*Choose another --out"):
        measure_claims([claim("one", calls)], lab(tmp_path, resume=True), [])
    assert (tmp_path / "results.json").read_text() == before


def test_measure_claims_rejects_fewer_seeds(calls, tmp_path):
    measure_claims([claim("one", calls)], lab(tmp_path, seeds=3), [])
    before = (tmp_path / "results.json").read_text()
    with pytest.raises(ResultsError, match=r"has one with 3 seeds, .*Use --seeds 3, or choose"):
        measure_claims([claim("one", calls)], lab(tmp_path, resume=True), [])
    assert (tmp_path / "results.json").read_text() == before
    measure_claims([claim("two", calls)], lab(tmp_path, resume=True), [])  # asks for another alone
    assert ids(tmp_path) == ["one", "two"]


def test_measure_claims_resumes_without_results(calls, tmp_path):
    measure_claims([claim("one", calls)], lab(tmp_path, resume=True), [])
    assert ids(tmp_path) == ["one"]


@pytest.mark.parametrize(
    "content",
    [
        "",
        "[]",
        "{}",
        '{"environment": [], "claims": 1}',
        '{"environment": {}, "claims": [{"id": 1}]}',
    ],
)
def test_measure_claims_rejects_a_damaged_file(content, tmp_path):
    file = tmp_path / "results.json"
    file.write_text(content)
    with pytest.raises(ResultsError, match=r"is damaged or is not a results\.json .*Remove it"):
        measure_claims([], lab(tmp_path, resume=True), [])
    assert file.read_text() == content


@pytest.fixture
def saved(calls, tmp_path, monkeypatch):
    """A folder with saved results on mnist5k: "one" took 10 s with two seeds, "two" 30 s."""
    folder = tmp_path / "saved"
    folder.mkdir()
    measure_claims([claim("one", calls), claim("two", calls)], lab(folder, seeds=2), [])
    found = json.loads((folder / "results.json").read_text())
    for entry, seconds in zip(found["claims"], (10, 30), strict=True):
        entry["seconds"] = seconds
    (folder / "mnist5k.json").write_text(json.dumps(found))
    monkeypatch.setattr(saved_results, "SAVED_RESULTS", folder)


@pytest.mark.usefixtures("saved")
def test_measure_claims_estimates_the_time_left_from_saved_results(calls, tmp_path, monkeypatch):
    # "one" and "two" take half of 10 and 30 s. Ten more seconds have passed at the saved pace.
    # "three" is not in the saved results, compares nothing and takes no time.
    now = iter((0.0, 0.0, 5.0, 20.0))
    clock = type("Clock", (), {"perf_counter": lambda self: next(now)})()
    watched = lab(tmp_path, seeds=2)
    monkeypatch.setattr(runner, "time", clock)
    measure_claims([claim(id, calls) for id in ("one", "two", "three")], watched, [])
    assert [call[3] for call in watched.observer.claims] == [40, 30 * 15 / 20, 0]


@pytest.mark.usefixtures("saved")
def test_measure_claims_gives_no_estimate_for_a_part_or_an_unknown_comparison(calls, tmp_path):
    part = lab(tmp_path)
    measure_claims([claim("one", calls)], part, [])
    unknown = lab(tmp_path / "unknown")
    unknown.out.mkdir()
    claims = [
        claim("one", calls),
        claim("two", calls),
        replace(claim("three", calls), compares=True),
    ]
    measure_claims(claims, unknown, [])
    assert {call[3] for call in part.observer.claims + unknown.observer.claims} == {None}


@pytest.fixture
def shortened(calls):
    """A comparison with a brief form."""
    brief = claim("one", calls, "r").measure
    return replace(
        claim("one", calls),
        compares=True,
        brief=lambda lab: {**brief(lab), "brief": [1]},
    )


def test_measure_claims_takes_the_brief_form_and_later_the_whole_one(shortened, calls, tmp_path):
    (brief,) = measure_claims([shortened], lab(tmp_path), [], brief=True)
    assert brief.measured["brief"] == [1]
    assert brief.reason == "yes; in its brief form, the whole one: `run one`"
    again = lab(tmp_path, resume=True)
    (reused,) = measure_claims([shortened], again, [], brief=True)
    assert (reused.measured, reused.reason) == (brief.measured, brief.reason)
    assert len(calls) == again.observer.already == 1
    (whole,) = measure_claims([shortened], again, [])
    assert (len(calls), whole.reason, whole.brief) == (2, "yes", False)
    # A run of brief forms keeps the whole one.
    (kept,) = measure_claims([shortened], lab(tmp_path, resume=True), [], brief=True)
    assert (kept.measured, kept.reason) == (whole.measured, whole.reason)


def test_measure_claims_gives_each_claim_its_seeds(calls, tmp_path):
    planned = [Planned(claim("one", calls), 3), Planned(claim("two", calls), 1)]
    found = runner.measure_claims(planned, lab(tmp_path), [], ("one", "two", "three"))
    assert [(result.seeds, len(result.measured["a"])) for result in found] == [
        ((0, 1, 2), 3),
        ((0,), 1),
    ]


@pytest.mark.usefixtures("saved")
def test_measure_claims_says_what_a_claim_that_is_left_out_costs(calls, tmp_path):
    # "two" took 30 s with two seeds, "one" 10 s; an unknown one takes minutes.
    left = [replace(claim(id, calls), compares=True) for id in ("two", "three")]
    calls.clear()
    watched = lab(tmp_path, seeds=6)
    found = measure_claims([replace(left[0], reuses=("one",)), left[1]], watched, [], brief=True)
    assert [result.reason for result in found] == [
        "left out, about 2 min: `run two --seeds 6`",
        "left out, minutes: `run three --seeds 6`",
    ]
    assert {result.verdict for result in found} == {result.expected for result in found}
    assert calls == watched.observer.claims == []
