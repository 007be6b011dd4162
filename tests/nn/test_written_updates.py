"""Updates that a step has written out: the rules of optimisers, by hand and of JAX's examples."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.example_libraries import optimizers
from jax.extend.core import ClosedJaxpr, jaxpr_as_fun

from convjax.nn._harvest import Tag, harvest
from convjax.nn._written_updates import written_updates

tree_map = jax.tree.map


def loss(params, x, y):
    for weights, bias in params[:-1]:
        x = jnp.tanh(x @ weights + bias)
        x = (x - x.mean(0)) * jax.lax.rsqrt(
            x.var(0) + 1e-3
        )  # its gradients have such a factor, too
    weights, bias = params[-1]
    return jnp.mean((x @ weights + bias - y) ** 2)


grad = jax.grad(loss)
KEYS = jax.random.split(jax.random.key(0), 6)
PARAMS = [
    (jax.random.normal(KEYS[0], (3, 4)), jax.random.normal(KEYS[1], (4,))),
    (jax.random.normal(KEYS[2], (4, 2)), jax.random.normal(KEYS[3], (2,))),
]
ZEROS = tree_map(jnp.zeros_like, PARAMS)
BATCH = jax.random.normal(KEYS[4], (5, 3)), jax.random.normal(KEYS[5], (5, 2))


def sgd(params, *batch):
    return tree_map(lambda p, g: p - 0.1 * g, params, grad(params, *batch))


def decayed(params, *batch):
    return tree_map(lambda p, g: p - 0.1 * (g + 1e-3 * p), params, grad(params, *batch))


def momentum(params, velocity, *batch):
    velocity = tree_map(lambda v, g: 0.9 * v + g, velocity, grad(params, *batch))
    return tree_map(lambda p, v: p - 0.1 * v, params, velocity), velocity


def added_momentum(params, velocity, *batch):
    velocity = tree_map(lambda v, g: 0.9 * v - 0.1 * g, velocity, grad(params, *batch))
    return tree_map(lambda p, v: p + v, params, velocity), velocity


def nesterov(params, velocity, *batch):
    grads = grad(params, *batch)
    velocity = tree_map(lambda v, g: 0.9 * v + g, velocity, grads)
    return tree_map(lambda p, v, g: p - 0.1 * (g + 0.9 * v), params, velocity, grads), velocity


def clipped(params, *batch):
    grads = grad(params, *batch)
    norm = jnp.sqrt(sum(jnp.sum(g * g) for g in jax.tree.leaves(grads)))
    factor = jnp.minimum(1, 1 / norm)
    return tree_map(lambda p, g: p - 0.1 * (g * factor), params, grads)


def adam(params, mean, squares, *batch):
    grads = grad(params, *batch)
    mean = tree_map(lambda m, g: 0.9 * m + 0.1 * g, mean, grads)
    squares = tree_map(lambda v, g: 0.999 * v + 0.001 * g**2, squares, grads)

    def new(p, m, v):
        return p - 1e-3 * (m / 0.1) / (jnp.sqrt(v / 0.001) + 1e-8)

    return tree_map(new, params, mean, squares), mean, squares


def adam_of_inverse(params, mean, squares, *batch):
    grads = grad(params, *batch)
    mean = tree_map(lambda m, g: 0.9 * m + 0.1 * g, mean, grads)
    squares = tree_map(lambda v, g: 0.999 * v + 0.001 * g * g, squares, grads)
    rule = lambda p, m, v: p - 1e-3 * m * jax.lax.rsqrt(v + 1e-8)  # noqa: E731
    return tree_map(rule, params, mean, squares), mean, squares


def lion(params, mean, *batch):
    grads = grad(params, *batch)
    signs = tree_map(lambda m, g: jnp.sign(0.9 * m + 0.1 * g), mean, grads)
    mean = tree_map(lambda m, g: 0.99 * m + 0.01 * g, mean, grads)
    return tree_map(lambda p, s: p - 1e-3 * (s + 0.01 * p), params, signs), mean


def averaged(params, average, other, *batch):
    """Two averages of the weights, which are not updates."""
    new = sgd(params, *batch)
    average = tree_map(lambda e, p: e + 0.01 * (p - e), average, new)
    return new, average, tree_map(lambda e, p: 0.99 * e + 0.01 * p, other, new)


def in_calls(params, *batch):
    """Gradients of one jitted function, updates of another."""
    update = jax.jit(lambda p, g: tree_map(lambda p, g: p - 0.1 * g, p, g))
    return update(params, jax.jit(grad)(params, *batch))


RULES = {
    sgd: 0,
    decayed: 0,
    clipped: 0,
    in_calls: 0,
    momentum: 1,
    added_momentum: 1,
    nesterov: 1,
    lion: 1,
    adam: 2,
    adam_of_inverse: 2,
    averaged: 2,
}


def check(step, arguments, params):
    """Asserts that all parameters are found, and that the gradients are those of JAX."""
    program = jax.make_jaxpr(step)(*arguments)
    found = written_updates(program.jaxpr)
    leaves = jax.tree.leaves(arguments)
    given = [leaves[program.jaxpr.invars.index(update.param)] for update in found]
    for x, leaf in zip(given, jax.tree.leaves(params), strict=True):
        assert x is leaf
    tags = {update.gradient: Tag(str(i), "gradient", 0) for i, update in enumerate(found)}
    tagged, values, _ = harvest(ClosedJaxpr(program.jaxpr, program.consts), 0, tags)
    results = jaxpr_as_fun(tagged)(*leaves)[-len(values) :]
    by_number = {int(value.tag.name): x for value, x in zip(values, results, strict=True)}
    for i, wanted in enumerate(jax.tree.leaves(grad(params, *BATCH))):
        # One program rounds otherwise than another; a factor left out would change a tenth.
        np.testing.assert_allclose(by_number[i], wanted, rtol=1e-3, atol=1e-4)


@pytest.mark.parametrize("rule", RULES, ids=lambda rule: rule.__name__)
def test_written_updates_has_the_gradients_of_a_rule_by_hand(rule):
    # Arrays of its own, so that arguments can be told from each other.
    states = [tree_map(jnp.copy, ZEROS) for _ in range(RULES[rule])]
    check(rule, (PARAMS, *states, *BATCH), PARAMS)
    check(jax.jit(rule), (PARAMS, *states, *BATCH), PARAMS)


@pytest.mark.parametrize(
    "rule",
    [
        optimizers.sgd(0.1),
        optimizers.momentum(0.1, 0.9),
        optimizers.nesterov(0.1, 0.9),
        optimizers.adam(1e-3),
        optimizers.rmsprop(1e-3),
    ],
)
def test_written_updates_has_the_gradients_of_jax_example_libraries(rule):
    start, update, params_of = rule

    def step(state, x, y):
        return update(0, grad(params_of(state), x, y), state)

    state = start(PARAMS)
    check(step, (state, *BATCH), params_of(state))


def test_written_updates_of_what_is_none():
    def step(weights, statistics, count, x):
        statistics = statistics + 0.1 * (x.mean(0) - statistics)
        return weights, statistics, count + 1, weights @ x.T, 2 * weights

    arguments = jnp.ones((2, 3)), jnp.ones(3), jnp.float32(0), jnp.ones((4, 3))
    assert written_updates(jax.make_jaxpr(step)(*arguments).jaxpr) == []


def test_written_updates_without_a_gradient_that_can_be_told():
    def step(weights, x):
        return weights - 0.1 * jnp.tanh(jax.grad(lambda w: jnp.sum((w @ x) ** 2))(weights)) * x

    (update,) = written_updates(jax.make_jaxpr(step)(jnp.ones(3), jnp.ones(3)).jaxpr)
    made = update.gradient
    assert made is None or made.aval.shape == (3,)
