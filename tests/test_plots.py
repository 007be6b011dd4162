"""What the pictures of a record draw: axes, data and words, read back from the figures."""

import subprocess
import sys
import textwrap
from dataclasses import replace
from io import BytesIO

import numpy as np
import pytest

from convjax import plots
from convjax.record import Record
from convjax.stats import HIST_BINS

pytest.importorskip("matplotlib")

PNG = b"\x89PNG"


def make_record(steps=6, layers=("conv1", "conv2"), size=1000, seed=0):
    """Makes a record whose counts are drawn at random and add up to `size` without NaN."""
    rng = np.random.default_rng(seed)
    counts = rng.multinomial(
        size, np.full(HIST_BINS + 2, 1 / (HIST_BINS + 2)), size=(steps, len(layers))
    )
    column = (steps, len(layers))
    return Record(
        layers=tuple(layers),
        sizes=np.full(len(layers), size, np.int64),
        loss=rng.uniform(1, 2, steps),
        learning_rate=rng.uniform(0, 0.1, steps),
        momentum=rng.uniform(0.8, 0.95, steps),
        mean=rng.normal(size=column),
        std=rng.uniform(1, 2, column),
        near_zero=rng.uniform(0.5, 1, column),
        abs_near_zero=rng.uniform(0, 0.5, column),
        hist=counts[..., 1:-1],
        under=counts[..., 0],
        over=counts[..., -1],
    )


def lines(axes):
    return [np.asarray(line.get_ydata()) for line in axes.lines]


def panels(figure, records):
    """Returns the axes of color_dim, (3, records): over, panel, under; and the colour bar's."""
    *grid, bar = figure.axes
    return np.array(grid).reshape(3, records), bar


def draw(figure):
    """Lets matplotlib draw everything: with warnings as errors, this is a test of its own."""
    buffer = BytesIO()
    figure.savefig(buffer, format="png")
    return buffer.getvalue()


# --- layer statistics ------------------------------------------------------------------------


@pytest.mark.parametrize("layer", ["conv2", 1, -1])
def test_layer_stats_draws_the_columns_of_the_layer(layer):
    record = make_record()
    figure = plots.plot_layer_stats(record, layer)
    mean, std, zero = figure.axes
    np.testing.assert_array_equal(lines(mean), [record.mean[:, 1]])
    np.testing.assert_array_equal(lines(std), [record.std[:, 1]])
    np.testing.assert_array_equal(
        lines(zero), [100 * record.near_zero[:, 1], 100 * record.abs_near_zero[:, 1]]
    )
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


def test_an_unknown_layer_is_named_with_those_there_are():
    with pytest.raises(KeyError, match=r"'conv9'; the record has conv1, conv2"):
        plots.plot_layer_stats(make_record(), "conv9")
    with pytest.raises(IndexError, match="2 layers: conv1, conv2"):
        plots.color_dim(make_record(), 2)


# --- the colourful dimension -----------------------------------------------------------------


def test_color_dim_shows_log1p_of_the_counts_of_every_step():
    record = make_record()
    figure = plots.color_dim(record, "conv1")
    grid, bar = panels(figure, 1)
    over, panel, under = grid[:, 0]
    (image,) = panel.images
    np.testing.assert_allclose(image.get_array(), np.log1p(record.hist[:, 0]).T)
    # Step i is centred on i, and value 0 is at the bottom.
    assert image.get_extent() == [-0.5, 5.5, 0.0, 10.0]
    assert image.origin == "lower"
    assert (panel.get_xlim(), panel.get_ylim()) == ((-0.5, 5.5), (0, 10))
    assert image.get_cmap().name == "viridis"
    np.testing.assert_allclose(lines(over), [record.over[:, 0] / 10])  # % of 1,000
    np.testing.assert_allclose(lines(under), [record.under[:, 0] / 10])
    assert over.get_ylim()[0] == under.get_ylim()[0] == 0
    assert over.get_title() == "conv1"
    assert [axes.get_ylabel() for axes in grid[:, 0]] == ["x > 10\n%", "output x", "x < 0\n%"]
    assert under.get_xlabel() == "step"
    assert bar.get_ylabel() == "values per bin, log(1 + count)"
    assert draw(figure).startswith(PNG)


