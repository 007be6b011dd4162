"""Plots of a training: the schedule, the loss, and a learning-rate finder."""

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
from jaxtyping import Float

from convjax._checks import check_type, check_whole
from convjax.plots.figure import (
    BLUE,
    ORANGE,
    Size,
    check_steps,
    label_steps,
    new_figure,
    point_style,
)
from convjax.stats.record import Record, check_record
from convjax.train.lr_finder import LRFind

if TYPE_CHECKING:
    import matplotlib.figure

LOG_RATIO = 20  # on a linear axis, the late part of a loss with a larger span is flat


def plot_sched(record: Record, *, figsize: Size = None) -> "matplotlib.figure.Figure":
    """Draws the learning rate and the momentum that the optimiser used, against the step.

    One of them that was not recorded is left out.

    Args:
      record: the record of a training.
      figsize: width and height, inches.

    Raises:
      TypeError: if record is not a `Record`.
      ValueError: if the record has no steps, or neither of the two.

    Examples:
      >>> from convjax import Recorder, plots
      >>> recorder = Recorder()
      >>> recorder.add(2.0, learning_rate=0.1, momentum=0.9)
      >>> [axes.get_ylabel() for axes in plots.plot_sched(recorder.record()).axes]
      ['learning rate', 'momentum']
    """
    check_record("record", record)
    check_steps(record.loss)
    kept = schedules(record)
    if not kept:
        raise ValueError(
            "record must hold a learning rate or a momentum, got none. Give Recorder.add "
            "learning_rate=… at each step."
        )
    figure = new_figure(4 * len(kept), 3.2, figsize)
    panels = figure.subplots(1, len(kept), squeeze=False)[0]
    for axes, (name, values) in zip(panels, kept.items(), strict=True):
        axes.plot(record.first, values, color=BLUE, **point_style(values))
        label_steps(axes)
        axes.set(ylabel=name)
        axes.grid(alpha=0.3)
    return figure


def schedules(record: Record) -> dict[str, Float[np.ndarray, " rows"]]:
    """Returns the learning rate and the momentum of each row; without one that has no number."""
    both = {"learning rate": record.learning_rate, "momentum": record.momentum}
    return {name: values for name, values in both.items() if not np.isnan(values).all()}


def plot_loss(
    record: Record,
    metrics: Sequence[Mapping[str, Any]] | None = None,
    *,
    skip_start: int = 0,
    figsize: Size = None,
) -> "matplotlib.figure.Figure":
    """Draws the loss of every batch, the smoothed loss and the validation loss.

    The axis is logarithmic, and labelled so, if the smoothed and validation losses are positive and
    span more than a factor of 20.

    Args:
      record: the record of a training.
      metrics: one mapping per evaluation, with the number of steps before it under "step" and
        the loss under "valid_loss". Other keys are ignored.
      skip_start: the first steps, whose losses are left out; they still count in the average.
      figsize: width and height, inches.

    Raises:
      TypeError: if record is not a `Record`, or skip_start not a whole number.
      ValueError: if the record has no steps, none is left, or a mapping lacks one of the two keys.

    Examples:
      >>> from convjax import Recorder, plots
      >>> recorder = Recorder()
      >>> recorder.add(2.0)
      >>> recorder.add(1.5)
      >>> figure = plots.plot_loss(recorder.record(), [{"step": 2, "valid_loss": 1.7}])
      >>> [text.get_text() for text in figure.axes[0].get_legend().get_texts()]
      ['training, each batch', 'training, smoothed', 'validation']
    """
    check_record("record", record)
    check_steps(record.loss)
    steps, valid = [], []
    for row in metrics or ():
        if "step" not in row or "valid_loss" not in row:
            raise ValueError(
                f'metrics must hold mappings with the keys "step" and "valid_loss", got one with '
                f"{', '.join(map(repr, row)) or 'none'}. Leave out rows that lack one."
            )
        steps.append(row["step"])
        valid.append(row["valid_loss"])
    kept = record.first >= check_whole("skip_start", skip_start, 0)
    if not kept.any():
        raise ValueError(
            f"skip_start must be below the {record.steps} steps of the record, got {skip_start}."
        )
    first, losses, smoothed = (
        values[kept] for values in (record.first, record.loss, record.smoothed_loss())
    )
    figure = new_figure(8, 4, figsize)
    axes = figure.subplots()
    most = int(record.counts.max())
    each = "training, each batch" if most == 1 else f"training, mean of up to {most:,} batches"
    axes.plot(
        first,
        losses,
        color=BLUE,
        alpha=0.4,
        linewidth=0.6,
        label=each,
        **point_style(losses),
    )
    axes.plot(first, smoothed, color=BLUE, linewidth=2, label="training, smoothed")
    if valid:
        axes.plot(steps, valid, "o", color=ORANGE, label="validation")
    # Single batches are ignored: one batch with loss 0 would make the axis linear.
    shown = np.concatenate([smoothed, np.asarray(valid, np.float64)])
    shown = shown[np.isfinite(shown)]
    logarithmic = shown.size and shown.min() > 0 and shown.max() > LOG_RATIO * shown.min()
    label_steps(axes)
    axes.set(ylabel="loss (log scale)" if logarithmic else "loss")
    if logarithmic:
        axes.set_yscale("log")
    axes.grid(alpha=0.3)
    axes.legend()
    return figure


def plot_lr_find(found: LRFind, *, figsize: Size = None) -> "matplotlib.figure.Figure":
    """Draws the loss over the learning rates, and marks the rate that each rule suggests.

    The first and last rates, which no rule considers, are shaded. A run that diverged too soon for
    a suggestion has no marks.

    Args:
      found: the result of `convjax.lr_find`.
      figsize: width and height, inches.

    Raises:
      TypeError: if found is not the result of `lr_find`.
    """
    check_type("found", found, LRFind, "convjax.lr_find returns one.")
    rates, used = found.learning_rate, found.used
    figure = new_figure(8, 4, figsize)
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
        # The divergence at the end would otherwise flatten the rest of the curve.
        axes.set_ylim(0, 1.5 * found.smoothed[used].max())
    axes.grid(alpha=0.3)
    axes.legend()
    return figure
