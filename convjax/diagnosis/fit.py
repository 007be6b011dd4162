"""Indicators of how inputs, labels, outputs and the loss fit together.

Each returns its values with the worst first, and none where it does not apply.
"""

import numpy as np

from convjax.diagnosis.evidence import Evidence
from convjax.diagnosis.indicator import IndicatorValue
from convjax.diagnosis.thresholds import (
    MOST_ROWS,
    SLOW_PROGRESS,
    STUCK_PROGRESS,
    VERY_LARGE_TARGET,
)
from convjax.stats.watch import INPUT, LABELS


def _first(evidence: Evidence, bad: np.ndarray) -> int:
    return evidence.step(int(np.argmax(bad)))


def inputs_not_finite(evidence: Evidence) -> list[IndicatorValue]:
    """The number of watched rows whose input has values that are not finite."""
    record = evidence.record
    column = record.layers.index(INPUT)
    bad = ~np.isfinite(record.mean[:, column])
    if not bad.any():
        return []
    return [IndicatorValue(INPUT, _first(evidence, bad), float(bad.sum()))]


def labels_out_of_range(evidence: Evidence) -> list[IndicatorValue]:
    """The label furthest outside of 0 … K − 1, if the loss takes it."""
    outputs = evidence.usual("outputs")
    low, high = evidence.fact("label low"), evidence.fact("label high")
    if not evidence.is_classification or evidence.has_mixtures or not np.isfinite(low).any():
        return []
    if evidence.guessed_labels:
        return []
    outside = (low < 0) | (high >= outputs)
    # A loss that leaves them out, as of padding, is that of the others.
    if not outside.any() or evidence.usual("label not whole") > 0:
        return []
    if np.isfinite(evidence.watched_loss).all() and evidence.is_loss("loss of logits"):
        return []
    row = int(np.argmax(outside))
    worst = float(high[row] if high[row] >= outputs else low[row])
    return [IndicatorValue(LABELS, evidence.step(row), worst)]


def labels_do_not_fit(evidence: Evidence) -> list[IndicatorValue]:
    """The label that the loss cannot have: a fraction as a class, or no probability."""
    low, high = evidence.fact("label low"), evidence.fact("label high")
    if not np.isfinite(low).any():
        return []
    # Outputs of at most 1 may have the same squared or absolute error.
    others = any(map(evidence.is_loss, ("squared error", "absolute error")))
    if evidence.is_loss("hinge loss") and not others and np.nanmin(low) == 0:
        return [IndicatorValue(LABELS, evidence.step(0), 0.0)]  # it has labels of -1 and 1
    of_classes = evidence.is_classification and not evidence.has_mixtures
    if of_classes and evidence.usual("label not whole") > 0:
        return [_finite(IndicatorValue(LABELS, evidence.step(0), float(np.nanmax(high))))]
    if evidence.has_masks_of_other_numbers:
        return [IndicatorValue(LABELS, evidence.step(0), float(np.nanmax(high)))]
    as_logits = evidence.is_loss("loss of logits") or evidence.is_loss("loss of probabilities")
    outside = (low < 0) | (high > 1)
    if not of_classes and outside.any() and as_logits and not evidence.has_mixtures:
        row = int(np.argmax(outside))
        worst = float(high[row] if high[row] > 1 else low[row])
        return [_finite(IndicatorValue(LABELS, evidence.step(row), worst))]
    return []


def _finite(value: IndicatorValue) -> IndicatorValue:
    return value._replace(figure=float(np.nan_to_num(value.figure)))


def label_spread(evidence: Evidence) -> list[IndicatorValue]:
    """The largest standard deviation of a batch's labels, or range of the batches' means."""
    record = evidence.record
    if len(record.watched) < 2 or evidence.guessed_labels:
        return []
    column = record.layers.index(LABELS)
    # Batches of one class each differ in their means.
    spread = max(record.std[:, column].max(), np.ptp(record.mean[:, column]))
    low, high = evidence.fact("label low"), evidence.fact("label high")
    if np.isfinite(low).any():  # as the loss gets them: casting may have made them the same
        spread = min(spread, np.nanmax(high) - np.nanmin(low))
    return [IndicatorValue(LABELS, 0, float(spread))]


def classes_per_batch(evidence: Evidence) -> list[IndicatorValue]:
    """The entropy of the classes in a batch, over that of the classes in all batches."""
    record = evidence.record
    column = record.layers.index(LABELS)
    found = evidence.fact("label entropy")
    if evidence.guessed_labels:
        return []
    if evidence.has_mixtures and len(found) >= 10 and evidence.usual("examples") >= 8:
        # Of rows that are classes one knows which there are from the number of outputs.
        one_hot = evidence.usual("label mixture") < 1e-3
        share = float(np.mean(evidence.fact("label classes") > 1))
        return [IndicatorValue(LABELS, 0, share)] if one_hot else []
    classes = evidence.usual("label not whole") == 0 and not evidence.has_mixtures
    examples = record.sizes[column] / max(evidence.usual("label size"), 1)
    if not classes or len(record.watched) < 10 or not examples >= 8:
        return []
    entropy = float(np.nanmean(found))
    # Classes of 10 and more are counted together, which makes the whole smaller, never larger.
    whole = record.hist[:, column].sum(0).astype(float)
    counts = np.append(whole[whole > 0], record.over[:, column].sum())
    shares = counts[counts > 0] / counts.sum()
    of_all = float(-(shares * np.log(shares)).sum())
    if of_all < 0.3:
        return []
    return [IndicatorValue(LABELS, 0, entropy / of_all)]


