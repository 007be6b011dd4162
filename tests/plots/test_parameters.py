"""Plots of gradients and updates, read back from the figures."""

import numpy as np
import pytest

from convjax.plots.parameters import color_magnitudes, plot_update_ratios
from tests.helpers import make_record, without_layers

pytest.importorskip("matplotlib")

RECORD = make_record(steps=8, layers=2)


def test_plot_update_ratios_draws_kernels_on_logarithmic_axes():
    gradient, ratio = plot_update_ratios(RECORD).axes
    assert gradient.get_yscale() == ratio.get_yscale() == "log"
    (line,) = gradient.get_lines()  # the bias has none
    np.testing.assert_allclose(line.get_ydata(), RECORD.parameters.grad_norm[:, 1])
    drawn, thumb = ratio.get_lines()
    np.testing.assert_allclose(drawn.get_ydata(), RECORD.parameters.update_ratio[:, 1])
    assert drawn.get_label() == "conv.kernel"
    assert thumb.get_ydata()[0] == 1e-3


def test_color_magnitudes_draws_the_counts_by_step_and_bin():
    above, panel, below, _ = color_magnitudes(RECORD, "conv.kernel").axes
    (picture,) = panel.collections
    counts = RECORD.parameters.grad_hist[:, 1, 1:41]
    np.testing.assert_allclose(picture.get_array().reshape(40, 8), np.log1p(counts).T)
    assert panel.get_yscale() == "log"
    assert (panel.get_ylabel(), below.get_xlabel()) == ("|gradient|", "step")
    # Of 36 elements 10 to 17 are counted; the others are not finite.
    np.testing.assert_allclose(
        above.patches[0].get_data().values, 100 - 100 * (10 + np.arange(8)) / 36
    )
    updates = color_magnitudes(RECORD, "conv.bias", of="updates").axes[1]
    assert updates.get_ylabel() == "|update|"


def test_plots_of_parameters_reject_mistakes():
    bare = without_layers(RECORD)
    for draw in (plot_update_ratios, lambda record: color_magnitudes(record, "conv.kernel")):
        with pytest.raises(ValueError, match=r"record must hold gradients or updates, got none"):
            draw(bare)
    with pytest.raises(KeyError, match=r"one of conv\.bias, conv\.kernel, got 'conv'"):
        color_magnitudes(RECORD, "conv")
    with pytest.raises(ValueError, match=r"of must be 'gradients' or 'updates', got 'weights'"):
        color_magnitudes(RECORD, "conv.kernel", of="weights")
