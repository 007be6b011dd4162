"""Charts of comparisons: every seed is a dot or a cell, with means and intervals."""

from collections.abc import Iterator, Mapping, Sequence
from itertools import cycle
from typing import TYPE_CHECKING, Any

import numpy as np

from convjax.plots import BLUE, ORANGE, new_figure
from convjax.plots.sweeps import draw_map, map_width
from experiments.harness.intervals import difference

if TYPE_CHECKING:
    from matplotlib.figure import Figure

# Okabe and Ito's colours, each with a marker.
COLORS, MARKERS = (BLUE, ORANGE, "#009E73", "#CC79A7", "#000000", "#56B4E9"), "osD^vP"

# Maps each position on the horizontal axis to the values of the seeds.
Curve = Mapping[Any, Sequence[float]]


def curves(found: Mapping[str, Curve], *, xlabel: str, ylabel: str) -> "Figure":
    """Draws curves over a logarithmic axis: a line through the means, a dot for each seed.

    Args:
      found: the curves by name.
      xlabel, ylabel: of the axes.
    """
    figure = new_figure(7, 4)
    axes = figure.subplots()
    for (name, curve), color, marker in _styled(found):
        means = [np.mean(values) for values in curve.values()]
        axes.plot(list(curve), means, color=color, marker=marker, markersize=4, label=name)
        for position, values in curve.items():
            axes.plot(
                [position] * len(values), values, marker, color=color, alpha=0.4, markersize=4
            )
    axes.set_xscale("log")
    positions = sorted({position for curve in found.values() for position in curve})
    axes.set_xticks(positions, [f"{position:g}" for position in positions])
    axes.minorticks_off()
    axes.set_xlabel(xlabel)
    axes.set_ylabel(f"{ylabel} (dots: seeds, line: mean)")
    axes.legend()
    return figure


def maps(found: Mapping[str, Curve], *, xlabel: str, label: str, trains: float) -> "Figure":
    """Draws a map for each name, with a column for each position and a row for each seed.

    Args:
      found: by name, values from 0 to 1, which are drawn as colours.
      xlabel: of the positions.
      label: of the values.
      trains: the number of seeds that reach this value is written above each column.
    """
    widest = max(len(curve) for curve in found.values())
    seeds = max(len(values) for curve in found.values() for values in curve.values())
    figure = new_figure(len(found) * map_width(widest), 2.2 + 0.35 * seeds)
    panels = figure.subplots(1, len(found), squeeze=False)[0]
    for panel, (name, curve) in zip(panels, found.items(), strict=True):
        cells = np.array(list(curve.values())).T
        axes = {"seed": range(len(cells)), xlabel: list(curve)}
        draw_map(panel, cells, axes, f"{label}, {name}", top=1.0)
        counts = [f"{count}/{len(cells)}" for count in (cells >= trains).sum(0)]
        above = panel.secondary_xaxis("top")
        above.set_xticks(range(len(curve)), counts, fontsize="x-small")
        above.set_xlabel(f"seeds that reach {trains:g}", fontsize="small")
    return figure


def sides(found: Mapping[str, Sequence[float]], label: str) -> "Figure":
    """Draws the sides of a comparison, and the difference of each from the first.

    Args:
      found: by name, a value per seed; at least two sides.
      label: of the values.
    """
    names = list(found)
    figure = new_figure(9, 1.6 + 0.4 * len(names))
    values, differences = figure.subplots(1, 2, sharey=True)
    for (name, of_seeds), color, _ in _styled(found):
        row = names.index(name)
        values.plot(of_seeds, [row] * len(of_seeds), "o", color=color, alpha=0.5)
        values.plot(np.mean(of_seeds), row, "|", color=color, markersize=18, markeredgewidth=2)
        if row and len(of_seeds) > 1:
            mean, low, high = difference(of_seeds, found[names[0]])
            margins = [[mean - low], [high - mean]]
            differences.errorbar(mean, row, xerr=margins, fmt="o", color=color, capsize=4)
    values.set_yticks(range(len(names)), names)
    values.set_ylim(len(names) - 0.5, -0.5)
    values.set_xlabel(f"{label}\n(dots: seeds, line: mean)")
    differences.axvline(0, color="0.5", linewidth=1)
    interval = "95 % interval" if len(found[names[0]]) > 1 else "needs two seeds"
    differences.set_xlabel(f"difference from {names[0]}\n({interval})")
    for axes in (values, differences):
        axes.grid(axis="y", alpha=0.3)
        axes.locator_params(axis="x", nbins=5)
    return figure


def progress(
    found: Mapping[str, Sequence[Sequence[tuple[float, float]]]],
    goal: float,
    *,
    xlabel: str,
    ylabel: str,
) -> "Figure":
    """Draws how the trainings of each side approach a goal, with a line for each seed.

    Args:
      found: by name, for each seed pairs (x, y).
      goal: a value of y, drawn as a horizontal line.
      xlabel, ylabel: of the axes.
    """
    figure = new_figure(7, 4)
    axes = figure.subplots()
    for (name, lines), color, _ in _styled(found):
        for i, line in enumerate(lines):
            x, y = zip(*line, strict=True)
            label = name if i == 0 else None
            axes.plot(x, y, color=color, alpha=0.5, linewidth=1, label=label)
    axes.axhline(goal, color="0.3", linestyle="--", linewidth=1, label=f"goal, {goal:.4f}")
    # Values far below the goal would take most of the height.
    axes.set_ylim(max(goal - 3 * max(1 - goal, 0.01), 0), 1)
    axes.set_xlabel(xlabel)
    axes.set_ylabel(f"{ylabel} (a line per seed)")
    axes.legend(loc="lower right")
    return figure


def _styled(found: Mapping[str, Any]) -> Iterator[tuple[tuple[str, Any], str, str]]:
    yield from zip(found.items(), cycle(COLORS), cycle(MARKERS), strict=False)
