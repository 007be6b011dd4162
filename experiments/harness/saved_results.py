"""Files of results, and the time that each claim takes by those of whole runs."""

import json
from collections.abc import Mapping, Sequence
from pathlib import Path

from convjax.data.catalog import DATASET_NAMES
from experiments.harness.claim import Result
from experiments.harness.lab import Lab
from experiments.harness.planned import Planned

# The results of whole runs, which the README shows. They say how long each claim takes.
SAVED_RESULTS = Path(__file__).parents[1] / "results"

# A brief form takes about this share of the time of the whole one: between a twentieth
# (batch-size, which leaves out the trainings) and a quarter (norm-layers, a quarter of them).
BRIEF_SHARE = 0.2

# The beginning of the reason of a claim that is left out.
LEFT_OUT = "left out, "


class ResultsError(ValueError):
    """A file is not a results.json of `run`, or not one that can be resumed."""


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


def expected_seconds(claims: Sequence[Planned], lab: Lab) -> dict[str, float]:
    """Returns the seconds that each claim takes on the machine of the saved results.

    The result is empty where these lack a comparison, which takes minutes. The seconds hold only
    for all claims in one run, because a training counts for the first claim that needs it.
    """
    per_seed = _seconds_per_seed(lab)
    forms = {planned: planned.form(lab.with_seeds(planned.seeds)) for planned in claims}
    asked = [planned for planned, form in forms.items() if form]
    if not per_seed or any(p.claim.compares and p.id not in per_seed for p in asked):
        return {}
    return {
        p.id: per_seed.get(p.id, 0.0)
        * p.seeds
        * (1 if forms[p] is p.claim.measure else BRIEF_SHARE)
        for p in asked
    }


def cost_of(planned: Planned, lab: Lab) -> str:
    """Returns what it costs to decide a claim that is left out: the command and the time."""
    claim, per_seed = planned.claim, _seconds_per_seed(lab)
    time, needed = "minutes", [claim.id, *claim.reuses]
    if all(id in per_seed for id in needed):
        seconds = planned.seeds * sum(per_seed[id] for id in needed)
        time = f"about {max(1, round(seconds / 60))} min"
    return f"{LEFT_OUT}{time}: `run {claim.id} --seeds {planned.seeds}`"


def _seconds_per_seed(lab: Lab) -> dict[str, float]:
    """Returns the seconds by claim and seed in the saved results, empty where there are none."""
    file = SAVED_RESULTS / f"{lab.data}.json"
    if lab.quick or lab.data not in DATASET_NAMES or not file.exists():
        return {}
    return {r.id: r.seconds / len(r.seeds) for r in read_results(file)[1] if r.measured}
