"""Indicators: functions of the evidence whose values show whether a symptom is present.

Each returns its values with the worst first, and none where it does not apply.
"""

from typing import NamedTuple

import numpy as np
from jaxtyping import Float

from convjax.diagnosis.collapse import collapse_steps
from convjax.diagnosis.evidence import Evidence
from convjax.diagnosis.thresholds import (
    ACTIVE_LEVEL,
    DEAD_ROWS,
    DEAD_SHARE,
    DEAD_STEPS,
    FLAT_LEVEL,
    HIGH_RATIO,
    LEARNED_LOSS,
    PATIENCE,
    RISEN_LOSS,
    SLOW_PROGRESS,
    SPIKE_GRADIENT,
    SPIKE_LOSS,
    SPIKE_WINDOW,
)
from convjax.stats.watch import INPUT, LABELS


class IndicatorValue(NamedTuple):
    """A value of an indicator, for one layer or parameter, or for the whole training ("")."""

    where: str
    step: int  # the first at which it shows
    figure: float


def _worst(values: list[IndicatorValue], *, lowest: bool = False) -> list[IndicatorValue]:
    """Returns the values that are not NaN, the worst first."""
    known = [value for value in values if not np.isnan(value.figure)]
    return sorted(known, key=lambda value: value.figure if lowest else -value.figure)


def non_finite(evidence: Evidence) -> list[IndicatorValue]:
    """The number of steps whose loss is not finite; all steps of a merged row count."""
    record = evidence.record
    bad = ~np.isfinite(record.loss)
    if not bad.any():
        return []
    # A loop whose step returns no loss records NaN at every step, and everything else is finite.
    measured = [record.mean, *([record.parameters.weight_norm] if record.parameters else [])]
    if np.isnan(record.loss).all() and any(x.size and np.isfinite(x).all() for x in measured):
        return []
    steps = evidence.record.counts[bad].sum()
    return [IndicatorValue("", int(evidence.record.first[bad.argmax()]), float(steps))]


def input_scale(evidence: Evidence) -> list[IndicatorValue]:
    """The root mean square of the network's input."""
    record = evidence.record
    column = record.layers.index(INPUT)
    size = np.hypot(record.mean[:, column], record.std[:, column])
    return [IndicatorValue(INPUT, 0, float(np.median(size)))]


def label_spread(evidence: Evidence) -> list[IndicatorValue]:
    """The largest standard deviation of a batch's labels, or range of the batches' means."""
    record = evidence.record
    if len(record.watched) < 2:
        return []
    column = record.layers.index(LABELS)
    # Batches of one class each differ in their means.
    spread = max(record.std[:, column].max(), np.ptp(record.mean[:, column]))
    return [IndicatorValue(LABELS, 0, float(spread))]


