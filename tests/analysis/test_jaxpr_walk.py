"""What operations do to receptive fields: by hand, and against measured gradients."""

import math

import jax
import jax.numpy as jnp
import pytest
from flax import nnx
from hypothesis import given, settings
from hypothesis import strategies as st

from convjax.analysis._effective_field import effective_field
from convjax.analysis.receptive_field import receptive_fields
from convjax.nn.models import digits_net
from convjax.ops.conv import conv2d
from tests.analysis.tracing import WHOLE, field, pool, shapes_hold  # noqa: F401  # a fixture

# --- operations, by hand ---------------------------------------------------------------------


@pytest.mark.parametrize(
    ("function", "size", "stride", "padding"),
    [
        (lambda x: x, (1, 1), (1, 1), (0, 0)),
        (lambda x: pool(pool(x)), (4, 4), (4, 4), (0, 0)),
        (lambda x: nnx.avg_pool(x, (3, 2), strides=(2, 1)), (3, 2), (2, 1), (0, 0)),
        (lambda x: pool(x, 3, 2, "SAME"), (3, 3), (2, 2), (0, 0)),  # 32 pixels: one after
        (lambda x: x[:, 1::2, :-3], (1, 1), (2, 1), (-1, 0)),
        (lambda x: jnp.pad(x, ((0, 0), (2, 0), (0, 1), (0, 0))), (1, 1), (1, 1), (2, 0)),
        (lambda x: x.reshape(1, 8, 4, 32).mean(2), (4, 1), (4, 1), (0, 0)),
        (lambda x: x.mean((1, 2), keepdims=True) * x, WHOLE, (0, 0), WHOLE),
        (lambda x: jnp.concatenate([pool(x), x[:, ::2, ::2]], -1), (2, 2), (2, 2), (0, 0)),
        (lambda x: jnp.split(x, 2, axis=1)[1], (1, 1), (1, 1), (-16, 0)),
        (lambda x: jnp.einsum("nhwc,co->nhwo", x, jnp.ones((1, 5))), (1, 1), (1, 1), (0, 0)),
        (lambda x: jnp.einsum("nhwc,hk->nkwc", x, jnp.ones((32, 5))), (math.inf, 1), (0, 1), None),
        (lambda x: x / jnp.std(x, keepdims=True), WHOLE, (0, 0), WHOLE),
        (lambda x: jnp.clip(x, x.min(), x.max()), WHOLE, (0, 0), WHOLE),
        (lambda x: pool(x) + jnp.ones((1, 16, 16, 1)), (2, 2), (2, 2), (0, 0)),
        (lambda x: jax.lax.reduce(x, 0.0, jnp.logaddexp, (1,)), (math.inf, 1), (0, 1), None),
        (
            lambda x: jax.lax.reduce_window(
                x, 0.0, jnp.logaddexp, (1, 3, 3, 1), (1, 2, 2, 1), "VALID"
            ),
            (3, 3),
            (2, 2),
            (0, 0),
        ),
        (lambda x: jnp.stack([pool(x), x[:, 1::2, ::2]], 0)[0], (2, 2), (2, 2), (0, 0)),
        (lambda x: jnp.stack(jnp.unstack(jnp.tile(x, 3), axis=3), 3), (1, 1), (1, 1), (0, 0)),
        (lambda x: jnp.cumsum(jnp.sort(x, -1), -1), (1, 1), (1, 1), (0, 0)),
        (lambda x: jax.lax.top_k(jnp.tile(x, 3), 2)[0], (1, 1), (1, 1), (0, 0)),
        (lambda x: jnp.tile(x, 3)[..., jnp.array([2, 0])], (1, 1), (1, 1), (0, 0)),
        (lambda x: jax.lax.dynamic_slice_in_dim(jnp.tile(x, 3), 1, 2, 3), (1, 1), (1, 1), (0, 0)),
        # Twice as many rows: each row of the image has two phases of one pixel each.
        (lambda x: jnp.repeat(x, 2, 1), (1, 1), (0.5, 1), (0.5, 0)),
        (lambda x: conv2d(jnp.repeat(x, 2, 1), jnp.ones((3, 1, 1, 1))), (2, 1), (0.5, 1), None),
        (lambda x: jax.image.resize(x, (1, 64, 32, 1), "nearest"), (1, 1), (0.5, 1), (0.5, 0)),
        (lambda x: jax.image.resize(x, (1, 16, 32, 1), "nearest"), (1, 1), (2, 1), (-1, 0)),
        (lambda x: jax.image.resize(x, (1, 64, 32, 1), "linear"), (2, 1), (0.5, 1), None),
        # A map of one row keeps its row through other shapes.
        (
            lambda x: conv2d(
                x.mean(1, keepdims=True).reshape(1, 32, 1, 1).reshape(1, 1, 32, 1),
                jnp.ones((3, 3, 1, 1)),
                padding=1,
            ),
            (math.inf, 3),
            (0, 1),
            None,
        ),
        (
            lambda x: conv2d(x.reshape(1, 1024, 1, 1), jnp.ones((1, 1, 1, 1))),
            (1, 1),
            (1, 1),
            (0, 0),
        ),
        (lambda x: jnp.einsum("nhwc,nhvc->nwv", x, x), WHOLE, (0, 0), WHOLE),
        (lambda x: jnp.pad(x, ((0, 0), (0, 0), (0, 0), (0, 0)), "edge"), (1, 1), (1, 1), (0, 0)),
        (lambda x: jax.checkpoint(jnp.sin)(x) + jax.nn.gelu(x), (1, 1), (1, 1), (0, 0)),
        (lambda x: jax.lax.cond(True, pool, lambda x: x[:, ::2, ::2], x), (2, 2), (2, 2), (0, 0)),
        (
            lambda x: jax.lax.scan(
                lambda x, _: (conv2d(x, jnp.ones((3, 3, 1, 1)), padding=1), None), x, length=4
            )[0],
            (9, 9),
            (1, 1),
            (4, 4),
        ),
    ],
)
def test_propagate_through_each_operation(function, size, stride, padding):
    found = field(function)
    assert found.reason == ""
    assert (found.size, found.stride) == (size, stride)
    if padding:
        assert found.padding == padding


