"""What the program of a training step tells, compared with what the step was written to compare."""

import flax.linen
import haiku
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx
from jax.extend.core import jaxpr_as_fun

from convjax.nn._harvest import Tag, harvest, tagged
from convjax.nn._step_program import dropout_noise, read_step

RNG = np.random.default_rng(0)
X = RNG.normal(size=(6, 4)).astype(np.float32)
CLASSES = np.array([2, 0, 1, 1, 2, 0], np.int32)
TARGETS = RNG.normal(size=6).astype(np.float32)
PARAMS = {
    "first": RNG.normal(size=(4, 5)).astype(np.float32),
    "last": RNG.normal(size=(5, 3)).astype(np.float32),
}
OF_ONE = {**PARAMS, "last": PARAMS["last"][:, :1]}


def network(params, x):
    return jnp.tanh(x @ params["first"]) @ params["last"]


def read(loss, params, *data):
    """Returns what a step of gradient descent tells, and the values of what it found."""

    def step(params, *data):
        value, grads = jax.value_and_grad(loss)(params, *data)
        for name, tree in (("params", params), ("grads", grads)):
            tree = [
                tagged(leaf, Tag(f"0/{name}/{i}", "optimizer"))
                for i, leaf in enumerate(jax.tree.leaves(tree))
            ]
        return jax.tree.map(lambda p, g: p - 0.1 * g, params, grads), value

    program = jax.make_jaxpr(step)(params, *data)
    found = read_step(program.jaxpr, 0)
    further = {var: Tag(name) for name, var in zip(found._fields, found, strict=True) if var}
    rewritten, tags, _ = harvest(program, 0, further)
    results = jaxpr_as_fun(rewritten)(*jax.tree.leaves((params, *data)))
    # JAX has one program for equal calls, and its values are found in each: the first counts.
    pairs = list(zip((f.tag.name for f in tags), results[len(results) - len(tags) :], strict=True))
    return found, dict(reversed(pairs))


def picked(log_probabilities, y):
    return -jnp.mean(jnp.take_along_axis(log_probabilities, y[:, None], 1))


def indexed(log_probabilities, y):
    return -jnp.mean(log_probabilities[jnp.arange(len(y)), y])


def one_hot(log_probabilities, y):
    return -jnp.mean(jnp.sum(jax.nn.one_hot(y, 3) * log_probabilities, -1))


def with_accuracy(params, x, y):
    logits = network(params, x)
    accuracy = jnp.mean(jnp.argmax(logits, -1) == y)
    return picked(jax.nn.log_softmax(logits), y) + 0 * accuracy


def with_penalty(params, x, y):
    penalty = sum(jnp.sum(leaf**2) for leaf in jax.tree.leaves(params))
    return 1e-3 * penalty + picked(jax.nn.log_softmax(network(params, x)), y)


def of_one_example(params, x, y):
    return -jax.nn.log_softmax(network(params, x))[y]


CLASSIFICATIONS = {
    "take_along_axis": lambda p, x, y: picked(jax.nn.log_softmax(network(p, x)), y),
    "indices": lambda p, x, y: indexed(jax.nn.log_softmax(network(p, x)), y),
    "one-hot": lambda p, x, y: one_hot(jax.nn.log_softmax(network(p, x)), y),
    "smoothed": lambda p, x, y: (
        -jnp.mean(
            jnp.sum((0.9 * jax.nn.one_hot(y, 3) + 0.1 / 3) * jax.nn.log_softmax(network(p, x)), -1)
        )
    ),
    "jitted": jax.jit(lambda p, x, y: indexed(jax.nn.log_softmax(network(p, x)), y)),
    "vmapped": lambda p, x, y: jax.vmap(of_one_example, (None, 0, 0))(p, x, y).mean(),
    "accuracy first": with_accuracy,
    "penalty first": with_penalty,
    "weighted": lambda p, x, y: jnp.mean(
        jnp.take(jnp.array([1.0, 2.0, 3.0]), y)
        * -jnp.take_along_axis(jax.nn.log_softmax(network(p, x)), y[:, None], 1)[:, 0]
    ),
}


