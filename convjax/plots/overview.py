"""Pictures that give a first impression: all layers at a glance, and some images of a data set."""

from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np
import numpy.typing as npt

from convjax.plots.figure import caption, check_steps, new_figure
from convjax.stats.record import Record

if TYPE_CHECKING:
    from matplotlib.figure import Figure

# Of one panel, which is a quarter of the picture.
MOST_COLUMNS = 256
PANELS_IN_A_ROW = 4

# Layers that are drawn: more would be a page of stamps.
MOST_LAYERS = 12

IMAGES_IN_A_ROW = 6


def color_dims(record: Record) -> "Figure":
    """Draws the colourful dimension of every layer as a small panel, on one colour scale.

    Of more than 12 layers as many are drawn, evenly spread, the first and the last among them.
    `color_dim` draws one layer large, with what lies outside the bins.

    Raises:
      ValueError: if the record has no watched steps or no histograms.
    """
    check_steps(record.watched)
    record.check_histograms()
    record = record.merged(MOST_COLUMNS)
    layers = len(record.layers)
    drawn = np.unique(np.linspace(0, layers - 1, min(layers, MOST_LAYERS)).round().astype(int))
    counts = record.hist / record.watched_count[:, None, None]
    # A layer of nothing but NaN has no counts, and is not one whose values all lie outside.
    counts[record.nan() == record.values] = np.nan
    top = max(1.0, float(np.nanmax(counts[:, drawn], initial=0)))

    rows = -(-len(drawn) // PANELS_IN_A_ROW)
    figure = new_figure(11, 1.1 + 1.9 * rows)
    panels = figure.subplots(rows, PANELS_IN_A_ROW, squeeze=False, sharex=True, sharey=True)
    edges = np.append(record.watched, record.steps) - 0.5
    for panel, layer in zip(panels.flat, drawn, strict=False):
        image = panel.pcolormesh(
            edges,
            record.hist_edges,
            np.log1p(counts[:, layer]).T,
            cmap="viridis",
            vmin=0,
            vmax=np.log1p(top),
            rasterized=True,
        )
        panel.set_facecolor("0.85")
        panel.set_title(record.layers[layer], fontsize="small", parse_math=False)
    for panel in panels.flat[len(drawn) :]:
        panel.set_axis_off()
    for panel in panels[:, 0]:
        panel.set_ylabel("output")
    for panel in panels.flat[max(0, len(drawn) - PANELS_IN_A_ROW) : len(drawn)]:
        panel.set_xlabel("step")
        panel.tick_params(labelbottom=True)  # also where the row below is shorter
    bar = figure.colorbar(image, ax=panels, label="values per bin, log(1 + count)")
    ticks = [0, *(10**i for i in range(1, int(np.log10(top)) + 1))]
    bar.set_ticks(np.log1p(ticks).tolist(), labels=[f"{tick:,}" for tick in ticks])
    bar.minorticks_off()
    left_out = f" {layers - len(drawn)} layers are not drawn." if len(drawn) < layers else ""
    caption(
        figure,
        "Each column is the histogram of a layer's outputs at a step; bands that climb and "
        f"collapse are values that grow and crash. Grey: nothing but NaN.{left_out}",
    )
    return figure


def plot_images(images: npt.NDArray[np.uint8], titles: Sequence[str]) -> "Figure":
    """Draws images (N, H, W, C) of one, three or four channels in rows of six, under their titles.

    Other channels than those of grey, RGB and RGBA have no colour: the first of them is drawn.

    Raises:
      ValueError: if there is no image, or not one title for each.
    """
    if not len(images) or len(titles) != len(images):
        raise ValueError(
            f"titles must hold one text per image, one or more, got {len(titles)} texts for "
            f"{len(images)} images."
        )
    rows = -(-len(images) // IMAGES_IN_A_ROW)
    figure = new_figure(8, 1.65 * rows)
    panels = figure.subplots(rows, IMAGES_IN_A_ROW, squeeze=False)
    for panel in panels.flat:
        panel.set_axis_off()
    for panel, image, words in zip(panels.flat, images, titles, strict=False):
        coloured = image.shape[-1] in (3, 4)
        panel.imshow(image if coloured else image[..., 0], cmap="gray", vmin=0, vmax=255)
        panel.set_title(words, fontsize="small", parse_math=False)
    return figure