def statistics_gap(evidence: Evidence) -> list[IndicatorValue]:
    """The loss in evaluation minus that in training, on the same batches, in the last quarter."""
    record = evidence.record
    if not evidence.has_norms:
        return []
    rows = evidence.evaluated
    if not len(rows):
        return []
    gap = record.eval_loss[rows] - record.loss[evidence.row_of(record.watched[rows])]
    figure = float(np.median(gap[-max(len(rows) // 4, 1) :]))
    return [IndicatorValue("", evidence.since(gap > figure / 2, rows), figure)]


def saturation(evidence: Evidence) -> list[IndicatorValue]:
    """The share of the positive inputs of a non-linearity where it is flat, at the first step."""
    record, level = evidence.record, FLAT_LEVEL.get(evidence.nonlinearity)
    if level is None:
        return []
    values = []
    for column in evidence.hidden:
        positive = record.active_share(column, above=0.0)[0]
        if positive:
            share = float(record.active_share(column, above=level)[0] / positive)
            values.append(IndicatorValue(record.layers[column], evidence.step(0), share))
    return _worst(values)


def dead(evidence: Evidence) -> list[IndicatorValue]:
    """The share of a layer's channels that were not active in the last steps of the training."""
    if evidence.nonlinearity != "relu":
        return []
    record, values = evidence.record, []
    steps = max(DEAD_STEPS, DEAD_ROWS * evidence.every)
    for column in evidence.hidden:
        active = record.active_channels(column)
        # For each channel, the number of rows up to the last in which it was active. From `row` on,
        # a share of DEAD_SHARE of the channels is never active again.
        alive = np.where(active.any(0), len(active) - active[::-1].argmax(0), 0)
        row = np.sort(alive)[min(int(DEAD_SHARE * len(alive)), len(alive) - 1)]
        first = evidence.step(min(int(row), len(active) - 1))
        share = float(record.dead(column, steps=steps)[-1])
        values.append(IndicatorValue(record.layers[column], first, share))
    return _worst(values)


def _relative_std(evidence: Evidence) -> list[IndicatorValue]:
    """The std of each layer over the root mean square of the input, at the first watched step."""
    record = evidence.record
    given = record.layers.index(INPUT) if INPUT in record.layers else None
    size = 1.0
    if given is not None:
        size = float(np.hypot(record.mean[0, given], record.std[0, given])) or 1.0
    return [
        IndicatorValue(record.layers[i], evidence.step(0), float(record.std[0, i]) / size)
        for i in evidence.network
    ]


def exploding_activations(evidence: Evidence) -> list[IndicatorValue]:
    """The standard deviations of the layers over the root mean square of the input."""
    return _worst(_relative_std(evidence))


def vanishing_gradients(evidence: Evidence) -> list[IndicatorValue]:
    """The gradient of each kernel at the first step over the largest of them.

    Zeros are left out: they come from dead layers, and by underflow only below 1e-38.
    """
    rms, names = evidence.parameters.grad_rms[0, evidence.kernels], evidence.kernel_names
    if not np.isfinite(rms).all() or not np.any(rms):
        return []
    shares = zip(names, rms / rms.max(), strict=True)
    first = int(evidence.parameters.watched[0])
    return _worst([IndicatorValue(n, first, float(v)) for n, v in shares if v], lowest=True)


def _relative_updates(evidence: Evidence, ratio: Float[np.ndarray, " K"]) -> list[IndicatorValue]:
    """Returns the update-to-weight ratio of each kernel over the median of the other kernels.

    Kernels whose gradient is zero are left out. Of two kernels either may be wrong: no value.
    """
    gradients = evidence.parameters.grad_norm[0, evidence.kernels]
    learning = np.flatnonzero((gradients > 0) & np.isfinite(ratio))
    if len(learning) < 3:
        return []
    first = int(evidence.parameters.watched[0])
    values = []
    for kernel in learning:
        others = float(np.median(ratio[learning[learning != kernel]]))
        if others:
            name = evidence.kernel_names[kernel]
            values.append(IndicatorValue(name, first, float(ratio[kernel]) / others))
    return values


def large_updates(evidence: Evidence) -> list[IndicatorValue]:
    """The update-to-weight ratio at the first step over the median of the other kernels."""
    # Only at the first step: later the weights have grown to the size of the updates.
    return _worst(_relative_updates(evidence, evidence.ratios[0]))


def small_updates(evidence: Evidence) -> list[IndicatorValue]:
    """The median over the steps of the update-to-weight ratio, over that of the other kernels."""
    median = np.median(evidence.ratios, axis=0)
    return _worst(_relative_updates(evidence, median), lowest=True)


def zero_weights(evidence: Evidence) -> list[IndicatorValue]:
    """The norm before the first step of each kernel whose gradient is also zero.

    A kernel of zeros before the output, or at the end of a residual branch, learns from the first
    step on and is not a fault.
    """
    parameters = evidence.parameters
    values = [
        IndicatorValue(name, int(parameters.watched[0]), float(norm))
        for name, norm, gradient in zip(
            evidence.kernel_names,
            parameters.weight_norm[0, evidence.kernels],
            parameters.grad_norm[0, evidence.kernels],
            strict=True,
        )
        if gradient == 0
    ]
    return _worst(values, lowest=True)


def _spike(evidence: Evidence) -> tuple[int, float] | None:
    """Returns the row of the first spike of loss and gradient, and how large the gradient is."""
    norm = evidence.gradient
    loss = evidence.record.loss[evidence.rows]
    reference = evidence.guess or float(np.median(loss[:10]))
    for row in np.flatnonzero(loss > SPIKE_LOSS * reference):
        around = norm[max(row - SPIKE_WINDOW, 0) : row]
        if not row:  # nothing is before it: compare with what comes after
            around = norm[1 : 1 + SPIKE_WINDOW]
        usual = float(np.median(around)) if len(around) else np.nan
        if norm[row] > SPIKE_GRADIENT * usual:
            return int(row), float(norm[row] / usual)
    return None


def _high_row(evidence: Evidence) -> int | None:
    """Returns the first row in which half of the kernels have a high update-to-weight ratio."""
    if not evidence.kernel_names:
        return None
    high = np.flatnonzero(np.median(evidence.ratios, axis=1) > HIGH_RATIO)
    return int(high[0]) if len(high) else None


def gradient_spikes(evidence: Evidence) -> list[IndicatorValue]:
    """The gradient in a spike, relative to those before it, if no high update came before."""
    spike, high = _spike(evidence), _high_row(evidence)
    if spike is None or (high is not None and high < spike[0]):
        return []
    row, size = spike
    return [IndicatorValue("", int(evidence.parameters.watched[row]), size)]


def _progress(evidence: Evidence) -> float:
    """The share of the loss of guessing by which the loss has fallen, NaN if it is too early."""
    if evidence.record.steps < PATIENCE:
        return np.nan
    return 1 - float(evidence.loss[-1]) / evidence.guess


def high_rate(evidence: Evidence) -> list[IndicatorValue]:
    """The largest median of the update-to-weight ratios, if the loss is bad after it."""
    row, spike = _high_row(evidence), _spike(evidence)
    if row is None or (spike is not None and spike[0] <= row):
        return []
    before, after = np.split(evidence.loss, [evidence.rows[row] + 1])
    worst = RISEN_LOSS * evidence.guess
    if before[-1] > worst:  # due to an output that was not scaled, not to the learning rate
        worst = RISEN_LOSS * float(before[-1])
    if (
        np.isfinite(after).all()
        and not (after > worst).any()
        and not _progress(evidence) < SLOW_PROGRESS
    ):
        return []
    ratio = np.median(evidence.ratios, axis=1)
    largest = np.max(ratio[np.isfinite(ratio)], initial=HIGH_RATIO)
    figure = np.inf if np.isinf(ratio[row]) else float(largest)
    return [IndicatorValue("", int(evidence.parameters.watched[row]), figure)]


def low_rate(evidence: Evidence) -> list[IndicatorValue]:
    """The median update-to-weight ratio, if the loss falls slowly."""
    if not _progress(evidence) < SLOW_PROGRESS or not evidence.ratios.size:
        return []
    return [IndicatorValue("", 0, float(np.median(evidence.ratios)))]


def no_progress(evidence: Evidence) -> list[IndicatorValue]:
    """The share of the loss of guessing by which the loss has fallen."""
    return [IndicatorValue("", 0, _progress(evidence))]


def collapses(evidence: Evidence) -> list[IndicatorValue]:
    """The share of the loss of guessing that was gained and lost, if a layer's units crashed."""
    record = evidence.record
    crashed = {
        record.layers[column]: collapse_steps(record.active_share(column, above=ACTIVE_LEVEL))
        for column in evidence.hidden
    }
    where = max(crashed, key=lambda name: len(crashed[name]), default="")
    if not where or not crashed[where]:
        return []
    loss = evidence.loss / evidence.guess
    lowest = np.fmin.accumulate(loss)
    lost = np.where(lowest < LEARNED_LOSS, loss - lowest, 0)
    return [IndicatorValue(where, evidence.step(crashed[where][0]), float(np.fmax.reduce(lost)))]
