"""Claims one after the other: measured, or taken from the results of a run that was stopped."""

import json
import time
from collections.abc import Mapping, Sequence
from pathlib import Path

from convjax.runs import environment, write_json
from experiments import registry
from experiments.lab import Lab
from experiments.ledger import Claim, Result, judge, mean

# So many seconds of claims at the saved results' pace are assumed to have gone before: a claim that
# takes milliseconds tells little about this machine's.
TRUSTED = 10.0

# The results of whole runs that the README shows tell how long claims take.
SAVED = Path(__file__).parent / "results"


class ResultsError(ValueError):
    """A file does not hold results of `run`, or not such as a run can go on with."""


def measure(claims: Sequence[Claim], lab: Lab, command: Sequence[str]) -> list[Result]:
    """Measures claims, and writes results.json after each, so that a stopped run can go on.

    Where the lab resumes, a claim that was measured with the same data, options, seeds and rule
    keeps its result, and results.json the results of all other claims.

    Args:
      command: stands in results.json.

    Raises:
      ResultsError: if the results to go on with are damaged, or of other versions or devices.
    """
    results = _to_go_on_with(lab.out) if lab.resume else {}
    missing = [claim for claim in claims if not _is_of(results.get(claim.id), claim, lab)]
    shares = _shares_of_time(missing, lab)
    _write(lab.out, command, results)
    began, done = time.perf_counter(), 0.0
    for claim in missing:
        # A share takes as long as those before it took on this machine.
        pace = (time.perf_counter() - began + TRUSTED) / (done + TRUSTED)
        left = (sum(shares.values()) - done) * pace if shares else None
        lab.observer.claim(claim.id, claims.index(claim) + 1, len(claims), left)
        results[claim.id] = judge(claim, lab)
        done += shares.get(claim.id, 0.0)
        _write(lab.out, command, results)
    return [results[claim.id] for claim in claims]


def read_results(path: Path) -> tuple[Mapping[str, object], list[Result]]:
    """Reads a results.json: (environment, results).

    Raises:
      ResultsError: if it is none.
    """
    try:
        found = json.loads(path.read_text())
        return found["environment"], [Result.from_json(entry) for entry in found["claims"]]
    except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
        raise ResultsError(f"{path} is no results.json of `run`: {error!r}.") from error


def _to_go_on_with(out: Path) -> dict[str, Result]:
    before, results = read_results(out / "results.json")
    now = environment()
    differing = [
        f"{name} {before.get(name)!r}, not {value!r}"
        for name, value in now.items()
        if before.get(name) != value
    ]
    if differing:
        raise ResultsError(
            f"{out} was measured with {'; '.join(differing)}: figures of both do not belong in one "
            "ledger. Choose another --out."
        )
    return {result.id: result for result in results}


def _is_of(result: Result | None, claim: Claim, lab: Lab) -> bool:
    if result is None:
        return False
    rule = claim.rule(lab.data)
    wanted = lab.data, lab.config, lab.seeds, rule.text if rule else "none"
    return (result.data, result.config, result.seeds, result.rule) == wanted


def _shares_of_time(claims: Sequence[Claim], lab: Lab) -> dict[str, float]:
    """Returns how long each claim takes, in seconds of the machine of the saved results."""
    files = [SAVED / f"{data}.json" for data in (lab.data, "mnist5k")]
    file = next((file for file in files if file.exists()), None)
    if lab.quick or file is None:
        return {}
    _, saved = read_results(file)
    per_seed = {result.id: result.seconds / len(result.seeds) for result in saved}
    usual = mean(list(per_seed.values()))

    def share(claim: Claim) -> float:
        return len(lab.seeds) * per_seed.get(claim.id, usual) if claim.is_measured(lab) else 0.0

    return {claim.id: share(claim) for claim in claims}


def _write(out: Path, command: Sequence[str], results: Mapping[str, Result]) -> None:
    entries = [
        results[claim.id].as_json() for _, claim in registry.all_claims() if claim.id in results
    ]
    write_json(
        out / "results.json",
        {"environment": environment(), "command": list(command), "claims": entries},
    )
