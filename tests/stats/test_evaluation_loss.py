import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from flax import linen, nnx

from convjax.stats._evaluation_loss import evaluation_loss
from convjax.stats._step_arguments import find_loss
from tests.stats.watched.cases import assert_same, numbers

X = jnp.asarray(np.random.default_rng(0).standard_normal((6, 4)), jnp.float32)
Y = jnp.arange(6) % 3
KEY = jax.random.key(1)


def cross_entropy(logits):
    return optax.softmax_cross_entropy_with_integer_labels(logits, Y).mean()


class Model(nnx.Module):
    def __init__(self, rngs):
        self.hidden = nnx.Linear(4, 8, rngs=rngs)
        self.norm = nnx.BatchNorm(8, rngs=rngs)
        self.dropout = nnx.Dropout(0.5, rngs=rngs)
        self.head = nnx.Linear(8, 3, rngs=rngs)

    def __call__(self, x):
        return self.head(self.dropout(self.norm(self.hidden(x))))


def by_hand(model):
    """Returns the loss in evaluation mode by the layers' formulas in NumPy."""
    norm = model.norm
    scale = np.asarray(norm.scale[...]) / np.sqrt(np.asarray(norm.var[...]) + norm.epsilon)
    h = np.asarray(X) @ np.asarray(model.hidden.kernel[...]) + np.asarray(model.hidden.bias[...])
    h = (h - np.asarray(norm.mean[...])) * scale + np.asarray(norm.bias[...])
    logits = h @ np.asarray(model.head.kernel[...]) + np.asarray(model.head.bias[...])
    log_sum = np.log(np.exp(logits).sum(1))
    return np.mean(log_sum - logits[np.arange(6), np.asarray(Y)])


def nnx_step(model, optimizer):
    model.train()  # as many loops do at each step
    loss, grads = nnx.value_and_grad(lambda model: cross_entropy(model(X)))(model)
    optimizer.update(model, grads)
    return {"loss": loss}


def nnx_loop():
    model = Model(nnx.Rngs(0))
    model.norm.mean[...] = jnp.linspace(-1, 1, 8)  # other than that of the batch
    return model, nnx.Optimizer(model, optax.sgd(0.1), wrt=nnx.Param)


@pytest.mark.parametrize("jit", [nnx.jit, lambda step: step], ids=["jit", "eager"])
def test_evaluation_loss_of_nnx_is_that_of_eval_and_changes_nothing(jit):
    model, optimizer = nnx_loop()
    before = numbers((model, optimizer))
    found = jit(evaluation_loss(nnx_step, find_loss))(model, optimizer)
    np.testing.assert_allclose(found, by_hand(model), rtol=1e-5)
    assert_same(before, numbers((model, optimizer)))
    assert type(model.norm) is nnx.BatchNorm
    assert not model.norm.use_running_average
    assert not model.dropout.deterministic
    # The step itself trains, as before.
    loss = nnx_step(model, optimizer)["loss"]
    other, its_optimizer = nnx_loop()
    np.testing.assert_array_equal(loss, nnx_step(other, its_optimizer)["loss"])
    assert loss != found


def test_evaluation_loss_of_nnx_with_the_mode_in_the_call():
    class Calls(Model):
        def __call__(self, x):
            h = self.norm(self.hidden(x), use_running_average=False)
            return self.head(self.dropout(h, deterministic=False))

    model = Calls(nnx.Rngs(0))
    found = evaluation_loss(lambda model: cross_entropy(model(X)), find_loss)(model)
    np.testing.assert_allclose(found, by_hand(model), rtol=1e-5)


def test_evaluation_loss_of_split_nnx_state():
    model, _ = nnx_loop()
    graph, state = nnx.split(model)
    step = evaluation_loss(lambda state: cross_entropy(nnx.merge(graph, state)(X)), find_loss)
    np.testing.assert_allclose(jax.jit(step)(state), by_hand(model), rtol=1e-5)


