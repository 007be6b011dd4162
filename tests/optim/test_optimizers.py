import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from flax import nnx

from convjax.nn.models import ConvNet
from convjax.optim import optimizers
from tests.helpers import assert_trees_close

# Changing rates and momenta, as a schedule gives them; five steps.
RATES = [0.1, 0.3, 0.2, 0.05, 0.01]
MOMENTA = [0.95, 0.9, 0.85, 0.9, 0.95]
SHAPES = {"bias": (3,), "kernel": (2, 3), "conv": (2, 2, 1, 2)}


def draw(seed=0, dtype=np.float64):
    rng = np.random.default_rng(seed)
    return {name: rng.standard_normal(shape).astype(dtype) for name, shape in SHAPES.items()}


def trajectory(optimizer, params, gradients):
    """Returns the parameters after each step, and the applied values from the state."""

    @jax.jit
    def step(params, state, gradient, learning_rate, momentum):
        state = optimizer.set(state, learning_rate, momentum)
        updates, state = optimizer.transform.update(gradient, state, params)
        return optax.apply_updates(params, updates), state, optimizer.applied(state)

    state = optimizer.transform.init(params)
    found, applied = [], []
    for gradient, rate, momentum in zip(gradients, RATES, MOMENTA, strict=True):
        params, state, used = step(params, state, gradient, jnp.array(rate), jnp.array(momentum))
        found.append(params)
        applied.append([float(value) for value in used])
    return found, applied


def fastai_adam(params, gradients, *, b2=0.99, eps=1e-5, wd=0.01):
    """fastai's `weight_decay`, `average_grad(dampening=True)`, `average_sqr_grad`, `adam_step`."""
    means = {name: np.zeros_like(p) for name, p in params.items()}
    squares = {name: np.zeros_like(p) for name, p in params.items()}
    found = []
    for t, (gradient, lr, b1) in enumerate(zip(gradients, RATES, MOMENTA, strict=True), 1):
        new = {}
        for name, p in params.items():
            if p.ndim > 1:
                p = p * (1 - lr * wd)
            means[name] = b1 * means[name] + (1 - b1) * gradient[name]
            squares[name] = b2 * squares[name] + (1 - b2) * gradient[name] ** 2
            debias1, debias2 = 1 - b1**t, 1 - b2**t
            root = np.sqrt(squares[name] / debias2)
            new[name] = p - lr * means[name] / debias1 / (root + eps)
        params = new
        found.append(params)
    return found


def torch_sgd(params, gradients, *, wd):
    """PyTorch's SGD; biases without decay."""
    velocity = {name: np.zeros_like(p) for name, p in params.items()}
    found = []
    for gradient, lr, momentum in zip(gradients, RATES, MOMENTA, strict=True):
        for name, p in params.items():
            decayed = gradient[name] + (wd * p if p.ndim > 1 else 0)
            velocity[name] = momentum * velocity[name] + decayed
        params = {name: p - lr * velocity[name] for name, p in params.items()}
        found.append(params)
    return found


# --- against NumPy -----------------------------------------------------------------------------


def test_adam_first_step(x64):
    # The first step is lr·g/(|g| + eps), whatever b1 and b2; the matrix also loses lr·wd of itself.
    params = {"bias": np.array([1.0, 1.0]), "kernel": np.array([[1.0, 1.0]])}
    gradient = {"bias": np.array([0.5, -2e-5]), "kernel": np.array([[0.5, -2e-5]])}
    optimizer = optimizers.adam()
    state = optimizer.set(optimizer.transform.init(params), jnp.array(0.1), jnp.array(0.8))
    updates, _ = optimizer.transform.update(gradient, state, params)
    steps = np.array([-0.1 * 0.5 / 0.50001, 0.1 * 2 / 3])
    # float64; the corrections 1 − b lose a digit.
    np.testing.assert_allclose(updates["bias"], steps, rtol=1e-12)
    np.testing.assert_allclose(updates["kernel"][0], steps - 0.1 * 0.01, rtol=1e-12)


@pytest.mark.parametrize("settings", [{}, {"b2": 0.9, "eps": 1e-2, "weight_decay": 0.3}])
def test_adam_equals_fastai(settings, x64):
    params, gradients = draw(), [draw(seed) for seed in range(1, 6)]
    # Gradients of the size of eps and of zero, which are sensitive to its place in the formula.
    gradients[2] = jax.tree.map(lambda g: 1e-5 * g, gradients[2])
    gradients[3] = jax.tree.map(np.zeros_like, gradients[3])
    found, _ = trajectory(optimizers.adam(**settings), params, gradients)
    names = {"b2": "b2", "eps": "eps", "weight_decay": "wd"}
    expected = fastai_adam(params, gradients, **{names[k]: v for k, v in settings.items()})
    for actual, wanted in zip(found, expected, strict=True):
        # float64, numbers of order 1, five steps.
        assert_trees_close(actual, wanted, rtol=0, atol=1e-12)


@pytest.mark.parametrize("weight_decay", [0.0, 0.1])
def test_sgd_equals_pytorch(weight_decay, x64):
    params, gradients = draw(), [draw(seed) for seed in range(1, 6)]
    found, _ = trajectory(optimizers.sgd(weight_decay=weight_decay), params, gradients)
    for actual, wanted in zip(found, torch_sgd(params, gradients, wd=weight_decay), strict=True):
        assert_trees_close(actual, wanted, rtol=0, atol=1e-12)  # as above