def test_the_colour_bar_is_labelled_in_counts():
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


def test_the_caption_says_how_to_read_it_and_lies_below_the_panels():
    figure = plots.color_dim(make_record(), 0)
    draw(figure)
    caption = figure.get_supxlabel()
    assert "histogram of the layer's outputs at one step" in caption.replace("\n", " ")
    assert "The bottom row counts 0 to 0.25" in caption.replace("\n", " ")
    box = figure._supxlabel.get_window_extent()
    assert box.x0 >= 0
    assert box.x1 <= figure.bbox.x1
    assert box.y0 >= 0
    lowest = min(axes.get_tightbbox().y0 for axes in figure.axes)
    assert box.y1 <= lowest


def test_several_records_share_the_colour_scale_and_the_vertical_axes():
    first, second = make_record(6), make_record(9, size=5000, seed=1)
    figure = plots.color_dim([first, second], -1, labels=["without", "with"])
    grid, _ = panels(figure, 2)
    images = [axes.images[0] for axes in grid[1]]
    top = np.log1p(max(first.hist[:, 1].max(), second.hist[:, 1].max()))
    for image in images:
        np.testing.assert_allclose(image.get_clim(), (0, top))
    assert [axes.get_xlim() for axes in grid.ravel()] == [(-0.5, 5.5), (-0.5, 8.5)] * 3
    for row in grid:
        assert row[0].get_ylim() == row[1].get_ylim()
    assert [axes.get_title() for axes in grid[0]] == ["without", "with"]
    assert draw(figure).startswith(PNG)


def test_many_steps_are_merged_by_their_mean():
    record = make_record(2500, layers=("conv",))
    figure = plots.color_dim(record, 0)
    grid, _ = panels(figure, 1)
    (image,) = grid[1, 0].images
    # Three steps a column: 833 columns, and one more of the last step alone.
    means = [record.hist[i : i + 3, 0].mean(0) for i in range(0, 2500, 3)]
    assert len(means) == 834
    np.testing.assert_allclose(image.get_array(), np.log1p(means).T)
    # Steps keep their place; the last column is clipped after step 2499.
    assert image.get_extent() == [-0.5, 2501.5, 0.0, 10.0]
    assert grid[1, 0].get_xlim() == (-0.5, 2499.5)
    assert "up to 3 neighbouring steps (their mean)" in figure.get_supxlabel().replace("\n", " ")


def test_a_step_of_nothing_but_nan_stays_empty():
    record = make_record()
    for counts in (record.hist, record.under, record.over):
        counts[4:, 0] = 0
    figure = plots.color_dim(record, 0)
    grid, _ = panels(figure, 1)
    shown = np.ma.filled(grid[1, 0].images[0].get_array(), np.nan)
    assert np.isfinite(shown[:, :4]).all()
    assert np.isnan(shown[:, 4:]).all()
    for strip in (grid[0, 0], grid[2, 0]):
        np.testing.assert_array_equal(np.isnan(lines(strip)[0]), [False] * 4 + [True] * 2)
    assert draw(figure).startswith(PNG)


@pytest.mark.parametrize("size", [0, 1000])
def test_a_layer_with_no_value_in_the_bins_can_be_drawn(size):
    """All values negative, or (where none is counted) all NaN."""
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


def test_color_dim_refuses_what_it_cannot_compare():
    record = make_record()
    with pytest.raises(ValueError, match="records must hold at least one record, got none"):
        plots.color_dim([], 0)
    with pytest.raises(ValueError, match=r"one text per record \(2\), got \['a'\]"):
        plots.color_dim([record, record], 0, labels=["a"])
    with pytest.raises(ValueError, match="one text per record"):
        plots.color_dim([record, record], 0, labels="ab")


