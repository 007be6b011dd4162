"""Indicators of gradients, updates and weights over the whole training.

Each returns its values with the worst first, and none where it does not apply.
"""

import re

import numpy as np

from convjax.diagnosis.evidence import Evidence
from convjax.diagnosis.indicator import IndicatorValue
from convjax.diagnosis.indicators import dead
from convjax.diagnosis.thresholds import (
    ACCUMULATED,
    DEAD_SHARE,
    FEW_ROWS,
    FIRST_ROWS,
    MOST_ROWS,
    OTHER_MODE,
    PATIENCE,
    SAME_EVALUATION,
    SLOW_PROGRESS,
    STUCK_PROGRESS,
)


def _learns(evidence: Evidence) -> bool:
    return evidence.progress >= SLOW_PROGRESS


def gradients_zero(evidence: Evidence) -> list[IndicatorValue]:
    """The share of the watched rows in which every gradient is exactly zero."""
    norms = evidence.parameters.grad_norm
    finite = np.isfinite(norms).all(1)
    if finite.sum() < FEW_ROWS:
        return []
    if len(evidence.record.active) and any(v.figure > DEAD_SHARE for v in dead(evidence)):
        return []  # nothing passes a layer that is dead
    zero = (norms[finite] == 0).all(1)
    if not zero[0] or _output_is_zero(evidence):
        return []  # it depended on them at first, or nothing passes the output
    return [IndicatorValue("", int(evidence.parameters.watched[0]), float(zero.mean()))]


def _output_is_zero(evidence: Evidence) -> bool:
    low, high = evidence.fact("output low"), evidence.fact("output high")
    return bool(len(low) and ((low == 0) & (high == 0)).mean() > MOST_ROWS)


def dead_kernels(evidence: Evidence) -> list[IndicatorValue]:
    """The share of the rows in which only biases have gradients: no signal comes to any kernel."""
    parameters = evidence.parameters
    kernels = parameters.grad_norm[:, evidence.kernels]
    if len(kernels) < FEW_ROWS or kernels.shape[1] < 2 or _output_is_zero(evidence):
        return []
    dead = (kernels == 0).all(1) & (parameters.grad_norm > 0).any(1)
    step = int(parameters.watched[int(np.argmax(dead))])
    return [IndicatorValue("", step, float(dead.mean()))]


def weights_unchanged(evidence: Evidence) -> list[IndicatorValue]:
    """The share of the watched rows after which all weights are the same, despite gradients."""
    parameters = evidence.parameters
    weights, gradients = parameters.weight_norm, parameters.grad_norm
    if len(weights) <= FIRST_ROWS or not np.isfinite(weights).all() or not (gradients > 0).any():
        return []
    learning = evidence.learning
    if learning[-1] < 0.9 * learning[0]:
        return []  # what learns has weights that change
    same = (weights[1:] == weights[:-1]).all(1)
    if not same[:FEW_ROWS].any():
        return []  # the rate has fallen until the updates are lost in the digits of the weights
    return [IndicatorValue("", int(parameters.watched[0]), float(same.mean()))]


def frozen(evidence: Evidence) -> list[IndicatorValue]:
    """The share of the rows in which a kernel does not learn, in a training that learns badly.

    Its update is zero or, where weights decay, its gradient. A part that is frozen on purpose,
    under a head that learns, is no fault.
    """
    parameters = evidence.parameters
    updates = parameters.update_norm[:, evidence.kernels]
    if len(updates) < FEW_ROWS or not evidence.is_slow:
        return []
    fixed = updates == 0
    if len(parameters.grad_norm):
        fixed |= parameters.grad_norm[:, evidence.kernels] == 0
    # An update that is zero only later is that of a rate that falls.
    zero = np.where(fixed[:FEW_ROWS].all(0), fixed.mean(0), 0)
    if (parameters.update_norm == 0).all():
        return []  # nothing is trained
    first = int(parameters.watched[0])
    values = [
        IndicatorValue(name, first, float(share))
        for name, share in zip(evidence.kernel_names, zero, strict=True)
    ]
    return sorted(values, key=lambda value: -value.figure)


