"""What speaks against a finding."""

import math

from convjax.diagnosis.evidence import Evidence
from convjax.diagnosis.indicator import IndicatorValue
from convjax.diagnosis.symptom import Symptom
from convjax.diagnosis.thresholds import NEAR_LIMIT, PATIENCE, RECOVERED


def doubts(evidence: Evidence, symptom: Symptom, value: IndicatorValue) -> tuple[str, ...]:
    """Returns what speaks against a finding, in words.

    Args:
      evidence: of the training.
      symptom: that was found.
      value: of its indicator.
    """
    found = []
    if symptom.hinders and evidence.progress >= RECOVERED:
        found.append(f"the loss has come {evidence.progress:.0%} of the way from guessing")
    if _is_near(value.figure, symptom.limit(value)):
        found.append("the figure is near its limit")
    if evidence.record.steps < PATIENCE:
        found.append(f"only {evidence.record.steps} steps were recorded")
    if evidence.unrecognised_loss:
        found.append("the loss is none of the usual ones")
    elif "classes" in symptom.needs and evidence.learning is evidence.loss:
        found.append("the outputs are not known, and the loss may have parts that do not fall")
    return tuple(found)


def _is_near(figure: float, limit: float) -> bool:
    """Returns whether a figure is close to its limit, or as a share to the limit or the rest."""
    if not math.isfinite(limit) or not limit:
        return False
    scale = min(limit, 1 - limit) if 0 < limit < 1 and 0 <= figure <= 1 else abs(limit)
    return abs(figure - limit) < NEAR_LIMIT * scale
