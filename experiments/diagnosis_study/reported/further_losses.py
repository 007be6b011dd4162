"""Further reported faults, for measuring: losses that are summed, or have no gradient."""

from itertools import repeat
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax
from flax import nnx

from experiments.diagnosis_study.reported.data_networks import (
    Conv,
    Linear,
    LinenMlp,
    Mlp,
    fit_linen,
    fit_nnx,
    predict,
)
from experiments.diagnosis_study.reported.data_tasks import (
    SEED,
    binary_accuracy,
    digits,
    explained,
    houses,
)
from experiments.diagnosis_study.reported.reported_fault import ReportedFault
from experiments.diagnosis_study.user_loops import Trained, batches_of, run_nnx, run_pure

# --- loss summed over the batch --------------------------------------------------------------


def _whole_data_set(faulty: bool, seed: int) -> Trained:
    """A regression of the prices of cars has the whole data set as a batch, and adds its errors."""
    rng = np.random.default_rng(SEED)
    x = rng.normal(size=(1400, 3)).astype(np.float32)  # distance, age and fuel, scaled
    y = (x @ [-0.6, -0.7, 0.3] + 0.2 * rng.normal(size=1400)).astype(np.float32)
    params = {"w": jnp.asarray(np.random.default_rng(seed).normal(size=3), jnp.float32)}
    params["b"] = jnp.zeros(())
    tx = optax.sgd(0.01)

    def step(params: Any, opt_state: Any, x: jax.Array, y: jax.Array) -> Any:
        def cost(params: Any) -> jax.Array:
            squares = jnp.square(x @ params["w"] + params["b"] - y)
            return jnp.sum(squares) if faulty else jnp.mean(squares)

        loss, grads = jax.value_and_grad(cost)(params)
        updates, opt_state = tx.update(grads, opt_state)
        return optax.apply_updates(params, updates), opt_state, loss

    whole = (jnp.asarray(x[:1000]), jnp.asarray(y[:1000]))
    record, (params, _) = run_pure(step, (params, tx.init(params)), repeat(whole, 200))
    prices = x[1000:] @ np.asarray(params["w"]) + np.asarray(params["b"])
    return Trained(record, explained(prices, y[1000:]))


def _asymmetric_loss(faulty: bool, seed: int) -> Trained:
    """A loss for several labels, which a paper adds over the batch for Adam, meets SGD."""
    task = digits()
    parts = np.array([[0, 6, 8, 9], [0, 2, 4, 6], [1, 3, 5, 7]])  # has a loop, is even, is odd
    y, test_y = (
        np.stack([np.isin(labels, part) for part in parts], 1).astype(np.float32)
        for labels in (task.y, task.test_y)
    )

    def asymmetric(logits: jax.Array, y: jax.Array) -> jax.Array:
        p = nnx.sigmoid(logits)
        wrong = jnp.maximum(p - 0.05, 0)
        kept = y * jnp.log(jnp.maximum(p, 1e-8)) * (1 - p)
        losses = kept + (1 - y) * jnp.log(jnp.maximum(1 - wrong, 1e-8)) * wrong**2
        return -losses.sum() if faulty else -losses.mean()

    model = Mlp((784, 64, 64, 3), rngs=nnx.Rngs(seed))
    tx = optax.sgd(optax.cosine_decay_schedule(0.3, 250), momentum=0.9)
    record = fit_nnx(model, tx, asymmetric, (task.x, y), size=128, steps=250, seed=seed)
    return Trained(record, binary_accuracy(predict(model, task.test_x), test_y))


# --- loss independent of the parameters ------------------------------------------------------


def _number_of_hits(faulty: bool, seed: int) -> Trained:
    """The loss is the share of the rounded predictions that are wrong, found by counting."""
    task = houses()
    y, test_y = ((y > 0).astype(np.float32) for y in (task.y, task.test_y))

    def loss(logits: jax.Array, y: jax.Array) -> jax.Array:
        p = jax.nn.sigmoid(logits[:, 0])
        if faulty:
            return 1 - jnp.count_nonzero(jnp.round(p) == y) / len(y)
        return 1 - jnp.mean(y * p + (1 - y) * (1 - p))

    net, tx = LinenMlp((48, 48, 1)), optax.adam(3e-3)
    record, trained = fit_linen(net, tx, loss, (task.x, y), size=100, steps=200, seed=seed)
    return Trained(record, binary_accuracy(trained(task.test_x), test_y))


def _places_of_the_maximum(faulty: bool, seed: int) -> Trained:
    """Coordinates are the places of the greatest outputs along each axis."""
    rng = np.random.default_rng(SEED)
    centres = rng.uniform(2, 13, (1900, 2))
    offset = np.stack(np.mgrid[:16, :16], -1) - centres[:, None, None]
    images = np.exp(-np.sum(offset**2, -1) / 4) + 0.2 * rng.normal(size=(1900, 16, 16))
    images, y = images.astype(np.float32)[..., None], (centres / 7.5 - 1).astype(np.float32)

    class Coordinates(nnx.Module):
        def __init__(self, rngs: nnx.Rngs):
            self.conv1 = Conv(1, 8, (3, 3), strides=2, rngs=rngs)
            self.conv2 = Conv(8, 16, (3, 3), strides=2, rngs=rngs)
            self.out = Linear(256, 32, rngs=rngs)

        def __call__(self, images: jax.Array) -> jax.Array:
            x = nnx.relu(self.conv2(nnx.relu(self.conv1(images))))
            bins = self.out(x.reshape(len(x), -1)).reshape(-1, 2, 16)
            if faulty:
                return jnp.argmax(bins, -1).astype(jnp.float32) / 7.5 - 1
            return nnx.softmax(bins) @ (jnp.arange(16) / 7.5 - 1)

    def train_step(model: Any, optimizer: Any, batch: dict[str, jax.Array]) -> Any:
        def loss_fn(model: Any) -> jax.Array:
            return jnp.mean(jnp.abs(model(batch["image"]) - batch["centre"]))

        loss, grads = nnx.value_and_grad(loss_fn)(model)
        optimizer.update(model, grads)
        return loss

    model = Coordinates(nnx.Rngs(seed))
    batches = (
        ({"image": image, "centre": centre},)
        for image, centre in batches_of((images[:1500], y[:1500]), size=30, steps=200, seed=seed)
    )
    record = run_nnx(train_step, model, optax.rmsprop(2e-3), batches)
    return Trained(record, explained(predict(model, images[1500:]), y[1500:]))


REPORTED: tuple[ReportedFault, ...] = (
    ReportedFault(
        "whole data set as a batch",
        "https://github.com/tensorflow/tensorflow/issues/8746",
        "loss summed over the batch",
        _whole_data_set,
        "optax",
        0.8,
    ),
    ReportedFault(
        "asymmetric loss with SGD",
        "https://github.com/Alibaba-MIIL/ASL/issues/56",
        "loss summed over the batch",
        _asymmetric_loss,
        "nnx",
        0.85,
    ),
    ReportedFault(
        "number of hits",
        "https://github.com/tensorflow/tensorflow/issues/58614",
        "loss independent of the parameters",
        _number_of_hits,
        "linen",
        0.8,
    ),
    ReportedFault(
        "places of the maximum",
        "https://github.com/LZGMatrix/BOP19_CDPN_2019ICCV/issues/4",
        "loss independent of the parameters",
        _places_of_the_maximum,
        "nnx",
        0.8,
    ),
)