@pytest.mark.parametrize("name", CLASSIFICATIONS)
def test_read_step_finds_logits_labels_and_input(name):
    _, values = read(CLASSIFICATIONS[name], PARAMS, X, CLASSES)
    np.testing.assert_allclose(values["outputs"], network(PARAMS, X), rtol=1e-5)
    np.testing.assert_array_equal(values["labels"], CLASSES)
    np.testing.assert_array_equal(values["input"], X)


def test_read_step_finds_probabilities_before_their_logarithm():
    def loss(params, x, y):
        return picked(jnp.log(jnp.clip(jax.nn.softmax(network(params, x)), 1e-7, 1.0)), y)

    _, values = read(loss, PARAMS, X, CLASSES)
    np.testing.assert_allclose(values["outputs"], jax.nn.softmax(network(PARAMS, X)), rtol=1e-5)


@pytest.mark.parametrize(
    "loss",
    [
        lambda p, x, y: jnp.mean((network(p, x)[:, 0] - y) ** 2),
        lambda p, x, y: jnp.mean(jnp.abs(y - network(p, x)[:, 0])),
        lambda p, x, y: jnp.sum(jnp.where(y > 0, 2.0, 1.0) * (network(p, x)[:, 0] - y) ** 2),
    ],
)
def test_read_step_finds_outputs_and_targets(loss):
    _, values = read(loss, OF_ONE, X, TARGETS)
    np.testing.assert_allclose(values["outputs"], network(OF_ONE, X)[:, 0], rtol=1e-5)
    np.testing.assert_array_equal(values["labels"], TARGETS)


def test_read_step_finds_shapes_before_they_broadcast():
    _, values = read(lambda p, x, y: jnp.mean((network(p, x) - y) ** 2), OF_ONE, X, TARGETS)
    assert values["outputs"].shape == (6, 1)
    assert values["labels"].shape == (6,)


def test_read_step_takes_no_kernel_for_labels():
    # Not trained and with as many rows as there are examples, after all that is trained.
    wide = {**PARAMS, "last": RNG.normal(size=(5, 6)).astype(np.float32)}
    frozen = RNG.normal(size=(6, 6)).astype(np.float32)

    def loss(params, x, y, frozen):
        return indexed(jax.nn.log_softmax(network(params, x) @ frozen), y)

    _, values = read(loss, wide, X, CLASSES, frozen)
    np.testing.assert_array_equal(values["labels"], CLASSES)
    np.testing.assert_allclose(values["outputs"], network(wide, X) @ frozen, rtol=1e-5)


@pytest.mark.parametrize("weigh", [lambda e, w: w * e, lambda e, w: e / w])
def test_read_step_takes_no_weights_for_labels(weigh):
    def loss(params, x, weights):
        return jnp.mean(weigh(jnp.sum(network(params, x) ** 2, -1), weights))

    found, _ = read(loss, PARAMS, X, np.ones(6, np.float32))
    assert found.labels is None


def test_read_step_takes_levels_of_ranks_and_no_ranks():
    def loss(params, x, ranks):
        levels = (ranks[:, None] > jnp.arange(3)).astype(jnp.float32)
        logits = network(params, x)
        return jnp.mean(jax.nn.softplus(logits) - levels * logits)

    found, _ = read(loss, PARAMS, X, CLASSES)
    assert found.labels is None  # a factor
    _, values = read(
        lambda p, x, r: jnp.mean(
            (network(p, x) - (r[:, None] > jnp.arange(3)).astype(jnp.float32)) ** 2
        ),
        PARAMS,
        X,
        CLASSES,
    )
    np.testing.assert_array_equal(values["labels"], CLASSES[:, None] > np.arange(3))


def test_read_step_finds_parts_of_a_batch_in_a_shared_program():
    one = jax.jit(lambda p, x, y: picked(jax.nn.log_softmax(network(p, x)), y))

    def loss(params, x, y):
        return one(params, x[:3], y[:3]) + one(params, x[3:], y[3:])

    _, values = read(loss, PARAMS, X, CLASSES)
    np.testing.assert_allclose(values["outputs"], network(PARAMS, X)[:3], rtol=1e-5)
    np.testing.assert_array_equal(values["labels"], CLASSES[:3])


