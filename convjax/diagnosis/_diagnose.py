"""The diagnosis of a training: findings with layer, step, figure, threshold and a fix."""

import math
import warnings
from dataclasses import dataclass

import numpy as np

from convjax._checks import check_whole
from convjax._display import Displayed
from convjax.diagnosis.doubts import doubts
from convjax.diagnosis.evidence import NONLINEARITIES, Evidence, network_columns
from convjax.diagnosis.indicator import IndicatorValue
from convjax.diagnosis.symptom import Symptom
from convjax.diagnosis.symptoms import ENOUGH_STEPS, SYMPTOMS
from convjax.diagnosis.thresholds import PATIENCE
from convjax.stats.record import Record, check_record
from convjax.stats.watch import INPUT, LABELS


@dataclass(frozen=True)
class Finding:
    """A symptom that was found.

    Attributes:
      symptom: its name, such as "dead layer".
      where: the layer or parameter, "" for the whole training.
      step: the first at which it shows.
      figure: the measured value.
      threshold: the limit that the figure is above or below; infinite if every figure is a finding.
      what: the meaning of the figure.
      change: the smallest change worth trying.
      reference: further reading.
      against: what speaks against it.
      decides: the measurement that tells it from causes that look the same, "" if none does.
    """

    symptom: str
    where: str
    step: int
    figure: float
    threshold: float
    what: str
    change: str
    reference: str
    against: tuple[str, ...] = ()
    decides: str = ""

    def __str__(self) -> str:
        where = f" in {self.where}" if self.where else ""
        side = "above" if self.figure > self.threshold else "below"
        limit = f", {side} {self.threshold:.3g}" if math.isfinite(self.threshold) else ""
        lines = [
            f"{self.symptom}{where}, from step {self.step}",
            f"{self.what}: {self.figure:.3g}{limit}",
            *(f"against it: {doubt}" for doubt in self.against),
            f"try: {self.change}",
            *([f"to be sure: {self.decides}"] if self.decides else []),
            f"see: {self.reference}",
        ]
        return "\n  ".join(lines)


@dataclass(frozen=True, repr=False)
class Diagnosis(Displayed):
    """The symptoms that were found in a record.

    Attributes:
      findings: causes, in the order in which to fix them; none for a healthy training.
      consequences: other findings, which may follow from these.
      unchecked: the symptoms that could not be checked, each with the quantities that the record
        lacks. A training of 100 steps with `Watch.everything()` has all of them. "classes" means
        that their number is not known, and "a bin edge at 0.25" that the histograms have no such
        edge.
    """

    findings: tuple[Finding, ...]
    consequences: tuple[Finding, ...]
    unchecked: dict[str, tuple[str, ...]]

    def __repr__(self) -> str:
        found = [f.symptom + (f" in {f.where}" if f.where else "") for f in self.findings]
        return f"Diagnosis({', '.join(found) or 'nothing found'})"

    def __str__(self) -> str:
        lines = [str(finding) for finding in self.findings] or ["nothing found"]
        if self.consequences:
            names = dict.fromkeys(finding.symptom for finding in self.consequences)
            lines.append(f"also seen, as may follow: {', '.join(names)}")
        if self.unchecked:
            lacking = dict.fromkeys(name for of in self.unchecked.values() for name in of)
            lines.append(f"not checked: {len(self.unchecked)}, for lack of {', '.join(lacking)}")
        return "\n".join(lines)


