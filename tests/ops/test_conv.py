from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from convjax.analysis._precedents import Windows, output_shape
from convjax.ops import conv
from convjax.ops.conv import conv2d, patches
from convjax.ops.reference import conv2d_loops, conv2d_patches
from tests.helpers import KERNELS, LAYOUTS, METHODS, conv_cases, reorder


def draw(*shape, seed=0, dtype=np.float32):
    """Draws normal numbers, without a symmetry that could hide a flip or a transposition."""
    return np.random.default_rng(seed).standard_normal(shape).astype(dtype)


# --- recorded values ---------------------------------------------------------------------------


@pytest.mark.parametrize("method", METHODS)
@pytest.mark.parametrize("layout", LAYOUTS)
def test_conv2d_equals_recorded_outputs_and_gradients(layout, method, x64):
    cases = [case.in_layout(layout) for case in conv_cases()]

    # One program per 20 cases, because compiling each case alone would take minutes. Without
    # optimisation of the machine code it takes half as long; XLA's program is the same.
    quickly = {"xla_backend_optimization_level": 0}
    for first in range(0, 60, 20):
        chunk = cases[first : first + 20]

        @partial(jax.jit, compiler_options=quickly)
        def outputs_and_gradients(arrays, chunk=chunk):
            found = []
            for case, (x, w, b, cotangent) in zip(chunk, arrays, strict=True):

                def conv(x, w, b, case=case):
                    return conv2d(x, w, b, **case.settings, layout=layout, method=method)

                y, pull = jax.vjp(conv, x, w, b)
                found.append((y, *pull(cotangent)))
            return found

        found = outputs_and_gradients([(c.x, c.w, c.b, c.cotangent) for c in chunk])
        for i, (case, arrays) in enumerate(zip(chunk, found, strict=True), first):
            expected = (case.y, case.dx, case.dw, case.db)
            for name, actual, wanted in zip(("y", "dx", "dw", "db"), arrays, expected, strict=True):
                assert (actual is None) == (wanted is None)
                if actual is None:
                    continue
                assert actual.dtype == np.float64
                # Sums of at most a few hundred products of order 1, each rounded at 1e-16:
                # about 3e-14 at worst. Another formula is off by 1e-2 and more.
                np.testing.assert_allclose(
                    actual, wanted, rtol=0, atol=1e-9, err_msg=f"case {i}, {name}"
                )


# --- by hand -----------------------------------------------------------------------------------


@pytest.mark.parametrize("method", METHODS)
@pytest.mark.parametrize("layout", LAYOUTS)
def test_conv2d_values(layout, method):
    # 0 1 2      1 2     0·1 + 1·2 + 3·3 + 4·4 = 27, and so on; a flipped kernel would give 13.
    # 3 4 5  by  3 4
    # 6 7 8
    x = reorder(np.arange(9.0, dtype=np.float32).reshape(1, 1, 3, 3), "NCHW", layout)
    kernel = np.array([[1, 2], [3, 4]], np.float32).reshape(1, 1, 2, 2)
    kernel = reorder(kernel, "OIHW", KERNELS[layout])
    bias = np.array([0.5], np.float32)
    y = conv2d(x, kernel, bias, layout=layout, method=method)
    assert reorder(y, layout, "NCHW")[0, 0].tolist() == [[27.5, 37.5], [57.5, 67.5]]


@pytest.mark.parametrize("layout", LAYOUTS)
def test_patches_order_taps_then_channels(layout):
    # Two channels: 0 … 8 and 10 … 18. The window at the top left sees 0 1 3 4 and 10 11 13 14.
    x = np.stack([np.arange(9.0), np.arange(10.0, 19.0)]).astype(np.float32).reshape(1, 2, 3, 3)
    found = patches(reorder(x, "NCHW", layout), (2, 2), layout=layout)
    found = reorder(found, layout, "NCHW")
    assert found.shape == (1, 8, 2, 2)
    assert found[0, :, 0, 0].tolist() == [0, 10, 1, 11, 3, 13, 4, 14]
    assert found[0, :, 1, 1].tolist() == [4, 14, 5, 15, 7, 17, 8, 18]