# --- the optimiser's state ---------------------------------------------------------------------


@pytest.mark.parametrize("make", [optimizers.adam, optimizers.sgd])
def test_applied_returns_the_values_of_the_step(make):
    params = draw(dtype=np.float32)
    _, applied = trajectory(make(), params, [draw(seed, np.float32) for seed in range(1, 6)])
    # In the precision of the parameters.
    assert applied == [
        [float(np.float32(rate)), float(np.float32(momentum))]
        for rate, momentum in zip(RATES, MOMENTA, strict=True)
    ]


@pytest.mark.parametrize("make", [optimizers.adam, optimizers.sgd])
def test_set_keeps_the_structure_and_dtypes_of_the_state(make):
    # A compiled loop over steps requires it of its carry.
    optimizer = make()
    params = draw(dtype=np.float32)
    before = optimizer.transform.init(params)
    state = optimizer.set(before, jnp.float16(0.1), jnp.float16(0.9))
    after = optimizer.transform.update(params, state, params)[1]

    def kinds(state):
        return jax.tree.map(lambda leaf: (jnp.shape(leaf), jnp.result_type(leaf)), state)

    assert kinds(state) == kinds(before)
    assert kinds(after) == kinds(before)


@pytest.mark.parametrize("make", [optimizers.adam, optimizers.sgd])
def test_optimizers_compute_in_float32_for_parameters_of_half_precision(make):
    optimizer = make()
    wide = draw(dtype=np.float32)
    half = jax.tree.map(lambda x: jnp.asarray(x, jnp.bfloat16), wide)
    state = optimizer.set(optimizer.transform.init(half), jnp.float32(0.1), jnp.float32(0.95))
    assert float(optimizer.applied(state)[1]) == np.float32(0.95)  # 0.949 in bfloat16
    updates, after = optimizer.transform.update(half, state, half)
    floats = [x for x in jax.tree.leaves((state, after, updates)) if x.dtype != jnp.int32]
    assert {x.dtype for x in floats} == {jnp.dtype(jnp.float32)}
    # The same numbers, of which the parameters keep 8 bits, as those of float32.
    exact = jax.tree.map(lambda x: x.astype(jnp.float32), half)
    first = optimizer.set(optimizer.transform.init(exact), jnp.float32(0.1), jnp.float32(0.95))
    wanted, _ = optimizer.transform.update(exact, first, exact)
    jax.tree.map(np.testing.assert_array_equal, updates, wanted)


def test_decays_only_matrices_and_kernels():
    assert optimizers.decays(draw()) == {"bias": False, "kernel": True, "conv": True}
    model = nnx.eval_shape(lambda: ConvNet((1, 2), norm="batch", rngs=nnx.Rngs(0)))
    masks = jax.tree_util.tree_leaves_with_path(optimizers.decays(nnx.state(model, nnx.Param)))
    assert {optimizers.path_name(path): mask for path, mask in masks} == {
        "blocks.0.conv.bias": False,
        "blocks.0.conv.kernel": True,
        "blocks.0.norm.bias": False,
        "blocks.0.norm.scale": False,
    }


# --- layer groups ------------------------------------------------------------------------------


@pytest.mark.parametrize("make", [optimizers.adam, optimizers.sgd])
def test_group_scale_scales_the_whole_update(make, x64):
    rates = (0.001, 0.01, 0.1)
    groups = {"bias": 0, "kernel": 1, "conv": 2}
    scaled = make(weight_decay=0.5, group_scale=optimizers.group_scale(rates, groups.__getitem__))
    params = draw()

    def two_updates(optimizer):
        state = optimizer.transform.init(params)
        for seed in (1, 2):
            state = optimizer.set(state, jnp.array(0.1), jnp.array(0.9))
            updates, state = optimizer.transform.update(draw(seed), state, params)
        return updates

    plain = two_updates(make(weight_decay=0.5))
    expected = {name: update * rates[groups[name]] / 0.1 for name, update in plain.items()}
    # float64; the second update, which has momentum.
    assert_trees_close(two_updates(scaled), expected, rtol=1e-12)


def test_group_scale_passes_paths_of_a_network():
    model = nnx.eval_shape(lambda: ConvNet((1, 2, 3), rngs=nnx.Rngs(0)))
    seen = []

    def group_of(name):
        seen.append(name)
        return int(name.split(".")[1])

    factors = optimizers.group_scale((0.5, 2.0), group_of)(nnx.state(model, nnx.Param))
    assert sorted(seen) == [
        f"blocks.{i}.conv.{name}" for i in (0, 1) for name in ("bias", "kernel")
    ]
    assert jax.tree.leaves(factors) == [0.25, 0.25, 1.0, 1.0]


@pytest.mark.parametrize("group", [2, -1])
def test_group_scale_rejects_unknown_groups(group):
    scales = optimizers.group_scale((0.1, 0.2), lambda name: group)
    message = rf"group_of must return a group from 0 to 1, got {group} for 'bias'"
    with pytest.raises(ValueError, match=message):
        scales(draw())