def diagnose(
    record: Record, *, classes: int | None = None, nonlinearity: str = "relu"
) -> Diagnosis:
    """Returns what is wrong with a training, and what to change.

    Args:
      record: of the training so far; best with `Watch.everything()`.
      classes: number of classes of the task, for the loss of guessing where the record has no facts
        of the labels; by default the number of outputs, or the channels of the last watched layer.
        0 for a task without classes.
      nonlinearity: that follows the hidden layers, where none was recognised in the traced network:
        "relu", "tanh" or "sigmoid".

    Raises:
      TypeError: if record is not a record, or classes is not a whole number.
      ValueError: if nonlinearity is another name, or classes is 1 or below 0.

    Examples:
      >>> from convjax.diagnosis import diagnose
      >>> from convjax.stats import Recorder
      >>> recorder = Recorder()
      >>> for loss in (2.3, 2.1, float("nan")):
      ...     recorder.add(loss)
      >>> diagnosis = diagnose(recorder.record())
      >>> diagnosis
      Diagnosis(non-finite)
      >>> diagnosis.findings[0].step, diagnosis.unchecked["dead layer"]
      (2, ('activations', 'units'))
    """
    check_record("record", record)
    if nonlinearity not in NONLINEARITIES:
        raise ValueError(
            f"nonlinearity must be one of {', '.join(map(repr, NONLINEARITIES))}, got "
            f"{nonlinearity!r}. For another non-linearity, pass the closest of these."
        )
    if classes is not None and (check_whole("classes", classes, 0) == 1):
        raise ValueError(
            f"classes must be at least 2, or 0 for a task without classes, got {classes}."
        )
    evidence = Evidence(record, _outputs(record) if classes is None else classes, nonlinearity)
    kept = quantities(record)
    with np.errstate(all="ignore"), warnings.catch_warnings():
        warnings.simplefilter("ignore", RuntimeWarning)  # of a training that diverged
        kept |= {"classes"} if evidence.guess else set()
    kept |= {ENOUGH_STEPS} if record.steps >= PATIENCE else set()
    findings: list[Finding] = []
    consequences: list[Finding] = []
    unchecked: dict[str, tuple[str, ...]] = {}
    explained = False
    for symptom in SYMPTOMS:
        missing = [name for name in symptom.needs if name not in kept]
        if "histogram" in kept:
            edges = symptom.edges.get(nonlinearity, ())
            missing += [f"a bin edge at {edge:g}" for edge in edges if not record.has_edge(edge)]
        if missing:
            unchecked.setdefault(symptom.name, tuple(missing))  # a cause may have several signs
            continue
        with np.errstate(all="ignore"), warnings.catch_warnings():
            warnings.simplefilter("ignore", RuntimeWarning)
            value = symptom.found(evidence)
        if value:
            known = {finding.symptom for finding in (*findings, *consequences)}
            if symptom.name not in known:  # a cause may have two signs
                found = _finding(evidence, symptom, value)
                (consequences if explained else findings).append(found)
            explained |= symptom.explains
    return Diagnosis(tuple(findings), tuple(consequences), unchecked)


def quantities(record: Record) -> frozenset[str]:
    """Returns the quantities of `convjax.Watch` that a record has, and "labels" if it has them."""
    parameters = record.parameters
    rows = len(record.watched) > 0
    available = {
        "activations": bool(network_columns(record)) and rows,
        "histogram": bool(record.layers) and len(record.hist) > 0,
        "units": len(record.active) > 0,
        "inputs": INPUT in record.layers and rows,
        "labels": LABELS in record.layers and rows,
        "evaluation": len(record.eval_loss) > 0,
        "gradients": parameters is not None and len(parameters.grad_norm) > 0,
        "updates": parameters is not None and len(parameters.update_norm) > 0,
    }
    return frozenset(name for name, found in available.items() if found)


def _outputs(record: Record) -> int:
    """Returns the channels of the network's last layer, 0 if their number is not known."""
    if len(outputs := record.facts.get("outputs", ())):
        known = outputs[~np.isnan(outputs)]
        return int(known[0]) if len(known) and known[0] > 1 else 0
    network = network_columns(record)
    channels = int(record.channels[network[-1]]) if network and len(record.active) else 0
    return channels if channels > 1 else 0


def _finding(evidence: Evidence, symptom: Symptom, value: IndicatorValue) -> Finding:
    with np.errstate(all="ignore"), warnings.catch_warnings():
        warnings.simplefilter("ignore", RuntimeWarning)
        against = doubts(evidence, symptom, value)
    return Finding(
        symptom.name,
        *value,
        symptom.limit(value),
        symptom.what,
        symptom.change,
        symptom.reference,
        against,
        symptom.decides,
    )
