"""Plots of images, kernels and maps, read back from the figures."""

import jax.numpy as jnp
import numpy as np
import pytest

from convjax import plots
from convjax.ops.layout import KERNEL_AXES
from convjax.plots import images
from tests.plots.drawn import draw

pytest.importorskip("matplotlib")

PNG = b"\x89PNG"
LAYOUTS = tuple(KERNEL_AXES)


def pictures(figure):
    return [axes.images[0] for axes in figure.axes if axes.images]


def arrays(figure):
    return [np.ma.filled(picture.get_array(), np.nan) for picture in pictures(figure)]


def in_order(array, source, target):
    return np.transpose(array, [source.index(letter) for letter in target])


# --- batches ---------------------------------------------------------------------------------


@pytest.mark.parametrize("channels", [1, 3])
def test_show_batch_draws_the_first_images_with_their_class_names(channels):
    batch = np.random.default_rng(0).integers(0, 256, (12, 4, 6, channels)).astype(np.uint8)
    labels = np.arange(12) % 3
    figure = images.show_batch(batch, labels, ("three", "seven", "nine"))
    shown = arrays(figure)
    assert len(shown) == 9
    for picture, expected in zip(shown, batch, strict=False):
        np.testing.assert_array_equal(picture, expected[..., 0] if channels == 1 else expected)
    assert [axes.get_title() for axes in figure.axes] == ["three", "seven", "nine"] * 3
    # 0 is black and 255 white in every panel, whatever the image holds.
    assert all(picture.get_clim() == (0, 255) for picture in pictures(figure))
    assert figure._repr_png_().startswith(PNG)


def test_show_batch_of_few_images():
    figure = images.show_batch(np.zeros((5, 4, 4, 1), np.uint8), np.zeros(5, int), ["only"])
    assert len(figure.axes) == 5


def test_show_batch_wraps_long_class_names():
    figure = images.show_batch(
        np.zeros((1, 4, 4, 1), np.uint8), [0], ["a class with quite a long name"]
    )
    assert figure.axes[0].get_title() == "a class with\nquite a long name"


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"images": np.zeros((2, 4, 4, 1), np.float32)}, "before normalisation"),
        ({"images": np.zeros((2, 4, 4, 2), np.uint8)}, r"C = 1 or 3, got uint8 \(2, 4, 4, 2\)"),
        ({"images": np.zeros((2, 4, 4), np.uint8)}, r"\(N, H, W, C\)"),
        ({"labels": [0]}, r"one index per image, shape \(2,\), got \(1,\)"),
        ({"labels": [0, 2]}, r"labels must lie in 0\.\.1.*got 0 to 2"),
        ({"labels": [-1, 0]}, "got -1 to 0"),
        ({"count": 0}, "at least 1, got 0 and 2"),
        ({"images": np.zeros((0, 4, 4, 1), np.uint8), "labels": []}, "got 9 and 0"),
    ],
)
def test_show_batch_rejects(change, message):
    arguments = {
        "images": np.zeros((2, 4, 4, 1), np.uint8),
        "labels": [0, 1],
        "class_names": ["a", "b"],
    }
    with pytest.raises(ValueError, match=message):
        images.show_batch(**(arguments | change))


# --- kernels ---------------------------------------------------------------------------------


@pytest.mark.parametrize("layout", LAYOUTS)
def test_show_kernels_of_grey_images_has_one_symmetric_scale(layout):
    kernel = np.arange(-5, 67, dtype=np.float32).reshape(8, 3, 3, 1)  # OHWI
    figure = images.show_kernels(in_order(kernel, "OHWI", KERNEL_AXES[layout]), layout)
    np.testing.assert_array_equal(arrays(figure), kernel[..., 0])
    assert all(picture.get_clim() == (-66, 66) for picture in pictures(figure))
    *panels, bar = figure.axes
    assert [axes.get_title() for axes in panels] == [str(i) for i in range(8)]
    assert bar.get_ylabel() == "weight"
    assert figure._repr_png_().startswith(PNG)


@pytest.mark.parametrize("layout", LAYOUTS)
def test_show_kernels_of_colour_images_draws_rgb(layout):
    kernel = np.zeros((2, 1, 2, 3), np.float32)  # OHWI
    kernel[0, 0, 0] = (4, -4, 2)
    figure = images.show_kernels(in_order(kernel, "OHWI", KERNEL_AXES[layout]), layout)
    first, second = arrays(figure)
    np.testing.assert_allclose(first, [[(1, 0, 0.75), (0.5, 0.5, 0.5)]])
    np.testing.assert_allclose(second, 0.5)
    assert "±4" in figure.get_suptitle()
    assert len(figure.axes) == 2  # no colour bar: three colours have none


def test_show_kernels_of_deeper_layers_draws_the_mean():
    kernel = np.random.default_rng(0).normal(size=(3, 3, 8, 5)).astype(np.float32)
    figure = images.show_kernels(kernel, "NHWC")
    np.testing.assert_allclose(
        arrays(figure), kernel.mean(2).transpose(2, 0, 1), rtol=1e-5, atol=1e-6
    )
    assert figure.axes[-1].get_ylabel() == "mean weight over 8 input channels"


@pytest.mark.parametrize("inputs", [1, 3])
@pytest.mark.parametrize("value", [0.0, np.nan])
def test_show_kernels_of_zero_or_nan(inputs, value):
    figure = images.show_kernels(np.full((3, 3, inputs, 2), value), "NHWC")
    assert figure._repr_png_().startswith(PNG)


