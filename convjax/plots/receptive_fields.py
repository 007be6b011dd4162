"""Receptive fields: what a cell can see, and what moves it."""

from typing import TYPE_CHECKING

import numpy as np

from convjax.analysis._effective_field import COUNTS_FROM, EffectiveField
from convjax.analysis.receptive_field import ReceptiveField
from convjax.plots.figure import ORANGE, caption, new_figure

if TYPE_CHECKING:
    from matplotlib.figure import Figure


def plot_effective_field(effective: EffectiveField, field: ReceptiveField) -> "Figure":
    """Draws how strongly each pixel moves a cell, and the border of all that can move it.

    Args:
      effective: as `convjax.effective_field` measures it.
      field: of the same layer, as `convjax.receptive_fields` returns it by name.

    Raises:
      ValueError: if the field could not be told.
      TypeError: if an argument is something else, such as all fields of a network.
    """
    for name, value, kind in (
        ("effective", effective, EffectiveField),
        ("field", field, ReceptiveField),
    ):
        if not isinstance(value, kind):
            raise TypeError(f"{name} must be {kind.__name__}, got {type(value).__name__}.")
    height, width = effective.magnitude.shape
    box = field.box(effective.cell, (height, width))
    if box is None or field.size is None:
        raise ValueError(f"field must be known, but it is lost at: {field.reason}.")
    figure = new_figure(5.6, 4.6)
    from matplotlib.patches import Rectangle

    axes = figure.subplots()
    largest = effective.magnitude.max() or 1.0
    picture = axes.imshow(
        effective.magnitude / largest, cmap="viridis", vmin=0, vmax=1, interpolation="nearest"
    )
    rows, columns = box
    axes.add_patch(
        Rectangle(
            (columns.start - 0.5, rows.start - 0.5),
            columns.stop - columns.start,
            rows.stop - rows.start,
            fill=False,
            edgecolor=ORANGE,
            linewidth=2,
            clip_on=False,
        )
    )
    axes.set_xlabel("column")
    axes.set_ylabel("row")
    axes.set_title(f"{effective.layer}, cell {effective.cell}")
    figure.colorbar(picture, label="gradient, share of the largest")
    sides = ["all" if np.isinf(side) else f"{side}" for side in field.size]
    caption(
        figure,
        f"Frame: what the cell can see, {sides[0]}×{sides[1]} pixels less what lies beyond the "
        f"border. Above {COUNTS_FROM:.2%} of the largest gradient: as many pixels as in a square "
        f"of {effective.effective_size:.1f} a side.",
    )
    return figure
