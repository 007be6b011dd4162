"""Channels and colour kernels, read back from the drawings."""

import jax.numpy as jnp
import numpy as np
import pytest

from convjax import conv2d
from convjax.plots.chapter import colour_channels, colour_kernel
from tests.plots.chapter.reading import cut_off

pytest.importorskip("matplotlib")

PHOTO = np.random.default_rng(0).integers(0, 256, (12, 18, 3)).astype(np.uint8)
KERNEL = np.random.default_rng(1).integers(-3, 4, (3, 3, 3))


def pictures(figure):
    return {axes.get_title(): axes.images[0].get_array() for axes in figure.axes if axes.images}


def test_colour_channels_add_up_to_the_photograph():
    figure = colour_channels(PHOTO, (4, 7))
    whole, *channels = pictures(figure).values()
    np.testing.assert_array_equal(whole, PHOTO)
    np.testing.assert_array_equal(np.sum(channels, axis=0), PHOTO)
    for i, channel in enumerate(channels):
        np.testing.assert_array_equal(channel[..., i], PHOTO[..., i])
    red, green, blue = PHOTO[4, 7]
    assert [axes.get_title() for axes in figure.axes] == [
        "photograph, pixel (4, 7) marked",
        f"red: {red} at the mark",
        f"green: {green} at the mark",
        f"blue: {blue} at the mark",
    ]
    for axes in figure.axes:
        for mark in axes.lines:
            assert (mark.get_xdata(), mark.get_ydata()) == ([7], [4])
    assert cut_off(figure) == []


def test_colour_kernel_maps_are_those_of_a_convolution():
    figure = colour_kernel(PHOTO, KERNEL, 10, (5, 6))
    maps = [p for title, p in pictures(figure).items() if title.startswith("y")]
    images = jnp.asarray(PHOTO.transpose(2, 0, 1)[None], jnp.float32)
    for i in range(3):
        alone = conv2d(images[:, i : i + 1], jnp.float32(KERNEL)[None, i : i + 1], layout="NCHW")
        np.testing.assert_array_equal(maps[i], alone[0, 0])
    together = conv2d(images, jnp.float32(KERNEL)[None], jnp.float32([10]), layout="NCHW")
    np.testing.assert_array_equal(maps[3], together[0, 0])
    at = [map_[4, 5] for map_ in maps]  # the first centre is (1, 1)
    titles = [axes.get_title() for axes in figure.axes]
    for name, value in zip("RGB", at, strict=False):
        assert f"y{name} = {value:g} at the mark".replace("-", "−") in titles
    (total,) = (title for title in titles if title.startswith("yR + yG"))
    assert total.endswith(f"+ 10 = {at[3]:g}".replace("-", "−"))


def test_colour_kernel_maps_have_one_scale_and_image_coordinates():
    figure = colour_kernel(PHOTO, KERNEL, 10, (5, 6))
    maps = [axes for axes in figure.axes if axes.get_title().startswith("y")]
    limits = {axes.images[0].get_clim() for axes in maps}
    assert len(limits) == 1
    ((low, high),) = limits
    assert low == -high
    values = np.abs([axes.images[0].get_array() for axes in maps])
    assert np.mean(values <= high) == pytest.approx(0.99, abs=0.005)
    for axes in maps:
        assert axes.images[0].get_extent() == [0.5, 16.5, 10.5, 0.5]
        assert axes.patches[0].get_bbox().bounds == (5.5, 4.5, 1, 1)
    assert cut_off(figure) == []


def test_colour_kernel_writes_the_weights_into_their_cells():
    figure = colour_kernel(PHOTO, KERNEL, 10, (5, 6))
    tables = [axes for axes in figure.axes if axes.get_title() == "its 3×3 weights"]
    for axes, layer in zip(tables, KERNEL, strict=True):
        read = {text.get_position(): text.get_text() for text in axes.texts}
        assert read == {(j, i): str(v).replace("-", "−") for (i, j), v in np.ndenumerate(layer)}


@pytest.mark.parametrize(
    ("draw", "message"),
    [
        (lambda: colour_channels(PHOTO / 255, (0, 0)), r"photo must be uint8 .*float64 \(12, 18"),
        (
            lambda: colour_channels(PHOTO[..., 0], (0, 0)),
            r"shape \(H, W, 3\), got uint8 \(12, 18\)",
        ),
        (lambda: colour_channels(PHOTO, (12, 0)), r"place must be .*12×18 pixels.*got \(12, 0\)"),
        (lambda: colour_kernel(PHOTO, KERNEL[0], 0, (5, 6)), r"kernel must have .*got \(3, 3\)"),
        (lambda: colour_kernel(PHOTO, KERNEL, 0, (0, 6)), r"inside the 12×18 image, got \(0, 6\)"),
    ],
)
def test_colour_drawings_reject(draw, message):
    with pytest.raises(ValueError, match=message):
        draw()