def test_show_kernels_of_half_precision():
    figure = images.show_kernels(jnp.ones((3, 3, 1, 2), jnp.bfloat16), "NHWC")
    assert figure._repr_png_().startswith(PNG)


def test_show_kernels_rejects():
    with pytest.raises(ValueError, match=r"four axes HWIO.*shape \(3, 3\)"):
        images.show_kernels(np.zeros((3, 3)), "NHWC")
    with pytest.raises(ValueError, match=r"four axes OIHW, none of them empty"):
        images.show_kernels(np.zeros((0, 1, 3, 3)), "NCHW")
    with pytest.raises(ValueError, match="layout must be one of"):
        images.show_kernels(np.zeros((3, 3, 1, 1)), "HWIO")


# --- feature maps ----------------------------------------------------------------------------


@pytest.mark.parametrize("layout", LAYOUTS)
@pytest.mark.parametrize("example", [1, -1])
def test_show_feature_maps_has_one_scale(layout, example):
    maps = np.arange(2 * 6 * 3 * 5, dtype=np.float32).reshape(2, 6, 3, 5) - 100  # NCHW
    figure = images.show_feature_maps(in_order(maps, "NCHW", layout), layout, example)
    np.testing.assert_array_equal(arrays(figure), maps[1])
    assert all(picture.get_clim() == (-10, 79) for picture in pictures(figure))
    *panels, bar = figure.axes
    assert [axes.get_title() for axes in panels] == [str(i) for i in range(6)]
    assert bar.get_ylabel() == "output"
    assert figure._repr_png_().startswith(PNG)


@pytest.mark.parametrize("value", [0.0, np.nan, np.inf])
def test_show_feature_maps_of_constant_maps(value):
    figure = images.show_feature_maps(np.full((1, 1, 1, 10), value), "NHWC")
    assert figure._repr_png_().startswith(PNG)


def test_show_feature_maps_rejects():
    with pytest.raises(IndexError, match="index into the 2 examples of maps, got 2"):
        images.show_feature_maps(np.zeros((2, 4, 4, 1)), "NHWC", 2)
    with pytest.raises(ValueError, match=r"four axes CHWN.*shape \(2, 10\)"):
        images.show_feature_maps(np.zeros((2, 10)), "CHWN")


# --- grids -----------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("count", "rows", "columns"),
    [(1, 1, 1), (4, 2, 2), (7, 3, 3), (8, 2, 4), (9, 3, 3), (10, 2, 5), (32, 4, 8), (64, 8, 8)],
)
def test_show_feature_maps_grid_has_no_gap_if_possible(count, rows, columns):
    figure = images.show_feature_maps(np.zeros((1, 2, 2, count)), "NHWC")
    grid = figure.axes[0].get_gridspec()
    assert (grid.nrows, grid.ncols) == (rows, columns)
    assert len(pictures(figure)) == count


@pytest.mark.parametrize(
    ("image", "shape"),
    [
        (np.zeros((5, 4), np.uint8), (5, 4)),
        (np.zeros((5, 4, 1), np.uint8), (5, 4)),
        (np.zeros((1, 5, 4), np.float32), (5, 4)),
        (np.zeros((5, 4, 3), np.uint8), (5, 4, 3)),
        (np.linspace(-1, 3, 60).reshape(3, 5, 4), (5, 4, 3)),
    ],
)
def test_show_image(image, shape):
    axes = plots.show_image(image, title="digit")
    (drawn,) = axes.images
    assert drawn.get_array().shape == shape
    if image.dtype == np.uint8 and len(shape) == 2:
        assert drawn.get_clim() == (0, 255)
    if image.min() < 0:
        assert (drawn.get_array().min(), drawn.get_array().max()) == (0, 1)
    draw(axes.figure)


def test_show_image_is_a_picture_in_a_notebook():
    axes = plots.show_image(np.eye(3))
    assert axes._repr_png_() == axes.figure._repr_png_()
    assert axes._repr_png_().startswith(PNG)
    # Axes of the user's are a part of a figure that may have others.
    (_, panels) = plots.subplots(1, 2)
    assert not hasattr(plots.show_image(np.eye(3), ax=panels[0, 0]), "_repr_png_")


def test_show_image_within_subplots():
    figure, panels = plots.subplots(1, 2, figsize=(5, 2))
    assert figure.get_size_inches().tolist() == [5, 2]
    found = plots.show_image(np.eye(3), ax=panels[0, 1], cmap="Purples")
    assert found is panels[0, 1]
    assert found.images[0].get_cmap().name == "Purples"
    with pytest.raises(ValueError, match=r"image must have the shape .*got \(2, 8, 8, 1\).*\[0\]"):
        plots.show_image(np.zeros((2, 8, 8, 1)))


def test_figsize_of_pictures():
    batch = np.zeros((2, 8, 8, 1), np.uint8)
    size = (3.0, 2.0)
    for figure in (
        plots.show_batch(batch, [0, 0], ["a"], figsize=size),
        plots.show_kernels(np.ones((3, 3, 1, 2)), figsize=size),
        plots.show_feature_maps(batch, "NHWC", figsize=size),
    ):
        assert tuple(figure.get_size_inches()) == size
