"""Drawings of the colourful dimension, read back."""

import numpy as np
import pytest
from matplotlib import colormaps

from convjax import plots
from convjax.plots.chapter import histogram_column, histogram_summary, why_logarithm
from convjax.plots.chapter.histograms import hidden_percent
from convjax.plots.heatmap import layer_counts
from tests.helpers import without_histograms
from tests.plots.drawn import make_record, mesh
from tests.plots.drawn import panels as panels_of_color_dim

pytest.importorskip("matplotlib")


def histogram_summary_of(record, layer, step):
    return histogram_summary(record, layer, [step])


DRAWINGS = [histogram_column, why_logarithm, histogram_summary_of]

RECORD = make_record(12, every=5)  # watched at steps 0, 5 and 10


def bars(axes):
    return np.array([bar.get_width() for bar in axes.patches])


def test_histogram_column_draws_the_histogram_and_its_place_among_all():
    figure = histogram_column(RECORD, "conv2", 5)
    histogram, column, picture, bar = figure.axes
    counts = RECORD.hist[:, 1]
    np.testing.assert_allclose(bars(histogram), np.log1p(counts[1]))
    edges = [(patch.get_y(), patch.get_y() + patch.get_height()) for patch in histogram.patches]
    np.testing.assert_allclose(edges, np.stack([RECORD.hist_edges[:-1], RECORD.hist_edges[1:]], 1))
    cells, _, up = mesh(column)
    np.testing.assert_allclose(cells.get_array(), np.log1p(counts[1])[:, None])
    np.testing.assert_allclose(up, RECORD.hist_edges)
    (all_cells,) = picture.collections
    np.testing.assert_allclose(all_cells.get_array(), np.log1p(counts).T)
    assert cells.get_clim() == all_cells.get_clim() == (0, np.log1p(counts.max()))
    # Bars have the colours of the cells.
    scale = np.log1p(counts[1]) / np.log1p(counts.max())
    colors = [patch.get_facecolor() for patch in histogram.patches]
    np.testing.assert_allclose(colors, colormaps["viridis"](scale), atol=1e-6)
    (frame,) = picture.patches
    assert frame.get_bbox().intervalx.tolist() == [4.5, 9.5]
    assert histogram.get_ylabel() == "output of conv2"
    assert "step 5" in histogram.get_title()
    assert bar.get_ylabel() == "values per bin, log(1 + count)"
    assert histogram.get_ylim() == picture.get_ylim() == (0, 10)


def test_histogram_column_has_the_mesh_of_color_dim():
    grid, _ = panels_of_color_dim(plots.color_dim(RECORD, 0), 1)
    ours = histogram_column(RECORD, 0, 0).axes[2].collections[0]
    theirs, across, _ = mesh(grid[1, 0])
    np.testing.assert_allclose(ours.get_array(), theirs.get_array())
    np.testing.assert_allclose(ours.get_coordinates()[0, :, 0], across)


@pytest.mark.parametrize(("step", "row"), [(0, 0), (4, 0), (10, 2), (11, 2)])
def test_histogram_column_of_an_unwatched_step_is_the_row_before(step, row):
    histogram = histogram_column(RECORD, 0, step).axes[0]
    np.testing.assert_allclose(bars(histogram), np.log1p(RECORD.hist[row, 0]))


def test_layer_counts_of_merged_rows_are_means():
    record = make_record(64).merged(16)
    np.testing.assert_allclose(layer_counts(record, 0), record.hist[:, 0] / 4)


def test_why_logarithm_draws_counts_above_logarithms():
    figure = why_logarithm(RECORD, 0, 5)
    counts = RECORD.hist[:, 0]
    for first, heights in ((0, counts), (3, np.log1p(counts))):
        histogram, column, picture = figure.axes[first : first + 3]
        np.testing.assert_allclose(bars(histogram), heights[1])
        for axes, wanted in ((column, heights[1:2]), (picture, heights)):
            (cells,) = axes.collections
            np.testing.assert_allclose(cells.get_array(), wanted.T)
            assert cells.get_clim() == (0, heights.max())
        percent = hidden_percent(heights, float(heights.max()))
        assert picture.get_title() == f"{percent:.0f} % of the filled bins look empty"
    labels = [axes.get_ylabel() for axes in figure.axes[6:]]
    assert labels == ["values per bin, count", "values per bin, log(1 + count)"]


