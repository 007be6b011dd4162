import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx
from hypothesis import given, settings
from hypothesis import strategies as st

from convjax.ops import normalization
from convjax.ops.normalization import batch_moments, batch_norm, group_norm, running_update


def reference(x, axis, scale, bias, epsilon):
    """Returns mean, variance and batch normalisation by definition, in NumPy and float64."""
    x = np.moveaxis(np.asarray(x, np.float64), axis, -1)
    flat = x.reshape(-1, x.shape[-1])
    mean, var = flat.mean(0), flat.var(0)
    y = (x - mean) / np.sqrt(var + epsilon) * scale + bias
    return mean, var, np.moveaxis(y, -1, axis)


def elsewhere(*arguments, default, **_):
    """Takes the form of a GPU, which is not chosen in a program for this CPU."""
    return default(*arguments)


@pytest.fixture(params=["cpu", "elsewhere"])
def platform(request, monkeypatch):
    if request.param == "elsewhere":
        monkeypatch.setattr(normalization.jax.lax, "platform_dependent", elsewhere)
    return request.param


@pytest.mark.usefixtures("platform")
def test_batch_moments_and_batch_norm_values():
    # Channel 0: 1, 3, mean 2, variance 1. Channel 1: 0, 4, mean 2, variance 4.
    x = jnp.array([[1.0, 0.0], [3.0, 4.0]])
    mean, var = batch_moments(x, axis=1)
    assert mean.tolist() == [2, 2]
    assert var.tolist() == [1, 4]
    y = batch_norm(x, mean, var, jnp.array([1.0, 10.0]), jnp.array([0.0, 5.0]), axis=1, epsilon=0.0)
    # ∓1 times γ plus β; the reciprocal root is good to a few units in the last place of float32.
    np.testing.assert_allclose(y, [[-1, -5], [1, 15]], rtol=1e-6)


def test_running_update_values():
    # Two values per channel, so that the unbiased variance is twice the biased one.
    # From (0, 1): mean 0.9·0 + 0.1·2 = 0.2, variance 0.9·1 + 0.1·2·1 = 1.1 (unbiased), 1.0 (not).
    # Then, with mean 4 and variance 4: mean 0.18 + 0.4 = 0.58, variance 0.99 + 0.8 = 1.79, or
    # 0.9 + 0.4 = 1.3.
    def two_updates(unbiased):
        running = (jnp.zeros(1), jnp.ones(1))
        for mean, var in ((2.0, 1.0), (4.0, 4.0)):
            batch = (jnp.array([mean]), jnp.array([var]))
            running = running_update(running, batch, momentum=0.9, count=2, unbiased=unbiased)
        return [float(value[0]) for value in running]

    # Four float32 operations on numbers of order 1.
    assert two_updates(unbiased=True) == pytest.approx([0.58, 1.79], rel=1e-6)
    assert two_updates(unbiased=False) == pytest.approx([0.58, 1.3], rel=1e-6)


@pytest.mark.usefixtures("platform")
def test_batch_moments_are_exact_with_a_large_offset():
    # In one pass, E[x²] − E[x]² = 1e8 − 1e8 in float32 has no digit left, and may be negative.
    x = (1e4 + np.random.default_rng(0).standard_normal((4096, 3))).astype(np.float32)
    mean, var, y = reference(x, 1, 1.0, 0.0, 1e-5)
    found = batch_moments(x, axis=1)
    # float32 numbers near 1e4 are 1e-3 apart: the mean is off by δ ≈ 1e-3, the variance by δ²,
    # and what is normalised by δ.
    np.testing.assert_allclose(found[0], mean, rtol=0, atol=3e-3)
    np.testing.assert_allclose(found[1], var, rtol=1e-4)
    normal = batch_norm(x, *found, jnp.ones(3), jnp.zeros(3), axis=1, epsilon=1e-5)
    np.testing.assert_allclose(normal, y, rtol=0, atol=5e-3)


