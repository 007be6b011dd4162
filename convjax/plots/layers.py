"""Pictures of layers: the statistics of one, and the colourful dimension."""

from collections.abc import Iterable, Sequence
from typing import TYPE_CHECKING

import numpy as np

from convjax.plots.figure import BLUE, MAX_COLUMNS, ORANGE, caption, check_steps, new_figure
from convjax.stats.activations import HIST_RANGE, NEAR_ZERO
from convjax.stats.record import Array, Record, check_record

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure


def plot_layer_stats(record: Record, layer: int | str) -> "Figure":
    """Draws one layer's mean, standard deviation and share near zero against the step.

    The share near zero is in percent of the layer's values: thick the one that fastai draws,
    x <= 0.05 with all negative numbers in it, and thin |x| <= 0.05.

    Args:
      record: of any training.
      layer: a name, or an index that may be negative.

    Raises:
      KeyError, IndexError: if the record has no such layer.
      TypeError: if it is no record.
      ValueError: if the record has no watched steps.
    """
    check_record("record", record)
    check_steps(record.watched)
    column, steps = record.layer(layer), record.watched
    figure = new_figure(11, 3.4)
    figure.suptitle(f"Outputs of layer {record.layers[column]}")
    mean, std, zero = figure.subplots(1, 3, sharex=True)
    mean.plot(steps, record.mean[:, column], color=BLUE)
    mean.set(ylabel="mean")
    std.plot(steps, record.std[:, column], color=BLUE)
    std.set(ylabel="standard deviation")
    zero.plot(steps, 100 * record.near_zero[:, column], color=BLUE, label=f"x ≤ {NEAR_ZERO}")
    zero.plot(
        steps,
        100 * record.abs_near_zero[:, column],
        color=ORANGE,
        linewidth=0.8,
        label=f"|x| ≤ {NEAR_ZERO}",
    )
    # The room above 100 % is the legend's.
    zero.set(ylabel="near zero, % of values", ylim=(0, 125), yticks=range(0, 101, 20))
    zero.legend(loc="upper center", fontsize="small", ncols=2)
    for axes in (mean, std, zero):
        axes.set(xlabel="step")
        axes.grid(alpha=0.3)
    return figure