def test_read_step_needs_to_be_told_the_labels_among_several_arguments():
    def loss(params, x, weights, y):
        return jnp.mean(weights * network(params, x)[:, 0] - y)

    def labels_of(known):
        def step(params, *data):
            for i, leaf in enumerate(jax.tree.leaves(params)):
                tagged(leaf, Tag(f"0/params/{i}", "optimizer"))
            grads = jax.grad(lambda p: loss(p, *data) ** 2)(params)
            for i, leaf in enumerate(jax.tree.leaves(grads)):
                tagged(leaf, Tag(f"0/grads/{i}", "optimizer"))
            return grads

        program = jax.make_jaxpr(step)(OF_ONE, X, np.ones(6, np.float32), TARGETS)
        variables = program.jaxpr.invars
        return variables, read_step(program.jaxpr, 0, [variables[i] for i in known])

    weights, targets = 3, 4
    for known in (weights, targets):
        variables, found = labels_of([known])
        assert found.labels is variables[known]
    # One of the two is no label, and nothing tells which.
    variables, found = labels_of([])
    assert found.labels is None
    assert found.input is variables[2]


@pytest.mark.parametrize(
    "loss",
    [
        lambda p, x, y: jnp.mean(network(p, x) ** 2),  # no labels
        lambda p, x, y: jnp.mean((network(p, x) @ jnp.ones((3, 4)) - x) ** 2),  # its own input
        lambda p, x, y: 0.0 * y.mean(),  # no parameters
    ],
)
def test_read_step_finds_nothing_where_nothing_is_compared(loss):
    found, _ = read(loss, PARAMS, X, TARGETS)
    assert found.outputs is None
    assert found.labels is None


def test_read_step_takes_no_random_numbers_for_labels():
    def loss(params, x, key, y):
        hidden = jnp.tanh(x @ params["first"])
        kept = jax.random.bernoulli(key, 0.5, hidden.shape)
        return jnp.mean((jnp.where(kept, hidden / 0.5, 0) @ params["last"] - y[:, None]) ** 2)

    _, values = read(loss, OF_ONE, X, jax.random.PRNGKey(0), TARGETS)
    np.testing.assert_array_equal(np.ravel(values["labels"]), TARGETS)


def dropouts():
    def of_nnx(x, key):
        return nnx.Dropout(0.75, rngs=nnx.Rngs(0))(x)

    def of_linen(x, key):
        module = flax.linen.Dropout(0.75, deterministic=False)
        return module.apply({}, x, rngs={"dropout": key})

    def of_haiku(x, key):
        return haiku.dropout(key, 0.75, x)

    return {"nnx": of_nnx, "linen": of_linen, "haiku": of_haiku}


@pytest.mark.parametrize("name", dropouts())
def test_dropout_noise_adds_the_variances_of_all_masks(name):
    drop = dropouts()[name]

    def step(x, key):
        return drop(drop(x, key), key)

    # A mask keeps a quarter, four times as large: 4² / 4 - 1 is 3 times the square of the signal.
    program = jax.make_jaxpr(step)(X, jax.random.key(0))
    assert dropout_noise(program.jaxpr) == pytest.approx(6.0)


def test_dropout_noise_leaves_out_the_mask_of_a_whole_layer():
    program = jax.make_jaxpr(lambda key: jax.random.bernoulli(key, 0.1, (6, 1)))(jax.random.key(0))
    assert dropout_noise(program.jaxpr) == 0


def test_dropout_noise_leaves_out_masks_that_choose():
    def of_tokens(key, x):
        hidden = jax.random.bernoulli(key, 0.15, x.shape)
        return jnp.where(hidden, 0.0, x), hidden * x

    program = jax.make_jaxpr(of_tokens)(jax.random.key(0), X)
    assert dropout_noise(program.jaxpr) == 0
    usual = jax.make_jaxpr(lambda key: nnx.Dropout(0.1)(X, rngs=key))(jax.random.key(0))
    assert dropout_noise(usual.jaxpr) == 0
