"""The result of the diagnosis of one training of the study."""

from dataclasses import dataclass
from typing import Any

from experiments.diagnosis_study.faults import FAULTS
from experiments.diagnosis_study.suite import HEALTHY


@dataclass(frozen=True)
class DiagnosisResult:
    """The diagnosis of one training: a row of diagnosis.json.

    Attributes:
      part: "set" or "measured".
      fault: the injected fault, or HEALTHY.
      plan: the fields of the `TrainingSpec`.
      accuracy: on the test images.
      findings: the symptoms that were found, without consequences of others, in their order.
      steps: number of steps after which the fault was first found; None if it never was.
      early: symptoms that were found during the training but not at its end.
      rules: rules of SageMaker Debugger that fired.
      cured: accuracy with the change that the first finding suggests; None if not tried.
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
        """The symptom that should be found, or HEALTHY."""
        return symptom_of(self.fault)


def symptom_of(fault: str) -> str:
    """Returns the symptom that a fault should show, or HEALTHY."""
    return FAULTS[fault].symptom if fault in FAULTS else HEALTHY
