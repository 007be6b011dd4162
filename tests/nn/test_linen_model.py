"""Linen modules as NNX modules: their outputs, batch statistics and dropout, and in trainings."""

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from flax import linen, nnx

import convjax
from convjax import Images, Trainer, Watch, constant
from convjax.nn import LinenModel

X = jnp.asarray(np.random.default_rng(0).normal(size=(6, 8, 8, 1)), jnp.float32)


class Net(linen.Module):
    dropout: float = 0.0

    @linen.compact
    def __call__(self, x, train: bool):
        x = linen.Conv(4, (3, 3))(x)
        x = linen.BatchNorm(use_running_average=not train, momentum=0.9)(x)
        x = linen.relu(x).reshape(len(x), -1)
        x = linen.Dropout(self.dropout, deterministic=not train)(x)
        return linen.Dense(3)(x)


class Plain(linen.Module):
    @linen.compact
    def __call__(self, x, scale=1.0):
        return linen.Dense(3)(x.reshape(len(x), -1)) * scale


class Deterministic(linen.Module):
    @linen.compact
    def __call__(self, x, *, deterministic):
        return linen.Dropout(0.5, deterministic=deterministic)(linen.Dense(3)(x.mean((1, 2))))


def variables(model):
    """What Linen itself calls the variables of a model."""
    state = nnx.to_pure_dict(nnx.state(model.module, nnx.Any(nnx.Param, nnx.BatchStat)))
    collections = {"params": {}, "batch_stats": {}}
    for name, owned in state.items():
        for key, value in owned.items():
            kind = "batch_stats" if key in ("mean", "var") else "params"
            collections[kind].setdefault(name, {})[key] = value
    return collections


def test_calls_equal_those_of_linen():
    model = LinenModel(Net(), X, rngs=nnx.Rngs(0))
    before = variables(model)
    wanted, changed = Net().apply(before, X, train=True, mutable=["batch_stats"])
    np.testing.assert_allclose(model(X), wanted, rtol=1e-6, atol=1e-6)
    after = variables(model)["batch_stats"]["BatchNorm_0"]
    for name, value in changed["batch_stats"]["BatchNorm_0"].items():
        np.testing.assert_allclose(after[name], value, rtol=1e-6)
    model.eval()
    np.testing.assert_allclose(
        model(X), Net().apply(variables(model), X, train=False), rtol=1e-6, atol=1e-6
    )
    assert (variables(model)["batch_stats"]["BatchNorm_0"]["mean"] == after["mean"]).all()


def test_dropout_has_a_new_key_at_each_call_and_none_in_evaluation():
    for module in (Net(dropout=0.5), Deterministic()):
        model = LinenModel(module, X, rngs=nnx.Rngs(0))
        assert not np.allclose(model(X), model(X))
        model.eval()
        assert (model(X) == model(X)).all()
        model.train()
        assert not np.allclose(model(X), model(X))


def test_arguments_of_every_call():
    model = LinenModel(Plain(), jax.ShapeDtypeStruct(X.shape, X.dtype), rngs=nnx.Rngs(0), scale=2.0)
    once = Plain().apply({"params": variables(model)["params"]}, X)
    np.testing.assert_allclose(model(X), 2 * once, rtol=1e-6)


def test_training_watches_updates_and_resumes_its_keys():
    """Two pieces are the same as one: keys and statistics are part of the state."""
    model = LinenModel(Net(dropout=0.5), X, rngs=nnx.Rngs(0))
    trainer = Trainer(model, optax.adamw, watch=Watch.everything(), mean=0.1)
    data = Images(X, jnp.arange(6) % 3)
    order = np.tile(np.arange(6), (4, 1))
    table = constant(0.01).table(4)
    whole, record = trainer.run(trainer.start(model), data, order, table)
    state = trainer.start(model)
    for part in (slice(0, 2), slice(2, 4)):
        rates = {name: column[part] for name, column in table.items()}
        state, _ = trainer.run(state, data, order[part], rates)
    for found, wanted in zip(jax.tree.leaves(state), jax.tree.leaves(whole), strict=True):
        if not jnp.issubdtype(wanted.dtype, jax.dtypes.prng_key):
            np.testing.assert_allclose(found, wanted, rtol=1e-6, atol=1e-6)
    assert [name.rpartition(".")[2] for name in record.layers] == [
        "input", "labels", "Conv_0", "BatchNorm_0", "Dense_0",
    ]  # fmt: skip
    assert trainer.evaluate(whole, data).examples == 6
    # Evaluation has no dropout: the logits are those of the model.
    np.testing.assert_allclose(
        trainer.predict(whole, X), trainer.model(whole)(X - np.float32(0.1)), rtol=1e-5, atol=1e-5
    )


def test_summary_and_diagnosis_take_it():
    model = LinenModel(Net(), X, rngs=nnx.Rngs(0))
    assert convjax.summary(model, X).parameters == 4 * 10 + 2 * 4 + 256 * 3 + 3


def test_another_module():
    with pytest.raises(TypeError, match="module must be Module, got Linear"):
        LinenModel(nnx.Linear(2, 3, rngs=nnx.Rngs(0)), X, rngs=nnx.Rngs(0))


class Strange(linen.Module):
    """Calls the mode by a name that nobody else has."""

    @linen.compact
    def __call__(self, x, stochastic=True):
        x = linen.Dense(3)(x.mean((1, 2)))
        return linen.Dropout(0.5, deterministic=not stochastic)(x)


class IsTrain(linen.Module):
    @linen.compact
    def __call__(self, x, is_train=True):
        return linen.Dropout(0.5, deterministic=not is_train)(linen.Dense(3)(x.mean((1, 2))))


class Norm(linen.Module):
    @linen.compact
    def __call__(self, x):
        return linen.BatchNorm(use_running_average=False)(x.mean((1, 2)))


@pytest.mark.parametrize("module", [Strange(), Norm()])
def test_a_mode_that_is_not_known_is_asked_for(module):
    with pytest.raises(ValueError, match=r"modes must name the argument .*statistics or dropout"):
        LinenModel(module, X, rngs=nnx.Rngs(0))


@pytest.mark.parametrize(
    ("module", "modes"), [(Strange(), {"stochastic": True}), (IsTrain(), None)]
)
def test_modes_of_other_names(module, modes):
    model = LinenModel(module, X, rngs=nnx.Rngs(0), modes=modes)
    assert not np.allclose(model(X), model(X))
    model.eval()
    assert (model(X) == model(X)).all()
