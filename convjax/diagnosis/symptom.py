"""One sign of a cause that the diagnosis can find: an indicator and its limits."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field

import numpy as np

from convjax.diagnosis.evidence import Evidence
from convjax.diagnosis.indicator import IndicatorValue


@dataclass(frozen=True)
class Symptom:
    """A fault that the diagnosis can find.

    Attributes:
      name: in findings and in the table of the README.
      indicator: returns the values of the indicator, the worst first; none if it does not apply.
      what: the meaning of the value.
      change: the smallest change worth trying.
      reference: further reading.
      low: a value below it is a finding; infinite if every value is.
      high: a value above it is a finding.
      needs: quantities without which the symptom is not checked: those of `convjax.Watch`,
        "labels", "classes" (their number), and `ENOUGH_STEPS`.
      edges: edges of the histogram's bins that it needs, by the non-linearity.
      explains: whether findings after it may be its consequences.
      hinders: whether a training that has it learns badly.
      decides: the measurement that tells it from causes that look the same, "" if none does.
    """

    name: str
    indicator: Callable[[Evidence], list[IndicatorValue]]
    what: str
    change: str
    reference: str
    low: float = -np.inf
    high: float = np.inf
    needs: tuple[str, ...] = ()
    edges: Mapping[str, tuple[float, ...]] = field(default_factory=dict)
    explains: bool = True
    hinders: bool = True
    decides: str = ""

    def limit(self, value: IndicatorValue) -> float:
        """Returns the limit that a value is beyond."""
        return self.high if value.figure > self.high else self.low

    def found(self, evidence: Evidence) -> IndicatorValue | None:
        """Returns the worst value beyond the limits, or None."""
        values = self.indicator(evidence)
        return next((v for v in values if v.figure < self.low or v.figure > self.high), None)
