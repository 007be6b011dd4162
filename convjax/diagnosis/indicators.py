"""Indicators: functions of the evidence whose values show whether a symptom is present.

Each returns its values with the worst first, and none where it does not apply.
"""

import numpy as np
from jaxtyping import Bool, Float

from convjax.diagnosis.collapse import collapse_steps
from convjax.diagnosis.evidence import OF_LOSSES, Evidence
from convjax.diagnosis.indicator import IndicatorValue
from convjax.diagnosis.thresholds import (
    ACTIVE_LEVEL,
    DEAD_ROWS,
    DEAD_SHARE,
    DEAD_STEPS,
    DESTROYED_LOSS,
    FAR_FROM_GUESSING,
    FEW_ROWS,
    FIRST_ROWS,
    FLAT_LEVEL,
    HIGH_RATIO,
    LARGE_PER_GRADIENT,
    LASTING_ROWS,
    LATE_START,
    LEARNED_LOSS,
    PATIENCE,
    RECOVERED,
    RISEN_LOSS,
    SLOW_PROGRESS,
    SMALL_PER_GRADIENT,
    SMALL_SCALE,
    SMALL_SIGNAL,
    SMALL_WEIGHTS,
    SOLVED,
    SPIKE_GRADIENT,
    SPIKE_LOSS,
    SPIKE_WINDOW,
    STILL_FALLS,
    STUCK_PROGRESS,
    TINY_GRADIENT,
    TINY_RATIO,
)
from convjax.stats.watch import INPUT


def _worst(values: list[IndicatorValue], *, lowest: bool = False) -> list[IndicatorValue]:
    """Returns the values that are not NaN, the worst first."""
    known = [value for value in values if not np.isnan(value.figure)]
    return sorted(known, key=lambda value: value.figure if lowest else -value.figure)


def input_scale(evidence: Evidence) -> list[IndicatorValue]:
    """The root mean square of the network's input."""
    record = evidence.record
    column = record.layers.index(INPUT)
    size = np.hypot(record.mean[:, column], record.std[:, column])
    return [IndicatorValue(INPUT, 0, float(np.median(size)))]


def dead(evidence: Evidence) -> list[IndicatorValue]:
    """The share of a layer's channels that were not active in the last steps of the training."""
    record, values = evidence.record, []
    steps = max(DEAD_STEPS, DEAD_ROWS * evidence.every)
    for column in evidence.hidden:
        if evidence.nonlinearity_after(column) != "relu":
            continue
        active = record.active_channels(column)
        # For each channel, the number of rows up to the last in which it was active. From `row` on,
        # a share of DEAD_SHARE of the channels is never active again.
        alive = np.where(active.any(0), len(active) - active[::-1].argmax(0), 0)
        row = np.sort(alive)[min(int(DEAD_SHARE * len(alive)), len(alive) - 1)]
        first = evidence.step(min(int(row), len(active) - 1))
        share = float(record.dead(column, steps=steps)[-1])
        values.append(IndicatorValue(record.layers[column], first, share))
    return _worst(values)


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


def saturation(evidence: Evidence) -> list[IndicatorValue]:
    """The share of the positive inputs of a non-linearity where it is flat, at the first step."""
    record, values = evidence.record, []
    for column in evidence.hidden:
        level = FLAT_LEVEL.get(evidence.nonlinearity_after(column))
        if level is None or not record.has_edge(level) or not record.has_edge(0.0):
            continue
        positive = record.active_share(column, above=0.0)[0]
        if positive:
            share = float(record.active_share(column, above=level)[0] / positive)
            values.append(IndicatorValue(record.layers[column], evidence.step(0), share))
    return _worst(values)


def exploding_activations(evidence: Evidence) -> list[IndicatorValue]:
    """The std of each layer over the root mean square of the input, at the first watched step."""
    record, size = evidence.record, evidence.input_size
    return _worst(
        [
            IndicatorValue(record.layers[i], evidence.step(0), float(record.std[0, i]) / size)
            for i in evidence.network
        ]
    )


