import math

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx

from convjax.nn.layers import BatchNorm, Conv, GroupNorm, Linear, ReLU, uniform_fan_in
from tests.helpers import KERNELS, reorder


def draw(*shape, seed=0, dtype=np.float32):
    return np.random.default_rng(seed).standard_normal(shape).astype(dtype)


# --- initial weights ---------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("make", "fan_in"),
    [
        (lambda rngs: Conv(4, 64, 5, rngs=rngs), 100),
        (lambda rngs: Conv(4, 64, (5, 2), layout="NCHW", rngs=rngs), 40),
        (lambda rngs: Conv(8, 64, 5, groups=4, layout="CHWN", rngs=rngs), 50),
        (lambda rngs: Linear(50, 64, rngs=rngs), 50),
    ],
    ids=["NHWC", "pair", "groups", "linear"],
)
def test_initial_weights_are_uniform_within_one_over_root_fan_in(make, fan_in):
    layer = make(nnx.Rngs(0))
    bound = 1 / math.sqrt(fan_in)
    for variable in (layer.kernel, layer.bias):
        values = np.asarray(variable[...], np.float64).ravel() / bound
        # float32 rounds the bound by up to 6e-8 of it.
        assert np.abs(values).max() <= 1 + 1e-7
        # n uniform numbers on ±1: with probability e⁻⁶ none is above 1 − 12/n; the seed is fixed.
        # The mean is within 4/√(3n), and the standard deviation is 1/√3.
        n = len(values)
        assert values.max() > 1 - 12 / n
        assert values.min() < -1 + 12 / n
        assert abs(values.mean()) < 4 / math.sqrt(3 * n)
        assert values.std() == pytest.approx(1 / math.sqrt(3), rel=4 / math.sqrt(n))
    assert layer.kernel[...].dtype == np.float32


def test_uniform_fan_in_depends_on_the_key():
    one, same, other = (Conv(2, 3, rngs=nnx.Rngs(seed)) for seed in (0, 0, 1))
    np.testing.assert_array_equal(one.kernel[...], same.kernel[...])
    assert (one.kernel[...] != other.kernel[...]).all()
    # Kernel and bias are different draws.
    assert not np.isin(one.bias[...], one.kernel[...]).any()
    draws = uniform_fan_in(jax.random.key(0), (1000,), 4, jnp.float32)
    assert np.abs(draws).max() <= 0.5


# --- convolution and linear layer --------------------------------------------------------------


@pytest.mark.parametrize("shape", [(3, 3, 8, 16), (16,), (784, 30)])
@pytest.mark.parametrize("fan_in", [9, 72, 784])
def test_uniform_fan_in_has_the_bits_of_jax(shape, fan_in):
    bound = 1 / math.sqrt(fan_in)
    key = jax.random.key(fan_in)
    program = jax.jit(lambda key: jax.random.uniform(key, shape, jnp.float32, -bound, bound))
    # As JAX compiles outside of the tests, which disable most optimisations.
    usual = {"xla_backend_optimization_level": 3, "xla_llvm_disable_expensive_passes": False}
    wanted = program.lower(key).compile(usual)(key)
    np.testing.assert_array_equal(uniform_fan_in(key, shape, fan_in, jnp.float32), wanted)


def test_conv_passes_every_setting_on():
    layer = Conv(
        4, 6, (3, 2), stride=(2, 1), padding=((1, 0), (0, 2)), dilation=(1, 2), groups=2,
        rngs=nnx.Rngs(0),
    )  # fmt: skip
    assert layer.kernel[...].shape == (3, 2, 2, 6)
    x = draw(2, 7, 6, 4)
    expected = jax.lax.conv_general_dilated(
        x,
        layer.kernel[...],
        (2, 1),
        ((1, 0), (0, 2)),
        rhs_dilation=(1, 2),
        dimension_numbers=("NHWC", "HWIO", "NHWC"),
        feature_group_count=2,
    )
    # Sums of 12 products of order 1 in float32.
    np.testing.assert_allclose(layer(x), expected + layer.bias[...], atol=1e-5)
    for method, primitive in (("lax", "conv_general_dilated"), ("matmul", "dot_general")):
        layer.method = method
        assert primitive in str(jax.make_jaxpr(lambda x: layer(x))(x))


def test_conv_without_bias():
    layer = Conv(1, 2, use_bias=False, rngs=nnx.Rngs(0))
    assert layer.bias is None
    assert len(jax.tree.leaves(nnx.state(layer, nnx.Param))) == 1
    assert not layer(np.zeros((1, 3, 3, 1), np.float32)).any()


