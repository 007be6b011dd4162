"""Indicators of where numbers first stop being finite.

Each returns its values with the worst first, and none where it does not apply.
"""

from typing import NamedTuple

import numpy as np

from convjax.diagnosis.evidence import Evidence
from convjax.diagnosis.indicator import IndicatorValue
from convjax.diagnosis.thresholds import FEW_ROWS, RISEN_LOSS
from convjax.stats.parameter_record import ParameterRecord


class _Origin(NamedTuple):
    """Where the first number that is not finite comes from."""

    what: str  # "loss", "gradients", "parameters" or "outputs"
    where: str
    step: int


def _origin(evidence: Evidence) -> _Origin | None:
    """Returns the origin of the first numbers that are not finite, None if all are finite."""
    record, parameters = evidence.record, evidence.record.parameters
    bad_loss = np.flatnonzero(~np.isfinite(record.loss))
    loss = int(record.first[bad_loss[0]]) if len(bad_loss) else np.inf
    output, where_output = _bad_outputs(evidence)
    gradient = weight = np.inf
    where_gradient = where_weight = ""
    if parameters is not None and len(parameters.watched):
        gradient, where_gradient = _first_bad(parameters, parameters.grad_norm)
        weight, where_weight = _first_bad(parameters, parameters.weight_norm)
        before = parameters.watched[parameters.watched < weight]
        # Weights that stop being finite before all else, after finite gradients, are made so by the
        # update or from outside. With steps between that were not watched, that cannot be told.
        told = not len(before) or before[-1] == weight - 1
        if np.isfinite(weight) and weight <= min(loss, output, gradient) and told:
            return _Origin("parameters", where_weight, int(weight))
    if gradient < min(loss, output):
        return _Origin("gradients", where_gradient, int(gradient))
    if loss < output:
        return _Origin("loss", "", int(loss))
    if np.isfinite(output):
        return _Origin("outputs", where_output, int(output))
    return None


def _bad_outputs(evidence: Evidence) -> tuple[float, str]:
    """Returns the first step at which an output of the network is not finite, and its layer."""
    record = evidence.record
    columns = list(evidence.network)
    bad = ~np.isfinite(record.mean[:, columns])
    share = evidence.fact("output not finite")
    rows = np.flatnonzero(bad.any(1) | (np.nan_to_num(share) > 0))
    if not len(rows):
        return np.inf, ""
    layer = record.layers[columns[int(np.argmax(bad[rows[0]]))]] if bad[rows[0]].any() else ""
    return evidence.step(int(rows[0])), layer


def _first_bad(parameters: ParameterRecord, norms: np.ndarray) -> tuple[float, str]:
    bad = ~np.isfinite(norms)
    rows = np.flatnonzero(bad.any(1)) if len(norms) else np.zeros(0, int)
    if not len(rows):
        return np.inf, ""
    name = parameters.names[int(np.argmax(bad[rows[0]]))]
    return int(parameters.watched[rows[0]]), name


def _steps(evidence: Evidence, what: str) -> list[IndicatorValue]:
    """The number of steps whose loss is not finite, if that is where it begins."""
    record = evidence.record
    if _records_no_loss(evidence):
        return []
    origin = _origin(evidence)
    if origin is None or origin.what != what:
        return []
    if what in ("loss", "gradients") and _diverged(evidence, origin.step):
        return []
    bad = ~np.isfinite(record.loss)
    steps = float(record.counts[bad].sum()) or 1.0
    return [IndicatorValue(origin.where, origin.step, steps)]


def _diverged(evidence: Evidence, step: int) -> bool:
    """Returns whether the loss had risen before a step: large numbers then overflow somewhere."""
    record = evidence.record
    before = record.loss[record.first < step]
    before = before[np.isfinite(before)]
    return len(before) > 1 and bool(before[-1] > RISEN_LOSS * before[0])


def _records_no_loss(evidence: Evidence) -> bool:
    """Whether a loop whose step returns no loss records NaN, while everything else is finite."""
    record = evidence.record
    measured = [record.mean, *([record.parameters.weight_norm] if record.parameters else [])]
    return bool(
        np.isnan(record.loss).all() and any(x.size and np.isfinite(x).all() for x in measured)
    )


def parameters_not_finite(evidence: Evidence) -> list[IndicatorValue]:
    """The number of steps whose loss is not finite, if parameters were so first."""
    return _steps(evidence, "parameters")


def gradients_not_finite(evidence: Evidence) -> list[IndicatorValue]:
    """The number of steps whose loss is not finite, if gradients were so first.

    A loss may stay finite: what compares with NaN, as a ReLU, can hide it.
    """
    parameters = evidence.record.parameters
    if parameters is not None and np.isfinite(evidence.record.loss).all():
        bad = ~np.isfinite(parameters.grad_norm)
        step, where = _first_bad(parameters, parameters.grad_norm)
        return [IndicatorValue(where, int(step), float(bad.any(1).sum()))] if bad.any() else []
    return _steps(evidence, "gradients")


def loss_not_finite(evidence: Evidence) -> list[IndicatorValue]:
    """The number of steps whose loss is not finite, if the outputs were finite before it."""
    known = evidence.network or "output not finite" in evidence.record.facts
    # Of a loss that had not risen, the outputs need not be known.
    finite = np.isfinite(evidence.record.loss)
    steady = int(finite.argmin()) >= FEW_ROWS and evidence.record.parameters is not None
    return _steps(evidence, "loss") if known or steady else []


def non_finite(evidence: Evidence) -> list[IndicatorValue]:
    """The number of steps whose loss is not finite; all steps of a merged row count."""
    told = loss_not_finite(evidence) or gradients_not_finite(evidence)
    told = told or parameters_not_finite(evidence)
    bad = ~np.isfinite(evidence.record.loss)
    if told or not bad.any() or _records_no_loss(evidence):
        return []
    origin = _origin(evidence)
    step, where = int(evidence.record.first[bad.argmax()]), ""
    if origin is not None and origin.what == "outputs":
        step, where = origin.step, origin.where
    return [IndicatorValue(where, step, float(evidence.record.counts[bad].sum()))]
