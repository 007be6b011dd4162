"""The report of the diagnosis study: its tables in Markdown, for the README."""

from collections import Counter
from collections.abc import Sequence
from statistics import median

from convjax.diagnosis.symptoms import SYMPTOMS
from convjax.terminal.tables import TextTable
from experiments.diagnosis_study.faults import FAULTS
from experiments.diagnosis_study.results import DiagnosisResult
from experiments.diagnosis_study.sagemaker_rules import RULE_SYMPTOMS
from experiments.diagnosis_study.suite import HEALTHY, STRENGTHS
from experiments.harness.intervals import Interval, share

TARGETS = {"recall": 0.95, "precision": 0.95, "healthy without a finding": 0.98}
BETTER = 0.02  # a suggested change improves a training if it raises the accuracy by more than this


def tables(rows: Sequence[DiagnosisResult]) -> list[str]:
    """Returns the targets, the figures by symptom and the confusion table of the measured part."""
    measured = [row for row in rows if row.part == "measured"]
    found = [targets_table(measured), by_symptom(measured), confusion(measured)]
    weaker = [row for row in rows if row.part in STRENGTHS]
    return [*found, by_strength([*measured, *weaker])] if weaker else found


def targets_table(rows: Sequence[DiagnosisResult]) -> str:
    """Returns the figures of the diagnosis and of SageMaker Debugger's rules beside the targets."""
    healthy = [row for row in rows if row.fault == HEALTHY]
    faulty = [row for row in rows if row.fault != HEALTHY]
    diagnosis = {
        "recall": share(sum(row.symptom in row.findings for row in faulty), len(faulty)),
        "precision": share(
            sum(row.symptom in row.findings for row in faulty),
            sum(len(row.findings) for row in rows),
        ),
        "healthy without a finding": share(sum(not row.findings for row in healthy), len(healthy)),
    }
    rules = {
        "recall": share(sum(_by_a_rule(row) for row in faulty), len(faulty)),
        "precision": share(
            sum(row.symptom in RULE_SYMPTOMS[rule] for row in faulty for rule in row.rules),
            sum(len(row.rules) for row in rows),
        ),
        "healthy without a finding": share(sum(not row.rules for row in healthy), len(healthy)),
    }
    table = TextTable(
        ("measured part", "bar", "convjax.diagnose", "default rules of SageMaker Debugger"),
        [
            (name, str(target), _text(diagnosis[name]), _text(rules[name]))
            for name, target in TARGETS.items()
        ],
    )
    false_alarms = sum(len(row.findings) for row in healthy) / max(len(healthy), 1)
    transient = sum(bool(row.early) for row in healthy)
    return (
        f"{table.markdown()}\n\n"
        f"{len(rows)} trainings, {len(healthy)} of them healthy; {false_alarms:.3f} false alarms "
        f"per healthy training at its end, and {transient} of {len(healthy)} had one on the way "
        "that had disappeared by the end."
    )


def by_symptom(rows: Sequence[DiagnosisResult]) -> str:
    """Returns recall, precision, steps, the rules' recall and the suggested change by symptom."""
    cells = []
    for symptom in dict.fromkeys(symptom.name for symptom in SYMPTOMS):
        injected = [row for row in rows if row.symptom == symptom]
        found = [row for row in rows if symptom in row.findings]
        if not injected and not found:
            continue
        hits = sum(symptom in row.findings for row in injected)
        steps = [row.steps for row in injected if row.steps is not None]
        cells.append(
            (
                symptom,
                _text(share(hits, len(injected))),
                _text(share(hits, len(found))),
                f"{median(steps):g}" if steps else "never",
                f"{sum(map(_by_a_rule, injected))} of {len(injected)}",
                _effect_of_change(injected),
            )
        )
    headings = (
        *("symptom", "recall", "precision", "steps until found", "found by a rule"),
        "advised change",
    )
    return TextTable(headings, cells).markdown()


def confusion(rows: Sequence[DiagnosisResult]) -> str:
    """Returns how often each symptom was found first, by the symptom of the injected fault."""
    injected_or_found = {HEALTHY} | {row.symptom for row in rows}
    injected_or_found |= {name for row in rows for name in row.findings[:1]}
    every = [*dict.fromkeys(symptom.name for symptom in SYMPTOMS), HEALTHY]
    names = [name for name in every if name in injected_or_found]
    codes = {name: chr(ord("a") + i) for i, name in enumerate(names)}
    cells = []
    for symptom in names:
        injected = [row for row in rows if row.symptom == symptom]
        first = Counter(row.findings[0] if row.findings else HEALTHY for row in injected)
        counts = [str(first[name]) if first[name] else "" for name in names]
        cells.append((f"{codes[symptom]} {symptom}", *counts))
    headings = ("injected \\ found first", *codes.values())
    return f"{TextTable(headings, cells).markdown()}\n\n{codes[HEALTHY]}: nothing found."


def by_strength(rows: Sequence[DiagnosisResult]) -> str:
    """Returns how often a fault is found, and the accuracy that it leaves, by its strength."""
    weaker = {row.fault for row in rows if row.part in STRENGTHS}
    cells = []
    for fault in (name for name in FAULTS if name in weaker):
        texts = []
        for part in ("measured", *STRENGTHS):
            own = [row for row in rows if row.fault == fault and row.part == part]
            if own:
                found = sum(row.symptom in row.findings for row in own)
                texts.append(f"{found} of {len(own)}, {median(r.accuracy for r in own):.2f}")
        cells.append((fault, *texts))
    return TextTable(("found, and median accuracy", "whole", *STRENGTHS), cells).markdown()


def _by_a_rule(row: DiagnosisResult) -> bool:
    """Whether one of the fired rules means the symptom of the injected fault."""
    return any(row.symptom in RULE_SYMPTOMS[rule] for rule in row.rules)


def _effect_of_change(rows: Sequence[DiagnosisResult]) -> str:
    """Returns the mean accuracy before and after the suggested change."""
    pairs = [(row.accuracy, row.cured) for row in rows if row.cured is not None]
    if not pairs:
        return "not tried"
    before = sum(accuracy for accuracy, _ in pairs) / len(pairs)
    after = sum(changed for _, changed in pairs) / len(pairs)
    better = sum(changed > accuracy + BETTER for accuracy, changed in pairs)
    return f"{before:.2f} → {after:.2f}, better in {better} of {len(pairs)}"


def _text(figure: Interval) -> str:
    if figure.mean != figure.mean:
        return "none"
    return f"{figure.mean:.3f} ({figure.low:.3f} to {figure.high:.3f})"
