import numpy as np
import pytest

from convjax.nn.kernel_order import from_unnamed_order
from convjax.ops.layout import KERNEL_AXES, permutation

LAYOUTS = tuple(KERNEL_AXES)


@pytest.mark.parametrize("layout", LAYOUTS)
def test_from_unnamed_order_finds_the_layout_of_all_kernels(layout):
    rng = np.random.default_rng(0)
    kernels = {"first": rng.normal(size=(3, 3, 3, 3)), "second": rng.normal(size=(3, 3, 4, 8))}
    axes = permutation("HWIO", KERNEL_AXES[layout])
    file = {name: kernel.transpose(axes) for name, kernel in kernels.items()}
    bias = np.ones(8)
    shapes = {name: kernel.shape for name, kernel in kernels.items()}
    found = from_unnamed_order({**file, "bias": bias}, shapes, LAYOUTS)
    # The first has equal sides: only the second tells.
    assert found.layouts == (layout,)
    assert found.arrays["bias"] is bias
    for name, kernel in kernels.items():
        np.testing.assert_array_equal(found.arrays[name], kernel)
        assert found.arrays[name].flags.c_contiguous


def test_from_unnamed_order_names_all_layouts_that_fit():
    file = {"kernel": np.ones((3, 3, 3, 3))}
    wanted = {"kernel": (3, 3, 3, 3)}
    assert from_unnamed_order(file, wanted, ("CHWN", "NHWC")).layouts == ("CHWN", "NHWC")
    assert from_unnamed_order(file, {"kernel": (5, 5, 1, 8)}, LAYOUTS).layouts == ()
    assert from_unnamed_order({"kernel": np.ones(3)}, wanted, LAYOUTS).layouts == ()
