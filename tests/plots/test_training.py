"""Plots of a training: schedule, loss and learning-rate finder, read back from the figures."""

from dataclasses import replace

import numpy as np
import pytest

from convjax import plots
from convjax.plots.figure import point_style
from convjax.train.lr_finder import LRFind
from tests.plots.drawn import PNG, draw, lines, make_record

pytest.importorskip("matplotlib")


def test_plot_sched_draws_rate_and_momentum():
    record = make_record()
    figure = plots.plot_sched(record)
    rate, momentum = figure.axes
    np.testing.assert_array_equal(lines(rate), [record.learning_rate])
    np.testing.assert_array_equal(lines(momentum), [record.momentum])
    assert (rate.get_ylabel(), momentum.get_ylabel()) == ("learning rate", "momentum")
    assert {axes.get_xlabel() for axes in figure.axes} == {"step"}
    assert draw(figure).startswith(PNG)


def test_plot_loss_draws_batches_smoothed_loss_and_validation():
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


def test_plot_loss_without_metrics_has_no_points():
    (axes,) = plots.plot_loss(make_record()).axes
    assert len(axes.lines) == 2


@pytest.mark.parametrize(
    ("valid_loss", "scale"),
    [(0.2, "linear"), (0.01, "log"), (0.0, "linear"), (float("nan"), "linear")],
)
def test_plot_loss_is_logarithmic_above_a_factor_of_20(valid_loss, scale):
    record = replace(make_record(), loss=np.full(6, 2.0))
    (axes,) = plots.plot_loss(record, [{"step": 6, "valid_loss": valid_loss}]).axes
    assert axes.get_yscale() == scale
    assert ("log scale" in axes.get_ylabel()) == (scale == "log")


def test_plot_loss_rejects_metrics_without_the_keys():
    with pytest.raises(ValueError, match=r'"step" and "valid_loss", got one with \'step\''):
        plots.plot_loss(make_record(), [{"step": 1}])


def test_plot_lr_find_marks_the_suggestions():
    rates = 1e-7 * 1e8 ** (np.arange(100) / 100)
    losses = (
        2.3 - 1.5 / (1 + np.exp(-(np.arange(100) - 55) / 4)) + np.exp((np.arange(100) - 90) / 3)
    )
    found = LRFind(100, rates, losses, losses)
    (axes,) = plots.plot_lr_find(found).axes
    assert axes.get_xscale() == "log"
    labels = [text.get_text() for text in axes.get_legend().get_texts()]
    suggestions = found.suggestions()
    assert labels == [
        "each batch",
        "smoothed",
        *(f"{name}: {rate:.1e}" for name, rate in suggestions.items()),
    ]
    marks = [line.get_xdata()[0] for line in axes.get_lines()[2:]]
    assert marks == list(suggestions.values())
    # The divergence at the end does not set the height.
    assert axes.get_ylim()[1] == pytest.approx(1.5 * losses[10:95].max())


def test_plot_lr_find_without_a_suggestion():
    losses = np.linspace(2.3, 9.3, 12)
    found = LRFind(100, 1e-7 * 1e8 ** (np.arange(12) / 100), losses, losses)
    assert not found.can_suggest
    (axes,) = plots.plot_lr_find(found).axes
    assert len(axes.get_lines()) == 2
    assert not axes.patches
    assert axes.get_ylim()[1] >= 9.3


def test_plot_sched_leaves_out_what_was_not_recorded():
    record = make_record()
    none = np.full_like(record.momentum, np.nan)
    (rate,) = plots.plot_sched(replace(record, momentum=none)).axes
    assert rate.get_ylabel() == "learning rate"
    np.testing.assert_array_equal(lines(rate), [record.learning_rate])
    (momentum,) = plots.plot_sched(replace(record, learning_rate=none)).axes
    assert momentum.get_ylabel() == "momentum"
    with pytest.raises(ValueError, match=r"a learning rate or a momentum, got none\. Give"):
        plots.plot_sched(replace(record, learning_rate=none, momentum=none))


def test_plots_mark_a_single_step_and_label_it_by_a_whole_number():
    record = make_record().between(2, 3)
    for figure in (plots.plot_sched(record), plots.plot_loss(record)):
        draw(figure)
        for axes in figure.axes:
            assert axes.lines[0].get_marker() == "o"
            assert not (axes.get_xticks() % 1).any()


def test_point_style_marks_values_without_a_neighbour():
    nan = np.nan
    values = np.array([1, nan, 2, 3, nan, np.inf, 4, np.inf, nan, 5])
    assert point_style(values)["markevery"] == [0, 6, 9]
    assert point_style(values[2:4]) == {}
    assert point_style(values[1:2]) == {}
