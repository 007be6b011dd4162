"""What speaks against a finding."""

import math

from convjax.diagnosis.evidence import Evidence
from convjax.diagnosis.indicator import IndicatorValue
from convjax.diagnosis.symptoms import Symptom
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
    limit = symptom.limit(value)
    whole = value.figure == 1  # a share that cannot be larger
    if math.isfinite(limit) and limit and not whole and _apart(value.figure, limit) < NEAR_LIMIT:
        found.append("the figure is near its limit")
    if evidence.record.steps < PATIENCE:
        found.append(f"only {evidence.record.steps} steps were recorded")
    if "classes" in symptom.needs and evidence.learning is evidence.loss:
        found.append("the outputs are not known, and the loss may have parts that do not fall")
    return tuple(found)


def _apart(figure: float, limit: float) -> float:
    return abs(figure / limit - 1)
