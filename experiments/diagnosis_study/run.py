"""`python -m experiments diagnosis`: how good `convjax.diagnose` is, on planted faults.

Seventeen faults are planted in short trainings of ten architectures, and others are left healthy,
some of them with an odd look (`experiments.diagnosis_study.suite`). In each of them `convjax.diagnose` says
what is wrong; beside it stand the default rules of SageMaker Debugger. Thresholds were set on the
first part alone; the figures are of the second, which has other seeds and architectures that the
first has not.

Bars, on the second part: recall and precision at least 0.95, and no finding in 98 % of the healthy
trainings. A symptom is found where it is among the findings; each finding that was not planted
counts against precision.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, replace
from pathlib import Path
from typing import Annotated

import typer

from convjax.diagnosis._diagnose import diagnose
from convjax.stats.record import Record
from experiments.diagnosis_study.faults import CURES
from experiments.diagnosis_study.results import DiagnosisResult, symptom_of
from experiments.diagnosis_study.suite import HEALTHY, PARTS, StudyCase
from experiments.terminal.options import OutFile, mistakes_reported, prepare_file

# A diagnosis is asked for after every so many steps.
EVERY = 10
# Of each fault in the measured part, so many trainings are run again with the advised change.
CURED = 6


def causes(record: Record, nonlinearity: str) -> list[str]:
    """Returns the symptoms that `convjax.diagnose` finds."""
    return [f.symptom for f in diagnose(record, nonlinearity=nonlinearity).findings]


def examine(case: StudyCase, record: Record, accuracy: float) -> DiagnosisResult:
    """Diagnoses a training at its end, and on the way there."""
    from experiments.diagnosis_study.sagemaker_rules import fired

    nonlinearity = case.plan.of.nonlinearity
    findings = causes(record, nonlinearity)
    on_the_way = {
        step: causes(record.between(0, step), nonlinearity)
        for step in range(EVERY, record.steps + 1, EVERY)
    }
    steps = [step for step, found in on_the_way.items() if symptom_of(case.fault) in found]
    early = {symptom for found in on_the_way.values() for symptom in found} - set(findings)
    return DiagnosisResult(
        case.part,
        case.fault,
        asdict(case.plan),
        accuracy,
        findings,
        min(steps, default=None),
        sorted(early),
        sorted(fired(record, nonlinearity)),
    )


def measure_diagnosis(
    cases: Sequence[StudyCase], on_run: Callable[[], None]
) -> list[DiagnosisResult]:
    """Runs the trainings, and some of them again with the advised change.

    Args:
      on_run: called after each of the first.
    """
    from experiments.diagnosis_study.train import StudyTrainer

    bench = StudyTrainer()
    rows: dict[StudyCase, DiagnosisResult] = {}
    for case in sorted(cases, key=lambda case: case.plan.group):
        rows[case] = examine(case, *bench.run(case.plan))
        on_run()
    again = {case: CURES[row.findings[0]](case.plan) for case, row in tried(rows)}
    for case, plan in sorted(again.items(), key=lambda pair: pair[1].group):
        rows[case] = replace(rows[case], cured=bench.run(plan)[1])
    return list(rows.values())


def tried(rows: Mapping[StudyCase, DiagnosisResult]) -> list[tuple[StudyCase, DiagnosisResult]]:
    """Returns the first trainings of each symptom in the measured part that have a finding."""
    left: dict[str, int] = {}
    found = []
    for case, row in rows.items():
        if case.part == PARTS[1] and case.fault != HEALTHY and row.findings:
            left[row.symptom] = left.get(row.symptom, CURED) - 1
            if left[row.symptom] >= 0:
                found.append((case, row))
    return found


def run_diagnosis(
    quick: Annotated[
        bool, typer.Option("--quick", help="One training of each kind: decides nothing.")
    ] = False,
    out: OutFile = Path("diagnosis.json"),
) -> None:
    """Measures the diagnosis on 844 trainings with planted faults: diagnosis.json."""
    from rich.progress import Progress

    from convjax.runs.folder import environment, write_json
    from experiments.diagnosis_study.report import tables
    from experiments.diagnosis_study.suite import cases
    from experiments.harness.compilation_cache import use_compilation_cache
    from experiments.terminal.console import console

    shown = console()
    with mistakes_reported("stopped; nothing was written."):
        prepare_file(out)
        use_compilation_cache()
        wanted = [case for part in PARTS for case in cases(part, quick=quick)]
        with Progress(console=shown, transient=True) as progress:
            task = progress.add_task("trainings", total=len(wanted))
            rows = measure_diagnosis(wanted, lambda: progress.advance(task))
        write_json(out, {"environment": environment(), "trainings": [asdict(row) for row in rows]})
    for text in tables(rows):
        shown.print(text, highlight=False, markup=False, soft_wrap=True)
    shown.print(f"all figures: {out}", highlight=False, soft_wrap=True)