@pytest.mark.usefixtures("platform")
def test_batch_moments_of_a_constant_channel():
    mean, var = batch_moments(jnp.full((8, 4, 2), 12345.678), axis=-1)
    assert var.tolist() == [0, 0]
    np.testing.assert_allclose(mean, 12345.678, rtol=1e-6)  # stored in float32


def test_batch_moments_with_first_positions_far_from_the_rest(platform):
    # What is subtracted, the mean of the first column, lies 20 deviations off: the relative error
    # of the variance may be ε·(1 + 20²), 5e-5 in float32. A single value there may lie 23 off.
    x = np.random.default_rng(0).standard_normal((512, 64, 2)).astype(np.float32)
    x[:, 0] += 20
    mean, var = batch_moments(x, axis=2)
    expected_mean, expected_var, _ = reference(x, 2, 1.0, 0.0, 1e-5)
    np.testing.assert_allclose(mean, expected_mean, rtol=0, atol=1e-5)
    np.testing.assert_allclose(var, expected_var, rtol=5e-5 if platform == "cpu" else 6e-5)


@settings(max_examples=15, deadline=None)  # each shape compiles anew
@given(
    st.lists(st.integers(1, 4), min_size=2, max_size=4),
    st.data(),
    st.floats(-10, 10),
    st.floats(0.1, 10),
    st.integers(0, 2**32 - 1),
)
def test_batch_norm_equals_the_definition_on_any_axis(shape, data, offset, width, seed):
    axis = data.draw(st.integers(-len(shape), len(shape) - 1))
    rng = np.random.default_rng(seed)
    x = offset + width * rng.standard_normal(shape)
    scale, bias = rng.standard_normal((2, shape[axis]))
    mean, var, y = reference(x, axis, scale, bias, 1e-3)

    def both(x, scale, bias):
        moments = batch_moments(x, axis=axis % x.ndim)
        return moments, batch_norm(x, *moments, scale, bias, axis=axis % x.ndim, epsilon=1e-3)

    with jax.enable_x64(True):
        moments, found = jax.jit(both)(x, scale, bias)
        # float64 with numbers up to 50: sums round at 1e-14, and 1/√ε magnifies them 30 times.
        np.testing.assert_allclose(moments[0], mean, rtol=0, atol=1e-12)
        np.testing.assert_allclose(moments[1], var, rtol=0, atol=1e-11)
        np.testing.assert_allclose(found, y, rtol=0, atol=1e-10)


@pytest.mark.usefixtures("platform")
def test_batch_moments_sum_half_precision_in_float32():
    x = jnp.full((4096, 1), 1.0, jnp.bfloat16).at[0].set(2)
    mean, var = batch_moments(x, axis=1)
    assert mean.dtype == var.dtype == jnp.float32
    # A bfloat16 sum of ones stops at 256.
    assert float(mean[0]) == pytest.approx(1 + 1 / 4096, rel=1e-6)
    y = batch_norm(x, mean, var, jnp.ones(1), jnp.zeros(1), axis=1, epsilon=1e-5)
    assert y.dtype == jnp.bfloat16


@pytest.mark.parametrize("shape", [(6, 3), (2, 3, 4, 5)])
def test_batch_moments_and_their_derivatives_are_the_same_on_every_platform(
    shape, x64, monkeypatch
):
    rng = np.random.default_rng(0)
    x, direction = 5 + rng.standard_normal((2, *shape))
    weights = rng.standard_normal((2, 3))

    def loss(x):
        mean, var = batch_moments(x, axis=1)
        return weights[0] @ mean + weights[1] @ jnp.sqrt(var)

    def everything():
        gradient = jax.grad(loss)
        slope = jax.jvp(loss, (x,), (direction,))[1]
        curvature = jax.grad(lambda x: jnp.vdot(gradient(x), direction))(x)
        members = jax.vmap(lambda x: batch_moments(x, axis=1))(jnp.stack([x, 2 * x]))
        return batch_moments(x, axis=1), gradient(x), slope, curvature, members

    expected = everything()
    monkeypatch.setattr(normalization.jax.lax, "platform_dependent", elsewhere)
    for found, wanted in zip(jax.tree.leaves(everything()), jax.tree.leaves(expected), strict=True):
        # Sums of up to 40 float64 numbers of order 10.
        np.testing.assert_allclose(found, wanted, rtol=0, atol=1e-12)