@pytest.mark.parametrize(
    ("function", "reason"),
    [
        (lambda x: x[:, ::-1], "reversed"),
        (lambda x: jnp.cumsum(x, 1), "cumsum goes along rows"),
        (lambda x: jnp.pad(x, ((0, 0), (1, 1), (0, 0), (0, 0)), "wrap"), "put together along"),
        (lambda x: x + jnp.swapaxes(x, 1, 2), "another order"),
        (
            lambda x: conv2d(x, x[:, :3, :3].reshape(3, 3, 1, 1), method="lax"),
            "images decide how a convolution works",
        ),
        (lambda x: jnp.concatenate([x[:, 31:], x[:, :1]], 1), "put together along its rows"),
        (lambda x: jnp.tile(x, (1, 2, 1, 1)), "put together along its rows"),
        (lambda x: x[:, jnp.argmax(x[0, :, 0, 0])], "decide how"),
        (lambda x: jax.lax.dynamic_slice_in_dim(x, 1, 2, 1), "at a place that is computed"),
        (lambda x: jax.lax.scan(lambda c, r: (c, 2 * r), 0, x[0])[1], "a loop runs over parts"),
        (lambda x: jnp.where(x.sum() > 0, x, x[:, ::-1]), "reversed"),
        (lambda x: jax.lax.cond(x.sum() > 0, jnp.sin, jnp.cos, x), "decides a branch"),
        (lambda x: jax.lax.while_loop(lambda x: x.sum() > 0, jnp.sin, x), "the operation while"),
        (lambda x: jnp.zeros((1, 4, 4, 1)), "does not depend on the images"),
    ],
)
def test_propagate_gives_the_reason_of_an_unknown_field(function, reason):
    found = field(function)
    assert reason in found.reason
    assert (found.size, found.stride, found.padding, found.cells) == (None,) * 4
    assert found.box((0, 0), (32, 32)) is None


def test_propagate_ignores_the_batch_size_for_a_map_of_one_row():
    def grouped(x):
        x = jnp.concatenate([x[:, 31:]] * 4, 3).reshape(len(x), 1, 32, 2, 2).sum(3)
        return conv2d(x, jnp.ones((3, 3, 2, 1)), padding=1)

    one, two = (field(grouped, (n, 32, 32, 1)) for n in (1, 2))
    assert one == two
    assert (one.size, one.cells) == ((3, 3), (1, 32))


def test_propagate_joins_paths_to_one_row_in_any_order():
    def rows(x, stride):
        return x[:, ::stride][:, :1]

    one, other = (field(lambda x, o=o: rows(x, o) + rows(x, 12 - o)) for o in (4, 8))
    assert "strides of 4 and 8" in one.reason
    assert "strides of 8 and 4" in other.reason


# --- formula and measurement -----------------------------------------------------------------

