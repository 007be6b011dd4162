"""`python -m experiments diagnosis`: the accuracy of `convjax.diagnose` on injected faults.

Seventeen faults are injected into short trainings of ten architectures. Other trainings stay
healthy; some of these have unusual options (`experiments.diagnosis_study.suite`).
`convjax.diagnose` examines each training, and so do the default rules of SageMaker Debugger.
Thresholds were set on the first part alone. The figures are those of the second part, which has
other seeds, and architectures that the first part lacks.

Targets, on the second part: recall and precision of at least 0.95, and no finding in 98 % of the
healthy trainings. A symptom is found if it is among the findings; each finding that was not
injected lowers the precision. Weaker faults are reported by themselves.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.progress import Progress

from convjax.diagnosis._diagnose import diagnose
from convjax.runs.environment import environment
from convjax.stats.record import Record
from convjax.terminal.command import measure_to_file
from experiments.diagnosis_study.faults import SUGGESTED_CHANGES, TrainingSpec
from experiments.diagnosis_study.kept import kept_training
from experiments.diagnosis_study.results import DiagnosisResult, symptom_of
from experiments.diagnosis_study.suite import HEALTHY, PARTS, STRENGTHS, StudyCase
from experiments.diagnosis_study.user_loops import Trained

EVERY = 10  # steps between diagnoses of a training
# Number of trainings per symptom, in the measured part, that are repeated with the suggested
# change.
RETRAINED = 6


def causes(record: Record, nonlinearity: str) -> list[str]:
    """Returns the symptoms that `convjax.diagnose` finds."""
    return [f.symptom for f in diagnose(record, nonlinearity=nonlinearity).findings]


def examine(case: StudyCase, record: Record, accuracy: float) -> DiagnosisResult:
    """Diagnoses a training at its end, and at every tenth step before.

    Args:
      case: of the study.
      record: of the training.
      accuracy: on the test images.
    """
    from experiments.diagnosis_study.sagemaker_rules import fired_rules

    nonlinearity = case.plan.network.nonlinearity
    # Labels of this study also mark corrupt examples: what is known of them is not what the loss
    # compares, and would give these away.
    record = replace(record, facts={})
    findings = causes(record, nonlinearity)
    findings_by_step = {
        step: causes(record.between(0, step), nonlinearity)
        for step in range(EVERY, record.steps + 1, EVERY)
    }
    steps = [step for step, found in findings_by_step.items() if symptom_of(case.fault) in found]
    early = {symptom for found in findings_by_step.values() for symptom in found} - set(findings)
    return DiagnosisResult(
        case.part,
        case.fault,
        asdict(case.plan),
        accuracy,
        findings,
        min(steps, default=None),
        sorted(early),
        sorted(fired_rules(record, nonlinearity)),
    )


def measure_diagnosis(
    cases: Sequence[StudyCase], on_run: Callable[[], None], records: Path | None = None
) -> list[DiagnosisResult]:
    """Runs the trainings, and repeats some of them with the suggested change.

    Args:
      cases: the trainings.
      on_run: called after each of them, without the repetitions.
      records: a folder; a training whose record is there is not run again.
    """
    from experiments.diagnosis_study.train import StudyTrainer

    study = StudyTrainer()

    def trained(plan: TrainingSpec) -> Trained:
        return kept_training(lambda: study.run(plan), repr(plan), records)

    rows: dict[StudyCase, DiagnosisResult] = {}
    for case in sorted(cases, key=lambda case: case.plan.group):
        rows[case] = examine(case, *trained(case.plan))
        on_run()
    again = {
        case: SUGGESTED_CHANGES.get(row.findings[0], lambda plan: plan)(case.plan)
        for case, row in to_retrain(rows)
    }
    for case, plan in sorted(again.items(), key=lambda pair: pair[1].group):
        rows[case] = replace(rows[case], cured=trained(plan).reached)
    return list(rows.values())


def to_retrain(
    rows: Mapping[StudyCase, DiagnosisResult],
) -> list[tuple[StudyCase, DiagnosisResult]]:
    """Returns the first trainings of each symptom in the measured part that have a finding."""
    left: dict[str, int] = {}
    found = []
    for case, row in rows.items():
        if case.part == PARTS[1] and case.fault != HEALTHY and row.findings:
            left[row.symptom] = left.get(row.symptom, RETRAINED) - 1
            if left[row.symptom] >= 0:
                found.append((case, row))
    return found


def run_diagnosis(quick: bool, records: Path | None, out: Path) -> None:
    """Measures the diagnosis on trainings with injected faults, and writes diagnosis.json.

    These are 844 trainings, and 264 with weaker faults.
    """
    from convjax.terminal.compilation_cache import use_compilation_cache
    from experiments.diagnosis_study.report import tables
    from experiments.diagnosis_study.suite import cases

    def measure(shown: Console) -> dict[str, Any]:
        use_compilation_cache()
        wanted = [case for part in (*PARTS, *STRENGTHS) for case in cases(part, quick=quick)]
        with Progress(console=shown, transient=True) as progress:
            task = progress.add_task("trainings", total=len(wanted))
            rows = measure_diagnosis(wanted, lambda: progress.advance(task), records)
        return {"environment": environment(), "trainings": [asdict(row) for row in rows]}

    measure_to_file(
        out,
        measure,
        lambda report: tables([DiagnosisResult(**row) for row in report["trainings"]]),
    )
