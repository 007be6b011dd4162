"""Plots of layers: the statistics of one layer, and the colourful dimension."""

from collections.abc import Iterable, Sequence
from typing import TYPE_CHECKING

import numpy as np
import numpy.typing as npt
from jaxtyping import Float

from convjax.plots import heatmap
from convjax.plots.figure import (
    BLUE,
    MAX_COLUMNS,
    ORANGE,
    Size,
    caption,
    check_layers,
    label_steps,
    new_figure,
    point_style,
)
from convjax.stats.record import Record, check_record

if TYPE_CHECKING:
    import matplotlib.figure


def plot_layer_stats(
    record: Record, layer: int | str, *, figsize: Size = None
) -> "matplotlib.figure.Figure":
    """Draws a layer's mean, standard deviation and share of values near zero over the steps.

    The share is in percent of the layer's values. The thick line is fastai's count, x <= 0.05,
    which includes all negative values; the thin line is `|x| <= 0.05`.

    Args:
      record: the record of a training.
      layer: a name, or an index that may be negative.
      figsize: width and height, inches.

    Raises:
      KeyError: if the record has no layer of this name.
      IndexError: if the record has no layer of this index.
      TypeError: if record is not a `Record`.
      ValueError: if the record has no statistics of layers.

    Examples:
      >>> import jax.numpy as jnp
      >>> from convjax import Recorder, layer_stats, plots
      >>> recorder = Recorder()
      >>> recorder.add(2.0, layer_stats({"conv": jnp.arange(8.0)}))
      >>> figure = plots.plot_layer_stats(recorder.record(), "conv")
      >>> [axes.get_ylabel() for axes in figure.axes]
      ['mean', 'standard deviation', 'near zero, % of values']
    """
    check_record("record", record)
    check_layers(record)
    column, steps = record.layer(layer), record.watched
    figure = new_figure(11, 3.4, figsize)
    figure.suptitle(f"Outputs of layer {record.layers[column]}")
    mean, std, zero = figure.subplots(1, 3, sharex=True)
    threshold = record.near_zero_threshold
    for axes, values, how in (
        (mean, record.mean, {"color": BLUE}),
        (std, record.std, {"color": BLUE}),
        (zero, 100 * record.near_zero, {"color": BLUE, "label": f"x ≤ {threshold:g}"}),
        (
            zero,
            100 * record.abs_near_zero,
            {"color": ORANGE, "linewidth": 0.8, "label": f"|x| ≤ {threshold:g}"},
        ),
    ):
        axes.plot(steps, values[:, column], **how, **point_style(values[:, column]))
    mean.set(ylabel="mean")
    std.set(ylabel="standard deviation")
    # The space above 100 % is for the legend.
    zero.set(ylabel="near zero, % of values", ylim=(0, 125), yticks=range(0, 101, 20))
    zero.legend(loc="upper center", fontsize="small", ncols=2)
    for axes in (mean, std, zero):
        label_steps(axes)
        axes.grid(alpha=0.3)
    return figure


