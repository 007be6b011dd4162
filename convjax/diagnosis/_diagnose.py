"""What is wrong with a training: findings with layer, step, figure, threshold and a way out."""

from dataclasses import dataclass

import numpy as np

from convjax._checks import check_whole
from convjax._display import Displayed
from convjax.diagnosis.evidence import Evidence, network_columns
from convjax.diagnosis.indicators import ENOUGH, PATIENCE, IndicatorValue
from convjax.diagnosis.symptoms import SYMPTOMS, Symptom
from convjax.stats.record import Record, check_record
from convjax.stats.watch import INPUT, LABELS

NONLINEARITIES = ("relu", "tanh", "sigmoid")


@dataclass(frozen=True)
class Finding:
    """One thing that is wrong.

    Attributes:
      symptom: its name, such as "dead layer".
      where: the layer or parameter, "" for the whole training.
      step: the first at which it shows.
      figure, threshold: what was found, and what it may not be above or below.
      what: what the figure is.
      change: the smallest change worth trying.
      reference: where to read on.
    """

    symptom: str
    where: str
    step: int
    figure: float
    threshold: float
    what: str
    change: str
    reference: str

    def __str__(self) -> str:
        where = f" in {self.where}" if self.where else ""
        side = "above" if self.figure > self.threshold else "below"
        return (
            f"{self.symptom}{where}, from step {self.step}\n"
            f"  {self.what}: {self.figure:.3g}, {side} {self.threshold:.3g}\n"
            f"  try: {self.change}\n"
            f"  see: {self.reference}"
        )


@dataclass(frozen=True, repr=False)
class Diagnosis(Displayed):
    """What a record says about its training.

    Attributes:
      findings: causes, in the order in which to mend them; none for a healthy training.
      consequences: what else was found, and follows from these.
      unchecked: symptoms for which the record lacks a quantity, and which; a training of
        `Watch.everything()` of 100 steps has all. "classes" stands for their number, where it is
        not known.
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
            lines.append(
                "not looked for: "
                + ", ".join(f"{name} ({', '.join(of)})" for name, of in self.unchecked.items())
            )
        return "\n".join(lines)


def diagnose(
    record: Record, *, classes: int | None = None, nonlinearity: str = "relu"
) -> Diagnosis:
    """Says what is wrong with a training.

    Args:
      record: of the training so far; best with `Watch.everything()`.
      classes: of the task, for the loss of guessing; by default the channels of the last watched
        layer, where units were watched. 0 says that there are none, as in a regression.
      nonlinearity: that follows the hidden layers: "relu", "tanh" or "sigmoid".

    Raises:
      TypeError: if record is no record, or classes no whole number.
      ValueError: if nonlinearity is none of these, or classes is 1 or below 0.
    """
    check_record("record", record)
    if nonlinearity not in NONLINEARITIES:
        raise ValueError(
            f"nonlinearity must be one of {', '.join(map(repr, NONLINEARITIES))}, got "
            f"{nonlinearity!r}. Others: the nearest of these."
        )
    if classes is not None and (check_whole("classes", classes, 0) == 1):
        raise ValueError(
            f"classes must be at least 2, or 0 for a task without classes, got {classes}."
        )
    if classes is None:
        classes = _outputs(record)
    evidence = Evidence(record, classes, nonlinearity)
    kept = quantities(record) | ({"classes"} if classes else set())
    kept |= {ENOUGH} if record.steps >= PATIENCE else set()
    findings: list[Finding] = []
    consequences: list[Finding] = []
    unchecked: dict[str, tuple[str, ...]] = {}
    explained = False
    for symptom in SYMPTOMS:
        if missing := tuple(name for name in symptom.needs if name not in kept):
            unchecked[symptom.name] = missing
            continue
        with np.errstate(all="ignore"):  # of a training that diverged
            sign = symptom.found(evidence)
        if sign:
            (consequences if explained else findings).append(_finding(symptom, sign))
            explained |= symptom.explains
    return Diagnosis(tuple(findings), tuple(consequences), unchecked)


def quantities(record: Record) -> frozenset[str]:
    """Returns which quantities of `convjax.Watch` a record holds, and whether it has labels."""
    parameters = record.parameters
    rows = len(record.watched) > 0
    held = {
        "activations": bool(network_columns(record)) and rows,
        "histogram": bool(record.layers) and len(record.hist) > 0,
        "units": len(record.active) > 0,
        "inputs": INPUT in record.layers and rows,
        "labels": LABELS in record.layers and rows,
        "evaluation": len(record.eval_loss) > 0,
        "gradients": parameters is not None and len(parameters.grad_norm) > 0,
        "updates": parameters is not None and len(parameters.update_norm) > 0,
    }
    return frozenset(name for name, there in held.items() if there)


def _outputs(record: Record) -> int:
    """Returns the channels of the network's last layer, 0 where they are not known."""
    network = network_columns(record)
    channels = int(record.channels[network[-1]]) if network and len(record.active) else 0
    return channels if channels > 1 else 0


def _finding(symptom: Symptom, sign: IndicatorValue) -> Finding:
    threshold = symptom.high if sign.figure > symptom.high else symptom.low
    return Finding(
        symptom.name,
        *sign,
        threshold,
        symptom.what,
        symptom.change,
        symptom.reference,
    )
