"""Plot of a receptive field: what a cell can see, and the measured effect of each pixel."""

from typing import TYPE_CHECKING

import numpy as np

from convjax.analysis._effective_field import COUNTS_FROM, EffectiveField
from convjax.analysis.receptive_field import ReceptiveField
from convjax.plots.figure import ORANGE, caption, new_figure

if TYPE_CHECKING:
    import matplotlib.figure


def plot_effective_field(
    effective: EffectiveField, field: ReceptiveField
) -> "matplotlib.figure.Figure":
    """Draws how strongly each pixel affects a cell, and the border of the receptive field.

    Args:
      effective: the measured field, as `convjax.effective_field` returns it.
      field: of the same layer, one of those that `convjax.receptive_fields` returns.

    Raises:
      TypeError: if an argument has another type, such as all fields of a network.
      ValueError: if the field is unknown.
    """
    for name, value, kind in (
        ("effective", effective, EffectiveField),
        ("field", field, ReceptiveField),
    ):
        if not isinstance(value, kind):
            maker = "effective_field" if kind is EffectiveField else "receptive_fields"
            raise TypeError(
                f"{name} must be {kind.__name__}, got {type(value).__name__}. Pass the one that "
                f"convjax.{maker} returns for the layer."
            )
    height, width = effective.magnitude.shape
    box = field.box(effective.cell, (height, width))
    if box is None or field.size is None:
        raise ValueError(
            f"field must be known, got one that is lost at: {field.reason}. Draw an earlier layer."
        )
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
        f"Frame: the cell's receptive field, {sides[0]}×{sides[1]} pixels less those beyond the "
        f"border. As many pixels have more than {COUNTS_FROM:.2%} of the largest gradient as a "
        f"square with sides of {effective.effective_size:.1f} pixels holds.",
    )
    return figure
