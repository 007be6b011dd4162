"""Pictures of a training as a whole: the schedule, the loss, and a sweep of the learning rate."""

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from convjax._checks import check_type
from convjax.plots.figure import BLUE, ORANGE, check_steps, new_figure
from convjax.stats.record import Record, check_record
from convjax.train.lr_finder import LRFind

if TYPE_CHECKING:
    from matplotlib.figure import Figure

# Where the smoothed loss spans more than this factor, its late part would lie on the axis.
LOG_RATIO = 20


def plot_sched(record: Record) -> "Figure":
    """Draws the learning rate and the momentum that the optimiser used, against the step.

    Raises:
      TypeError: if it is no record.
      ValueError: if the record has no steps.
    """
    check_record("record", record)
    check_steps(record.loss)
    figure = new_figure(8, 3.2)
    rate, momentum = figure.subplots(1, 2)
    rate.plot(record.first, record.learning_rate, color=BLUE)
    rate.set(xlabel="step", ylabel="learning rate")
    momentum.plot(record.first, record.momentum, color=BLUE)
    momentum.set(xlabel="step", ylabel="momentum")
    for axes in (rate, momentum):
        axes.grid(alpha=0.3)
    return figure


def plot_loss(record: Record, metrics: Sequence[Mapping[str, Any]] | None = None) -> "Figure":
    """Draws the loss of every batch thin, smoothed thick, and the validation loss as points.

    The loss axis is logarithmic where the smoothed and the validation loss together are positive
    and span more than a factor of 20; the axis says so.

    Args:
      record: of any training.
      metrics: one mapping per evaluation with "step", how many steps came before it, and
        "valid_loss". Other keys are ignored.

    Raises:
      TypeError: if it is no record.
      ValueError: if the record has no steps, or a mapping lacks one of the two keys.
    """
    check_record("record", record)
    check_steps(record.loss)
    steps, valid = [], []
    for row in metrics or ():
        if "step" not in row or "valid_loss" not in row:
            raise ValueError(
                f'metrics must hold mappings with the keys "step" and "valid_loss", got one with '
                f"{', '.join(map(repr, row)) or 'none'}."
            )
        steps.append(row["step"])
        valid.append(row["valid_loss"])
    smoothed = record.smoothed_loss()
    figure = new_figure(8, 4)
    axes = figure.subplots()
    most = int(record.counts.max())
    each = "training, each batch" if most == 1 else f"training, mean of up to {most:,} batches"
    axes.plot(
        record.first,
        record.loss,
        color=BLUE,
        alpha=0.4,
        linewidth=0.6,
        label=each,
    )
    axes.plot(record.first, smoothed, color=BLUE, linewidth=2, label="training, smoothed")
    if valid:
        axes.plot(steps, valid, "o", color=ORANGE, label="validation")
    # Single batches do not count: one lucky batch of loss 0 would turn the axis.
    shown = np.concatenate([smoothed, np.asarray(valid, np.float64)])
    shown = shown[np.isfinite(shown)]
    logarithmic = shown.size and shown.min() > 0 and shown.max() > LOG_RATIO * shown.min()
    axes.set(xlabel="step", ylabel="loss (log scale)" if logarithmic else "loss")
    if logarithmic:
        axes.set_yscale("log")
    axes.grid(alpha=0.3)
    axes.legend()
    return figure


def plot_lr_find(found: LRFind) -> "Figure":
    """Draws the loss over the rates of a sweep, and marks what each rule suggests.

    Rates from which no rule suggests, the first and the last, are shaded. A sweep that diverged too
    soon for a suggestion has no marks: the picture shows why.

    Raises:
      TypeError: if found is not what `lr_find` returns.
    """
    check_type("found", found, LRFind, "convjax.lr_find returns one.")
    rates, used = found.learning_rate, found.used
    figure = new_figure(8, 4)
    axes = figure.subplots()
    axes.plot(rates, found.loss, color=BLUE, alpha=0.4, linewidth=0.6, label="each batch")
    axes.plot(rates, found.smoothed, color=BLUE, linewidth=2, label="smoothed")
    axes.set_xscale("log")
    axes.set(xlabel="learning rate", ylabel="loss")
    if found.can_suggest:
        for ends in ((0, used.start), (used.stop - 1, len(rates) - 1)):
            axes.axvspan(*rates[list(ends)], color="0.5", alpha=0.15, linewidth=0)
        for (name, rate), marker in zip(found.suggestions().items(), "osD^", strict=True):
            height = np.interp(np.log(rate), np.log(rates), found.smoothed)
            axes.plot(rate, height, marker, color=ORANGE, markersize=8, label=f"{name}: {rate:.1e}")
        # The blow-up at the end would flatten the curve that one reads.
        axes.set_ylim(0, 1.5 * found.smoothed[used].max())
    axes.grid(alpha=0.3)
    axes.legend()
    return figure
