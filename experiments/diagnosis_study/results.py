"""What the diagnosis found in one training of the study."""

from dataclasses import dataclass
from typing import Any

from experiments.diagnosis_study.faults import FAULTS
from experiments.diagnosis_study.suite import HEALTHY


@dataclass(frozen=True)
class DiagnosisResult:
    """What one training came to.

    Attributes:
      fault: planted, or HEALTHY.
      accuracy: on the test images.
      findings: symptoms that were found, causes alone, in their order.
      steps: after so many the fault was first found; None where it never was.
      early: symptoms found after some of the steps and not after all.
      rules: of SageMaker Debugger that fired.
      cured: accuracy after the change that the first finding advises; None where not tried.
    """

    part: str
    fault: str
    plan: dict[str, Any]
    accuracy: float
    findings: list[str]
    steps: int | None
    early: list[str]
    rules: list[str]
    cured: float | None = None

    @property
    def symptom(self) -> str:
        """What should be found, or HEALTHY."""
        return symptom_of(self.fault)


def symptom_of(fault: str) -> str:
    """Returns the symptom that a fault should show, or HEALTHY."""
    return FAULTS[fault].symptom if fault in FAULTS else HEALTHY