@pytest.mark.parametrize("layout", ["NCHW", "CHWN"])
def test_conv_and_batch_norm_are_the_same_in_every_layout(layout):
    settings = {"stride": (2, 1), "padding": (1, 0), "groups": 2}
    first, second = (
        Conv(4, 6, (3, 2), layout=name, **settings, rngs=nnx.Rngs(seed))
        for seed, name in enumerate(("NHWC", layout))
    )
    second.kernel[...] = first.kernel[...]
    second.bias[...] = first.bias[...]
    norms = BatchNorm(6), BatchNorm(6, layout=layout)
    for norm in norms:
        norm.scale[...], norm.bias[...] = draw(2, 6, seed=3)
    x = draw(3, 6, 5, 4)
    expected = norms[0](first(x))
    found = norms[1](second(reorder(x, "NHWC", layout)))
    # Sums of 12 products and moments of 72 values of order 1 in float32, in another order.
    np.testing.assert_allclose(reorder(found, layout, "NHWC"), expected, atol=2e-5)
    np.testing.assert_allclose(norms[1].mean[...], norms[0].mean[...], atol=1e-6)
    np.testing.assert_allclose(norms[1].var[...], norms[0].var[...], atol=1e-6)


def test_linear_against_numpy():
    layer = Linear(5, 3, rngs=nnx.Rngs(0))
    x = draw(2, 4, 5)
    expected = np.einsum("abi,io->abo", x, layer.kernel[...]) + np.asarray(layer.bias[...])
    # Sums of 5 products of order 1 in float32.
    np.testing.assert_allclose(layer(x), expected, atol=1e-6)


def test_conv_and_linear_dtypes_of_computation_and_parameters():
    x = draw(1, 4, 4, 2)
    layers = (
        Conv(2, 3, dtype=jnp.bfloat16, rngs=nnx.Rngs(0)),
        Linear(2, 3, dtype=jnp.bfloat16, rngs=nnx.Rngs(0)),
    )
    for layer in layers:
        assert layer.kernel[...].dtype == jnp.float32
        assert layer(x).dtype == jnp.bfloat16
    half = Conv(2, 3, param_dtype=jnp.float16, rngs=nnx.Rngs(0))
    assert half.kernel[...].dtype == half.bias[...].dtype == jnp.float16
    # Without a dtype, the widest one is used.
    assert half(x).dtype == jnp.float32
    assert half(x.astype(np.float16)).dtype == jnp.float16


@pytest.mark.parametrize(
    ("arguments", "error", "message"),
    [
        ({"groups": 2}, ValueError, "groups must divide in_features, got groups=2, in_features=3"),
        ({"kernel_size": 0}, ValueError, "kernel_size must be at least 1, got 0"),
        ({"kernel_size": 2.5}, TypeError, "kernel_size must be an int or a pair"),
        ({"layout": "HWCN"}, ValueError, "layout must be one of 'NHWC', 'NCHW', 'CHWN', got 'HW"),
    ],
)
def test_conv_rejects_invalid_settings(arguments, error, message):
    with pytest.raises(error, match=message):
        Conv(3, 4, **arguments, rngs=nnx.Rngs(0))


# --- batch norm --------------------------------------------------------------------------------


@pytest.mark.parametrize("dtype", [jnp.float32, jnp.bfloat16])
def test_relu_and_its_derivatives_are_those_of_jax(dtype):
    x = jnp.array([-np.inf, -2, -1e-38, -0.0, 0.0, 1e-38, 3, np.inf, np.nan], dtype)
    tangent = jnp.arange(1, 10, dtype=dtype)
    relu = ReLU(by_output=True)

    def everything(relu):
        gradient = jax.grad(lambda x: (tangent * relu(x)).sum())
        second = jax.grad(lambda x: (tangent * jax.grad(lambda x: (relu(x) ** 2).sum())(x)).sum())
        return jax.jvp(relu, (x,), (tangent,)), gradient(x), second(x), jax.vmap(relu)(x)

    for found, wanted in zip(
        jax.tree.leaves(everything(relu)), jax.tree.leaves(everything(jax.nn.relu)), strict=True
    ):
        assert np.asarray(found).tobytes() == np.asarray(wanted).tobytes()


def test_relu_keeps_its_output_alone_for_the_gradient():
    # Its input would otherwise be written beside the output, for the gradient alone.
    text = str(
        jax.make_jaxpr(jax.grad(lambda x: ReLU(by_output=True)(jnp.sin(x)).sum()))(jnp.ones(3))
    )
    assert "ne " in text
    assert "gt " not in text


