"""Plots of a sweep, read back from the figures."""

import numpy as np
import pytest

from convjax.plots.sweeps import plot_sweep
from convjax.train._sweep import Sweep

pytest.importorskip("matplotlib")


def made(accuracy, broken=()):
    accuracy = np.asarray(accuracy, float)
    loss = np.ones((*accuracy.shape, 2))
    for run in broken:
        loss[(*run, 1)] = np.nan
    return Sweep(loss, loss[..., 0], accuracy)


def test_plot_sweep_of_one_axis_has_mean_band_and_share():
    found = made([[0.8, 0.9, 0.3], [1.0, 0.94, 0.1]], broken=[(1, 1)])
    figure = plot_sweep(found, {"learning rate": [1.0, 0.01, 0.1]})
    above, below = figure.axes
    mean = above.get_lines()[0]
    # In the order of the rates.
    np.testing.assert_allclose(mean.get_xdata(), [0.01, 0.1, 1.0])
    np.testing.assert_allclose(mean.get_ydata(), [0.92, 0.2, 0.9])
    (band,) = above.collections
    corners = band.get_paths()[0].vertices
    for place, low, high in ((0.01, 0.9, 0.94), (0.1, 0.1, 0.3), (1.0, 0.8, 1.0)):
        heights = corners[np.isclose(corners[:, 0], place), 1]
        assert (heights.min(), heights.max()) == (low, high)
    # The run with a non-finite loss does not count, whatever its accuracy.
    np.testing.assert_allclose(below.get_lines()[0].get_ydata(), [0.5, 0, 0.5])
    assert below.get_xscale() == "log"
    assert below.get_xlabel() == "learning rate"
    assert "2 seeds" in below.get_ylabel()
    labels = [text.get_text() for text in above.get_legend().get_texts()]
    assert labels == ["lowest to highest seed", "mean over seeds", "trains: 0.9"]


def test_plot_sweep_axis_with_zero_is_linear():
    figure = plot_sweep(made([[0.8, 0.9]]), {"weight decay": [0.0, 0.3]})
    assert figure.axes[1].get_xscale() == "linear"


def test_plot_sweep_of_two_axes_has_maps_of_mean_spread_and_share():
    accuracy = np.array([[0.91, 0.2, 0.5, 0.95, 0.9, 0.1], [0.93, 0.4, 0.5, 0.97, 0.8, 0.1]])
    axes = {"momentum": [0.8, 0.9], "learning rate": [0.01, 0.1, 1.0]}
    panels = plot_sweep(made(accuracy), axes).axes[:3]
    wanted = (
        accuracy.mean(0),
        np.abs(accuracy[0] - accuracy[1]) / np.sqrt(2),
        [1, 0, 0, 1, 0.5, 0],
    )
    for panel, cells in zip(panels, wanted, strict=True):
        (image,) = panel.get_images()
        # The last axis is the fastest, and horizontal.
        np.testing.assert_allclose(image.get_array(), np.reshape(cells, (2, 3)), atol=1e-12)
        assert panel.get_xlabel() == "learning rate"
        assert [text.get_text() for text in panel.get_xticklabels()] == ["0.01", "0.1", "1"]
        assert [text.get_text() for text in panel.texts] == [f"{cell:.3f}" for cell in cells]
    assert [text.get_text() for text in panels[0].get_yticklabels()] == ["0.8", "0.9"]
    assert panels[0].get_ylabel() == "momentum"
    assert [panel.get_title() for panel in panels] == [
        "mean test accuracy",
        "standard deviation over seeds",
        "share of seeds (of 2) that reach 0.9",
    ]


def test_plot_sweep_of_one_seed_has_no_spread():
    figure = plot_sweep(made([[0.8, 0.9]]), {"momentum": [0.9], "learning rate": [0.1, 1.0]})
    titles = [axes.get_title() for axes in figure.axes]
    assert "standard deviation over seeds" not in titles


@pytest.mark.parametrize(
    "axes",
    [{}, {"a": [1, 2, 3], "b": [1]}, {"a": [1, 2]}, {"a": [1], "b": [1], "c": [1, 2, 3, 4]}],
)
def test_plot_sweep_rejects_axes_of_other_settings(axes):
    with pytest.raises(ValueError, match=r"axes must be one or two .* the 4 settings.*got \{"):
        plot_sweep(made([[0.8, 0.9, 0.7, 0.6]]), axes)


def test_plot_sweep_cuts_nothing_off():
    accuracy = np.linspace(0, 1, 24).reshape(2, 12)
    for axes in (
        {"weight decay": [0.0, 0.1, 0.2], "learning rate": [0.001, 0.01, 0.1, 1.0]},
        {"learning rate": np.geomspace(1e-4, 1, 12).tolist()},
    ):
        figure = plot_sweep(made(accuracy), axes)
        figure.draw_without_rendering()
        width, height = figure.get_size_inches() * figure.dpi
        for panel in figure.axes:
            box = panel.get_tightbbox()
            assert min(box.x0, box.y0) >= 0, panel.get_title()
            assert box.x1 <= width, panel.get_title()
            assert box.y1 <= height, panel.get_title()
