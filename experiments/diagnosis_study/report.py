"""Tables of what the diagnosis found, from the rows of `experiments.diagnosis_study.run`, in Markdown."""

from collections import Counter
from collections.abc import Sequence
from statistics import median

from convjax.diagnosis.symptoms import SYMPTOMS
from experiments.diagnosis_study.results import DiagnosisResult
from experiments.diagnosis_study.sagemaker_rules import MEANING
from experiments.diagnosis_study.suite import HEALTHY
from experiments.harness.intervals import Interval, share

BARS = {"recall": 0.95, "precision": 0.95, "healthy without a finding": 0.98}
BETTER = 0.02  # accuracy by which an advised change must improve a training to count


def tables(rows: Sequence[DiagnosisResult]) -> list[str]:
    """Returns the bars, the figures by symptom and the confusion table of the measured part."""
    measured = [row for row in rows if row.part == "measured"]
    return [bars(measured), by_symptom(measured), confusion(measured)]


def bars(rows: Sequence[DiagnosisResult]) -> str:
    """Returns recall, precision and the healthy runs beside the bars, and the rules' figures."""
    healthy = [row for row in rows if row.fault == HEALTHY]
    faulty = [row for row in rows if row.fault != HEALTHY]
    found = sum(row.symptom in row.findings for row in faulty)
    all_found = sum(len(row.findings) for row in rows)
    named = sum(any(row.symptom in MEANING[rule] for rule in row.rules) for row in faulty)
    fired = sum(len(row.rules) for row in rows)
    meant = sum(row.symptom in MEANING[rule] for row in faulty for rule in row.rules)
    ours = {
        "recall": share(found, len(faulty)),
        "precision": share(found, all_found),
        "healthy without a finding": share(sum(not row.findings for row in healthy), len(healthy)),
    }
    theirs = {
        "recall": share(named, len(faulty)),
        "precision": share(meant, fired),
        "healthy without a finding": share(sum(not row.rules for row in healthy), len(healthy)),
    }
    lines = ["| measured part | bar | convjax.diagnose | default rules of SageMaker Debugger |"]
    lines += ["|---|---|---|---|"]
    lines += [
        f"| {name} | {bar} | {_text(ours[name])} | {_text(theirs[name])} |"
        for name, bar in BARS.items()
    ]
    late = sum(bool(row.early) for row in healthy)
    lines += [
        "",
        f"{len(rows)} trainings, {len(healthy)} of them healthy; "
        f"{sum(len(row.findings) for row in healthy) / max(len(healthy), 1):.3f} false alarms per "
        f"healthy training at its end, and {late} of {len(healthy)} had one on the way that had "
        "gone by the end.",
    ]
    return "\n".join(lines)


def by_symptom(rows: Sequence[DiagnosisResult]) -> str:
    """Returns by symptom recall, precision, steps until found, the rules' recall, the advice."""
    lines = [
        "| symptom | recall | precision | steps until found | found by a rule | advised change |",
        "|---|---|---|---|---|---|",
    ]
    for symptom in (symptom.name for symptom in SYMPTOMS):
        planted = [row for row in rows if row.symptom == symptom]
        seen = [row for row in rows if symptom in row.findings]
        hits = sum(symptom in row.findings for row in planted)
        steps = [row.steps for row in planted if row.steps is not None]
        ruled = sum(any(symptom in MEANING[rule] for rule in row.rules) for row in planted)
        until = f"{median(steps):g}" if steps else "never"
        figures = (share(hits, len(planted)), share(hits, len(seen)))
        lines.append(
            f"| {symptom} | {' | '.join(map(_text, figures))} | {until} | {ruled} of "
            f"{len(planted)} | {_advice(planted)} |"
        )
    return "\n".join(lines)


def _advice(rows: Sequence[DiagnosisResult]) -> str:
    tried = [row for row in rows if row.cured is not None]
    if not tried:
        return "not tried"
    before = sum(row.accuracy for row in tried) / len(tried)
    after = sum(row.cured or 0.0 for row in tried) / len(tried)
    better = sum((row.cured or 0.0) > row.accuracy + BETTER for row in tried)
    return f"{before:.2f} → {after:.2f}, better in {better} of {len(tried)}"


def confusion(rows: Sequence[DiagnosisResult]) -> str:
    """Returns how often each symptom was found first, by the fault that was planted."""
    names = [*(symptom.name for symptom in SYMPTOMS), HEALTHY]
    codes = {name: chr(ord("a") + i) for i, name in enumerate(names)}
    lines = [f"| planted \\ found first | {' | '.join(codes[name] for name in names)} |"]
    lines += ["|---|" + "---|" * len(names)]
    for symptom in names:
        planted = [row for row in rows if row.symptom == symptom]
        first = Counter(row.findings[0] if row.findings else HEALTHY for row in planted)
        cells = " | ".join(str(first[name]) if first[name] else "" for name in names)
        lines.append(f"| {codes[symptom]} {symptom} | {cells} |")
    return "\n".join([*lines, "", f"{codes[HEALTHY]}: nothing found."])


def _text(found: Interval) -> str:
    if found.mean != found.mean:
        return "none"
    return f"{found.mean:.3f} ({found.low:.3f} to {found.high:.3f})"