# --- schedule and loss -----------------------------------------------------------------------


def test_sched_draws_rate_and_momentum():
    record = make_record()
    figure = plots.plot_sched(record)
    rate, momentum = figure.axes
    np.testing.assert_array_equal(lines(rate), [record.learning_rate])
    np.testing.assert_array_equal(lines(momentum), [record.momentum])
    assert (rate.get_ylabel(), momentum.get_ylabel()) == ("learning rate", "momentum")
    assert {axes.get_xlabel() for axes in figure.axes} == {"step"}
    assert draw(figure).startswith(PNG)


def test_loss_draws_raw_thin_smoothed_thick_and_validation_as_points():
    record = make_record()
    metrics = [
        {"step": 3, "valid_loss": 1.5, "epoch": 0},
        {"step": 6, "valid_loss": 1.2, "epoch": 1},
    ]
    (axes,) = plots.plot_loss(record, metrics).axes
    raw, smoothed, valid = axes.lines
    np.testing.assert_array_equal(raw.get_ydata(), record.loss)
    np.testing.assert_array_equal(smoothed.get_ydata(), record.smoothed_loss())
    assert raw.get_linewidth() < smoothed.get_linewidth()
    assert list(valid.get_xdata()) == [3, 6]
    assert list(valid.get_ydata()) == [1.5, 1.2]
    assert (valid.get_linestyle(), valid.get_marker()) == ("None", "o")
    assert (axes.get_xlabel(), axes.get_ylabel()) == ("step", "loss")
    assert [text.get_text() for text in axes.get_legend().get_texts()] == [
        "training, each batch",
        "training, smoothed",
        "validation",
    ]


def test_without_metrics_there_are_no_points():
    (axes,) = plots.plot_loss(make_record()).axes
    assert len(axes.lines) == 2


@pytest.mark.parametrize(
    ("valid_loss", "scale"),
    [(0.2, "linear"), (0.01, "log"), (0.0, "linear"), (float("nan"), "linear")],
)
def test_the_loss_axis_is_logarithmic_only_over_a_factor_of_20(valid_loss, scale):
    record = replace(make_record(), loss=np.full(6, 2.0))
    (axes,) = plots.plot_loss(record, [{"step": 6, "valid_loss": valid_loss}]).axes
    assert axes.get_yscale() == scale
    assert ("log scale" in axes.get_ylabel()) == (scale == "log")


def test_metrics_without_the_keys_are_refused():
    with pytest.raises(ValueError, match=r'"step" and "valid_loss", got one with \'step\''):
        plots.plot_loss(make_record(), [{"step": 1}])


# --- figures ---------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "plot",
    [
        plots.plot_sched,
        plots.plot_loss,
        lambda record: plots.plot_layer_stats(record, 0),
        lambda record: plots.color_dim(record, 0),
    ],
)
def test_a_record_without_steps_is_refused(plot):
    with pytest.raises(ValueError, match="at least one training step, got none"):
        plot(make_record().rows(0, 0))


def test_a_notebook_gets_the_picture():
    assert plots.plot_sched(make_record())._repr_png_().startswith(PNG)


def run(code):
    subprocess.run([sys.executable, "-c", textwrap.dedent(code)], check=True)


def test_importing_leaves_matplotlib_alone():
    run(
        """
        import sys
        import convjax.plots, convjax.images
        assert not any(name.startswith("matplotlib") for name in sys.modules)
        convjax.plots.new_figure(1, 1).savefig("/dev/null", format="png")
        assert "matplotlib.pyplot" not in sys.modules
        """
    )


def test_without_matplotlib_the_message_says_what_to_install():
    run(
        """
        import sys
        sys.modules["matplotlib"] = None  # import then raises ImportError
        from convjax import plots
        try:
            plots.new_figure(1, 1)
        except ImportError as error:
            assert 'pip install "convjax[plots]"' in str(error), error
        else:
            raise AssertionError("new_figure made a figure without matplotlib")
        """
    )
