"""Plots of a sweep: accuracy, spread over seeds, and share of seeds that train."""

from collections.abc import Mapping, Sequence
from math import prod
from typing import TYPE_CHECKING, Any

import numpy as np
from jaxtyping import Float, Real

from convjax._checks import check_type
from convjax.plots.figure import BLUE, ORANGE, new_figure
from convjax.train._sweep import Sweep

if TYPE_CHECKING:
    import matplotlib.axes
    import matplotlib.figure

LOG_RATIO = 10  # an axis with a larger ratio of its ends is logarithmic
MAX_NUMBERS = 12  # cells in a row that have room for their number


def plot_sweep(
    found: Sweep, axes: Mapping[str, Sequence[int | float]], *, trains: int | float = 0.9
) -> "matplotlib.figure.Figure":
    """Draws the test accuracy and the share of seeds that train over one or two axes of settings.

    One axis gives a curve of the mean over the seeds with a band from the lowest to the highest,
    and below it the share. Two axes give maps of the mean, of the standard deviation (from two
    seeds) and of the share.

    Args:
      found: a sweep whose V settings are all combinations of the axes' values, the last axis
        fastest.
      axes: values by name, such as {"momentum": [0.8, 0.9], "learning rate": [0.01, 0.1, 1.0]};
        the last axis is horizontal.
      trains: a run trains if its loss stays finite and it reaches this accuracy.

    Raises:
      TypeError: if found is not a sweep, or axes is not a mapping.
      ValueError: if there are not one or two axes, or they do not have V combinations.

    Examples:
      >>> import numpy as np
      >>> from convjax import plots
      >>> from convjax.train import Sweep
      >>> found = Sweep(np.ones((1, 2, 3)), np.ones((1, 2)), np.array([[0.5, 0.95]]))
      >>> figure = plots.plot_sweep(found, {"learning rate": [0.01, 0.1]})
      >>> [axes.get_ylabel().replace("\\n", " ") for axes in figure.axes]
      ['test accuracy', 'share of 1 seeds that train']
    """
    check_type("found", found, Sweep, "convjax.sweep returns one.")
    check_type("axes", axes, Mapping, 'Pass for example {"learning rate": [0.01, 0.1]}.')
    settings = found.accuracy.shape[1]
    sizes = [len(values) for values in axes.values()]
    if len(sizes) not in (1, 2) or prod(sizes) != settings:
        shown = {name: len(values) for name, values in axes.items()}
        raise ValueError(
            f"axes must be one or two whose combinations are the {settings} settings of the sweep, "
            f"got {shown}. Pass all values of each axis by its name, the fastest axis last."
        )
    share = found.trained(trains).mean(0)
    if len(sizes) == 1:
        ((name, values),) = axes.items()
        return _curve(name, values, found.accuracy, share, trains)
    seeds = len(found.accuracy)
    maps: dict[str, tuple[Float[np.ndarray, " settings"], float | None]] = {
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
    """Returns the width in inches of a map with its title and the numbers in its cells."""
    return max(3.9, 1.4 + 0.38 * min(columns, MAX_NUMBERS))


def draw_map(
    panel: "matplotlib.axes.Axes",
    cells: Real[np.ndarray, "rows columns"],
    axes: Mapping[str, Sequence[Any]],
    title: str,
    *,
    top: float | None = None,
) -> None:
    """Draws a map with its colour bar, and in small maps the number of each cell.

    Args:
      panel: the axes to draw on.
      cells: the numbers.
      axes: the values of rows and columns, by name.
      title: what the colours show.
      top: upper end of the colour scale, which then starts at 0; None takes the cells' range.
    """
    (rows, of_rows), (columns, of_columns) = axes.items()
    bottom = None if top is None else 0.0
    # Cividis stays readable for colour-blind readers and in print.
    image = panel.imshow(
        cells, cmap="cividis", aspect="auto", origin="lower", vmin=bottom, vmax=top
    )
    panel.set_xticks(range(len(of_columns)), [_text(value) for value in of_columns])
    panel.set_yticks(range(len(of_rows)), [_text(value) for value in of_rows])
    panel.set(xlabel=columns, ylabel=rows, facecolor="0.85")
    panel.set_title(title, fontsize="medium")
    panel.tick_params(axis="x", labelrotation=45 if len(of_columns) > 6 else 0)
    panel.figure.colorbar(image, ax=panel)
    if len(of_columns) > MAX_NUMBERS:
        return
    low, high = image.get_clim()
    for (row, column), value in np.ndenumerate(cells):
        dark = value <= (low + high) / 2
        color = "white" if dark else "black"  # NaN is light grey
        place: dict[str, Any] = {"ha": "center", "va": "center"}
        panel.text(column, row, f"{value:.3f}", color=color, fontsize="x-small", **place)


def _curve(
    name: str,
    values: Sequence[int | float],
    accuracy: Float[np.ndarray, "seeds settings"],
    share: Float[np.ndarray, " settings"],
    trains: int | float,
) -> "matplotlib.figure.Figure":
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
