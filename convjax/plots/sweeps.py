"""Pictures of a sweep: how accurate its settings are, how far seeds differ, how many train."""

from collections.abc import Mapping, Sequence
from math import prod
from typing import TYPE_CHECKING, Any

import numpy as np

from convjax._checks import check_type
from convjax.plots.figure import BLUE, ORANGE, new_figure
from convjax.stats.record import Array
from convjax.train._sweep import Sweep

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

# Settings whose largest is more than so many times the smallest lie on a logarithmic axis.
LOG_RATIO = 10

# More cells than this in a row have no room for their number.
MOST_NUMBERS = 12


def plot_sweep(
    found: Sweep, axes: Mapping[str, Sequence[float]], *, trains: float = 0.9
) -> "Figure":
    """Draws the test accuracy over one or two axes of settings, and the share of seeds that train.

    Over one axis: the mean over the seeds with a band from the lowest to the highest, and below it
    the share. Over two: maps of mean, standard deviation (of two seeds or more) and share.

    Args:
      found: whose V settings are all combinations of the axes' values, the last axis fastest.
      axes: values by name, such as {"momentum": [0.8, 0.9], "learning rate": [0.01, 0.1, 1.0]};
        the last is horizontal.
      trains: a run trains where it keeps a finite loss and reaches this accuracy.

    Raises:
      TypeError: if found is no sweep, or axes no mapping.
      ValueError: for no axis or more than two, or where their combinations are not V.
    """
    check_type("found", found, Sweep, "convjax.sweep returns one.")
    check_type("axes", axes, Mapping, 'Such as {"learning rate": [0.01, 0.1]}.')
    settings = found.accuracy.shape[1]
    sizes = [len(values) for values in axes.values()]
    if len(sizes) not in (1, 2) or prod(sizes) != settings:
        shown = {name: len(values) for name, values in axes.items()}
        raise ValueError(
            f"axes must be one or two whose combinations are the {settings} settings of the sweep, "
            f"got {shown}. Names are the keys, the last axis changes fastest."
        )
    share = found.trained(trains).mean(0)
    if len(sizes) == 1:
        ((name, values),) = axes.items()
        return _curve(name, values, found.accuracy, share, trains)
    seeds = len(found.accuracy)
    maps: dict[str, tuple[Array, float | None]] = {
        "mean test accuracy": (found.accuracy.mean(0), None)
    }
    if seeds > 1:
        maps["standard deviation over seeds"] = (found.accuracy.std(0, ddof=1), None)
    maps[f"share of seeds (of {seeds}) that reach {trains:g}"] = (share, 1.0)
    figure = new_figure(len(maps) * map_width(sizes[1]), 1.7 + 0.4 * sizes[0])
    panels = figure.subplots(1, len(maps), squeeze=False, sharey=True)[0]
    for panel, (title, (cells, top)) in zip(panels, maps.items(), strict=True):
        draw_map(panel, cells.reshape(sizes), axes, title, top=top)
    for panel in panels[1:]:
        panel.set_ylabel("")
    return figure


def map_width(columns: int) -> float:
    """Returns the inches that a map takes with its title and the numbers in its cells."""
    return max(3.9, 1.4 + 0.38 * min(columns, MOST_NUMBERS))


def draw_map(
    panel: "Axes",
    cells: Array,
    axes: Mapping[str, Sequence[Any]],
    title: str,
    *,
    top: float | None = None,
) -> None:
    """Draws a map (rows, columns) with its colour bar, and in small maps the number of each cell.

    Args:
      axes: what rows and columns stand for, by name.
      title: what the colours are.
      top: the colour scale goes from 0 to this; None takes the cells' own range.
    """
    (rows, of_rows), (columns, of_columns) = axes.items()
    bottom = None if top is None else 0.0
    # Cividis is told apart by colour-blind readers, and in print.
    image = panel.imshow(
        cells, cmap="cividis", aspect="auto", origin="lower", vmin=bottom, vmax=top
    )
    panel.set_xticks(range(len(of_columns)), [_text(value) for value in of_columns])
    panel.set_yticks(range(len(of_rows)), [_text(value) for value in of_rows])
    panel.set(xlabel=columns, ylabel=rows, facecolor="0.85")
    panel.set_title(title, fontsize="medium")
    panel.tick_params(axis="x", labelrotation=45 if len(of_columns) > 6 else 0)
    panel.figure.colorbar(image, ax=panel)
    if len(of_columns) > MOST_NUMBERS:
        return
    low, high = image.get_clim()
    for (row, column), value in np.ndenumerate(cells):
        dark = value <= (low + high) / 2
        color = "white" if dark else "black"  # NaN is light grey
        place: dict[str, Any] = {"ha": "center", "va": "center"}
        panel.text(column, row, f"{value:.3f}", color=color, fontsize="x-small", **place)


def _curve(
    name: str, values: Sequence[float], accuracy: Array, share: Array, trains: float
) -> "Figure":
    order = np.argsort(values)
    places, accuracy = np.asarray(values, float)[order], accuracy[:, order]
    figure = new_figure(7, 5)
    above, below = figure.subplots(2, 1, sharex=True, height_ratios=(3, 1))
    low, high = accuracy.min(0), accuracy.max(0)
    above.fill_between(
        places, low, high, color=BLUE, alpha=0.25, linewidth=0, label="lowest to highest seed"
    )
    above.plot(places, accuracy.mean(0), "o-", color=BLUE, markersize=4, label="mean over seeds")
    above.axhline(trains, color="0.4", linestyle="--", linewidth=1, label=f"trains: {trains:g}")
    above.set(ylabel="test accuracy")
    above.legend()
    below.plot(places, share[order], "s-", color=ORANGE, markersize=4)
    below.set(xlabel=name, ylabel=f"share of\n{len(accuracy)} seeds\nthat train", ylim=(-0.1, 1.1))
    if places[0] > 0 and places[-1] > LOG_RATIO * places[0]:
        below.set_xscale("log")
    below.set_xticks(places, [_text(value) for value in places])
    below.minorticks_off()
    for axes in (above, below):
        axes.grid(alpha=0.3)
    return figure


def _text(value: Any) -> str:
    return value if isinstance(value, str) else f"{value:g}"
