"""The figures by which symptoms are found: functions of the evidence that return its signs."""

from typing import NamedTuple

import numpy as np

from convjax.diagnosis.collapse import active_share, collapse_steps
from convjax.diagnosis.evidence import Evidence
from convjax.stats.record import Array
from convjax.stats.watch import INPUT, LABELS

# Before so many steps a loss at that of guessing, or running statistics that lag behind, say
# nothing. A unit is dead that slept for so many steps and watched rows, a layer if more than this
# share of its units are.
PATIENCE = 100
ENOUGH = f"{PATIENCE} steps"
DEAD_STEPS, DEAD_ROWS, DEAD_SHARE = 50, 10, 0.9

# A loss that has come down by less than this share of that of guessing has not begun to fall; one
# that has come down by less than the other does not train well.
STUCK, SLOW = 0.1, 0.6

# The loss of a batch that counts as a spike, in units of that of guessing, if the gradient is so
# many times that of the steps before.
SPIKE_LOSS, SPIKE_GRADIENT, SPIKE_WINDOW = 3.0, 20.0, 20

# An update of half the weights, by which a spike is the learning rate's and not the data's.
HIGH_RATIO = 0.5

# A loss this far above that of guessing is worse than no training.
RISEN = 1.25

# A training has begun to learn where its loss is below this share of that of guessing.
LEARNED = 0.7


class IndicatorValue(NamedTuple):
    """A figure of a record, for one layer or parameter or ("") for the training."""

    where: str
    step: int  # the first at which it shows
    figure: float


def _worst(signs: list[IndicatorValue], *, lowest: bool = False) -> list[IndicatorValue]:
    """Returns the signs that are numbers, the worst first."""
    known = [sign for sign in signs if not np.isnan(sign.figure)]
    return sorted(known, key=lambda sign: sign.figure if lowest else -sign.figure)


def non_finite(evidence: Evidence) -> list[IndicatorValue]:
    """How many steps have a loss that is no number; all of a merged row count."""
    bad = ~np.isfinite(evidence.record.loss)
    if not bad.any():
        return []
    steps = evidence.record.counts[bad].sum()
    return [IndicatorValue("", int(evidence.record.first[bad.argmax()]), float(steps))]


def input_scale(evidence: Evidence) -> list[IndicatorValue]:
    """The root mean square of what the network is given."""
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
    """The loss in evaluation less that in training, on the same batches, in the last quarter."""
    record = evidence.record
    if not evidence.has_norms:
        return []
    gap = record.eval_loss - record.loss[evidence.row_of(record.watched)]
    figure = float(np.median(gap[evidence.tail]))
    return [IndicatorValue("", evidence.since(gap > figure / 2), figure)]


def saturation(evidence: Evidence) -> list[IndicatorValue]:
    """The share of the positive inputs of a non-linearity, at the first step, where it is flat."""
    if evidence.nonlinearity == "relu":
        return []
    # tanh(2.5) is 0.99; a sigmoid is as flat at twice the value.
    above = 2.5 if evidence.nonlinearity == "tanh" else 5.0
    signs = []
    for column in evidence.hidden:
        positive = active_share(evidence.record, column, above=0)[0]
        if positive:
            share = active_share(evidence.record, column, above=above)[0] / positive
            signs.append(
                IndicatorValue(evidence.record.layers[column], evidence.step(0), float(share))
            )
    return _worst(signs)


def dead(evidence: Evidence) -> list[IndicatorValue]:
    """The share of a layer's channels that were not active of late, and since when so many sleep
    that the layer is dead."""
    if evidence.nonlinearity != "relu":
        return []
    record, signs = evidence.record, []
    steps = max(DEAD_STEPS, DEAD_ROWS * evidence.every)
    for column in evidence.hidden:
        active = record.active_channels(column)
        # How many rows each channel was awake in, up to the last in which it was active.
        awake = np.where(active.any(0), len(active) - active[::-1].argmax(0), 0)
        asleep = np.sort(awake)[min(int(DEAD_SHARE * len(awake)), len(awake) - 1)]
        first = evidence.step(min(int(asleep), len(active) - 1))
        signs.append(
            IndicatorValue(
                record.layers[column], first, float(record.dead(column, steps=steps)[-1])
            )
        )
    return _worst(signs)


def _relative_std(evidence: Evidence) -> list[IndicatorValue]:
    """The std of each layer over the size of the input, in the first watched step."""
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
    """The largest of the standard deviations over the size of the input."""
    return _worst(_relative_std(evidence))


def vanishing_gradients(evidence: Evidence) -> list[IndicatorValue]:
    """The gradient of each kernel at the first step over that of the largest.

    Zeros do not count: they are those of dead layers, and of float32 only below 1e-38.
    """
    rms, names = evidence.parameters.grad_rms[0, evidence.kernels], evidence.kernel_names
    if not np.isfinite(rms).all() or not np.any(rms):
        return []
    shares = zip(names, rms / rms.max(), strict=True)
    first = int(evidence.parameters.watched[0])
    return _worst([IndicatorValue(n, first, float(v)) for n, v in shares if v], lowest=True)