def unknown_layers(evidence: Evidence) -> list[IndicatorValue]:
    """The share of the layers that the optimiser has no parameters of, likewise."""
    names = [evidence.record.layers[i] for i in evidence.network if evidence.kind(i).module]
    if not names or any("[" in name for name in names) or not evidence.is_slow:
        return []  # parameters of a stack of layers are one
    # The layers of some libraries have other names than their parameters: they are counted.
    layers = list(dict.fromkeys(re.sub(r"[:#].*", "", name) for name in names))
    owners = {name.rpartition(".")[0] for name in evidence.parameters.names}
    missing = [name for name in layers if name not in owners]
    figure = 1 - len(owners) / len(layers)
    return [IndicatorValue(missing[0], 0, figure)] if figure > 0 and missing else []


def accumulating(evidence: Evidence) -> list[IndicatorValue]:
    """The share of the steps at which the gradient grows, if it grows as a sum of gradients does.

    A gradient that is never cleared is the sum of those of all steps: it grows by about the same at
    each. One that explodes grows by a factor.
    """
    norm = evidence.gradient[:ACCUMULATED]
    norm = norm[np.isfinite(norm)]
    if len(norm) < ACCUMULATED // 2 or evidence.every > 1 or not norm[0]:
        return []
    half = norm[len(norm) // 2]
    # The sum of n gradients is n times one where all point the same way, and less elsewhere.
    if not 3 * norm[0] < norm[-1] < 4 * half:
        return []
    return [
        IndicatorValue("", int(evidence.parameters.watched[0]), float((np.diff(norm) > 0).mean()))
    ]


def weights_fall(evidence: Evidence) -> list[IndicatorValue]:
    """The median over the kernels of the last norm over the first, in a training that is bad."""
    parameters = evidence.parameters
    norms = parameters.weight_norm[:, evidence.kernels]
    norms = norms[:, norms[0] > 0] if len(norms) else norms
    if len(norms) < FEW_ROWS or not norms.size or _learns(evidence):
        return []
    if not np.isfinite(norms).all():
        return []
    left = np.median(norms / norms[0], axis=1)
    fallen = left < 0.7
    # Later, gradients hold the weights where they are, or what is left of them moves at random.
    row = int(np.argmax(fallen)) if fallen.any() else len(left) - 1
    if (np.diff(left[: row + 1]) <= 0).mean() < 0.7:
        return []
    return [IndicatorValue("", int(parameters.watched[row]), float(left[-1]))]


def _learns_without(evidence: Evidence) -> bool:
    """Whether the loss has come far in evaluation mode, which has no dropout."""
    last = evidence.record.eval_loss[evidence.evaluated[-3:]]
    least = evidence.guess - evidence.floor
    return bool(len(last) and (evidence.guess - np.median(last)) / least >= SLOW_PROGRESS)


def dropout_gap(evidence: Evidence) -> list[IndicatorValue]:
    """The loss in training minus that in evaluation, over that of guessing, in a slow training."""
    gap = _evaluation_gap(evidence)
    if not len(gap) or not evidence.guess or _learns(evidence) or _learns_without(evidence):
        return []
    # Before anything is learned, dropout makes the outputs larger; later, the loss.
    parts = gap[: -(-len(gap) // 10)], gap[len(gap) // 2 :]
    figure = max(float(np.median(-part)) for part in parts) / evidence.guess
    return [IndicatorValue("", 0, figure)]


def stale_evaluation(evidence: Evidence) -> list[IndicatorValue]:
    """The change of the loss in evaluation over that in training.

    Running statistics that lag behind make the loss in evaluation change, too, up or down.
    """
    rows = evidence.evaluated
    if len(rows) < 3:
        return []
    evaluated = evidence.record.eval_loss[rows].astype(float)
    trained = evidence.loss[evidence.row_of(evidence.record.watched[rows])]
    fall = trained[0] - trained[-3:].mean()
    if not np.isfinite(evaluated).all() or fall < 0.3 * abs(trained[0]):
        return []
    if np.median(evaluated[-3:]) < trained[-3:].mean() + fall / 2:
        return []  # evaluation is no worse: both losses have their reasons
    if evidence.has_norms:  # whose running statistics may lag behind: only what stays counts
        away = np.abs(evaluated - np.median(evaluated))
        change = np.quantile(away, 0.9) / fall
    else:
        halves = evaluated[: len(evaluated) // 2], evaluated[len(evaluated) // 2 :]
        change = max(np.median(halves[0]) - np.median(halves[1]), 0) / fall
    return [IndicatorValue("", evidence.step(int(rows[0])), float(change))]


def evaluation_mode(evidence: Evidence) -> list[IndicatorValue]:
    """The share of later evaluations whose loss is that of training, with batch norm.

    In training mode the two differ: one has the statistics of the batch, the other those of many.
    """
    rows = evidence.evaluated
    norms = [i for i in evidence.network if "BatchNorm" in evidence.kind(i).module]
    if not norms or len(rows) < FEW_ROWS:
        return []
    if not np.isfinite(evidence.record.std[:, norms]).all():
        return []
    trained = evidence.record.loss[evidence.row_of(evidence.record.watched[rows])]
    apart = np.abs(_evaluation_gap(evidence)) / np.maximum(np.abs(trained), 1e-12)
    same = apart <= SAME_EVALUATION
    if not same.any():
        return []
    first = int(np.argmax(same))
    if first:
        # Where the network stops to change, the running statistics become those of the batch by
        # and by: the mode was changed only where the losses were apart just before.
        changed = apart[first - 1] > OTHER_MODE
    else:
        # Fine-tuning may keep statistics from before, and learns with them.
        changed = _normalised_at_first(evidence, norms) or not _learns(evidence)
    if not changed:
        return []
    return [IndicatorValue("", evidence.since(same, rows), float(same[len(same) // 2 :].mean()))]


def _normalised_at_first(evidence: Evidence, norms: list[int]) -> bool:
    """Returns whether norms had the statistics of the batch at the first step."""
    std = evidence.record.std[0, norms]
    return bool(evidence.record.watched[0] == 0 and np.median(np.abs(std - 1)) < OTHER_MODE)


def dropout_noise(evidence: Evidence) -> list[IndicatorValue]:
    """The variance that the masks of dropout add to a signal of 1, in a training that is stuck."""
    found = evidence.usual("dropout noise")
    stuck = evidence.progress < STUCK_PROGRESS and evidence.record.steps >= PATIENCE
    stuck = stuck and not _learns_without(evidence)
    return [IndicatorValue("", 0, found)] if stuck and not np.isnan(found) else []


def raw_gradients(evidence: Evidence) -> list[IndicatorValue]:
    """The share of the rows in which a kernel's update is its gradient, and others' are not."""
    parameters = evidence.parameters
    updates = parameters.update_norm[:, evidence.kernels]
    gradients = parameters.grad_norm[:, evidence.kernels]
    same = (np.abs(updates - gradients) <= 1e-5 * gradients) & (gradients > 0)
    shares = same.mean(0) if len(same) else np.zeros(0)
    if not len(shares) or shares.min() > 0.5:
        return []
    first = int(parameters.watched[0])
    values = [
        IndicatorValue(name, first, float(share))
        for name, share in zip(evidence.kernel_names, shares, strict=True)
    ]
    return sorted(values, key=lambda value: -value.figure)


def _evaluation_gap(evidence: Evidence) -> np.ndarray:
    rows = evidence.evaluated
    trained = evidence.record.loss[evidence.row_of(evidence.record.watched[rows])]
    return np.asarray(evidence.record.eval_loss[rows] - trained)


def statistics_gap(evidence: Evidence) -> list[IndicatorValue]:
    """The loss in evaluation minus that in training, on the same batches, in the last quarter."""
    gap, rows = _evaluation_gap(evidence), evidence.evaluated
    if not evidence.has_norms or not len(gap):
        return []
    figure = float(np.median(gap[-max(len(rows) // 4, 1) :]))
    return [IndicatorValue("", evidence.since(gap > figure / 2, rows), figure)]


def unnormalised(evidence: Evidence) -> list[IndicatorValue]:
    """The factor by which the output of batch norm is not of standard deviation 1, at the start.

    Half of the layers must be so. A layer whose scale begins at zero does not count.
    """
    record = evidence.record
    columns = [i for i in evidence.network if "BatchNorm" in evidence.kind(i).module]
    if not columns or not len(record.std) or record.watched[0] != 0:
        return []
    std = record.std[0, columns].astype(float)
    known = std > 1e-3
    if known.sum() < max(len(columns) / 2, 1):
        return []
    factor = np.exp(np.abs(np.log(std[known])))
    column = np.array(columns)[known][int(np.argmax(factor))]
    return [IndicatorValue(record.layers[int(column)], 0, float(np.median(factor)))]
