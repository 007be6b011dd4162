import jax
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from convjax.ops import layout as layouts
from tests.helpers import KERNELS, LAYOUTS, reorder


def test_axis_of_permutation_and_spatial_shape_values():
    assert {name: layouts.axis_of("C", name) for name in LAYOUTS} == {
        "NHWC": 3,
        "NCHW": 1,
        "CHWN": 0,
    }
    assert layouts.permutation("NHWC", "NCHW") == (0, 3, 1, 2)
    assert layouts.permutation("NHWC", "CHWN") == (3, 1, 2, 0)
    assert layouts.spatial_shape((2, 3, 4, 5), "NHWC") == (3, 4)
    assert layouts.spatial_shape((2, 3, 4, 5), "NCHW") == (4, 5)
    assert layouts.spatial_shape((2, 3, 4, 5), "CHWN") == (3, 4)
    assert layouts.KERNEL_AXES == KERNELS


@pytest.mark.parametrize("target", LAYOUTS)
@pytest.mark.parametrize("source", LAYOUTS)
def test_images_to_and_kernel_to_move_axes_by_letter(source, target):
    # Four different sizes and no two equal numbers, so that any wrong axis fails.
    array = np.arange(2 * 3 * 4 * 5, dtype=np.float32).reshape(2, 3, 4, 5)
    np.testing.assert_array_equal(
        layouts.images_to(array, target, source=source), reorder(array, source, target)
    )
    np.testing.assert_array_equal(
        layouts.kernel_to(array, target, source=source),
        reorder(array, KERNELS[source], KERNELS[target]),
    )


def test_images_to_expects_nhwc_by_default():
    images = np.zeros((2, 3, 4, 5), np.float32)
    assert layouts.images_to(images, "CHWN").shape == (5, 3, 4, 2)


@given(st.permutations("NHWC"), st.permutations("NHWC"))
def test_permutation_is_inverted_by_its_reverse(source, target):
    there = layouts.permutation("".join(source), "".join(target))
    back = layouts.permutation("".join(target), "".join(source))
    assert [there[i] for i in back] == [0, 1, 2, 3]
    assert [source[i] for i in there] == target


def test_resolve_layout_auto_is_chwn_on_cpu_and_nhwc_elsewhere(monkeypatch):
    for backend, expected in (("cpu", "CHWN"), ("gpu", "NHWC"), ("tpu", "NHWC")):
        monkeypatch.setattr(jax, "default_backend", lambda backend=backend: backend)
        assert layouts.resolve_layout("auto") == expected
        assert layouts.resolve_layout("NCHW") == "NCHW"


@pytest.mark.parametrize("unknown", ["HWCN", "nhwc", "", "auto", None])
def test_layout_functions_reject_unknown_layouts(unknown):
    message = f"layout must be one of 'NHWC', 'NCHW', 'CHWN', got {unknown!r}"
    with pytest.raises(ValueError, match=message):
        layouts.check_layout(unknown)
    with pytest.raises(ValueError, match=message):
        layouts.axis_of("C", unknown)
    array = np.zeros((1, 1, 1, 1), np.float32)
    with pytest.raises(ValueError, match=message):
        layouts.images_to(array, unknown)
    with pytest.raises(ValueError, match=message):
        layouts.kernel_to(array, "NHWC", source=unknown)
    if unknown != "auto":
        with pytest.raises(ValueError, match=f"'CHWN' or 'auto', got {unknown!r}"):
            layouts.resolve_layout(unknown)


@pytest.mark.parametrize("layout", LAYOUTS)
def test_flatten_has_the_order_channels_rows_columns(layout):
    x = np.arange(2 * 3 * 4 * 5).reshape(2, 3, 4, 5)  # NCHW
    found = layouts.flatten(reorder(x, "NCHW", layout), layout=layout)
    np.testing.assert_array_equal(found, x.reshape(2, 60))
    with pytest.raises(ValueError, match=f"the four axes {layout}, got shape"):
        layouts.flatten(np.ones((2, 3)), layout=layout)