def test_batch_norm_values_and_running_statistics():
    norm = BatchNorm(1)
    x = jnp.array([1.0, 3.0]).reshape(2, 1, 1, 1)
    # Mean 2, biased variance 1; running: 0.1·2 and 0.9 + 0.1·2, the unbiased variance being 2.
    np.testing.assert_allclose(norm(x).ravel(), [-1, 1], rtol=1e-5)  # ε is 1e-5
    norm(jnp.array([2.0, 6.0]).reshape(2, 1, 1, 1))
    # Then mean 4, unbiased variance 8: 0.18 + 0.4 and 0.99 + 0.8. A few float32 operations.
    assert float(norm.mean[0]) == pytest.approx(0.58, rel=1e-6)
    assert float(norm.var[0]) == pytest.approx(1.79, rel=1e-6)
    norm.eval()
    expected = (np.array([1.0, 3.0]) - 0.58) / math.sqrt(1.79 + 1e-5)
    np.testing.assert_allclose(norm(x).ravel(), expected, rtol=1e-6)
    assert float(norm.mean[0]) == pytest.approx(0.58, rel=1e-6)  # evaluation changes nothing
    norm.train()
    np.testing.assert_allclose(norm(x).ravel(), [-1, 1], rtol=1e-5)


def test_batch_norm_against_flax(x64):
    ours = BatchNorm(3, momentum=0.8, torch_statistics=False, param_dtype=jnp.float64)
    theirs = nnx.BatchNorm(
        3, use_running_average=False, momentum=0.8, epsilon=1e-5, param_dtype=jnp.float64,
        use_fast_variance=False, rngs=nnx.Rngs(0),
    )  # fmt: skip
    # Flax keeps the running statistics in float32 whatever param_dtype is.
    theirs.mean, theirs.var = nnx.BatchStat(jnp.zeros(3)), nnx.BatchStat(jnp.ones(3))
    scale, bias = draw(2, 3, seed=9, dtype=np.float64)
    for norm in (ours, theirs):
        norm.scale[...], norm.bias[...] = jnp.asarray(scale), jnp.asarray(bias)
    batches = [
        (step + (1 + step) * draw(4, 5, 2, 3, seed=step, dtype=np.float64)) for step in range(3)
    ]
    for x in batches:
        # Moments of 40 values of order 10 in float64.
        np.testing.assert_allclose(ours(x), theirs(x), rtol=0, atol=1e-12)
        np.testing.assert_allclose(ours.mean[...], theirs.mean[...], rtol=0, atol=1e-12)
        np.testing.assert_allclose(ours.var[...], theirs.var[...], rtol=0, atol=1e-12)
    ours.eval()
    theirs.eval()
    assert np.abs(ours.mean[...]).min() > 0.1  # so that ignoring the mean would fail
    np.testing.assert_allclose(ours(batches[0]), theirs(batches[0]), rtol=0, atol=1e-12)
    np.testing.assert_allclose(
        jax.grad(lambda x: (ours(x) ** 3).sum())(batches[0]),
        jax.grad(lambda x: (theirs(x) ** 3).sum())(batches[0]),
        rtol=0,
        atol=1e-9,  # gradients of order 100
    )


def test_batch_norm_gradient_against_flax_in_training_mode(x64):
    x, weights = draw(2, 3, 1, 2, 3, dtype=np.float64)
    gradients = []
    ours = BatchNorm(3, param_dtype=jnp.float64)
    theirs = nnx.BatchNorm(3, use_running_average=False, param_dtype=jnp.float64, rngs=nnx.Rngs(0))
    theirs.mean, theirs.var = nnx.BatchStat(jnp.zeros(3)), nnx.BatchStat(jnp.ones(3))
    for norm in (ours, theirs):
        graphdef, state = nnx.split(norm)
        gradients.append(
            jax.grad(
                lambda x, g=graphdef, s=state: (nnx.merge(g, s, copy=True)(x) * weights).sum()
            )(x)
        )
    # float64 and six values per channel; Flax's variance in one pass loses a few digits more.
    np.testing.assert_allclose(*gradients, rtol=0, atol=1e-10)


def test_batch_norm_keeps_statistics_in_float32_for_half_precision():
    norm = BatchNorm(3)
    x = draw(10, 1, 5, 3) * 5 + 7
    y = norm(x)
    # 50 float32 values of order 10.
    np.testing.assert_allclose(y.mean((0, 1, 2)), 0, atol=1e-5)
    np.testing.assert_allclose(y.std((0, 1, 2)), 1, rtol=1e-5)
    np.testing.assert_allclose(norm.mean[...], 0.1 * x.mean((0, 1, 2)), rtol=1e-5)
    assert norm(x.astype(jnp.bfloat16)).dtype == jnp.bfloat16
    assert norm.mean[...].dtype == jnp.float32