def test_evaluation_loss_is_none_without_layers_that_depend_on_the_mode():
    model = nnx.Linear(4, 3, rngs=nnx.Rngs(0))
    assert evaluation_loss(lambda model: cross_entropy(model(X)), find_loss)(model) is None
    weights = jnp.ones((4, 3))
    assert evaluation_loss(lambda w: cross_entropy(X @ w), find_loss)(weights) is None


class Net(linen.Module):
    """Gets the mode in four ways."""

    way: str

    @linen.compact
    def __call__(self, x, train=True):
        x = linen.Dense(8, name="hidden")(x)
        if self.way == "attribute":
            x = linen.BatchNorm(use_running_average=not train, name="norm")(x)
            x = linen.Dropout(0.5, deterministic=not train)(x)
        elif self.way == "keyword":
            x = linen.BatchNorm(name="norm")(x, use_running_average=not train)
            x = linen.Dropout(0.5)(x, deterministic=not train)
        else:
            x = linen.BatchNorm(name="norm")(x, not train)
            x = linen.Dropout(0.5)(x, not train)
        return linen.Dense(3, name="head")(x)


@pytest.mark.parametrize("way", ["attribute", "keyword", "position"])
def test_evaluation_loss_of_linen_is_that_of_train_false(way):
    net = Net(way)
    variables = net.init(KEY, X, train=False)
    mean = {"norm": variables["batch_stats"]["norm"] | {"mean": jnp.linspace(-1, 1, 8)}}
    variables = variables | {"batch_stats": mean}

    def step(variables, key):
        def loss_fn(params):
            given = variables | {"params": params}
            logits, _ = net.apply(given, X, rngs={"dropout": key}, mutable=["batch_stats"])
            return cross_entropy(logits)

        return jax.value_and_grad(loss_fn)(variables["params"])[0]

    found = jax.jit(evaluation_loss(step, find_loss))(variables, KEY)
    wanted = cross_entropy(net.apply(variables, X, train=False))
    np.testing.assert_allclose(found, wanted, rtol=1e-6)
    assert abs(step(variables, KEY) - wanted) > 1e-3


def test_evaluation_loss_of_haiku_is_that_of_is_training_false():
    haiku = pytest.importorskip("haiku")

    def forward(x, is_training):
        x = haiku.Linear(8)(x)
        x = haiku.BatchNorm(True, True, 0.9)(x, is_training)
        return haiku.Linear(3)(x)

    net = haiku.without_apply_rng(haiku.transform_with_state(forward))
    params, state = net.init(KEY, X, True)
    state = net.apply(params, state, 3 * X + 1, True)[1]

    def step(params, state):
        return cross_entropy(net.apply(params, state, X, True)[0])

    found = jax.jit(evaluation_loss(step, find_loss))(params, state)
    wanted = cross_entropy(net.apply(params, state, X, False)[0])
    np.testing.assert_allclose(found, wanted, rtol=1e-6)
    assert abs(step(params, state) - wanted) > 1e-3


def test_evaluation_loss_of_equinox_is_that_of_inference_mode():
    equinox = pytest.importorskip("equinox")
    model = equinox.nn.Sequential(
        [
            equinox.nn.Linear(4, 8, key=KEY),
            equinox.nn.Dropout(0.5),
            equinox.nn.Linear(8, 3, key=KEY),
        ]
    )

    def step(model, key):
        def loss_fn(model):
            keys = jax.random.split(key, len(X))
            return cross_entropy(jax.vmap(lambda x, key: model(x, key=key))(X, keys))

        return equinox.filter_value_and_grad(loss_fn)(model)[0]

    found = equinox.filter_jit(evaluation_loss(step, find_loss))(model, KEY)
    wanted = step(equinox.nn.inference_mode(model), KEY)
    np.testing.assert_allclose(found, wanted, rtol=1e-6)
    assert abs(step(model, KEY) - wanted) > 1e-3
    assert not model[1].inference
