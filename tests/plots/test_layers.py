"""Plots of layers: axes, data and texts, read back from the figures."""

from dataclasses import replace

import numpy as np
import pytest

from convjax import plots
from tests.helpers import without_histograms, without_layers
from tests.plots.drawn import PNG, caption, draw, lines, make_record, mesh, panels, steps_of

pytest.importorskip("matplotlib")


@pytest.mark.parametrize("every", [1, 4])
@pytest.mark.parametrize("layer", ["conv2", 1, -1])
def test_plot_layer_stats_draws_the_columns_of_the_layer(layer, every):
    record = make_record(every=every)
    figure = plots.plot_layer_stats(record, layer)
    mean, std, zero = figure.axes
    np.testing.assert_array_equal(lines(mean), [record.mean[:, 1]])
    np.testing.assert_array_equal(lines(std), [record.std[:, 1]])
    np.testing.assert_array_equal(
        lines(zero), [100 * record.near_zero[:, 1], 100 * record.abs_near_zero[:, 1]]
    )
    for axes in figure.axes:
        for steps in steps_of(axes):
            assert steps.tolist() == list(range(0, 6, every))
    assert zero.lines[0].get_linewidth() > zero.lines[1].get_linewidth()
    assert [axes.get_ylabel() for axes in figure.axes] == [
        "mean",
        "standard deviation",
        "near zero, % of values",
    ]
    assert {axes.get_xlabel() for axes in figure.axes} == {"step"}
    assert [text.get_text() for text in zero.get_legend().get_texts()] == [
        "x ≤ 0.05",
        "|x| ≤ 0.05",
    ]
    assert "conv2" in figure.get_suptitle()
    assert draw(figure).startswith(PNG)


def test_plots_of_layers_reject_unknown_layers():
    with pytest.raises(KeyError, match=r"conv1, conv2\b.*'conv9'"):
        plots.plot_layer_stats(make_record(), "conv9")
    with pytest.raises(IndexError, match="conv1, conv2"):
        plots.color_dim(make_record(), 2)


# --- the colourful dimension -----------------------------------------------------------------


def test_color_dim_draws_log1p_of_the_counts_of_every_step():
    record = make_record()
    figure = plots.color_dim(record, "conv1")
    grid, bar = panels(figure, 1)
    over, panel, under = grid[:, 0]
    picture, across, up = mesh(panel)
    np.testing.assert_allclose(picture.get_array(), np.log1p(record.hist[:, 0]).T)
    # Step i is centred on i, and value 0 is at the bottom.
    assert across.tolist() == [-0.5, 0.5, 1.5, 2.5, 3.5, 4.5, 5.5]
    assert up.tolist() == [i / 4 for i in range(41)]
    assert (panel.get_xlim(), panel.get_ylim()) == ((-0.5, 5.5), (0, 10))
    assert picture.get_cmap().name == "viridis"
    assert picture.get_rasterized()  # or a PDF would hold every cell
    np.testing.assert_allclose(lines(over), [record.over[:, 0] / 10])  # % of 1,000
    np.testing.assert_allclose(lines(under), [record.under[:, 0] / 10])
    assert steps_of(over)[0].tolist() == steps_of(under)[0].tolist() == list(range(6))
    assert over.get_ylim()[0] == under.get_ylim()[0] == 0
    assert over.get_title() == "conv1"
    assert [axes.get_ylabel() for axes in grid[:, 0]] == ["x > 10\n%", "output x", "x < 0\n%"]
    assert under.get_xlabel() == "step"
    assert bar.get_ylabel() == "values per bin, log(1 + count)"
    assert draw(figure).startswith(PNG)


def test_color_dim_labels_the_colour_bar_in_counts():
    record = make_record()
    record.hist[0, 0, 0] = 12_345
    figure = plots.color_dim(replace(record, sizes=np.full(2, 20_000)), 0)
    _, bar = panels(figure, 1)
    assert [label.get_text() for label in bar.get_yticklabels()] == [
        "0",
        "10",
        "100",
        "1,000",
        "10,000",
    ]
    np.testing.assert_allclose(bar.get_yticks(), np.log1p([0, 10, 100, 1000, 10_000]))