def test_histogram_summary_is_made_of_the_columns_of_color_dim():
    figure = histogram_summary(RECORD, "conv2", [0, 10])
    image, *panels, bar = figure.axes
    counts = RECORD.hist[:, 1]
    for row, (of_counts, of_logs, column) in zip((0, 2), (panels[:3], panels[3:]), strict=True):
        np.testing.assert_allclose(bars(of_counts), counts[row])
        np.testing.assert_allclose(bars(of_logs), np.log1p(counts[row]))
        np.testing.assert_allclose(
            column.collections[0].get_array(), np.log1p(counts[row])[:, None]
        )
        assert column.collections[0].get_clim() == image.collections[0].get_clim()
        # The largest count is 36: the axis ends at one digit and zeros.
        assert of_counts.get_xticks().tolist() == [0, 30]
        np.testing.assert_allclose(of_logs.get_xticks(), np.log1p([0, 30]))
    assert [panel.get_title() for panel in panels[::3]] == ["step 0", "step 10"]
    grid, _ = panels_of_color_dim(plots.color_dim(RECORD, 1), 1)
    theirs, across, _ = mesh(grid[1, 0])
    ours, ours_across, _ = mesh(image)
    np.testing.assert_allclose(ours.get_array(), theirs.get_array())
    np.testing.assert_allclose(ours_across, across)
    # Watched at steps 0, 5 and 10 of 12: the frames are around the first and the last column, and
    # in front of the mesh.
    frames = [patch.get_bbox().intervalx.tolist() for patch in image.patches]
    assert frames == [[-0.5, 4.5], [9.5, 11.5]]
    assert all(patch.get_zorder() >= ours.get_zorder() for patch in image.patches)
    children = image.get_children()
    assert all(children.index(patch) > children.index(ours) for patch in image.patches)
    assert bar.get_ylabel() == "values per bin, log(1 + count)"


@pytest.mark.parametrize("steps", [[], [0] * 7])
def test_histogram_summary_rejects_a_number_of_steps(steps):
    with pytest.raises(ValueError, match=f"steps must be one to 6 steps, got {len(steps)}"):
        histogram_summary(RECORD, 0, steps)


def test_hidden_percent_by_hand():
    # Of four filled bins 1 and 3 are below the second of 256 colours, which begins at 4.
    assert hidden_percent(np.array([0, 1, 3, 4, 1024]), 1024) == 50
    assert hidden_percent(np.log1p([0, 1, 3, 4, 1024]), float(np.log1p(1024))) == 0
    assert hidden_percent(np.zeros(5), 1) == 0


@pytest.mark.parametrize("draw", DRAWINGS)
def test_histogram_drawings_cut_nothing_off(draw):
    record = make_record(40, size=10_000_000)
    figure = draw(record, 0, 20)
    figure.draw_without_rendering()
    width, height = figure.bbox.size
    titles = [axes.title.get_window_extent() for axes in figure.axes if axes.get_title()]
    for box in [*(axes.get_tightbbox() for axes in figure.axes), *titles]:
        assert min(box.x0, box.y0) >= 0
        assert box.x1 <= width
        assert box.y1 <= height
    assert not any(a.overlaps(b) for i, a in enumerate(titles) for b in titles[:i])


@pytest.mark.parametrize("draw", DRAWINGS)
def test_histogram_drawings_reject(draw):
    for step in (-1, 12):
        with pytest.raises(ValueError, match=f"step must be .*from 0 to 11, got {step}"):
            draw(RECORD, 0, step)
    with pytest.raises(ValueError, match=r"step must be .*from 9 to 10, got 5"):
        draw(make_record(12, every=10).between(1, 12), 0, 5)
    with pytest.raises(ValueError, match="must hold histograms, got none"):
        draw(without_histograms(RECORD), 0, 0)
    with pytest.raises(KeyError, match="conv9"):
        draw(RECORD, "conv9", 0)