def _struggles(evidence: Evidence) -> bool:
    """Whether a training is bad: it does not learn, or began to learn late and is not done."""
    learning = evidence.learning
    if not np.isfinite(learning).all():
        return False  # small numbers do not overflow
    if evidence.record.steps < PATIENCE:
        return False  # every training is bad at first
    start = float(learning[0])
    goal = evidence.guess or start
    if evidence.guess and not evidence.progress >= SLOW_PROGRESS:
        return True
    if evidence.progress >= SOLVED:
        return False
    return float(learning[len(learning) // 5]) > LATE_START * min(goal, start)


def vanishing_gradients(evidence: Evidence) -> list[IndicatorValue]:
    """The gradient of each kernel over the largest of them, in a training that is bad.

    It is the median over the first steps. Zeros are left out: they come from dead layers, and by
    underflow only below 1e-38.
    """
    if not _struggles(evidence) or _begins_at_zero(evidence).any() or _scales_layers(evidence):
        return []  # before a layer of zeros, gradients are zero at first
    # Of a network that the first updates have destroyed, gradients say nothing.
    loss = evidence.record.loss[evidence.rows][:FIRST_ROWS]
    risen = np.flatnonzero(loss > DESTROYED_LOSS * max(evidence.guess, float(loss[0])))
    if len(risen) and risen[0] < FEW_ROWS:
        return []
    rms = evidence.parameters.grad_rms[: risen[0] if len(risen) else FIRST_ROWS, evidence.kernels]
    if not rms.size or not np.isfinite(rms).all() or not np.any(rms, axis=1).all():
        return []
    shares = np.median(rms / rms.max(1, keepdims=True), axis=0)
    if not _signal_shrinks(evidence):
        shares = np.where(shares < TINY_GRADIENT, shares, np.nan)
    first = int(evidence.parameters.watched[0])
    pairs = zip(evidence.kernel_names, shares, strict=True)
    return _worst([IndicatorValue(n, first, float(v)) for n, v in pairs if v], lowest=True)


def _signal_shrinks(evidence: Evidence) -> bool:
    """Whether a layer's output is far smaller than the input: small weights make both small.

    It is not known without the input or the layers, and then True.
    """
    record = evidence.record
    if INPUT not in record.layers or not evidence.network or not len(record.std):
        return True
    smallest = record.std[0, list(evidence.network)].min()
    return bool(smallest < SMALL_SIGNAL * evidence.input_size)


def _scales_layers(evidence: Evidence) -> bool:
    """Whether a scale of a layer begins near zero, so that its branch has small gradients."""
    parameters = evidence.parameters
    size = parameters.weight_norm[0, ~evidence.kernels]
    size = size / np.sqrt(parameters.sizes[~evidence.kernels])
    return bool(((size > 0) & (size < SMALL_SCALE)).any())


def vanishing_signal(evidence: Evidence) -> list[IndicatorValue]:
    """The std of each hidden layer over the size of the input, in a training that is bad.

    A layer that is exactly constant was made so on purpose, as at the end of a residual branch.
    """
    record, size = evidence.record, evidence.input_size
    if not _struggles(evidence) or not len(record.std) or record.watched[0] != 0:
        return []
    return _worst(
        [
            IndicatorValue(record.layers[i], 0, float(record.std[0, i]) / size)
            for i in evidence.hidden
            if record.std[0, i] > 0 and evidence.nonlinearity_after(i) not in OF_LOSSES
        ],
        lowest=True,
    )


def _begins_at_zero(evidence: Evidence) -> Bool[np.ndarray, " K"]:
    """Returns whether the weights of each kernel begin far below those of the others, at zero."""
    parameters, kernels = evidence.parameters, evidence.kernels
    size = parameters.weight_norm[0, kernels] / np.sqrt(parameters.sizes[kernels])
    return np.asarray(size <= SMALL_WEIGHTS * np.median(size))


def _over_others(
    evidence: Evidence, ratio: Float[np.ndarray, " K"], kept: Bool[np.ndarray, " K"]
) -> Float[np.ndarray, " K"]:
    """Returns the ratio of each kernel over the median of the other kernels.

    Kernels that are not kept are NaN. Of two kernels either may be wrong: all are NaN.
    """
    found = np.full(len(ratio), np.nan)
    learning = np.flatnonzero(kept & np.isfinite(ratio))
    if len(learning) >= 3:
        for kernel in learning:
            others = float(np.median(ratio[learning[learning != kernel]]))
            found[kernel] = ratio[kernel] / others if others else np.nan
    return found


def _by_kernel(evidence: Evidence, figures: Float[np.ndarray, " K"]) -> list[IndicatorValue]:
    first = int(evidence.parameters.watched[0])
    pairs = zip(evidence.kernel_names, figures, strict=True)
    return [IndicatorValue(name, first, float(figure)) for name, figure in pairs]


def large_updates(evidence: Evidence) -> list[IndicatorValue]:
    """The update-to-weight ratio at the first step over the median of the other kernels.

    A kernel that begins near zero has a large ratio until it has grown, and is left out. The update
    must be large for its gradient, too: SGD gives a kernel of large gradients large updates, at the
    learning rate of the others.
    """
    parameters, kernels = evidence.parameters, evidence.kernels
    kept = (parameters.grad_norm[0, kernels] > 0) & ~_begins_at_zero(evidence)
    # Only at the first step: later the weights have grown to the size of the updates.
    of_weights = _over_others(evidence, evidence.ratios[0], kept)
    of_gradients = _over_others(evidence, _per_gradient(evidence)[0], kept)
    return _worst(
        _by_kernel(evidence, np.where(of_gradients > LARGE_PER_GRADIENT, of_weights, np.nan))
    )


def _per_gradient(evidence: Evidence) -> Float[np.ndarray, "S K"]:
    """Returns the update of each kernel over its gradient, by row."""
    parameters, kernels = evidence.parameters, evidence.kernels
    with np.errstate(all="ignore"):
        ratio = parameters.update_norm[:, kernels] / parameters.grad_norm[:, kernels]
    return np.asarray(ratio)


def small_updates(evidence: Evidence) -> list[IndicatorValue]:
    """The median over the steps of the update-to-weight ratio, over that of the other kernels.

    The update must be small for its gradient, too: a layer of small gradients is another matter.
    """
    parameters, kernels = evidence.parameters, evidence.kernels
    per_gradient = np.median(_per_gradient(evidence), axis=0)
    median = np.median(evidence.ratios, axis=0)
    kept = (parameters.grad_norm[0, kernels] > 0) & (median > 0)
    of_weights = _over_others(evidence, median, kept)
    of_gradients = _over_others(evidence, per_gradient, kept)
    found = np.where(of_gradients < SMALL_PER_GRADIENT, of_weights, np.nan)
    return _worst(_by_kernel(evidence, found), lowest=True)


def _spike(evidence: Evidence) -> tuple[int, float] | None:
    """Returns the row of the first spike of loss and gradient, and how large the gradient is."""
    norm = evidence.gradient
    loss = evidence.record.loss[evidence.rows]
    # Without a guess, a large loss at the start is no spike, nor is a change of one around zero.
    usual = float(np.median(loss[:10]) if evidence.guess else np.max(np.abs(loss[:10])))
    reference = max(evidence.guess, usual)
    for row in np.flatnonzero(loss > SPIKE_LOSS * reference):
        around = norm[max(row - SPIKE_WINDOW, 0) : row]
        if row < FIRST_ROWS and evidence.progress < STUCK_PROGRESS:
            around = norm[row + 1 :]  # too little is before it: compare with what comes after
        elif not row and evidence.progress >= RECOVERED:
            continue  # a bad start, from which it has recovered by itself
        elif not row:
            around = norm[1 : 1 + SPIKE_WINDOW]
        usual = float(np.median(around)) if len(around) else np.nan
        if norm[row] > SPIKE_GRADIENT * usual:
            return int(row), float(norm[row] / usual)
    return None


def _ratio(evidence: Evidence) -> Float[np.ndarray, " S"]:
    """The median update-to-weight ratio by row, of the kernels that are not zero."""
    ratios = np.where(np.isfinite(evidence.ratios), evidence.ratios, np.nan)
    known = ~np.isnan(ratios).all(1)
    found = np.full(len(ratios), np.nan)
    found[known] = np.nanmedian(ratios[known], axis=1)
    return found


def _high_row(evidence: Evidence) -> int | None:
    """Returns the first row in which half of the kernels have a high update-to-weight ratio."""
    if not evidence.kernel_names:
        return None
    high = np.flatnonzero(_ratio(evidence) > HIGH_RATIO)
    return int(high[0]) if len(high) else None


def gradient_spikes(evidence: Evidence) -> list[IndicatorValue]:
    """The gradient in a spike, relative to those before it, if no high update came before."""
    spike, high = _spike(evidence), _high_row(evidence)
    if spike is None or (high is not None and high < spike[0]):
        return []
    row, size = spike
    return [IndicatorValue("", int(evidence.parameters.watched[row]), size)]


def _progress(evidence: Evidence) -> float:
    """The progress, NaN if it is too early."""
    return evidence.progress if evidence.record.steps >= PATIENCE else np.nan


def _is_slow(evidence: Evidence) -> bool:
    return evidence.is_slow and evidence.record.steps >= PATIENCE


def high_rate(evidence: Evidence) -> list[IndicatorValue]:
    """The largest median of the update-to-weight ratios, if the loss is bad after it."""
    row, spike = _high_row(evidence), _spike(evidence)
    if row is None or (spike is not None and spike[0] <= row):
        return []
    before, after = np.split(evidence.learning, [evidence.rows[row] + 1])
    worst = RISEN_LOSS * evidence.guess
    if before[-1] > worst:  # due to an output that was not scaled, not to the learning rate
        worst = RISEN_LOSS * float(before[-1])
    ratio = _ratio(evidence)
    lasting = (ratio > HIGH_RATIO).sum() >= LASTING_ROWS
    risen = not np.isfinite(after).all() or (after > worst).any()
    if row < FIRST_ROWS and np.isfinite(after).all() and evidence.progress >= RECOVERED:
        return []  # a bad start, from which it has recovered by itself
    if not risen and not (lasting and _progress(evidence) < SLOW_PROGRESS):
        return []
    return [IndicatorValue("", int(evidence.parameters.watched[row]), float(np.nanmax(ratio)))]


def low_rate(evidence: Evidence) -> list[IndicatorValue]:
    """The median update-to-weight ratio, if the loss falls slowly and still falls."""
    learning = evidence.learning
    if not _is_slow(evidence) or not evidence.ratios.size:
        return []
    # A kernel that begins at zero has a large ratio until it has grown.
    ratios = evidence.ratios[:, ~_begins_at_zero(evidence)]
    if not ratios.size:
        return []
    figure = float(np.nanmedian(ratios))
    still = learning[len(learning) // 2] - learning[-1] > STILL_FALLS * evidence.guess
    # Far below the limit, the fall may be too small to see.
    if not still and figure > TINY_RATIO:
        return []
    return [IndicatorValue("", 0, figure)]


def late_fall(evidence: Evidence) -> list[IndicatorValue]:
    """The share of the loss's fall that came in the second half, if the loss falls slowly.

    Labels that do not match have no such fall, and most trainings fall most at first.
    """
    learning = evidence.learning
    if not _is_slow(evidence) or len(learning) < 2:
        return []
    first, half, last = (float(learning[i]) for i in (0, len(learning) // 2, -1))
    if first - last < STILL_FALLS * evidence.guess or half > first:
        return []
    return [IndicatorValue("", 0, (half - last) / (first - last))]


def no_progress(evidence: Evidence) -> list[IndicatorValue]:
    """The share of the loss of guessing by which the loss has fallen.

    A loss far above that of guessing is not stuck there.
    """
    figure = _progress(evidence)
    learned = np.nanmin(evidence.learning) < LEARNED_LOSS * evidence.guess
    return [IndicatorValue("", 0, figure)] if figure > -FAR_FROM_GUESSING and not learned else []


def lost_again(evidence: Evidence) -> list[IndicatorValue]:
    """The share of guessing that was gained and lost again, by a loss that stays finite."""
    learning = evidence.learning
    if not np.isfinite(learning).all() or not _progress(evidence) < STUCK_PROGRESS:
        return []
    if evidence.is_regression:
        return []  # its loss has no level of guessing that single batches keep to
    row = int(np.argmin(learning))
    lost = float(learning[row:].max() - learning[row]) / evidence.guess
    return [IndicatorValue("", int(evidence.record.first[row]), lost)]


def collapses(evidence: Evidence) -> list[IndicatorValue]:
    """The share of the loss of guessing that was gained and lost, if a layer's units crashed."""
    record = evidence.record
    if evidence.is_regression or not np.isfinite(record.loss).all():
        return []  # its loss has no level of guessing that single batches keep to
    crashed = {
        record.layers[column]: collapse_steps(record.active_share(column, above=ACTIVE_LEVEL))
        for column in evidence.hidden
    }
    where = max(crashed, key=lambda name: len(crashed[name]), default="")
    if not where or not crashed[where]:
        return []
    loss = evidence.learning / evidence.guess
    lowest = np.fmin.accumulate(loss)
    lost = np.where(lowest < LEARNED_LOSS, loss - lowest, 0)
    return [IndicatorValue(where, evidence.step(crashed[where][0]), float(np.fmax.reduce(lost)))]