@pytest.mark.parametrize(
    ("layout", "shape", "axis"),
    [
        ("CHWN", (3, 5), 1),  # vectors are (N, C)
        ("NHWC", (5, 4), 1),
        ("NHWC", (3,), 0),
        ("NHWC", (2, 3, 4, 4), 3),  # maps of another layout
        ("NCHW", (2, 4, 4, 3), 1),
        ("CHWN", (2, 4, 4, 3), 0),
        ("CHWN", (4, 4, 3), 0),
        ("NCHW", (3, 4, 3, 3, 3), 1),
    ],
)
@pytest.mark.parametrize("mode", ["train", "eval"])
def test_batch_norm_rejects_wrong_shapes(layout, shape, axis, mode):
    norm = BatchNorm(3, layout=layout)
    getattr(norm, mode)()
    message = rf"x must have two axes or more with 3 channels on axis {axis}, .*\({shape[0]},"
    with pytest.raises(ValueError, match=message):
        norm(np.ones(shape, np.float32))
    assert not norm.mean[...].any()


@pytest.mark.parametrize(
    ("layout", "shape", "axis"),
    [
        ("NHWC", (5, 3), 1),
        ("NCHW", (5, 3), 1),
        ("CHWN", (5, 3), 1),
        ("NHWC", (5, 4, 3), 2),
        ("NCHW", (5, 3, 4), 1),
        ("CHWN", (3, 4, 5), 0),
        ("NHWC", (2, 2, 4, 4, 3), 4),
        ("NCHW", (2, 3, 2, 4, 4), 1),
    ],
)
def test_batch_norm_takes_vectors_and_maps_of_any_rank(layout, shape, axis):
    norm = BatchNorm(3, layout=layout)
    norm.scale[...], norm.bias[...] = draw(2, 3, seed=3)
    x = 2 * draw(*shape, seed=1) + 1
    flat = np.moveaxis(x.astype(np.float64), axis, -1).reshape(-1, 3)
    mean, var = flat.mean(0), flat.var(0)

    def expected(mean, var):
        y = (flat - mean) / np.sqrt(var + 1e-5) * norm.scale[...] + norm.bias[...]
        turned = y.reshape(np.moveaxis(x, axis, -1).shape)
        return np.moveaxis(turned, -1, axis)

    # Moments of at most 64 values of order 1 in float32.
    np.testing.assert_allclose(norm(x), expected(mean, var), atol=1e-5)
    unbiased = 0.9 + 0.1 * flat.var(0, ddof=1)
    np.testing.assert_allclose(norm.mean[...], 0.1 * mean, atol=1e-6)
    np.testing.assert_allclose(norm.var[...], unbiased, rtol=1e-6)
    norm.eval()
    np.testing.assert_allclose(norm(x), expected(0.1 * mean, unbiased), atol=1e-5)


def test_batch_norm_rejects_one_value_per_channel_in_training():
    norm = BatchNorm(3)
    one = np.ones((1, 1, 1, 3), np.float32)
    with pytest.raises(ValueError, match=r"more than one value per channel, got one.*model.eval"):
        norm(one)
    norm.eval()
    # Running mean 0 and variance 1: only ε has an effect, of half its size.
    np.testing.assert_allclose(norm(one), 1 / math.sqrt(1 + 1e-5), rtol=1e-6)
    with pytest.raises(ValueError, match="layout must be one of"):
        BatchNorm(3, layout="HWCN")


# --- group norm --------------------------------------------------------------------------------


def test_group_norm_is_the_same_in_every_layout():
    x = draw(3, 4, 5, 6)
    outputs = []
    for layout in KERNELS:
        norm = GroupNorm(6, 3, layout=layout)
        outputs.append(reorder(norm(reorder(x, "NHWC", layout)), layout, "NHWC"))
        norm.eval()
        np.testing.assert_array_equal(
            reorder(norm(reorder(x, "NHWC", layout)), layout, "NHWC"), outputs[-1]
        )
    for output in outputs:
        np.testing.assert_allclose(output, outputs[0], atol=1e-5)
    grouped = outputs[0].reshape(3, 20, 3, 2)
    np.testing.assert_allclose(grouped.mean((1, 3)), 0, atol=1e-5)
    np.testing.assert_allclose(grouped.std((1, 3)), 1, atol=1e-4)


def test_group_norm_rejects_invalid_groups_and_shapes():
    for groups in (0, 4):
        with pytest.raises(ValueError, match="groups must divide num_features, got groups="):
            GroupNorm(6, groups)
    with pytest.raises(ValueError, match=r"four axes with 6 channels on axis 3.*\(2, 3, 3, 5\)"):
        GroupNorm(6, 2)(jnp.ones((2, 3, 3, 5)))