def test_color_dim_has_a_caption_below_the_panels():
    figure = plots.color_dim(make_record(), 0)
    draw(figure)
    assert "A column is one step. There are 40 bins from 0 to 10." in caption(figure)
    assert "The bottom row counts 0 to 0.25" in caption(figure)
    box = figure._supxlabel.get_window_extent()
    assert box.x0 >= 0
    assert box.x1 <= figure.bbox.x1
    assert box.y0 >= 0
    lowest = min(axes.get_tightbbox().y0 for axes in figure.axes)
    assert box.y1 <= lowest


def test_color_dim_labels_other_bins():
    figure = plots.color_dim(replace(make_record(), hist_edges=np.linspace(-5, 5, 41)), 0)
    grid, _ = panels(figure, 1)
    assert [axes.get_ylabel() for axes in grid[:, 0]] == ["x > 5\n%", "output x", "x < −5\n%"]
    assert "40 bins from -5 to 5" in caption(figure)
    assert "bottom row" not in caption(figure)


def test_color_dim_of_several_records_shares_colour_scale_and_vertical_axes():
    first, second = make_record(6), make_record(9, size=5000, seed=1, every=2)
    figure = plots.color_dim([first, second], -1, labels=["without", "with"])
    grid, _ = panels(figure, 2)
    pictures = [mesh(axes)[0] for axes in grid[1]]
    top = np.log1p(max(first.hist[:, 1].max(), second.hist[:, 1].max()))
    for picture in pictures:
        np.testing.assert_allclose(picture.get_clim(), (0, top))
    assert [axes.get_xlim() for axes in grid.ravel()] == [(-0.5, 5.5), (-0.5, 8.5)] * 3
    for row in grid:
        assert row[0].get_ylim() == row[1].get_ylim()
    assert [axes.get_title() for axes in grid[0]] == ["without", "with"]
    assert draw(figure).startswith(PNG)


def test_color_dim_extends_columns_to_the_next_watched_step():
    record = make_record(12, every=5)
    grid, _ = panels(plots.color_dim(record, 1), 1)
    over, panel, under = grid[:, 0]
    picture, across, _ = mesh(panel)
    # Steps 0, 5 and 10 are watched, and the last of 12 is step 11.
    assert across.tolist() == [-0.5, 4.5, 9.5, 11.5]
    np.testing.assert_allclose(picture.get_array(), np.log1p(record.hist[:, 1]).T)
    assert panel.get_xlim() == (-0.5, 11.5)
    assert steps_of(over)[0].tolist() == steps_of(under)[0].tolist() == [0, 5, 10]
    # A part that starts between watched steps 0 and 5: nothing is drawn before step 5.
    grid, _ = panels(plots.color_dim(record.between(2, 12), 1), 1)
    assert mesh(grid[1, 0])[1].tolist() == [2.5, 7.5, 9.5]
    assert grid[1, 0].get_xlim() == (-0.5, 9.5)


@pytest.mark.parametrize("every", [1, 2])
def test_color_dim_averages_many_watched_steps(every):
    record = make_record(2500 * every, layers=("conv",), every=every)
    figure = plots.color_dim(record, 0)
    grid, _ = panels(figure, 1)
    picture, across, up = mesh(grid[1, 0])
    # Three steps per column: 833 columns, and one with the last step.
    means = [record.hist[i : i + 3, 0].mean(0) for i in range(0, 2500, 3)]
    assert len(means) == 834
    np.testing.assert_allclose(picture.get_array(), np.log1p(means).T)
    # Steps keep their place, and the last column ends with the last step.
    assert across.tolist() == [3 * every * i - 0.5 for i in range(834)] + [2500 * every - 0.5]
    assert (up[0], up[-1]) == (0, 10)
    assert grid[1, 0].get_xlim() == (-0.5, 2500 * every - 0.5)
    # The strips keep every watched step.
    np.testing.assert_allclose(lines(grid[0, 0]), [record.over[:, 0] / 10])  # % of 1,000
    assert steps_of(grid[0, 0])[0].tolist() == record.watched.tolist()
    assert "A column is the mean of up to 3 neighbouring watched steps." in caption(figure)


