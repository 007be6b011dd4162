"""The runner of claims: each is measured, or reused from the results of a stopped run."""

import json
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

from convjax.data.catalog import DATASET_NAMES
from convjax.io.json_files import differences, write_json
from convjax.runs.environment import environment
from experiments.harness.claim import Claim, Result, judge
from experiments.harness.lab import Lab

# The estimate of the time left starts as if this many seconds had passed at the pace of the saved
# results, because a claim that takes milliseconds says little about this machine.
PRIOR_SECONDS = 10.0

# The results of whole runs, which the README shows. They say how long each claim takes.
SAVED_RESULTS = Path(__file__).parents[1] / "results"


class ResultsError(ValueError):
    """A file is not a results.json of `run`, or not one that can be resumed."""


def measure_claims(
    claims: Sequence[Claim],
    lab: Lab,
    command: Sequence[str],
    chapter: Sequence[str],
    check: Callable[[], object] = lambda: None,
) -> list[Result]:
    """Measures claims, and writes results.json after each, so that a stopped run can be resumed.

    Where the lab resumes, a claim that was measured with the same seeds and rule keeps its figures,
    and results.json keeps the results of claims that are not among `claims`.

    Args:
      claims: to measure, in this order.
      lab: runs the trainings.
      command: written into results.json.
      chapter: ids of the chapter's claims, in the order of results.json; others follow them.
      check: called before and after each claim; raises an exception to stop.

    Returns:
      One result for each claim.

    Raises:
      ResultsError: if the results to resume are damaged, or of other versions, devices, data or
        options, or of more seeds.
    """
    results = results_to_resume(lab, {claim.id for claim in claims}) if lab.resume else {}
    reused = _reusable(results, claims, lab)
    results |= reused
    missing = [claim for claim in claims if claim.id not in reused]
    whole = [claim.id for claim in claims] == list(chapter)
    shares = _expected_seconds(missing, lab) if whole else {}
    if reused:
        lab.observer.resumed(len(reused))
    # Not where the lab resumes: the file's time shows which trainings followed the last claim.
    if not lab.resume:
        _write(lab.out, command, results, chapter)
    start, done = time.perf_counter(), 0.0
    for number, claim in enumerate(claims, 1):
        if claim.id in reused:
            continue
        check()
        if claim.is_measured(lab):
            # The pace of the claims so far on this machine holds for the rest.
            pace = (time.perf_counter() - start + PRIOR_SECONDS) / (done + PRIOR_SECONDS)
            left = (sum(shares.values()) - done) * pace if shares else None
            lab.observer.claim(claim.id, number, len(claims), left)
        results[claim.id] = judge(claim, lab)
        check()
        done += shares.get(claim.id, 0.0)
        _write(lab.out, command, results, chapter)
    _write(lab.out, command, results, chapter)
    return [results[claim.id] for claim in claims]


def read_results(path: Path) -> tuple[Mapping[str, object], list[Result]]:
    """Reads a results.json.

    Returns:
      The environment and the results.

    Raises:
      ResultsError: if the file is not a results.json of `run`.
    """
    try:
        found = json.loads(path.read_text())
        return dict(found["environment"]), [Result.from_json(entry) for entry in found["claims"]]
    except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
        raise ResultsError(
            f"{path} is damaged or is not a results.json of `run` ({type(error).__name__}). "
            "Remove it: --resume reuses the finished trainings in its folder."
        ) from error


def results_to_resume(lab: Lab, asked: set[str]) -> dict[str, Result]:
    """Returns the results in the lab's folder by their claims' ids; no file means no results.

    Args:
      lab: resumes the run.
      asked: ids of the claims to be measured.

    Raises:
      ResultsError: if the lab's figures cannot be compared with those results, or if the lab has
        fewer seeds.
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
            f"{lab.out} was measured with {'; '.join(differing)}, and such figures cannot be "
            "compared. Choose another --out."
        )
    more = [r for r in results if r.id in asked and len(r.seeds) > len(lab.seeds)]
    if more:
        raise ResultsError(
            f"{lab.out} has {more[0].id} with {len(more[0].seeds)} seeds, and fewer would replace "
            f"it. Use --seeds {len(more[0].seeds)}, or choose another --out."
        )
    return {result.id: result for result in results}


def _reusable(
    results: Mapping[str, Result], claims: Sequence[Claim], lab: Lab
) -> dict[str, Result]:
    """Returns the results that a new measurement would repeat, decided by the current rules."""
    reused = {}
    for claim in claims:
        result, rule = results.get(claim.id), claim.rule(lab.data)
        # A claim without figures is measured again: a file or a device may have become available.
        if result is None or not result.measured:
            continue
        if (result.seeds, result.rule) == (lab.seeds, rule.text if rule else "none"):
            try:
                reused[claim.id] = judge(claim, lab, result)
            except KeyError:  # an earlier version of the claim did not measure this figure
                continue
    return reused


def _expected_seconds(claims: Sequence[Claim], lab: Lab) -> dict[str, float]:
    """Returns the seconds that each claim takes on the machine of the saved results.

    The result is empty where these lack a comparison, which takes minutes. The seconds hold only
    for all claims in one run, because a training counts for the first claim that needs it.
    """
    file = SAVED_RESULTS / f"{lab.data}.json"
    if lab.quick or lab.data not in DATASET_NAMES or not file.exists():
        return {}
    _, saved = read_results(file)
    per_seed = {r.id: r.seconds / len(r.seeds) for r in saved if r.measured}
    asked = [claim for claim in claims if claim.is_measured(lab)]
    if any(claim.compares and claim.id not in per_seed for claim in asked):
        return {}
    return {claim.id: per_seed.get(claim.id, 0.0) * len(lab.seeds) for claim in asked}


def _write(
    out: Path, command: Sequence[str], results: Mapping[str, Result], chapter: Sequence[str]
) -> None:
    order = [id for id in dict.fromkeys([*chapter, *results]) if id in results]
    entries = [results[id].as_json() for id in order]
    write_json(
        out / "results.json",
        {"environment": environment(), "command": list(command), "claims": entries},
    )
