import json
from dataclasses import replace

import pytest

from convjax.chapter.observer import Observer
from experiments.cli import registry
from experiments.harness import runner
from experiments.harness.claim import Claim, Published
from experiments.harness.lab import Lab
from experiments.harness.rules import Decision, NotMeasuredError, Rule
from experiments.harness.runner import ResultsError, read_results


class RecordingObserver(Observer):
    """Records what it is notified of."""

    def __init__(self):
        self.claims, self.already = [], 0

    def resumed(self, claims):
        self.already = claims

    def claim(self, id, number, total, seconds_left):
        self.claims.append((id, number, total, seconds_left))


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


def measure_claims(claims, lab, command):
    """Measures claims of a chapter that has three."""
    return runner.measure_claims(claims, lab, command, ("one", "two", "three"))


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
    monkeypatch.setattr(runner, "SAVED_RESULTS", folder)


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


def decided(rule, measured):
    """Returns the decision, and whether this machine can make it."""
    try:
        return rule.decide(measured), True
    except NotMeasuredError as error:
        return Decision(None, str(error)), False


@pytest.mark.parametrize(
    ("name", "data", "group"),
    [
        ("mnist", "mnist", "chapter"),
        ("mnist5k", "mnist5k", "chapter"),
        ("residual", "cifar10", "residual"),
    ],
)
def test_saved_results_follow_the_current_rules(name, data, group):
    """A changed rule needs a new measurement, and a changed figure a new verdict."""
    _, results = read_results(runner.SAVED_RESULTS / f"{name}.json")
    claims = registry.find([group])
    assert [result.id for result in results] == [claim.id for claim in claims]
    for claim, result in zip(claims, results, strict=True):
        rule = claim.rule(data)
        assert (result.data, result.published, result.rule) == (data, claim.published, rule.text)
        assert result.verdict == result.expected
        if result.measured:
            decision, decidable = decided(rule, result.measured)
            assert result.expected == (rule.expected if decidable else "undecided")
            verdict = {True: "reproduced", False: "refuted", None: "undecided"}[decision.holds]
            assert (result.verdict, result.reason) == (verdict, decision.reason)