# Losses of each output with each target, and those of the pairs that belong together.
_PAIRS = {
    "squared error of pairs": "squared error",
    "absolute error of pairs": "absolute error",
    "loss of pairs": "loss of logits",
}


def shapes_differ(evidence: Evidence) -> list[IndicatorValue]:
    """The error of all pairs of outputs and targets over that of the pairs that belong together."""
    for pairs, kind in _PAIRS.items():
        for factor in (1.0, 0.5):
            if evidence.is_loss(pairs, factor) and not evidence.is_loss(kind, factor):
                ratio = evidence.fact(pairs) / evidence.fact(kind)
                return [IndicatorValue("", 0, float(np.nanmedian(ratio)))]
    # Another distance: one of shapes that differ, and that does not learn.
    known = "squared error of pairs" in evidence.record.facts
    paired = evidence.is_loss("squared error") or evidence.is_loss("absolute error")
    if known and not paired and not evidence.is_binary and evidence.progress < STUCK_PROGRESS:
        ratio = evidence.fact("squared error of pairs") / evidence.fact("squared error")
        return [IndicatorValue("", 0, float(np.nanmedian(ratio)))]
    return []


def target_size(evidence: Evidence) -> list[IndicatorValue]:
    """The root mean square of the targets, in a training that does not fit them.

    Of targets that are very large, the fit of the largest hides that of the others.
    """
    record = evidence.record
    if not evidence.is_regression:
        return []
    column = record.layers.index(LABELS)
    size = float(np.median(np.hypot(record.mean[:, column], record.std[:, column])))
    if evidence.progress >= SLOW_PROGRESS and size < VERY_LARGE_TARGET:
        return []
    return [IndicatorValue(LABELS, 0, size)]


def softmax_twice(evidence: Evidence) -> list[IndicatorValue]:
    """The highest output of a network whose outputs are probabilities and taken for logits."""
    if not evidence.probabilities or evidence.is_regression:
        return []
    as_logits = evidence.is_loss("loss of logits")
    if not as_logits or evidence.is_loss("loss of probabilities"):
        return []
    return [IndicatorValue("", 0, float(np.nanmax(evidence.fact("output high"))))]


def output_cut_off(evidence: Evidence) -> list[IndicatorValue]:
    """The share of the steps at which outputs reach a bound that a non-linearity sets.

    Zero is the bound of ReLU; for targets, the ends of a sigmoid or tanh.
    """
    low, high = evidence.fact("output low"), evidence.fact("output high")
    if len(low) < 10 or not np.isfinite(low).any():
        return []
    if evidence.probabilities and not evidence.is_regression:
        return []
    zero = (low == 0) & (high > 0)
    if evidence.is_classification and zero.mean() > MOST_ROWS:
        return [IndicatorValue("", _first(evidence, zero), float(zero.mean()))]
    if evidence.is_classification and evidence.is_loss("loss of logits"):
        within = (low >= -1) & (high <= 1)  # tanh: no difference of logits is above 2
        if within.all() and max(high.max(), -low.min()) > 0.95:
            return [IndicatorValue("", 0, float(within.mean()))]
    if evidence.is_regression and not evidence.has_masks_of_other_numbers:
        nothing = (low == 0) & (high == 0)  # a ReLU that lets nothing through
        if nothing.mean() > MOST_ROWS and np.nanmax(evidence.fact("label high")) != 0:
            return [IndicatorValue("", _first(evidence, nothing), float(nothing.mean()))]
        least, most = np.nanmin(evidence.fact("label low")), np.nanmax(evidence.fact("label high"))
        if zero.mean() > MOST_ROWS and least < 0:
            return [IndicatorValue("", _first(evidence, zero), float(zero.mean()))]
        for start in (0.0, -1.0):  # sigmoid, tanh
            within = (low >= start) & (high <= 1)
            outside = most > 1.1 or least < start - 0.1
            reached = np.max(high) > 0.95 or np.min(low) < start + 0.05
            if within.all() and len(low) >= 20 and outside and reached:
                return [IndicatorValue("", 0, float(within.mean()))]
    return []


def summed_loss(evidence: Evidence) -> list[IndicatorValue]:
    """The loss over the mean loss of an example, if it is their sum and does not fall well."""
    record, column = evidence.record, evidence.record.layers.index(LABELS)
    of_example = max(evidence.usual("label size"), 1)
    examples = evidence.usual("examples")
    if np.isnan(examples):
        examples = record.sizes[column] / of_example
    if not examples >= 2:
        return []
    numbers = {examples, examples * of_example}
    if "outputs" not in record.facts:  # a cross entropy begins near that of guessing
        begins = evidence.watched_loss[0] / (examples * evidence.fact("label entropy")[0])
        if examples >= 16 and 0.7 < begins < 1.5 and _falls_badly(evidence):
            return [IndicatorValue("", 0, float(examples))]
    for name in ("loss of logits", "loss of probabilities", "squared error"):
        for number in sorted(n for n in numbers if np.isfinite(n)):
            first = evidence.fact(name)[:1] * number
            apart = np.abs(evidence.watched_loss[:1] - first) if len(first) else first
            same = len(first) and np.isfinite(apart[0]) and apart[0] <= 0.02 * abs(first[0])
            if same and _falls_badly(evidence):
                return [IndicatorValue("", 0, float(number))]
    return []


def _falls_badly(evidence: Evidence) -> bool:
    """Returns whether a training has not come far, of guessing or else of its first loss."""
    loss = evidence.record.loss
    if not np.isfinite(loss).all():
        return True
    progress = evidence.progress
    if np.isnan(progress):
        progress = 1 - float(evidence.loss[-1] / loss[0])
    return not progress >= SLOW_PROGRESS
