from dataclasses import replace

import numpy as np
import pytest

from convjax.plots.overview import color_dims, plot_images
from tests.helpers import make_record, without_histograms, without_layers
from tests.plots.drawn import caption


def drawn(figure):
    """Title and colours, as (steps, bins), of each panel."""
    figure.draw_without_rendering()
    return {
        axes.get_title(): mesh.get_array().reshape(40, -1).T
        for axes in figure.axes
        for mesh in axes.collections
        if axes.get_title()
    }


def varied(**sizes):
    record = make_record(**sizes)
    hist = np.random.default_rng(0).integers(0, 9, record.hist.shape).astype(np.int32)
    return replace(record, hist=hist)


@pytest.mark.parametrize("layers", [1, 3, 4, 5])
def test_color_dims_draws_every_layer_on_one_scale(layers):
    record = varied(steps=7, layers=layers)
    figure = color_dims(record)
    found = drawn(figure)
    assert list(found) == list(record.layers)
    for column, colours in enumerate(found.values()):
        np.testing.assert_array_equal(colours, np.log1p(record.hist[:, column]))
    scales = {mesh.get_clim() for axes in figure.axes[:layers] for mesh in axes.collections}
    assert scales == {(0, np.log1p(record.hist.max()))}


def test_color_dims_averages_long_trainings():
    record = varied(steps=1000, layers=1)
    (colours,) = drawn(color_dims(record)).values()
    assert colours.shape == (250, 40)
    np.testing.assert_allclose(np.expm1(colours[1]), record.hist[4:8, 0].mean(0), rtol=1e-12)


def test_color_dims_draws_a_dozen_of_many_layers():
    figure = color_dims(varied(steps=2, layers=30))
    names = list(drawn(figure))
    assert (len(names), names[0], names[-1]) == (12, "blocks.0.conv", "blocks.29.conv")
    assert '12 of 30 layers are drawn; layers="*" draws all.' in caption(figure)


def test_color_dims_draws_the_chosen_layers():
    record = varied(steps=2, layers=30)
    found = drawn(color_dims(record, ["blocks.1", "blocks.2?", -1]))
    assert list(found) == [f"blocks.{i}.conv" for i in (1, *range(20, 30))]
    np.testing.assert_array_equal(found["blocks.1.conv"], np.log1p(record.hist[:, 1]))
    figure = color_dims(record, "*")
    assert list(drawn(figure)) == list(record.layers)
    assert "are drawn" not in caption(figure)


def test_color_dims_leaves_steps_of_nan_empty():
    record = varied(steps=3, layers=2)
    for counts in (record.hist, record.under, record.over):
        counts[1, 0] = 0
    first, second = drawn(color_dims(record)).values()
    assert np.ma.getmaskarray(np.ma.masked_invalid(first)).all(1).tolist() == [False, True, False]
    assert np.isfinite(second).all()


def test_color_dims_rejects_records_without_histograms():
    with pytest.raises(ValueError, match="must hold statistics of layers, got none"):
        color_dims(without_layers(make_record(steps=2, layers=1)))
    with pytest.raises(ValueError, match="at least one step"):
        color_dims(make_record(steps=0, layers=1))
    with pytest.raises(ValueError, match="must hold histograms"):
        color_dims(without_histograms(make_record(steps=2, layers=1)))


@pytest.mark.parametrize("channels", [1, 2, 3, 4, 5])
def test_plot_images_draws_images_below_their_titles(channels):
    images = np.random.default_rng(0).integers(0, 256, (7, 4, 5, channels), np.uint8)
    figure = plot_images(images, list("abcdef$"))
    panels = [axes for axes in figure.axes if axes.images]
    assert [axes.get_title() for axes in panels] == list("abcdef$")
    expected = images if channels in (3, 4) else images[..., 0]
    for axes, image in zip(panels, expected, strict=True):
        np.testing.assert_array_equal(axes.images[0].get_array(), image)
    # A grey image keeps its brightness: 0 is black and 255 is white.
    assert channels in (3, 4) or panels[0].images[0].get_clim() == (0, 255)


def test_plot_images_rejects_another_number_of_titles():
    with pytest.raises(ValueError, match="at least one, got 1 texts for 2 images"):
        plot_images(np.zeros((2, 3, 3, 1), np.uint8), ["a"])
    with pytest.raises(ValueError, match="got 0 texts for 0 images"):
        plot_images(np.zeros((0, 3, 3, 1), np.uint8), [])