def test_batch_moments_of_no_examples_are_nan():
    assert np.isnan(batch_moments(jnp.ones((0, 2, 2, 3)), axis=3)).all()


def test_batch_moments_of_explicit_sharding():
    mesh = jax.make_mesh((2,), ("d",), axis_types=(jax.sharding.AxisType.Explicit,))
    x = np.random.default_rng(0).standard_normal((4, 2, 2, 3)).astype(np.float32)
    with jax.set_mesh(mesh):
        split = jax.device_put(x, jax.NamedSharding(mesh, jax.P("d")))
        found = jax.jit(lambda x: batch_moments(x, axis=3))(split)
    for got, wanted in zip(found, batch_moments(x, axis=3), strict=True):
        # Two sums of 8 float32 numbers of order 1.
        np.testing.assert_allclose(got, wanted, rtol=0, atol=1e-6)


def test_running_update_stops_gradients(x64):
    def through_running(x):
        new = running_update(
            (jnp.zeros(2), jnp.ones(2)),
            batch_moments(x, axis=1),
            momentum=0.9,
            count=3,
            unbiased=True,
        )
        return new[0].sum() + new[1].sum()

    x = np.random.default_rng(0).standard_normal((3, 2))
    assert not jax.grad(through_running)(x).any()
    # Gradients flow through the moments of the batch: shifting all rows changes nothing.
    weights = np.random.default_rng(1).standard_normal((3, 2))

    def through_batch(x):
        y = batch_norm(x, *batch_moments(x, axis=1), jnp.ones(2), jnp.zeros(2), axis=1, epsilon=0.0)
        return (y * weights).sum()

    gradient = jax.grad(through_batch)(x)
    assert np.abs(gradient).max() > 0.1
    # Sums of three float64 numbers of order 1.
    np.testing.assert_allclose(gradient.sum(0), 0, atol=1e-14)


def test_running_update_rejects_the_unbiased_variance_of_one_value():
    running = batch = (jnp.zeros(2), jnp.ones(2))
    with pytest.raises(ValueError, match=r"more than one value per channel.*larger batch.*eval"):
        running_update(running, batch, momentum=0.9, count=1, unbiased=True)
    running_update(running, batch, momentum=0.9, count=1, unbiased=False)


@pytest.mark.parametrize("axis", [0, 2, -1])
@pytest.mark.parametrize("parts", [1, 2, 5])
def test_batch_moments_of_equal_parts_equal_those_of_the_whole(axis, parts, x64):
    # The parts are far from each other.
    x = np.random.default_rng(0).standard_normal((parts, 4, 3, 2, 3)) + 10
    x += 100 * np.arange(parts).reshape(-1, 1, 1, 1, 1)
    x = np.moveaxis(x, -1, axis if axis < 0 else axis + 1)
    whole = np.concatenate(list(x), 1 if axis == 0 else 0)

    def mapped(x):
        return jax.vmap(
            lambda part: batch_moments(part, axis=axis, axis_name="parts"), axis_name="parts"
        )(x)

    mean, var, _ = reference(whole, axis, 1.0, 0.0, 0.0)
    for found in zip(*mapped(x), strict=True):  # every part has the moments of the whole
        # Float64, and offsets of 500 standard deviations at most.
        np.testing.assert_allclose(found[0], mean, rtol=1e-13)
        np.testing.assert_allclose(found[1], var, rtol=1e-11)

    def loss(moments):
        return jnp.sum(jnp.sin(moments[0]) + jnp.log(moments[1]))

    # Every part has the loss of the whole, so that their sum is `parts` times as large.
    grad = jax.grad(lambda x: jnp.sum(jax.vmap(lambda *m: loss(m))(*mapped(x))))(x)
    wanted = jax.grad(lambda x: loss(batch_moments(x, axis=axis)))(whole)
    found = np.concatenate(list(grad), 1 if axis == 0 else 0)
    np.testing.assert_allclose(found, parts * wanted, rtol=1e-9, atol=1e-12)