def _relative_updates(evidence: Evidence, ratio: Array) -> list[IndicatorValue]:
    """Update-to-weight ratios over the median of the others', of the kernels whose gradient is not
    zero; of two kernels, where it is open which is wrong, none."""
    gradients = evidence.parameters.grad_norm[0, evidence.kernels]
    learning = np.flatnonzero((gradients > 0) & np.isfinite(ratio))
    if len(learning) < 3:
        return []
    first = int(evidence.parameters.watched[0])
    signs = []
    for kernel in learning:
        others = float(np.median(ratio[learning[learning != kernel]]))
        if others:
            name = evidence.kernel_names[kernel]
            signs.append(IndicatorValue(name, first, float(ratio[kernel]) / others))
    return signs


def large_updates(evidence: Evidence) -> list[IndicatorValue]:
    """The update-to-weight ratio at the first step over the median of the other kernels."""
    # At the first step: later the weights have grown to the size of the updates.
    return _worst(_relative_updates(evidence, evidence.ratios[0]))


def small_updates(evidence: Evidence) -> list[IndicatorValue]:
    """The median over the steps of the update-to-weight ratio, over that of the other kernels."""
    median = np.median(evidence.ratios, axis=0)
    return _worst(_relative_updates(evidence, median), lowest=True)


def zero_weights(evidence: Evidence) -> list[IndicatorValue]:
    """The norm of each kernel before the first step whose gradient is zero, too.

    A kernel of zeros before the output, or at the end of a residual branch, learns from the first
    step on and is no fault.
    """
    parameters = evidence.parameters
    signs = [
        IndicatorValue(name, int(parameters.watched[0]), float(norm))
        for name, norm, gradient in zip(
            evidence.kernel_names,
            parameters.weight_norm[0, evidence.kernels],
            parameters.grad_norm[0, evidence.kernels],
            strict=True,
        )
        if gradient == 0
    ]
    return _worst(signs, lowest=True)


def _spike(evidence: Evidence) -> tuple[int, float] | None:
    """Returns the row of the first spike of loss and gradient, and the gradient's size in it."""
    norm = evidence.gradient
    loss = evidence.record.loss[evidence.rows]
    reference = evidence.guess or float(np.median(loss[:10]))
    for row in np.flatnonzero(loss > SPIKE_LOSS * reference):
        around = norm[max(row - SPIKE_WINDOW, 0) : row]
        if not row:  # nothing before: what comes after
            around = norm[1 : 1 + SPIKE_WINDOW]
        usual = float(np.median(around)) if len(around) else np.nan
        if norm[row] > SPIKE_GRADIENT * usual:
            return int(row), float(norm[row] / usual)
    return None


def _high_row(evidence: Evidence) -> int | None:
    """Returns the first row in which half of the kernels are updated by a large part of them."""
    if not evidence.kernel_names:
        return None
    high = np.flatnonzero(np.median(evidence.ratios, axis=1) > HIGH_RATIO)
    return int(high[0]) if len(high) else None


def gradient_spikes(evidence: Evidence) -> list[IndicatorValue]:
    """The gradient in a spike that no large update came before."""
    spike, high = _spike(evidence), _high_row(evidence)
    if spike is None or (high is not None and high < spike[0]):
        return []
    row, size = spike
    return [IndicatorValue("", int(evidence.parameters.watched[row]), size)]


def _progress(evidence: Evidence) -> float:
    """The share of the loss of guessing by which the loss has come down, NaN if it is too early."""
    if evidence.record.steps < PATIENCE:
        return np.nan
    return 1 - float(evidence.loss[-1]) / evidence.guess


def high_rate(evidence: Evidence) -> list[IndicatorValue]:
    """The largest update of half the kernels, where the loss is bad after it."""
    row, spike = _high_row(evidence), _spike(evidence)
    if row is None or (spike is not None and spike[0] <= row):
        return []
    before, after = np.split(evidence.loss, [evidence.rows[row] + 1])
    worst = RISEN * evidence.guess
    if before[-1] > worst:  # of an output that was not scaled, not of the rate
        worst = RISEN * float(before[-1])
    if np.isfinite(after).all() and not (after > worst).any() and not _progress(evidence) < SLOW:
        return []
    ratio = np.median(evidence.ratios, axis=1)
    largest = np.max(ratio[np.isfinite(ratio)], initial=HIGH_RATIO)
    figure = np.inf if np.isinf(ratio[row]) else float(largest)
    return [IndicatorValue("", int(evidence.parameters.watched[row]), figure)]


def low_rate(evidence: Evidence) -> list[IndicatorValue]:
    """The median update-to-weight ratio of a training whose loss falls slowly."""
    if not _progress(evidence) < SLOW or not evidence.ratios.size:
        return []
    return [IndicatorValue("", 0, float(np.median(evidence.ratios)))]


def no_progress(evidence: Evidence) -> list[IndicatorValue]:
    """The share of the loss of guessing by which the loss has come down."""
    return [IndicatorValue("", 0, _progress(evidence))]


def collapses(evidence: Evidence) -> list[IndicatorValue]:
    """How much of the loss of guessing was won and lost again, where a layer's units crashed."""
    crashed = {
        evidence.record.layers[column]: collapse_steps(active_share(evidence.record, column))
        for column in evidence.hidden
    }
    where = max(crashed, key=lambda name: len(crashed[name]), default="")
    if not where or not crashed[where]:
        return []
    loss = evidence.loss / evidence.guess
    lowest = np.fmin.accumulate(loss)
    lost = np.where(lowest < LEARNED, loss - lowest, 0)
    return [IndicatorValue(where, evidence.step(crashed[where][0]), float(np.fmax.reduce(lost)))]
