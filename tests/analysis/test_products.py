"""Multiplications of programs: by hand, by counting in NumPy, and against the compiler."""

import itertools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx
from hypothesis import given, settings
from hypothesis import strategies as st
from jax import lax

from convjax.analysis._summary import summary
from convjax.analysis.products import count_products


def products(function, *shapes):
    """Counts the multiplications of a function of arrays of these shapes."""
    arrays = [jax.ShapeDtypeStruct(shape, jnp.float32) for shape in shapes]
    return count_products(jax.make_jaxpr(function)(*arrays))


def total(function, *shapes):
    return products(function, *shapes).known.total()


@pytest.mark.parametrize(
    ("equation", "left", "right", "expected"),
    [
        ("ij,jk->ik", (2, 3), (3, 5), 2 * 3 * 5),
        ("bij,bjk->bik", (4, 2, 3), (4, 3, 5), 4 * 2 * 3 * 5),
        ("i,i->", (7,), (7,), 7),
        ("i,j->ij", (3,), (4,), 12),
        ("bthd,bshd->bhts", (2, 5, 3, 4), (2, 6, 3, 4), 2 * 5 * 6 * 3 * 4),
        ("ab,cd->", (2, 3), (4, 5), 1),  # sums first, then one product
    ],
)
def test_count_products_of_einsum(equation, left, right, expected):
    assert total(lambda x, y: jnp.einsum(equation, x, y), left, right) == expected


