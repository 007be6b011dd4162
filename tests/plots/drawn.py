"""Records to draw, and readers of figures."""

from io import BytesIO

import numpy as np

from convjax.stats.bins import FASTAI
from convjax.stats.record import Record

PNG = b"\x89PNG"


def make_record(steps=6, layers=("conv1", "conv2"), size=1000, seed=0, every=1):
    """Makes a record with random counts that add up to `size`, without NaN."""
    rng = np.random.default_rng(seed)
    watched = np.arange(0, steps, every)
    column = (len(watched), len(layers))
    counts = rng.multinomial(size, np.full(FASTAI.count + 2, 1 / (FASTAI.count + 2)), size=column)
    return Record(
        layers=tuple(layers),
        sizes=np.full(len(layers), size, np.int64),
        steps=steps,
        first=np.arange(steps),
        loss=rng.uniform(1, 2, steps),
        learning_rate=rng.uniform(0, 0.1, steps),
        momentum=rng.uniform(0.8, 0.95, steps),
        watched=watched,
        watched_count=np.ones(len(watched), int),
        mean=rng.normal(size=column),
        std=rng.uniform(1, 2, column),
        near_zero=rng.uniform(0.5, 1, column),
        abs_near_zero=rng.uniform(0, 0.5, column),
        hist=counts[..., 1:-1],
        under=counts[..., 0],
        over=counts[..., -1],
        channels=np.zeros(0, int),
        active=np.zeros((0, 0), np.uint8),
        eval_loss=np.zeros(0),
    )


def lines(axes):
    return [np.asarray(line.get_ydata()) for line in axes.lines]


def steps_of(axes):
    return [np.asarray(line.get_xdata()) for line in axes.lines]


def mesh(panel):
    """Returns the mesh of a panel of color_dim, and the edges of its columns and bins."""
    (picture,) = panel.collections
    corners = picture.get_coordinates()
    across, up = corners[0, :, 0], corners[:, 0, 1]
    # The corners form a grid.
    np.testing.assert_array_equal(corners, np.stack(np.meshgrid(across, up), axis=-1))
    return picture, across, up


def panels(figure, records):
    """Returns the axes of color_dim, (3, records): over, panel, under; and the colour bar's."""
    *grid, bar = figure.axes
    return np.array(grid).reshape(3, records), bar


def draw(figure):
    """Draws everything with matplotlib, in which a warning is an error."""
    buffer = BytesIO()
    figure.savefig(buffer, format="png")
    return buffer.getvalue()


def caption(figure):
    return " ".join(figure.get_supxlabel().split())
