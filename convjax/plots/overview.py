"""Small overview plots: the colourful dimension of all layers, and example images."""

from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np
from jaxtyping import UInt8

from convjax.plots import heatmap
from convjax.plots.figure import caption, check_layers, label_steps, new_figure
from convjax.plots.layer_choice import LayerChoice, choose, describe_choice
from convjax.stats.record import Record, check_record

if TYPE_CHECKING:
    import matplotlib.figure

MAX_COLUMNS = 256  # of one panel, which has a quarter of the figure's width
PANELS_PER_ROW = 4
IMAGES_PER_ROW = 6


def color_dims(record: Record, layers: LayerChoice | None = None) -> "matplotlib.figure.Figure":
    """Draws the colourful dimension of several layers in small panels, on one colour scale.

    `color_dim` draws one layer large, with the values outside the bins.

    Args:
      record: a record with histograms.
      layers: which, as `convjax.plots.layer_choice.choose` takes them: "*" draws all. By default
        at most 12, evenly spaced, with the first and the last, and those that a finding of
        `convjax.diagnose` names.

    Raises:
      TypeError: if record is not a `Record`, or layers is of another type.
      ValueError: if the record has no histograms of layers, or no such layer.
      IndexError: if the record has no layer of an index.

    Examples:
      >>> import jax.numpy as jnp
      >>> from convjax import Recorder, layer_stats, plots
      >>> recorder = Recorder()
      >>> outputs = {f"conv{i}": jnp.arange(8.0) for i in range(40)}
      >>> recorder.add(2.0, layer_stats(outputs))
      >>> figure = plots.color_dims(recorder.record(), ["conv1", "conv3?"])
      >>> sum(axes.get_title().startswith("conv") for axes in figure.axes)
      11
    """
    check_record("record", record)
    check_layers(record)
    record.check_histograms()
    drawn = choose(record, record.layers, layers)
    record = record.merged(MAX_COLUMNS)
    counts = [heatmap.layer_counts(record, layer) for layer in drawn]
    top = heatmap.highest_count(*counts)
    columns = min(len(drawn), PANELS_PER_ROW)
    rows = -(-len(drawn) // columns)
    figure = new_figure(11, 1.1 + 1.9 * rows)
    panels = figure.subplots(rows, columns, squeeze=False, sharex=True, sharey=True)
    across = heatmap.column_edges(record)
    for panel, layer, of_layer in zip(panels.flat, drawn, counts, strict=False):
        mesh = heatmap.draw_mesh(panel, across, record.hist_edges, of_layer, top)
        panel.set_title(record.layers[layer], fontsize="small", parse_math=False)
    for panel in panels.flat[len(drawn) :]:
        panel.set_axis_off()
    for panel in panels[:, 0]:
        panel.set_ylabel("output")
    for panel in panels.flat[max(0, len(drawn) - columns) : len(drawn)]:
        label_steps(panel)
        panel.tick_params(labelbottom=True)  # also where the row below is shorter
    heatmap.draw_count_bar(figure, mesh, panels, top)
    total = len(record.layers)
    text = f"{heatmap.HOW_TO_READ} Grey: only NaN."
    if len(drawn) < total:
        text += f' {describe_choice(len(drawn), total, "layers")} are drawn; layers="*" draws all.'
    caption(figure, text)
    return figure


def plot_images(
    images: UInt8[np.ndarray, "N H W C"], titles: Sequence[str]
) -> "matplotlib.figure.Figure":
    """Draws images in rows of six, each below its title.

    Three channels are drawn as RGB and four as RGBA. Of any other number of channels the first is
    drawn in grey.

    Args:
      images: one image or more.
      titles: one text per image.

    Raises:
      ValueError: if there is no image, or not one title per image.
    """
    if not len(images) or len(titles) != len(images):
        raise ValueError(
            f"titles must hold one text per image, and at least one, got {len(titles)} texts for "
            f"{len(images)} images. Pass equally many of both."
        )
    rows = -(-len(images) // IMAGES_PER_ROW)
    figure = new_figure(8, 1.65 * rows)
    panels = figure.subplots(rows, IMAGES_PER_ROW, squeeze=False)
    for panel in panels.flat:
        panel.set_axis_off()
    for panel, image, title in zip(panels.flat, images, titles, strict=False):
        coloured = image.shape[-1] in (3, 4)
        panel.imshow(image if coloured else image[..., 0], cmap="gray", vmin=0, vmax=255)
        panel.set_title(title, fontsize="small", parse_math=False)
    return figure