def color_dim(
    records: Record | Sequence[Record],
    layer: int | str,
    labels: Sequence[str] | None = None,
    *,
    figsize: Size = None,
) -> "matplotlib.figure.Figure":
    """Draws the colourful dimension: a layer's histograms at all steps, side by side.

    The colour is log(1 + count), on one scale for all records. The strips below and above the
    panel show the percentage of values below and above the bins. Records share the vertical axes
    and keep their own steps. A column extends to the next watched step. Beyond 1,000 watched
    steps, a column is the mean of neighbouring steps.

    Args:
      records: one record, or several to compare.
      layer: a name, or an index that may be negative, looked up in every record.
      labels: one title per record; the default is the layer's name.
      figsize: width and height, inches.

    Raises:
      KeyError: if a record has no layer of this name.
      IndexError: if a record has no layer of this index.
      TypeError: if records is neither a `Record` nor a sequence of them.
      ValueError: if there is no record, a record has no histograms, records have different bins,
        or labels has another length.

    References:
      Stefano Giomo, The colorful dimension,
      https://forums.fast.ai/t/the-colorful-dimension/42908; fastai's `color_dim`.

    Examples:
      >>> import jax.numpy as jnp
      >>> from convjax import Recorder, layer_stats, plots
      >>> recorder = Recorder()
      >>> for step in range(3):
      ...     recorder.add(2.0 - step, layer_stats({"conv": jnp.arange(8.0) * step}))
      >>> figure = plots.color_dim(recorder.record(), "conv")
      >>> figure.axes[1].get_ylabel()
      'output x'
    """
    records = list(records) if isinstance(records, Iterable) else [records]
    if not records:
        raise ValueError(
            "records must hold at least one record, got none. Pass what Trainer.run or load_run "
            "returned."
        )
    for record in records:
        check_record("records", record)
        check_layers(record)
        record.check_histograms()
    if any(not np.array_equal(r.hist_edges, records[0].hist_edges) for r in records):
        ranges = ", ".join(f"{r.hist_edges[0]:g} to {r.hist_edges[-1]:g}" for r in records)
        raise ValueError(
            f"records must have the same histogram bins, got {ranges}. Draw them one by one."
        )
    if labels is None:
        labels = [record.layers[record.layer(layer)] for record in records]
    elif isinstance(labels, str) or len(labels) != len(records):
        raise ValueError(
            f"labels must hold one text per record ({len(records)}), got {labels!r}. Pass a list "
            "of texts."
        )
    sizes = [-(-len(record.watched) // MAX_COLUMNS) for record in records]  # rows per column
    counts = [
        heatmap.layer_counts(record, layer, size)
        for record, size in zip(records, sizes, strict=True)
    ]
    top = heatmap.highest_count(*counts)
    figure = new_figure(max(8.0, 5.2 * len(records)), 5.2, figsize)
    rows = figure.subplots(
        3, len(records), squeeze=False, sharex="col", sharey="row", height_ratios=(1, 6, 1)
    )
    for i, record in enumerate(records):
        over, panel, under = rows[:, i]
        across = heatmap.column_edges(record, sizes[i])
        mesh = heatmap.draw_mesh(panel, across, record.hist_edges, counts[i], top)
        panel.set(xlim=(-0.5, record.steps - 0.5))
        over.set(title=labels[i])
        label_steps(under)
    below, above = zip(*(heatmap.outside_percent(record, layer) for record in records), strict=True)
    _draw_strips(rows[0], records, above)
    _draw_strips(rows[2], records, below)
    low, high = records[0].hist_edges[[0, -1]]
    rows[0, 0].set(ylabel=f"x > {high:g}\n%")
    rows[1, 0].set(ylabel="output x")
    rows[2, 0].set(ylabel=f"x < {low:g}\n%".replace("-", "−"))
    heatmap.draw_count_bar(figure, mesh, rows[1, :], top)
    steps = max(map(heatmap.steps_per_column, records, sizes))
    caption(
        figure,
        f"How to read it: {heatmap.HOW_TO_READ} A column is {heatmap.describe_columns(steps)}. "
        f"{heatmap.describe_bins(records[0], 'Grey')}",
    )
    return figure


def _draw_strips(
    row: npt.NDArray[np.object_],
    records: Sequence[Record],
    percent: Sequence[Float[np.ndarray, "..."]],
) -> None:
    """Draws one percentage per panel, on the vertical axis that the row shares."""
    for axes, record, values in zip(row, records, percent, strict=True):
        axes.fill_between(record.watched, values, color=BLUE, alpha=0.4, linewidth=0)
        axes.plot(record.watched, values, color=BLUE, linewidth=0.8, **point_style(values))
        axes.locator_params(axis="y", nbins=2)
    row[0].set_ylim(0, heatmap.highest_percent(*percent))
