"""Readers of drawings: texts, colours, places, overlaps and cut-off texts."""

from itertools import combinations

import numpy as np


def texts(figure, gid):
    """The texts of one kind, in the order of writing."""
    (axes,) = figure.axes
    return [text.get_text() for text in axes.texts if text.get_gid() == gid]


def table(figure, gid):
    """The texts of a table of cells as rows, ordered by position."""
    (axes,) = figure.axes
    found = [text for text in axes.texts if text.get_gid() == gid]
    heights = sorted({round(text.get_position()[1], 6) for text in found})
    rows = [[t for t in found if round(t.get_position()[1], 6) == height] for height in heights]
    return [[t.get_text() for t in sorted(row, key=lambda t: t.get_position()[0])] for row in rows]


def colors(figure, gid):
    """The colours of a table of cells, (rows, columns, 3)."""
    (axes,) = figure.axes
    (image,) = (image for image in axes.images if image.get_gid() == gid)
    return np.ma.filled(image.get_array(), np.nan)[..., :3]


def extent(figure, gid):
    """Left, right, bottom and top of a table of cells, in inches."""
    (axes,) = figure.axes
    (image,) = (image for image in axes.images if image.get_gid() == gid)
    return image.get_extent()


def overlapping(figure):
    """The pairs of texts on a canvas that overlap, and the texts beyond its edges."""
    figure.draw_without_rendering()
    (axes,) = figure.axes
    boxes = {text: text.get_window_extent() for text in axes.texts if text.get_text()}
    found = [
        (a.get_text(), b.get_text())
        for a, b in combinations(boxes, 2)
        if boxes[a].overlaps(boxes[b])
    ]
    width, height = figure.bbox.size
    for text, box in boxes.items():
        if min(box.x0, box.y0) < 0 or box.x1 > width or box.y1 > height:
            found.append((text.get_text(), "edge"))
    return found


def cut_off(figure):
    """The panels beyond the edges of a figure, and the pairs that overlap."""
    figure.draw_without_rendering()
    width, height = figure.bbox.size
    boxes = [(axes, axes.get_tightbbox()) for axes in figure.axes]
    found = [
        axes.get_title()
        for axes, box in boxes
        if min(box.x0, box.y0) < 0 or box.x1 > width or box.y1 > height
    ]
    found += [
        (a.get_title(), b.get_title())
        for (a, box), (b, other) in combinations(boxes, 2)
        if box.overlaps(other)
    ]
    return found
