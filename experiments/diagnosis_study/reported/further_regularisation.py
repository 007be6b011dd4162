"""Further reported faults of regularisation: dropout by its complement, and decay."""

from typing import Any

import jax
import jax.numpy as jnp
import optax
from flax import linen, nnx

from experiments.diagnosis_study.reported.data_networks import (
    LinenConv,
    LinenDense,
    Mlp,
    cross_entropy,
    fit_nnx,
    lecun_normal,
    predict,
    squared_error,
)
from experiments.diagnosis_study.reported.data_tasks import accuracy, digits, explained, houses
from experiments.diagnosis_study.reported.reported_fault import ReportedFault
from experiments.diagnosis_study.user_loops import Trained, batches_of, run_pure


class DenseNet(nnx.Module):
    """Convolutions, each of all outputs before it, with dropout after each.

    Args:
      rate: of the values that are dropped.
    """

    def __init__(self, rate: float, rngs: nnx.Rngs):
        self.enter = nnx.Conv(1, 12, (3, 3), strides=4, kernel_init=lecun_normal, rngs=rngs)
        self.convs = nnx.List(
            [nnx.Conv(12 + 8 * i, 8, (3, 3), kernel_init=lecun_normal, rngs=rngs) for i in range(3)]
        )
        self.head = nnx.Linear(36, 10, kernel_init=lecun_normal, rngs=rngs)
        self.drop = nnx.Dropout(rate, rngs=rngs)

    def __call__(self, x: jax.Array) -> jax.Array:
        """Maps images (N, 28, 28, 1) to logits (N, 10)."""
        x = nnx.relu(self.enter(x))
        for conv in self.convs:
            x = jnp.concatenate([x, self.drop(nnx.relu(conv(x)))], -1)
        return self.head(self.drop(x.mean((1, 2))))


def _share_that_is_kept(faulty: bool, seed: int) -> Trained:
    """Drops in each layer the share of values that should be kept."""
    task, model = digits(), DenseNet(0.9 if faulty else 0.1, nnx.Rngs(seed))
    arrays, options = (task.x, task.y), {"size": 32, "steps": 200, "seed": seed}
    record = fit_nnx(model, optax.adam(5e-3), cross_entropy, arrays, **options)
    return Trained(record, accuracy(predict(model, task.test_x), task.test_y))


class LetterNet(linen.Module):
    """Two convolutions and a dense layer, with dropout before the output.

    Attributes:
      rate: of the values that are dropped.
    """

    rate: float

    @linen.compact
    def __call__(self, x: jax.Array, train: bool = False) -> jax.Array:
        """Maps images (N, 28, 28, 1) to logits (N, 10)."""
        for features in (8, 12):
            x = linen.relu(LinenConv(features, (3, 3), strides=2)(x))
            x = linen.max_pool(x, (2, 2), (2, 2))
        x = linen.relu(LinenDense(24)(x.reshape(len(x), -1)))
        return LinenDense(10)(linen.Dropout(self.rate, deterministic=not train)(x))


def _dropout_before_the_output(faulty: bool, seed: int) -> Trained:
    """Drops nearly all features before the output, whose bias alone is then learned."""
    task, network, tx = digits(), LetterNet(0.95 if faulty else 0.1), optax.adam(2e-3)

    def step(params: Any, opt_state: Any, key: jax.Array, batch: dict[str, jax.Array]) -> Any:
        key, mask = jax.random.split(key)

        def loss_fn(params: Any) -> jax.Array:
            logits = network.apply({"params": params}, batch["x"], True, rngs={"dropout": mask})
            return optax.softmax_cross_entropy(logits, batch["y"]).mean()

        loss, grads = jax.value_and_grad(loss_fn)(params)
        updates, opt_state = tx.update(grads, opt_state, params)
        return optax.apply_updates(params, updates), opt_state, key, loss

    params = network.init(jax.random.key(seed), task.x[:2])["params"]
    batches = (
        ({"x": x, "y": jax.nn.one_hot(y, 10)},)
        for x, y in batches_of((task.x, task.y), size=32, steps=200, seed=seed)
    )
    state = params, tx.init(params), jax.random.key(seed + 1)
    record, (params, *_) = run_pure(step, state, batches)
    return Trained(record, accuracy(network.apply({"params": params}, task.test_x), task.test_y))


def _decay_without_the_rate(faulty: bool, seed: int) -> Trained:
    """Takes a decay over from an optimiser that multiplies it by the rate; this one does not."""
    task, rate = houses(), 3e-3
    decay = 0.05
    shrink = optax.add_decayed_weights(-decay if faulty else -decay * rate)
    model = Mlp((8, 64, 64, 1), rngs=nnx.Rngs(seed))
    arrays, options = (task.x, task.y[:, None]), {"size": 50, "steps": 250, "seed": seed}
    tx = optax.chain(optax.adam(rate), shrink)
    record = fit_nnx(model, tx, squared_error, arrays, **options)
    return Trained(record, explained(predict(model, task.test_x), task.test_y))


_DROPOUT, _DECAY = "dropout too strong", "weight decay too strong"
_GITHUB = "https://github.com/"

REPORTED: tuple[ReportedFault, ...] = (
    ReportedFault(
        "densely connected, dropout by what is kept",
        _GITHUB + "pudae/tensorflow-densenet/pull/22",
        _DROPOUT,
        _share_that_is_kept,
        "nnx",
        0.6,
    ),
    ReportedFault(
        "dropout before the output, letters",
        "https://manongdao.com/q-1133738.html",
        _DROPOUT,
        _dropout_before_the_output,
        "linen",
        0.7,
    ),
    ReportedFault(
        "decay that the rate does not multiply",
        _GITHUB + "tensorflow/addons/issues/2282",
        _DECAY,
        _decay_without_the_rate,
        "nnx",
        0.75,
    ),
)
