import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from convjax.ops import reference
from tests.helpers import KERNELS, LAYOUTS, conv_cases
from tests.ops.loops_vjp import conv2d_loops_vjp

# All 60 in PyTorch's order, one in four in the others: the loops are slow.
CASES = [
    (layout, i)
    for layout, step in (("NCHW", 1), ("NHWC", 4), ("CHWN", 4))
    for i in range(0, 60, step)
]
# Sums of a few hundred products of order 1 in float64.
TOLERANCE = 1e-12


@pytest.mark.parametrize(("layout", "i"), CASES)
def test_conv2d_loops_and_patches_equal_recorded_values(layout, i):
    case = conv_cases()[i].in_layout(layout)
    options = case.settings | {"layout": layout}
    for conv in (reference.conv2d_loops, reference.conv2d_patches):
        y = conv(case.x, case.w, case.b, **options)
        assert y.shape == case.y.shape
        np.testing.assert_allclose(y, case.y, rtol=0, atol=TOLERANCE)
    dx, dw, db = conv2d_loops_vjp(case.x, case.w, case.cotangent, **options)
    np.testing.assert_allclose(dx, case.dx, rtol=0, atol=TOLERANCE)
    np.testing.assert_allclose(dw, case.dw, rtol=0, atol=TOLERANCE)
    if case.db is not None:
        np.testing.assert_allclose(db, case.db, rtol=0, atol=TOLERANCE)


# --- one kernel at one place -------------------------------------------------------------------

IMAGE = np.arange(20).reshape(4, 5)
TOP_EDGE = np.array([[-1, -1, -1], [0, 0, 0], [1, 1, 1]])


def test_apply_kernel_values():
    # Rows around (1, 2): 1 2 3, 6 7 8, 11 12 13; the last less the first is 36 − 6.
    assert reference.apply_kernel(IMAGE, 1, 2, TOP_EDGE) == 30
    # An even kernel lies before its centre: around (1, 1) it sees 0 1 5 6.
    assert reference.apply_kernel(IMAGE, 1, 1, np.array([[1, 10], [100, 1000]])) == 6510


@pytest.mark.parametrize(("row", "column"), [(0, 2), (3, 2), (1, 0), (1, 4), (-1, 2), (9, 9)])
def test_apply_kernel_rejects_positions_beyond_the_border(row, column):
    message = (
        rf"row and column must keep the 3×3 kernel inside the 4×5 image, got \({row}, {column}"
    )
    with pytest.raises(ValueError, match=message):
        reference.apply_kernel(IMAGE, row, column, TOP_EDGE)


def test_kernel_map_values():
    assert reference.kernel_map(IMAGE, TOP_EDGE).tolist() == [[30, 30, 30], [30, 30, 30]]
    one = np.array([[0, 1], [0, 0]])  # takes the pixel at the top right of each window
    assert reference.kernel_map(IMAGE, one).tolist() == IMAGE[:-1, 1:].tolist()
    with pytest.raises(ValueError, match="the kernel is larger than the padded input"):
        reference.kernel_map(IMAGE[:2], TOP_EDGE)


@given(st.integers(1, 5), st.integers(1, 5), st.integers(0, 4), st.integers(0, 4))
def test_kernel_map_equals_the_convolution_of_one_channel(kh, kw, more_rows, more_columns):
    rng = np.random.default_rng(0)
    image = rng.integers(-9, 10, (kh + more_rows, kw + more_columns))
    kernel = rng.integers(-9, 10, (kh, kw))
    found = reference.kernel_map(image, kernel)
    expected = reference.conv2d_loops(image[None, None], kernel[None, None], layout="NCHW")[0, 0]
    np.testing.assert_array_equal(found, expected)  # whole numbers: exact


# --- the explicit matrix -----------------------------------------------------------------------

__ = -1  # always zero
CHAPTER = [
    [0, 1, __, 2, 3, __, __, __, __],
    [__, 0, 1, __, 2, 3, __, __, __],
    [__, __, __, 0, 1, __, 2, 3, __],
    [__, __, __, __, 0, 1, __, 2, 3],
]


def test_conv_matrix_of_the_chapter():
    indices = reference.tied_indices((1, 1, 2, 2), (1, 3, 3))
    assert indices.tolist() == CHAPTER
    kernel = np.array([2.0, 3, 5, 7]).reshape(1, 1, 2, 2)
    matrix = reference.conv_matrix(kernel, (1, 3, 3))
    assert matrix.tolist() == [[0 if i < 0 else kernel.flat[i] for i in row] for row in CHAPTER]
    image = np.arange(1.0, 10).reshape(1, 1, 3, 3)
    # 1·2 + 2·3 + 4·5 + 5·7 = 63; one pixel further each product grows by its weight, 17 in all.
    assert (matrix @ image.ravel()).tolist() == [63, 80, 114, 131]
    loops = reference.conv2d_loops(image, kernel, layout="NCHW")
    np.testing.assert_array_equal(matrix @ image.ravel(), loops.ravel())