def test_color_dim_leaves_steps_of_nan_empty():
    record = make_record()
    for counts in (record.hist, record.under, record.over):
        counts[4:, 0] = 0
    figure = plots.color_dim(record, 0)
    grid, _ = panels(figure, 1)
    picture, _, _ = mesh(grid[1, 0])
    shown = np.ma.filled(picture.get_array(), np.nan)
    assert np.isfinite(shown[:, :4]).all()
    assert np.isnan(shown[:, 4:]).all()
    # Masked cells are transparent and show the grey background.
    assert picture.get_cmap().get_bad()[3] == 0
    assert grid[1, 0].get_facecolor() == (0.85, 0.85, 0.85, 1)
    for strip in (grid[0, 0], grid[2, 0]):
        np.testing.assert_array_equal(np.isnan(lines(strip)[0]), [False] * 4 + [True] * 2)
    assert draw(figure).startswith(PNG)


@pytest.mark.parametrize("size", [0, 1000])
def test_plots_of_a_layer_with_no_value_in_the_bins(size):
    """All values are negative, or NaN if none is counted."""
    record = make_record()
    empty = replace(
        record,
        hist=np.zeros_like(record.hist),
        over=np.zeros_like(record.over),
        under=np.full_like(record.under, size),
        mean=np.full_like(record.mean, np.nan),
        loss=np.full_like(record.loss, np.nan),
    )
    for figure in (
        plots.color_dim(empty, 0),
        plots.plot_layer_stats(empty, 0),
        plots.plot_loss(empty),
    ):
        assert draw(figure).startswith(PNG)


def test_color_dim_rejects_what_it_cannot_compare():
    record = make_record()
    with pytest.raises(ValueError, match="records must hold at least one record, got none"):
        plots.color_dim([], 0)
    with pytest.raises(ValueError, match=r"one text per record \(2\), got \['a'\]"):
        plots.color_dim([record, record], 0, labels=["a"])
    with pytest.raises(ValueError, match="one text per record"):
        plots.color_dim([record, record], 0, labels="ab")
    wide = replace(record, hist_edges=np.linspace(-5, 5, 41))
    with pytest.raises(ValueError, match=r"the same histogram bins, got 0 to 10, -5 to 5"):
        plots.color_dim([record, wide], 0)
    bare = without_histograms(record)
    with pytest.raises(ValueError, match=r"must hold histograms, got none\. Train with Watch\("):
        plots.color_dim([record, bare], 0)


def test_plot_layer_stats_needs_no_histograms():
    record = make_record(every=4)
    mean, std, zero = plots.plot_layer_stats(without_histograms(record), 1).axes
    np.testing.assert_array_equal(lines(mean), [record.mean[:, 1]])
    np.testing.assert_array_equal(lines(std), [record.std[:, 1]])
    assert [steps.tolist() for steps in steps_of(zero)] == [[0, 4], [0, 4]]


def test_plots_of_layers_reject_a_record_without_layers():
    record = without_layers(make_record())
    rate, _ = plots.plot_sched(record).axes
    np.testing.assert_array_equal(lines(rate), [record.learning_rate])
    (axes,) = plots.plot_loss(record).axes
    np.testing.assert_array_equal(lines(axes), [record.loss, record.smoothed_loss()])
    for plot in (plots.plot_layer_stats, plots.color_dim):
        with pytest.raises(ValueError, match="record must hold statistics of layers, got none"):
            plot(record, 0)