def color_dim(
    records: Record | Sequence[Record], layer: int | str, labels: Sequence[str] | None = None
) -> "Figure":
    """Draws the colourful dimension: a layer's histogram at every step, side by side.

    The colour is log(1 + count), on one scale for all records. The strips below and above the
    panel give the shares of values that the histogram leaves out, under 0 and over 10, in percent
    of all values. Records have the vertical axes in common, and each its own steps. A column
    reaches to the next watched step; past 1,000 of these it is the mean of neighbours.

    Args:
      records: one record, or several to compare.
      layer: a name, or an index that may be negative, looked up in every record.
      labels: one title per record; the default is the layer's name.

    Raises:
      KeyError, IndexError: if a record has no such layer.
      TypeError: for anything but a record or several.
      ValueError: if there is no record or one without histograms, or labels has another length.

    Reference: Stefano Giomo's colorful dimension,
    https://forums.fast.ai/t/the-colorful-dimension/42908; fastai's `color_dim`.
    """
    records = list(records) if isinstance(records, Iterable) else [records]
    if not records:
        raise ValueError("records must hold at least one record, got none.")
    for record in records:
        check_record("records", record)
        check_steps(record.watched)
        record.check_histograms()
    columns = [record.layer(layer) for record in records]
    if labels is None:
        labels = [record.layers[column] for record, column in zip(records, columns, strict=True)]
    elif isinstance(labels, str) or len(labels) != len(records):
        raise ValueError(f"labels must hold one text per record ({len(records)}), got {labels!r}.")
    sizes = [-(-len(record.watched) // MAX_COLUMNS) for record in records]  # rows in a column
    counts = [
        _merged(record, column, size)
        for record, column, size in zip(records, columns, sizes, strict=True)
    ]
    top = max(1.0, *(float(np.nanmax(count, initial=0)) for count in counts))

    figure = new_figure(max(8.0, 5.2 * len(records)), 5.2)
    rows = figure.subplots(
        3, len(records), squeeze=False, sharex="col", sharey="row", height_ratios=(1, 6, 1)
    )
    for i, record in enumerate(records):
        over, panel, under = rows[:, i]
        picture = panel.pcolormesh(
            np.append(record.watched[:: sizes[i]], record.steps) - 0.5,
            record.hist_edges,
            np.log1p(counts[i]).T,
            cmap="viridis",
            vmin=0,
            vmax=np.log1p(top),
            rasterized=True,
        )
        panel.set(xlim=(-0.5, record.steps - 0.5), facecolor="0.85")
        over.set(title=labels[i])
        under.set(xlabel="step")
    pairs = list(zip(records, columns, strict=True))
    _strips(rows[0], records, [_percent(record, record.over, column) for record, column in pairs])
    _strips(rows[2], records, [_percent(record, record.under, column) for record, column in pairs])
    low, high = HIST_RANGE
    rows[0, 0].set(ylabel=f"x > {high:g}\n%")
    rows[1, 0].set(ylabel="output x")
    rows[2, 0].set(ylabel=f"x < {low:g}\n%")
    bar = figure.colorbar(picture, ax=rows[1, :], label="values per bin, log(1 + count)")
    # 1 would lie so close to 0 that the two labels touched.
    ticks = [0, *(10**i for i in range(1, int(np.log10(top)) + 1))]
    bar.set_ticks(np.log1p(ticks).tolist(), labels=[f"{tick:,}" for tick in ticks])
    bar.minorticks_off()
    caption(figure, _how_to_read(records, sizes))
    return figure


def _merged(record: Record, column: int, size: int) -> Array:
    """Returns the mean counts of every `size` steps; NaN where all values of these were NaN."""
    starts = np.arange(0, len(record.watched), size)
    steps = np.add.reduceat(record.watched_count, starts)[:, None]
    counts = np.add.reduceat(record.hist[:, column], starts, axis=0) / steps
    # Without this a diverged layer would look like one whose values all lie outside the bins.
    lost = np.add.reduceat(record.nan()[:, column], starts)[:, None]
    return np.where(lost == record.sizes[column] * steps, np.nan, counts)


def _percent(record: Record, outside: Array, column: int) -> Array:
    """Returns counts outside the bins in percent of all values, NaN where all of these are NaN."""
    values = record.values[:, column]
    percent = 100 * outside[:, column] / values
    percent[record.nan()[:, column] == values] = np.nan
    return percent


def _strips(row: Sequence["Axes"], records: Sequence[Record], shares: Sequence[Array]) -> None:
    """Draws one share per panel, in percent, on the vertical axis that the row shares."""
    for axes, record, percent in zip(row, records, shares, strict=True):
        steps = record.watched
        axes.fill_between(steps, percent, color=BLUE, alpha=0.4, linewidth=0)
        axes.plot(steps, percent, color=BLUE, linewidth=0.8)
        axes.locator_params(axis="y", nbins=2)
    highest = max(float(np.nanmax(percent, initial=0)) for percent in shares)
    # At least to 1 %: less is negligible and shall look so.
    row[0].set_ylim(0, max(1, 1.1 * highest))


def _how_to_read(records: Sequence[Record], sizes: Sequence[int]) -> str:
    edges = records[0].hist_edges
    # Rows that share a column, each of which may hold several steps.
    merged = max(
        int(np.add.reduceat(record.watched_count, np.arange(0, len(record.watched), size)).max())
        for record, size in zip(records, sizes, strict=True)
    )
    column = (
        "one step" if merged == 1 else f"up to {merged} neighbouring watched steps (their mean)"
    )
    return (
        f"How to read it: each column is the histogram of the layer's outputs at {column}, in "
        f"{len(edges) - 1} bins from {edges[0]:g} to {edges[-1]:g}, the brighter the more values. "
        "Where a ReLU follows a layer, these are the values before it. The bottom row counts "
        f"{edges[0]:g} to {edges[1]:g}, zeros included: bright there and dark above means that "
        "nearly all values are negative or near zero. Bright bands that climb and collapse mean "
        "that values grow, crash, and training starts over. A picture that fills smoothly and "
        "stays filled is healthy. The strips give the shares that lie outside the bins. Grey: "
        "nothing but NaN."
    )