layers = st.lists(
    st.one_of(
        st.tuples(
            st.just("conv"),
            st.tuples(st.integers(1, 3), st.integers(1, 3)),
            st.tuples(st.integers(1, 2), st.integers(1, 2)),
            st.integers(0, 1),
            st.integers(1, 2),
        ),
        st.tuples(st.just("mean"), st.integers(2, 3), st.integers(1, 2)),
        st.tuples(st.just("cut"), st.integers(0, 3), st.integers(1, 2)),
        st.tuples(st.just("pad"), st.integers(0, 2)),
        st.tuples(st.just("turn")),
        st.tuples(st.just("repeat")),
        st.tuples(st.just("residual"), st.sampled_from([1, 3])),
    ),
    min_size=1,
    max_size=4,
)


def network(x, layers):
    """All weights positive and no operation that chooses, so that every path has a gradient."""
    for kind, *settings_of in layers:
        if kind == "conv":
            size, stride, padding, dilation = settings_of
            ones = jnp.ones((*size, 1, 1)) / math.prod(size)
            x = conv2d(x, ones, stride=stride, padding=padding, dilation=dilation, method="lax")
        elif kind == "mean":
            size, stride = settings_of
            x = nnx.avg_pool(x, (size, size), strides=(stride, stride))
        elif kind == "cut":
            start, step = settings_of
            x = x[:, start::step, : -1 - start] / jnp.maximum(1.0, x.size)
        elif kind == "pad":
            (around,) = settings_of
            x = jnp.pad(x, ((0, 0), (around, 1), (0, around), (0, 0)))
        elif kind == "turn":  # transposed, flattened, and back
            turned = jnp.concatenate([x, 2 * x], -1).transpose(3, 1, 2, 0)
            x = turned.reshape(2, -1).reshape(turned.shape).transpose(3, 1, 2, 0).sum(-1)[..., None]
        elif kind == "repeat":
            x = jnp.repeat(x, 2, 2)
        else:
            (size,) = settings_of
            x = x + conv2d(x, jnp.ones((size, size, 1, 1)), padding=size // 2, method="lax")
    return x


@settings(max_examples=15, deadline=None)
@given(layers=layers)
def test_propagate_equals_the_support_of_the_gradient(layers):
    images = jnp.ones((1, 64, 61, 1))

    def named(x):
        return network(x, layers), {"x": x}

    found = receptive_fields(named, images)["(output)"]
    for cell in ((0, -1), None):
        measured = effective_field(named, images, layer="(output)", cell=cell)
        box = found.box(measured.cell, (64, 61))
        if cell is None and ("repeat",) not in layers:  # which has phases that see less
            # The middle is far enough from the border.
            assert measured.size == found.size
            assert measured.support == box
            continue
        for seen, within in zip(measured.support, box, strict=True):
            # For cells on a layer's padding the formula gives what they would depend on.
            assert seen == slice(0, 0) or within.start <= seen.start < seen.stop <= within.stop


def test_propagate_contains_the_gradient_with_max_pooling_and_relu():
    """Paths are chosen by the pixels: two dozen random images choose each of them at least once."""
    model = digits_net(norm="batch", rngs=nnx.Rngs(0))

    def pooled(x):
        first = pool(nnx.relu(conv2d(x, kernel, padding=1)), 3, 2)
        return conv2d(first, kernel, stride=2), {"x": x}

    kernel = jnp.abs(jax.random.normal(jax.random.key(1), (3, 3, 1, 1)))
    images = jax.random.normal(jax.random.key(0), (24, 24, 24, 1))
    found = receptive_fields(pooled, images)["(output)"]
    measured = effective_field(pooled, images, layer="(output)")
    assert found.size == measured.size == (9, 9)
    assert measured.support == found.box(measured.cell, (24, 24))
    # The chapter's network with its own weights.
    images = jax.random.normal(jax.random.key(0), (8, 32, 32, 1))
    fields = receptive_fields(model, images)
    for name in ("blocks.0.conv", "blocks.2.norm"):
        measured = effective_field(model, images, layer=name)
        assert measured.size == fields[name].size


def test_propagate_contains_the_phases_of_a_transposed_convolution():
    kernel = jnp.ones((3, 3, 1, 1))

    def up(x):
        x = conv2d(x, kernel, stride=2, padding=1)
        return jax.lax.conv_transpose(x, kernel, (2, 2), "SAME"), {"x": x}

    images = jnp.ones((1, 32, 32, 1))
    found = receptive_fields(up, images)["(output)"]
    assert found.stride == (1, 1)
    seen = []
    for cell in ((16, 16), (17, 17)):
        rows, _ = effective_field(up, images, layer="(output)", cell=cell).support
        seen.append((rows.start - cell[0], rows.stop - cell[0]))
    # Together the phases fill the field, and one of them by itself has less.
    assert found.rows[1:] == (min(a for a, _ in seen), max(b for _, b in seen) - 1)
    assert any(b - a < found.rows.size for a, b in seen)