def counted(image, kernel, *, stride, padding, spacing, dilation, groups):
    """Counts the products of a convolution one by one; axes NHWC and HWIO."""
    examples, *size, channels = image
    *taps, inputs, outputs = kernel
    assert inputs * groups == channels
    cells = []
    for i in range(2):
        span = dilation[i] * (taps[i] - 1) + 1
        full = spacing[i] * (size[i] - 1) + 1 + sum(padding[i])
        cells.append(range((full - span) // stride[i] + 1))
    number = 0
    for *cell, row, column in itertools.product(*cells, range(taps[0]), range(taps[1])):
        real = True
        for i, tap in enumerate((row, column)):
            place = stride[i] * cell[i] + dilation[i] * tap - padding[i][0]
            inside = 0 <= place <= spacing[i] * (size[i] - 1)
            # A product with padding counts, but not where zeros are between the pixels.
            real &= spacing[i] == 1 or (inside and place % spacing[i] == 0)
        number += real
    return examples * number * inputs * outputs


pairs = st.tuples(st.integers(1, 2), st.integers(1, 2))


@settings(max_examples=30, deadline=None)
@given(
    size=st.tuples(st.integers(4, 6), st.integers(4, 6)),
    taps=st.tuples(st.integers(1, 3), st.integers(1, 3)),
    stride=pairs,
    spacing=st.tuples(st.integers(1, 3), st.integers(1, 3)),
    dilation=pairs,
    padding=st.tuples(st.tuples(st.integers(-1, 2), st.integers(-1, 2)), st.just((1, 0))),
    groups=st.integers(1, 2),
)
def test_count_products_of_convolutions(size, taps, stride, spacing, dilation, padding, groups):
    image, kernel = (2, *size, 2 * groups), (*taps, 2, 2 * groups)
    if any(
        spacing[i] * (size[i] - 1) + 1 + sum(padding[i]) < dilation[i] * (taps[i] - 1) + 1
        for i in range(2)
    ):
        return  # the kernel is larger than the image

    def convolution(x, k):
        return lax.conv_general_dilated(
            x,
            k,
            window_strides=stride,
            padding=padding,
            lhs_dilation=spacing,
            rhs_dilation=dilation,
            dimension_numbers=("NHWC", "HWIO", "NHWC"),
            feature_group_count=groups,
        )

    assert total(convolution, image, kernel) == counted(
        image,
        kernel,
        stride=stride,
        padding=padding,
        spacing=spacing,
        dilation=dilation,
        groups=groups,
    )


@pytest.mark.parametrize("axes", [1, 3])
def test_count_products_of_convolutions_over_other_numbers_of_axes(axes):
    def convolution(x, k):
        return lax.conv_general_dilated(x, k, [1] * axes, "VALID")  # NC…, OI…

    number = total(convolution, (2, 3, *[6] * axes), (4, 3, *[3] * axes))
    assert number == 2 * 4**axes * 4 * 3 * 3**axes


@pytest.mark.parametrize("layout", ["NHWC", "NCHW", "CHWN"])
@pytest.mark.parametrize("groups", [1, 2])
def test_count_products_does_not_depend_on_the_formulation(layout, groups):
    from convjax.ops import conv2d, images_to, kernel_to

    x = images_to(jnp.ones((2, 7, 6, 4)), layout)
    kernel = kernel_to(jnp.ones((3, 2, 4 // groups, 6)), layout, source="NHWC")

    def of(method):
        settings = {"stride": 2, "padding": 1, "groups": groups, "layout": layout}
        return total(lambda x, k: conv2d(x, k, method=method, **settings), x.shape, kernel.shape)

    assert of("lax") == of("matmul") == 2 * 4 * 4 * (3 * 2 * 4 // groups * 6)


def test_count_products_of_a_look_up_is_zero():
    assert total(lambda table: table[jnp.array([1, 2])], (5, 3)) == 0


def test_count_products_multiplies_the_body_of_a_scan_by_its_length():
    def body(x, k):
        return x @ k, None

    assert total(lambda x, ks: lax.scan(body, x, ks)[0], (2, 3), (7, 3, 3)) == 7 * 18
    assert total(lambda x, k: lax.fori_loop(0, 5, lambda _, x: x @ k, x), (2, 3), (3, 3)) == 5 * 18


def test_count_products_of_inner_programs():
    @jax.custom_vjp
    def product(x, k):
        return x @ k

    product.defvjp(lambda x, k: (x @ k, None), lambda _, g: (g, g))
    for call in (jax.jit(jnp.dot), jax.checkpoint(jnp.dot), product):
        assert total(call, (2, 3), (3, 3)) == 18
    assert total(jax.vmap(jnp.dot), (4, 2, 3), (4, 3, 3)) == 4 * 18


def test_count_products_of_all_devices():
    mesh = jax.make_mesh((2,), ("data",), axis_types=(jax.sharding.AxisType.Auto,))
    rows, whole = jax.P("data"), jax.P()
    product = jax.shard_map(jnp.dot, mesh=mesh, in_specs=(rows, whole), out_specs=rows)
    assert total(product, (4, 3), (3, 3)) == 4 * 9


def test_count_products_takes_the_dearest_branch():
    def branches(x, k):
        return lax.cond(x.sum() > 0, lambda x: x @ k @ k, lambda x: x @ k, x)

    assert total(branches, (2, 3), (3, 3)) == 2 * 18


def test_count_products_does_not_know_how_often_a_while_loop_runs():
    def loop(x, k):
        return lax.while_loop(lambda x: x.sum() < 9, lambda x: x @ k, x) @ k

    found = products(loop, (2, 3), (3, 3))
    assert found.unknown == {None}
    assert found.known.total() == 18  # those after the loop
    assert not products(lambda x: lax.while_loop(lambda x: x < 9, lambda x: x + x, x), ()).unknown


def test_count_products_of_a_call_to_the_host_is_unknown():
    def on_host(x):
        return jax.pure_callback(np.asarray, x, x)

    assert products(on_host, (2,)).unknown == {None}


# --- the compiler's count ----------------------------------------------------------------------


class Transformer(nnx.Module):
    def __init__(self, rngs):
        self.embed = nnx.Embed(512, 128, rngs=rngs)
        self.attention = nnx.MultiHeadAttention(4, 128, decode=False, rngs=rngs)
        self.wide = nnx.Linear(128, 512, rngs=rngs)
        self.narrow = nnx.Linear(512, 128, rngs=rngs)

    def __call__(self, tokens):
        x = self.embed(tokens)
        x = x + self.attention(x)
        return self.embed.attend(x + self.narrow(nnx.relu(self.wide(x))))


class Convolutions(nnx.Module):
    def __init__(self, rngs):
        valid = {"padding": "VALID", "rngs": rngs}
        self.first = nnx.Conv(16, 64, (3, 3), **valid)
        self.grouped = nnx.Conv(64, 64, (3, 3), feature_group_count=4, strides=2, **valid)
        self.dilated = nnx.Conv(64, 64, (3, 3), kernel_dilation=2, **valid)
        self.transposed = nnx.ConvTranspose(64, 32, (3, 3), strides=(2, 2), **valid)

    def __call__(self, x):
        return self.transposed(self.dilated(self.grouped(self.first(x))))


class Unrolled(nnx.Module):
    def __init__(self, rngs):
        # Unrolled for the compiler, which counts the body of a loop once.
        self.rnn = nnx.RNN(nnx.LSTMCell(96, 128, rngs=rngs), unroll=5)

    def __call__(self, x):
        return self.rnn(x)


IMAGES = jax.ShapeDtypeStruct((2, 24, 24, 16), jnp.float32)
TOKENS = jax.ShapeDtypeStruct((2, 32), jnp.int32)
SEQUENCES = jax.ShapeDtypeStruct((2, 5, 96), jnp.float32)


@pytest.mark.parametrize(
    ("make", "inputs"), [(Transformer, TOKENS), (Convolutions, IMAGES), (Unrolled, SEQUENCES)]
)
def test_summary_agrees_with_the_compilers_count_of_operations(make, inputs):
    model = nnx.eval_shape(lambda: make(nnx.Rngs(0)))
    graph, state = nnx.split(model)
    lowered = jax.jit(lambda state, x: nnx.merge(graph, state)(x)).lower(state, inputs)
    operations = lowered.cost_analysis()["flops"]
    multiplications = 2 * summary(model, inputs).multiplications  # two examples
    # One multiplication and one addition for each. Every sum here has at least 32 terms, 64
    # operations; the elementwise operations on its result (bias, softmax, gates) are at most six.
    assert 0 <= operations / (2 * multiplications) - 1 < 6 / 64