# --- padding -----------------------------------------------------------------------------------


@pytest.mark.parametrize("method", METHODS)
def test_conv2d_accepts_every_form_of_padding(method):
    x, kernel = draw(2, 5, 6, 3), draw(2, 4, 3, 2, seed=1)
    forms = {
        0: ((0, 0), (0, 0)),
        "valid": ((0, 0), (0, 0)),
        "VALID": ((0, 0), (0, 0)),
        2: ((2, 2), (2, 2)),
        (1, 2): ((1, 1), (2, 2)),
        ((2, 0), (1, 3)): ((2, 0), (1, 3)),
        # An even kernel of 2 rows and 4 columns: 1 and 3 pixels, the odd one after.
        "same": ((0, 1), (1, 2)),
    }

    @jax.jit
    def both(x):
        return [
            (
                conv2d(x, kernel, padding=form, method=method),
                conv2d(jnp.pad(x, ((0, 0), *zeros, (0, 0))), kernel, method=method),
            )
            for form, zeros in forms.items()
        ]

    for form, (y, by_hand) in zip(forms, both(x), strict=True):
        assert y.shape == by_hand.shape
        # Sums of 24 products of order 1 in float32, perhaps in another order.
        np.testing.assert_allclose(y, by_hand, atol=1e-5, err_msg=str(form))
        if form == "same":
            assert y.shape == (2, 5, 6, 2)


