"""Claims one after the other: measured, or taken from the results of a run that was stopped."""

import json
import time
from collections.abc import Mapping, Sequence
from pathlib import Path

from convjax.data.catalog import DATASET_NAMES
from convjax.io.json_files import differences, write_json
from convjax.runs.environment import environment
from experiments.harness import registry
from experiments.harness.claim import Claim, Result, judge
from experiments.harness.lab import Lab

# The pace starts as if so many seconds had gone at that of the saved results: a claim that takes
# milliseconds tells little about this machine.
PRIOR_SECONDS = 10.0

# The results of whole runs that the README shows tell how long claims take.
SAVED = Path(__file__).parents[1] / "results"


class ResultsError(ValueError):
    """A file does not hold results of `run`, or not such as a run can go on with."""


def measure_claims(claims: Sequence[Claim], lab: Lab, command: Sequence[str]) -> list[Result]:
    """Measures claims, and writes results.json after each, so that a stopped run can go on.

    Where the lab resumes, a claim that was measured with the same seeds and rule keeps its figures,
    and results.json the results of all claims that were not asked for.

    Args:
      command: stands in results.json.

    Raises:
      ResultsError: if the results to go on with are damaged, of other versions, devices, data or
        options, or of more seeds.
    """
    results = to_go_on_with(lab, {claim.id for claim in claims}) if lab.resume else {}
    kept = _kept(results, claims, lab)
    results |= kept
    missing = [claim for claim in claims if claim.id not in kept]
    whole = len(claims) == len(registry.all_claims())
    shares = _shares_of_time(missing, lab) if whole else {}
    if kept:
        lab.observer.kept(len(kept))
    # Not where claims are kept: the file's time tells which trainings came after the last claim.
    if not lab.resume:
        _write(lab.out, command, results)
    began, done = time.perf_counter(), 0.0
    for number, claim in enumerate(claims, 1):
        if claim.id in kept:
            continue
        if claim.is_measured(lab):
            # A share takes as long as those before it took on this machine.
            pace = (time.perf_counter() - began + PRIOR_SECONDS) / (done + PRIOR_SECONDS)
            left = (sum(shares.values()) - done) * pace if shares else None
            lab.observer.claim(claim.id, number, len(claims), left)
        results[claim.id] = judge(claim, lab)
        done += shares.get(claim.id, 0.0)
        _write(lab.out, command, results)
    _write(lab.out, command, results)
    return [results[claim.id] for claim in claims]


def read_results(path: Path) -> tuple[Mapping[str, object], list[Result]]:
    """Reads a results.json: (environment, results).

    Raises:
      ResultsError: if it is none.
    """
    try:
        found = json.loads(path.read_text())
        return dict(found["environment"]), [Result.from_json(entry) for entry in found["claims"]]
    except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
        raise ResultsError(
            f"{path} is damaged, or no results.json of `run` ({type(error).__name__}). Remove it: "
            "with --resume, trainings that are finished beside it are not run again."
        ) from error


def to_go_on_with(lab: Lab, asked: set[str]) -> dict[str, Result]:
    """Returns the results in the lab's folder by their claims' names, none where there is no file.

    Raises:
      ResultsError: if these claims, as the lab measures them, do not belong to them.
    """
    file = lab.out / "results.json"
    if not file.exists():
        return {}
    before, results = read_results(file)
    wanted = {"data": lab.data, **lab.config}
    differing = differences(before, environment())
    for result in results:
        found = {"data": result.data, **result.config}
        differing += [d for d in differences(found, wanted) if d not in differing]
    if differing:
        raise ResultsError(
            f"{lab.out} was measured with {'; '.join(differing)}: such figures do not belong in "
            "one ledger. Choose another --out."
        )
    more = [r for r in results if r.id in asked and len(r.seeds) > len(lab.seeds)]
    if more:
        raise ResultsError(
            f"{lab.out} has {more[0].id} with {len(more[0].seeds)} seeds, and fewer would take its "
            f"place: --seeds {len(more[0].seeds)}, or choose another --out."
        )
    return {result.id: result for result in results}


def _kept(results: Mapping[str, Result], claims: Sequence[Claim], lab: Lab) -> dict[str, Result]:
    """Returns the results whose figures measuring again would find, decided by today's rules."""
    kept = {}
    for claim in claims:
        result, rule = results.get(claim.id), claim.rule(lab.data)
        # What was not measured is tried again: a file or a device may be there now.
        if result is None or not result.measured:
            continue
        if (result.seeds, result.rule) == (lab.seeds, rule.text if rule else "none"):
            try:
                kept[claim.id] = judge(claim, lab, result)
            except KeyError:  # a figure that an earlier version of the claim did not take
                continue
    return kept


def _shares_of_time(claims: Sequence[Claim], lab: Lab) -> dict[str, float]:
    """Returns how long each claim takes, in seconds of the machine of the saved results.

    Nothing where they do not know a comparison, which takes minutes. Only together do the claims
    take so long: a training is counted where the first of them asks for it.
    """
    file = SAVED / f"{lab.data}.json"
    if lab.quick or lab.data not in DATASET_NAMES or not file.exists():
        return {}
    _, saved = read_results(file)
    per_seed = {r.id: r.seconds / len(r.seeds) for r in saved if r.measured}
    asked = [claim for claim in claims if claim.is_measured(lab)]
    if any(claim.compares and claim.id not in per_seed for claim in asked):
        return {}
    return {claim.id: per_seed.get(claim.id, 0.0) * len(lab.seeds) for claim in asked}


def _write(out: Path, command: Sequence[str], results: Mapping[str, Result]) -> None:
    entries = [
        results[claim.id].as_json() for _, claim in registry.all_claims() if claim.id in results
    ]
    write_json(
        out / "results.json",
        {"environment": environment(), "command": list(command), "claims": entries},
    )
