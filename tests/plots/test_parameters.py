"""Plots of gradients and updates, read back from the figures."""

from dataclasses import replace

import numpy as np
import pytest

from convjax.plots.parameters import color_magnitudes, plot_update_ratios
from tests.helpers import make_record, without_layers
from tests.plots.drawn import caption, draw

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


def with_kernels(count, ndims=2):
    """A record whose parameters are kernels alone, each with its number in its norm."""
    old = RECORD.parameters
    rows = len(old.watched)

    def norms(first):
        return np.tile(first + np.arange(count, dtype=np.float32), (rows, 1))

    parameters = replace(
        old,
        names=tuple(f"layers[{i}].conv.kernel" for i in range(count)),
        sizes=np.full(count, 36),
        ndims=np.full(count, ndims),
        weight_norm=norms(1),
        grad_norm=norms(2),
        update_norm=norms(3),
        grad_hist=np.zeros((0, count, 42), np.int32),
        update_hist=np.zeros((0, count, 42), np.int32),
    )
    return replace(RECORD, parameters=parameters)


def kernels_of(figure):
    """The kernels by the norm of their gradients, as `with_kernels` numbers them."""
    return [int(line.get_ydata()[0]) - 2 for line in figure.axes[0].get_lines()]


def test_plot_update_ratios_draws_a_dozen_of_many_kernels_or_the_chosen():
    record = with_kernels(40)
    figure = plot_update_ratios(record)
    drawn = kernels_of(figure)
    assert {0, 39} <= set(drawn)
    assert 12 <= len(drawn) <= 14  # with those of findings
    assert f'{len(drawn)} of 40 kernels are drawn; layers="*" draws all.' in caption(figure)
    assert kernels_of(plot_update_ratios(record, "*")) == list(range(40))
    assert kernels_of(plot_update_ratios(record, ["layers[3]", -1])) == [3, 39]
    assert len(kernels_of(plot_update_ratios(with_kernels(12)))) == 12
    with pytest.raises(ValueError, match="layers must match one of 40 names, got 'conv'"):
        plot_update_ratios(record, "conv")


def test_plot_update_ratios_draws_vectors_where_there_is_no_kernel():
    figure = plot_update_ratios(with_kernels(2, ndims=1))
    assert kernels_of(figure) == [0, 1]
    draw(figure)


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
    for plot in (plot_update_ratios, lambda record: color_magnitudes(record, "conv.kernel")):
        with pytest.raises(ValueError, match=r"record must hold gradients or updates, got none"):
            plot(bare)
    with pytest.raises(KeyError, match=r"one of conv\.bias, conv\.kernel, got 'conv'"):
        color_magnitudes(RECORD, "conv")
    with pytest.raises(ValueError, match=r"of must be 'gradients' or 'updates', got 'weights'"):
        color_magnitudes(RECORD, "conv.kernel", of="weights")