def test_tied_indices_include_weights_that_are_zero():
    # Only entries that are always zero are -1: a zero in the kernel is a weight.
    kernel = np.zeros((1, 1, 2, 2))
    assert (reference.tied_indices(kernel.shape, (1, 3, 3)) >= 0).sum() == 16
    assert not reference.conv_matrix(kernel, (1, 3, 3)).any()


@pytest.mark.parametrize(
    "options",
    [
        {},
        {"stride": (2, 1), "padding": (1, 2)},
        {"padding": "same", "dilation": (1, 2)},
        {"groups": 2, "padding": ((1, 0), (0, 2))},
    ],
    ids=str,
)
def test_conv_matrix_equals_the_convolution_and_its_gradient(options):
    rng = np.random.default_rng(0)
    kernel = rng.standard_normal((4, 4 // options.get("groups", 1), 2, 3))
    x = rng.standard_normal((1, 4, 5, 6))
    matrix = reference.conv_matrix(kernel, x.shape[1:], **options)
    y = reference.conv2d_loops(x, kernel, layout="NCHW", **options)
    # Sums of 24 products of order 1 in float64.
    np.testing.assert_allclose(matrix @ x.ravel(), y.ravel(), rtol=0, atol=TOLERANCE)

    cotangent = rng.standard_normal(y.shape)
    dx, dw, _ = conv2d_loops_vjp(x, kernel, cotangent, layout="NCHW", **options)
    np.testing.assert_allclose(matrix.T @ cotangent.ravel(), dx.ravel(), rtol=0, atol=TOLERANCE)
    # If every entry were free, d(yᵀ·cotangent)/dM = cotangent·xᵀ; ties add these up.
    free = np.outer(cotangent, x)
    indices = reference.tied_indices(kernel.shape, x.shape[1:], **options)
    tied = reference.tied_gradient(free, indices, kernel.size)
    np.testing.assert_allclose(tied, dw.ravel(), rtol=0, atol=TOLERANCE)


def test_tied_gradient_values():
    gradient = np.array([[1.0, 2, 4], [8, 16, 32]])
    indices = np.array([[0, 2, -1], [-1, 0, 2]])
    # Weight 1 is at no entry, so that its gradient is 0.
    assert reference.tied_gradient(gradient, indices, 3).tolist() == [17, 0, 34]


# --- the gradient ------------------------------------------------------------------------------


@settings(max_examples=20, deadline=None)  # examples may be slow
@given(
    st.sampled_from(LAYOUTS),
    st.integers(1, 2),
    st.integers(1, 3),
    st.integers(1, 2),
    st.integers(0, 2),
    st.integers(0, 2**32 - 1),
)
def test_conv2d_loops_vjp_equals_the_change_of_the_output(
    layout, groups, stride, dilation, padding, seed
):
    # y is linear in x and in the kernel, so that sum(y·c) changes by exactly <dx, δ>.
    rng = np.random.default_rng(seed)
    sizes = {"N": 2, "C": 2 * groups, "H": 5, "W": 6, "I": 2, "O": 3 * groups}
    x, dx = rng.standard_normal((2, *(sizes[letter] for letter in layout)))
    shape = [(sizes | {"H": 2, "W": 3})[letter] for letter in KERNELS[layout]]
    kernel, dk = rng.standard_normal((2, *shape))
    bias, db = rng.standard_normal((2, sizes["O"]))
    options = {"stride": stride, "padding": padding, "dilation": dilation, "groups": groups}
    options["layout"] = layout
    y = reference.conv2d_loops(x, kernel, bias, **options)
    cotangent = rng.standard_normal(y.shape)
    gradients = conv2d_loops_vjp(x, kernel, cotangent, **options)
    changed = [
        reference.conv2d_loops(x + dx, kernel, bias, **options),
        reference.conv2d_loops(x, kernel + dk, bias, **options),
        reference.conv2d_loops(x, kernel, bias + db, **options),
    ]
    for gradient, change, new in zip(gradients, (dx, dk, db), changed, strict=True):
        # Sums of at most 2·6·5·6·12 products of order 1 in float64.
        np.testing.assert_allclose(
            (gradient * change).sum(), ((new - y) * cotangent).sum(), rtol=0, atol=1e-10
        )


def test_conv2d_loops_and_patches_reject_invalid_settings():
    x, kernel = np.zeros((1, 3, 3, 1)), np.zeros((4, 4, 1, 1))
    with pytest.raises(ValueError, match="layout must be one of"):
        reference.conv2d_loops(x, kernel, layout="HWCN")
    with pytest.raises(ValueError, match="the kernel is larger than the padded input"):
        reference.conv2d_loops(x, kernel)
    with pytest.raises(ValueError, match="stride must be at least 1, got 0"):
        reference.conv2d_patches(x, kernel, stride=0, padding=1)
    with pytest.raises(ValueError, match="padding must be at least 0, got -1"):
        conv2d_loops_vjp(x, kernel, x, padding=-1)
