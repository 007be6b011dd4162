"""The runner of claims: each is measured, or reused from the results of a stopped run."""

import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

from convjax.io.json_files import differences, write_json
from convjax.runs.environment import environment
from experiments.harness.claim import Result, judge
from experiments.harness.lab import Lab
from experiments.harness.planned import Planned
from experiments.harness.saved_results import (
    ResultsError,
    cost_of,
    expected_seconds,
    read_results,
)

# The estimate of the time left starts as if this many seconds had passed at the pace of the saved
# results, because a claim that takes milliseconds says little about this machine.
PRIOR_SECONDS = 10.0


def measure_claims(
    claims: Sequence[Planned],
    lab: Lab,
    command: Sequence[str],
    chapter: Sequence[str],
    check: Callable[[], object] = lambda: None,
) -> list[Result]:
    """Measures claims, and writes results.json after each, so that a stopped run can be resumed.

    Where the lab resumes, a claim that was measured with the same seeds, rule and form keeps its
    figures, and results.json keeps the results of claims that are not among `claims`.

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
    results = results_to_resume(lab, claims) if lab.resume else {}
    reused = _reusable(results, claims, lab)
    results |= reused
    missing = [planned for planned in claims if planned.id not in reused]
    whole = [planned.id for planned in claims] == list(chapter)
    shares = expected_seconds(missing, lab) if whole else {}
    if reused:
        lab.observer.resumed(len(reused))
    # Not where the lab resumes: the file's time shows which trainings followed the last claim.
    if not lab.resume:
        _write(lab.out, command, results, chapter)
    start, done = time.perf_counter(), 0.0
    for number, planned in enumerate(claims, 1):
        if planned.id in reused:
            continue
        check()
        its_lab = lab.with_seeds(planned.seeds)
        measured = planned.form(its_lab) is not None
        if measured:
            # The pace of the claims so far on this machine holds for the rest.
            pace = (time.perf_counter() - start + PRIOR_SECONDS) / (done + PRIOR_SECONDS)
            left = (sum(shares.values()) - done) * pace if shares else None
            lab.observer.claim(planned.id, number, len(claims), left)
        left_out = "" if measured else cost_of(planned, lab)
        result = judge(planned.claim, its_lab, brief=planned.brief, left_out=left_out)
        results[planned.id] = result
        check()
        if measured:
            lab.observer.judged(planned.id, result.verdict, result.reason)
        done += shares.get(planned.id, 0.0)
        _write(lab.out, command, results, chapter)
    _write(lab.out, command, results, chapter)
    return [results[planned.id] for planned in claims]


def results_to_resume(lab: Lab, claims: Sequence[Planned]) -> dict[str, Result]:
    """Returns the results in the lab's folder by their claims' ids; no file means no results.

    Args:
      lab: resumes the run.
      claims: to be measured.

    Raises:
      ResultsError: if the lab's figures cannot be compared with those results, or if a claim is
        to be measured with fewer seeds.
    """
    file = lab.out / "results.json"
    if not file.exists():
        return {}
    before, results = read_results(file)
    wanted = {"data": lab.data, **lab.config}
    differing = differences(before, environment())
    for result in results:
        found = {"data": result.data, **result.config}
        found.pop("brief", None)  # a claim has its own, see `_reusable`
        differing += [d for d in differences(found, wanted) if d not in differing]
    if differing:
        raise ResultsError(
            f"{lab.out} was measured with {'; '.join(differing)}, and such figures cannot be "
            "compared. Choose another --out."
        )
    seeds = {planned.id: planned.seeds for planned in claims}
    more = [r for r in results if len(r.seeds) > seeds.get(r.id, len(r.seeds))]
    if more:
        raise ResultsError(
            f"{lab.out} has {more[0].id} with {len(more[0].seeds)} seeds, and fewer would replace "
            f"it. Use --seeds {len(more[0].seeds)}, or choose another --out."
        )
    return {result.id: result for result in results}


def _reusable(
    results: Mapping[str, Result], claims: Sequence[Planned], lab: Lab
) -> dict[str, Result]:
    """Returns the results that a new measurement would repeat, decided by the current rules.

    Those of the whole form replace the brief one.
    """
    reused = {}
    for planned in claims:
        claim, its_lab = planned.claim, lab.with_seeds(planned.seeds)
        result, rule = results.get(claim.id), claim.rule(lab.data)
        # A claim without figures is measured again: a file or a device may have become available.
        if result is None or not result.measured:
            continue
        same = (result.seeds, result.rule) == (its_lab.seeds, rule.text if rule else "none")
        if same and (planned.brief or not result.brief):
            try:
                reused[claim.id] = judge(claim, its_lab, result)
            except KeyError:  # an earlier version of the claim did not measure this figure
                continue
    return reused


def _write(
    out: Path, command: Sequence[str], results: Mapping[str, Result], chapter: Sequence[str]
) -> None:
    order = [id for id in dict.fromkeys([*chapter, *results]) if id in results]
    entries = [results[id].as_json() for id in order]
    write_json(
        out / "results.json",
        {"environment": environment(), "command": list(command), "claims": entries},
    )