def test_batch_norm_computes_half_precision_in_float32():
    # A mean of 20 deviations: bias − mean·factor rounded to eight bits would be off by 0.1.
    x = jnp.asarray(20 + np.random.default_rng(0).standard_normal((64, 3)), jnp.bfloat16)
    mean, var, wanted = reference(x, 1, 1.5, 0.5, 1e-5)
    moments = (jnp.asarray(v, jnp.float32) for v in (mean, var))
    scale, bias = (jnp.full(3, value, jnp.bfloat16) for value in (1.5, 0.5))
    found = batch_norm(x, *moments, scale, bias, axis=1, epsilon=1e-5)
    assert found.dtype == jnp.bfloat16
    # The result is rounded to eight bits; its numbers are below 8.
    np.testing.assert_allclose(found.astype(jnp.float32), wanted, rtol=2**-8, atol=1e-3)


# --- group norm --------------------------------------------------------------------------------


def test_group_norm_values():
    # One example, channels (1, 3) and (10, 10): each group of one channel by itself, then both.
    x = jnp.array([[[1.0, 3.0], [10.0, 10.0]]])
    settings = {"channels": 1, "examples": 0, "epsilon": 0.25}
    ones = jnp.ones(2), jnp.zeros(2)
    alone = group_norm(x, *ones, groups=2, **settings)
    np.testing.assert_allclose(alone[0, 0], np.array([-1, 1]) / np.sqrt(1.25), rtol=1e-6)
    np.testing.assert_allclose(alone[0, 1], [0, 0], atol=1e-6)
    together = group_norm(x, *ones, groups=1, **settings)
    # Mean 6, variance (25 + 9 + 16 + 16)/4 = 16.5.
    wanted = np.array([[-5, -3], [4, 4]]) / np.sqrt(16.75)
    np.testing.assert_allclose(together[0], wanted, rtol=1e-6)


@pytest.mark.parametrize("layout", ["NHWC", "NCHW", "CHWN"])
@pytest.mark.parametrize("groups", [1, 2, 6])
def test_group_norm_against_flax(layout, groups, x64):
    rng = np.random.default_rng(0)
    x = rng.standard_normal((3, 4, 5, 6)) * 3 + 50
    scale, bias = rng.standard_normal((2, 6))
    theirs = nnx.GroupNorm(
        6, num_groups=groups, epsilon=1e-5, param_dtype=jnp.float64, rngs=nnx.Rngs(0)
    )
    theirs.scale.set_value(jnp.asarray(scale))
    theirs.bias.set_value(jnp.asarray(bias))
    order = ["NHWC".index(axis) for axis in layout]
    positions = {"channels": layout.index("C"), "examples": layout.index("N")}

    def ours(x):
        y = group_norm(x.transpose(order), scale, bias, groups=groups, epsilon=1e-5, **positions)
        return y.transpose([layout.index(axis) for axis in "NHWC"])

    # Flax computes the variance as E[x²] − E[x]², which loses (50/3)² of the digits of float64.
    np.testing.assert_allclose(ours(x), theirs(x), rtol=1e-9, atol=1e-10)
    found, wanted = (jax.grad(lambda x, f=f: jnp.sum(jnp.sin(f(x))))(x) for f in (ours, theirs))
    np.testing.assert_allclose(found, wanted, rtol=1e-9, atol=1e-10)


def test_group_norm_is_exact_with_a_large_offset():
    x = (1e4 + np.random.default_rng(0).standard_normal((2, 4096, 2))).astype(np.float32)
    y = group_norm(x, jnp.ones(2), jnp.zeros(2), groups=1, channels=2, examples=0, epsilon=1e-5)
    exact = x.astype(np.float64)
    wanted = (exact - exact.mean((1, 2), keepdims=True)) / exact.std((1, 2), keepdims=True)
    np.testing.assert_allclose(y, wanted, rtol=0, atol=5e-3)  # as for batch norm above
