import json
from pathlib import Path

import pytest

from experiments import measure as measuring
from experiments import registry
from experiments.lab import Lab
from experiments.ledger import Claim, Decision, Rule
from experiments.measure import ResultsError, measure, read_results
from experiments.observer import Observer


class Heard(Observer):
    """Keeps what it hears of claims."""

    def __init__(self):
        self.claims = []

    def claim(self, id, number, total, seconds_left):
        self.claims.append((id, number, total, seconds_left))


def claim(id, calls, text="r", stops=False):
    def measured(lab):
        calls.append(id)
        if stops:
            raise KeyboardInterrupt
        return {"a": [len(calls)] * len(lab.seeds)}

    return Claim(id, "says", {}, measured, {"any": Rule(text, lambda found: Decision(True, "yes"))})


@pytest.fixture
def calls(monkeypatch):
    """Which claims were measured; the registry has "one", "two" and "three"."""
    found = []
    three = [("file", claim(id, found)) for id in ("one", "two", "three")]
    monkeypatch.setattr(registry, "all_claims", lambda: three)
    return found


def lab(out, **options):
    return Lab(out=out, observer=Heard(), **options)


def ids(out):
    return [entry["id"] for entry in json.loads((out / "results.json").read_text())["claims"]]


def test_a_stopped_run_goes_on_where_it_was(calls, tmp_path):
    claims = [claim("one", calls), claim("two", calls, stops=True), claim("three", calls)]
    with pytest.raises(KeyboardInterrupt):
        measure(claims, lab(tmp_path), ["command"])
    assert ids(tmp_path) == ["one"]
    claims[1] = claim("two", calls)
    going_on = lab(tmp_path, resume=True)
    results = measure(claims, going_on, ["command"])
    assert calls == ["one", "two", "two", "three"]
    assert [result.measured["a"] for result in results] == [[1.0], [3.0], [4.0]]
    assert ids(tmp_path) == ["one", "two", "three"]
    assert [heard[:3] for heard in going_on.observer.claims] == [("two", 2, 3), ("three", 3, 3)]


def test_results_that_were_not_asked_for_stay(calls, tmp_path):
    measure([claim("three", calls)], lab(tmp_path), [])
    assert [r.id for r in measure([claim("one", calls)], lab(tmp_path, resume=True), [])] == ["one"]
    assert ids(tmp_path) == ["one", "three"]


@pytest.mark.parametrize(
    ("options", "text"), [({"seeds": 2}, "r"), ({"layout": "NCHW"}, "r"), ({}, "another rule")]
)
def test_what_was_measured_otherwise_is_measured_again(options, text, calls, tmp_path):
    measure([claim("one", calls)], lab(tmp_path), [])
    found = measure([claim("one", calls, text)], lab(tmp_path, resume=True, **options), [])
    assert len(calls) == 2
    assert len(found[0].measured["a"]) == options.get("seeds", 1)


def test_results_of_other_versions_are_left_alone(calls, tmp_path):
    measure([claim("one", calls)], lab(tmp_path), [])
    file = tmp_path / "results.json"
    other = file.read_text().replace('"jax": "', '"jax": "0.0.')
    file.write_text(other)
    with pytest.raises(ResultsError, match=r"was measured with jax '0\.0\..*Choose another --out"):
        measure([claim("one", calls)], lab(tmp_path, resume=True), [])
    assert file.read_text() == other


@pytest.mark.parametrize("content", ["", "[]", "{}", '{"environment": {}, "claims": [{"id": 1}]}'])
def test_a_damaged_file_is_left_alone(content, tmp_path):
    file = tmp_path / "results.json"
    file.write_text(content)
    with pytest.raises(ResultsError, match=r"is no results\.json of `run`"):
        measure([], lab(tmp_path, resume=True), [])
    assert file.read_text() == content


def test_the_time_left_is_that_of_the_saved_results_at_the_pace_of_this_machine(
    calls, tmp_path, monkeypatch
):
    saved = tmp_path / "saved"
    saved.mkdir()
    measure([claim("one", calls), claim("two", calls)], lab(tmp_path, seeds=2), [])
    entries = json.loads((tmp_path / "results.json").read_text())
    for entry, seconds in zip(entries["claims"], (10, 30), strict=True):
        entry["seconds"] = seconds
    (saved / "mnist5k.json").write_text(json.dumps(entries))
    monkeypatch.setattr(measuring, "SAVED", saved)
    # "one" and "two" take half of their shares of 10 and 30 s; ten more have gone at the full pace.
    now = iter((0.0, 0.0, 5.0, 20.0))
    clock = type("Clock", (), {"perf_counter": lambda self: next(now)})()
    watched = lab(tmp_path / "out", seeds=2)
    watched.out.mkdir()
    monkeypatch.setattr(measuring, "time", clock)
    measure([claim(id, calls) for id in ("one", "two", "three")], watched, [])
    # "three" is unknown: 20 s, the mean of the others.
    assert [heard[3] for heard in watched.observer.claims] == [60, 50 * 15 / 20, 20 * 30 / 50]


def test_the_saved_results_can_be_read():
    for data in ("mnist", "mnist5k"):
        _, results = read_results(Path(measuring.SAVED) / f"{data}.json")
        assert {result.data for result in results} == {data}
        assert {result.id for result in results} >= {"one-cycle", "super-convergence"}