@pytest.mark.parametrize("method", METHODS)
def test_conv2d_same_padding_equals_lax(method):
    x, kernel = draw(1, 7, 8, 2), draw(3, 4, 2, 2, seed=1)
    settings = [((1, 1), (1, 1)), ((2, 3), (1, 1)), ((3, 2), (2, 1)), ((1, 2), (1, 2))]

    @jax.jit
    def both(x):
        return [
            (
                conv2d(x, kernel, stride=stride, dilation=d, padding="SAME", method=method),
                jax.lax.conv_general_dilated(
                    x,
                    kernel,
                    stride,
                    "SAME",
                    rhs_dilation=d,
                    dimension_numbers=("NHWC", "HWIO", "NHWC"),
                ),
            )
            for stride, d in settings
        ]

    for (stride, _), (y, wanted) in zip(settings, both(x), strict=True):
        assert y.shape[1:3] == (-(-7 // stride[0]), -(-8 // stride[1]))
        # Sums of 24 products of order 1 in float32.
        np.testing.assert_allclose(y, wanted, atol=1e-5)


def test_conv2d_one_number_stands_for_both_axes():
    x, kernel = draw(1, 9, 8, 1), draw(2, 3, 1, 1, seed=1)
    short = conv2d(x, kernel, stride=2, padding=1, dilation=2)
    long = conv2d(x, kernel, stride=(2, 2), padding=(1, 1), dilation=(2, 2))
    np.testing.assert_array_equal(short, long)
    swapped = conv2d(x, kernel, stride=(2, 1), padding=(1, 2), dilation=(3, 1))
    # Height (9 + 2 − 4)//2 + 1, width 8 + 4 − 3 + 1: the first of each pair is the height.
    assert swapped.shape == (1, 4, 10, 1)


# --- forms of call -----------------------------------------------------------------------------


@pytest.mark.parametrize("method", METHODS)
@pytest.mark.parametrize("layout", LAYOUTS)
def test_conv2d_of_one_image_without_the_batch_axis(layout, method):
    x = reorder(draw(1, 4, 5, 6), "NCHW", layout)
    kernel = reorder(draw(6, 2, 3, 2, seed=1), "OIHW", KERNELS[layout])
    settings = {"stride": (2, 1), "padding": 1, "groups": 2, "layout": layout, "method": method}
    one = conv2d(x.squeeze(layout.index("N")), kernel, **settings)
    batch = conv2d(x, kernel, **settings)
    assert one.ndim == 3
    np.testing.assert_array_equal(one, np.squeeze(batch, layout.index("N")))
    assert reorder(batch, layout, "NCHW").shape == (1, 6, 3, 7)


@pytest.mark.parametrize("method", METHODS)
def test_conv2d_preferred_element_type_accumulates_and_is_returned(method):
    x = draw(2, 5, 5, 40).astype(jnp.bfloat16)
    kernel = draw(3, 3, 40, 2, seed=1).astype(jnp.bfloat16)
    bias = draw(2, seed=2).astype(jnp.bfloat16)
    plain = conv2d(x, kernel, bias, method=method)
    wide = conv2d(x, kernel, bias, method=method, preferred_element_type=jnp.float32)
    assert plain.dtype == jnp.bfloat16
    assert wide.dtype == jnp.float32
    exact = conv2d_loops(*(array.astype(np.float64) for array in (x, kernel, bias)))
    # Products of two bfloat16 are exact in float32; sums of 360 of them, up to 60 in all, round
    # at 1e-7 each. Rounding the result to bfloat16 costs 2⁻⁹ of it.
    np.testing.assert_allclose(wide, exact, atol=1e-4)
    assert np.abs(np.asarray(plain, np.float64) - exact).max() > 1e-2


@pytest.mark.parametrize("size", [4, 5])  # of the image: 4 or 9 pixels of output, 9 of the kernel
@pytest.mark.parametrize("groups", [1, 2])
@pytest.mark.parametrize("platform", ["cpu", "cuda", "rocm", "tpu"])
def test_conv2d_auto_is_matmul_on_cpu_and_on_gpu_for_the_smallest_maps(platform, groups, size):
    x = np.zeros((1, size, size, 2), np.float32)
    kernel = np.zeros((3, 3, 2 // groups, 2), np.float32)
    traced = jax.jit(lambda x, k: conv2d(x, k, groups=groups)).trace(x, kernel)
    # One process makes the programs of all platforms.
    text = traced.lower(lowering_platforms=(platform,)).as_text()
    small = platform in ("cuda", "rocm") and groups == 1 and size == 4
    assert ("dot_general" in text) == (platform == "cpu" or small)
    assert ("stablehlo.convolution" in text) == ("dot_general" not in text)


@pytest.mark.parametrize("layout", KERNELS)
def test_conv2d_auto_has_the_values_of_lax_on_a_gpu(layout, monkeypatch, x64):
    def on_gpu(*arguments, cuda, **_):
        return cuda(*arguments)

    monkeypatch.setattr(conv.lax, "platform_dependent", on_gpu)
    sizes = {"N": 3, "C": 2, "H": 4, "W": 3, "O": 5, "I": 2}
    x = draw(*(sizes[letter] for letter in layout), dtype=np.float64)
    kernel = draw(*((sizes | {"H": 3, "W": 2})[k] for k in KERNELS[layout]), dtype=np.float64)
    settings = {"stride": 2, "padding": (1, 0), "layout": layout}
    product, by_lax = (conv2d(x, kernel, **settings, method=m) for m in ("auto", "lax"))
    # Sums of 12 float64 products of order 1.
    np.testing.assert_allclose(product, by_lax, rtol=0, atol=1e-14)


@pytest.mark.parametrize(
    ("method", "layout"),
    # In NCHW the product's output has its channels last and is transposed once.
    [("lax", "NHWC"), ("lax", "NCHW"), ("lax", "CHWN"), ("matmul", "NHWC"), ("matmul", "CHWN")],
)
def test_conv2d_does_not_transpose_images(method, layout):
    sizes = {"N": 2, "C": 3, "H": 9, "W": 8, "O": 5, "I": 3}
    x = np.zeros([sizes[letter] for letter in layout], np.float32)
    kernel = np.zeros([(sizes | {"H": 2, "W": 2})[k] for k in KERNELS[layout]], np.float32)
    jaxpr = jax.make_jaxpr(lambda x, k: conv2d(x, k, layout=layout, method=method))(x, kernel)
    transposed = [
        equation.invars[0].aval.size
        for equation in jaxpr.eqns
        if equation.primitive.name == "transpose"
        and list(equation.params["permutation"]) != sorted(equation.params["permutation"])
    ]
    assert all(size == kernel.size for size in transposed), transposed


def test_conv2d_inside_jit_vmap_and_grad():
    # Three kernels at once, as a sweep over seeds trains three networks, on one batch each.
    xs, kernels = draw(3, 2, 5, 4, 2), draw(3, 3, 2, 2, 4, seed=1)

    def loss(x, kernel, method):
        return jnp.sum(conv2d(x, kernel, stride=2, padding=1, method=method) ** 2)

    for method in METHODS:
        gradients = jax.jit(jax.vmap(jax.grad(lambda x, k, m=method: loss(x, k, m), argnums=1)))
        together = gradients(xs, kernels)
        assert together.shape == kernels.shape
        for x, kernel, gradient in zip(xs, kernels, together, strict=True):
            # The slope along a direction by central differences, in float64 by the loops:
            # exact for a quadratic function, up to float32 of the gradient itself.
            direction = draw(*kernel.shape, seed=5, dtype=np.float64)
            ends = [
                (
                    conv2d_loops(
                        x.astype(np.float64), kernel + side * direction, stride=2, padding=1
                    )
                    ** 2
                ).sum()
                for side in (-1, 1)
            ]
            slope = (ends[1] - ends[0]) / 2
            np.testing.assert_allclose((gradient * direction).sum(), slope, rtol=1e-4)


# --- properties --------------------------------------------------------------------------------


@st.composite
def problems(draw):
    """Draws valid settings of a convolution, of every kind that conv2d accepts."""
    sizes = st.integers(1, 6)
    groups = draw(st.integers(1, 2))
    kernel = (draw(st.integers(1, 3)), draw(st.integers(1, 3)))
    dilation = (draw(st.integers(1, 2)), draw(st.integers(1, 2)))
    padding = draw(
        st.sampled_from([0, 1, (0, 2), ((1, 0), (0, 2)), ((2, 1), (1, 0)), "same", "valid"])
    )
    span = [d * (k - 1) + 1 for k, d in zip(kernel, dilation, strict=True)]
    return {
        "x": (draw(st.integers(1, 2)), groups * draw(st.integers(1, 2)),
              span[0] + draw(sizes), span[1] + draw(sizes)),
        "outputs": groups * draw(st.integers(1, 2)),
        "kernel": kernel,
        "settings": {
            "stride": (draw(st.integers(1, 3)), draw(st.integers(1, 3))),
            "padding": padding, "dilation": dilation, "groups": groups,
        },
    }  # fmt: skip


@settings(max_examples=12, deadline=None)  # each example compiles a program of six convolutions
@given(problems())
def test_conv2d_equals_loops_and_patches_in_every_layout(problem):
    options = problem["settings"]
    channels = problem["x"][1] // options["groups"]
    x = draw(*problem["x"])
    kernel = draw(problem["outputs"], channels, *problem["kernel"], seed=1)
    bias = draw(problem["outputs"], seed=2)
    expected = conv2d_loops(x, kernel, bias, **options, layout="NCHW")
    windows = Windows(problem["kernel"], options["stride"], options["padding"], options["dilation"])
    assert expected.shape[2:] == output_shape(problem["x"][2:], windows)

    inputs = {
        layout: (reorder(x, "NCHW", layout), reorder(kernel, "OIHW", KERNELS[layout]))
        for layout in LAYOUTS
    }

    @jax.jit
    def all_ways(inputs):
        return {
            (layout, method): conv2d(*arrays, bias, **options, layout=layout, method=method)
            for layout, arrays in inputs.items()
            for method in METHODS
        }

    found = all_ways(inputs)
    for layout, arrays in inputs.items():
        found[layout, "patches"] = conv2d_patches(*arrays, bias, **options, layout=layout)
    assert len(found) == 3 * 3
    for (layout, way), y in found.items():
        y = reorder(y, layout, "NCHW")
        # At most 36 products of order 1 in float32.
        np.testing.assert_allclose(y, expected, atol=1e-5, err_msg=f"{layout}, {way}")


@settings(max_examples=20, deadline=None)
@given(st.integers(0, 3), st.integers(0, 3), st.sampled_from(METHODS))
def test_conv2d_commutes_with_shifts(down, right, method):
    # An image in a wide margin of zeros moves as a whole, and its map with it.
    image, kernel = draw(1, 3, 4, 2), draw(3, 2, 2, 3, seed=1)
    margins = np.zeros((1, 12, 13, 2), np.float32)
    here, there = margins.copy(), margins.copy()
    here[:, 3:6, 3:7] = image
    there[:, 3 + down : 6 + down, 3 + right : 7 + right] = image
    moved = np.roll(conv2d(here, kernel, method=method), (down, right), (1, 2))
    # The same products, but the compiler may sum them in another order.
    np.testing.assert_allclose(conv2d(there, kernel, method=method), moved, atol=1e-5)


# --- errors ------------------------------------------------------------------------------------

X = np.zeros((2, 5, 6, 4), np.float32)
KERNEL = np.zeros((3, 2, 4, 8), np.float32)
BIAS = np.zeros(8, np.float32)


@pytest.mark.parametrize(
    ("arguments", "error", "message"),
    [
        ({"layout": "HWCN"}, ValueError, "layout must be one of 'NHWC', 'NCHW', 'CHWN', got 'HW"),
        ({"method": "fft"}, ValueError, 'method must be "lax", "matmul" or "auto", got \'fft\''),
        ({"x": X[0, 0]}, ValueError, r"x must have the axes NHWC, or .*got the shape \(6, 4\)"),
        ({"x": X[None]}, ValueError, r"x must have the axes NHWC.*\(1, 2, 5, 6, 4\)"),
        ({"kernel": KERNEL[0]}, ValueError, r"kernel must have the axes HWIO .*\(2, 4, 8\)"),
        (
            {"kernel": KERNEL.astype(np.float16)},
            TypeError,
            "one dtype, got x float32, kernel float16, .* Convert with astype",
        ),
        (
            {"bias": BIAS.astype(np.float16)},
            TypeError,
            "got x float32, kernel float32, bias float16",
        ),
        ({"groups": 3}, ValueError, "groups must divide the 8 output channels .*groups=3"),
        ({"groups": 0}, ValueError, "groups must be at least 1, got 0"),
        ({"groups": 1.0}, TypeError, r"groups must be an int, got 1\.0"),
        ({"groups": (1, 2)}, TypeError, r"groups must be an int, got \(1, 2\)"),
        (
            {"groups": 2},
            ValueError,
            r"x must have 8 channels, as the kernel expects \(4 per group, groups=2\), got 4",
        ),
        (
            {"x": X[..., :3]},
            ValueError,
            r"x must have 4 channels, .*got 3\. .*\(2, 5, 6, 3\) \(NHWC\)",
        ),
        ({"bias": BIAS[:4]}, ValueError, r"bias .*shape \(8,\), got the shape \(4,\)"),
        ({"bias": BIAS[:, None]}, ValueError, r"bias .*got the shape \(8, 1\)"),
        ({"stride": 0}, ValueError, "stride must be at least 1, got 0"),
        ({"stride": (1, 2, 3)}, ValueError, r"stride must be an int or a pair .*\(1, 2, 3\)"),
        ({"stride": 1.5}, TypeError, "stride must be an int or a pair of ints .*got 1.5"),
        ({"dilation": (1, 0)}, ValueError, r"dilation must be at least 1, got \(1, 0\)"),
        ({"padding": -1}, ValueError, "padding must be at least 0, got -1"),
        ({"padding": ((0, -1), (0, 0))}, ValueError, r"padding \(top, bottom\) .*at least 0"),
        ({"padding": "full"}, ValueError, 'padding must be "same", "valid" or numbers, got \'full'),
        ({"padding": (1, (2, 3))}, ValueError, r"padding must be an int.*got \(1, \(2, 3\)\)"),
        ({"dilation": 3}, ValueError, "larger than the padded input: it spans 7 .*the input has 5"),
        ({"kernel": KERNEL[:0]}, ValueError, "kernel height and width must be at least 1"),
    ],
)
@pytest.mark.parametrize("method", METHODS)
def test_conv2d_rejects_invalid_arguments(arguments, error, message, method):
    call = {"x": X, "kernel": KERNEL, "bias": BIAS, "method": method} | arguments
    with pytest.raises(error, match=message):
        conv2d(**call)
