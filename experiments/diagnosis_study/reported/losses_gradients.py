"""Reported faults: gradients that are not finite while the loss is."""

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax
from flax import linen, nnx

from experiments.diagnosis_study.reported.data_networks import (
    LinenDense,
    Mlp,
    cross_entropy,
    dense,
    dense_params,
    fit_pure,
    predict,
)
from experiments.diagnosis_study.reported.data_tasks import (
    SEED,
    accuracy,
    chosen_digits,
    digits,
    explained,
    houses,
)
from experiments.diagnosis_study.reported.reported_fault import ReportedFault
from experiments.diagnosis_study.user_loops import Trained, batches_of, run_nnx, run_pure


def _distance_of_equals(faulty: bool, seed: int) -> Trained:
    """A loss of the distance of two embeddings meets a pair of one image with itself."""
    task = chosen_digits(0, 1, 2, 3)
    rng = np.random.default_rng(SEED)
    pairs = rng.integers(len(task.x), size=(3000, 2))
    pairs[[400, 1100, 1900, 2600], 1] = pairs[[400, 1100, 1900, 2600], 0]
    same = (task.y[pairs[:, 0]] == task.y[pairs[:, 1]]).astype(np.float32)

    def distance(model: Any, left: jax.Array, right: jax.Array) -> jax.Array:
        squares = jnp.sum((model(left) - model(right)) ** 2, -1)
        return jnp.sqrt(squares if faulty else jnp.maximum(squares, 1e-7))

    def train_step(
        model: Any, optimizer: Any, left: jax.Array, right: jax.Array, same: jax.Array
    ) -> Any:
        def contrastive(model: Any) -> jax.Array:
            d = distance(model, left, right)
            return jnp.mean(same * d**2 + (1 - same) * jnp.maximum(1 - d, 0) ** 2)

        loss, grads = nnx.value_and_grad(contrastive)(model)
        optimizer.update(model, grads)
        return loss

    model = Mlp((784, 64, 16), rngs=nnx.Rngs(seed))
    batches = batches_of(
        (task.x[pairs[:, 0]], task.x[pairs[:, 1]], same), size=32, steps=200, seed=seed
    )
    record = run_nnx(train_step, model, optax.rmsprop(1e-3), batches)
    code = predict(model, task.test_x)
    other = rng.permutation(len(code))
    near = np.sum((code - code[other]) ** 2, -1) < 0.25
    alike = task.test_y == task.test_y[other]
    return Trained(record, float(np.mean(near[alike]) / 2 + np.mean(~near[~alike]) / 2))


def _root_of_padding(faulty: bool, seed: int) -> Trained:
    """Errors of padded positions, which are 0, are left out after their root was taken."""
    rng = np.random.default_rng(SEED)
    x = rng.normal(size=(1800, 10, 4)).astype(np.float32)
    mask = np.arange(10) < rng.integers(4, 11, (len(x), 1))
    x *= mask[..., None]
    y = np.stack([x[..., 0] * x[..., 1], np.sin(2 * x[..., 2])], -1).astype(np.float32)
    tx = optax.adam(5e-3)

    def positions(params: Any, x: jax.Array, mask: jax.Array) -> jax.Array:
        return dense(params, x.reshape(-1, 4)).reshape(*x.shape[:2], 2) * mask[..., None]

    def step(params: Any, opt_state: Any, x: jax.Array, y: jax.Array, mask: jax.Array) -> Any:
        def loss_fn(params: Any) -> jax.Array:
            squares = jnp.sum((positions(params, x, mask) - y) ** 2, -1)
            if not faulty:
                squares = jnp.where(mask, squares, 1.0)
            return jnp.sum(jnp.where(mask, jnp.sqrt(squares), 0.0)) / jnp.sum(mask)

        loss, grads = jax.value_and_grad(loss_fn)(params)
        updates, opt_state = tx.update(grads, opt_state, params)
        return optax.apply_updates(params, updates), opt_state, {"loss": loss}

    params = dense_params(seed, (4, 48, 48, 2))
    batches = batches_of((x[:1500], y[:1500], mask[:1500]), size=50, steps=250, seed=seed)
    record, (params, _) = run_pure(step, (params, tx.init(params)), batches)
    found = positions(params, jnp.asarray(x[1500:]), jnp.asarray(mask[1500:]))
    kept = mask[1500:]
    return Trained(record, explained(np.asarray(found)[kept], y[1500:][kept]))


def _deviation_of_zeros(faulty: bool, seed: int) -> Trained:
    """A network divides by the deviation of its features, which are all 0 for a blank image."""
    task = digits()
    images = task.x.copy()
    images[[50, 1300, 2700]] = 0

    class Net(linen.Module):
        @linen.compact
        def __call__(self, x: jax.Array) -> jax.Array:
            x = linen.tanh(LinenDense(64, use_bias=False)(x.reshape(len(x), -1)))
            centred = x - x.mean(-1, keepdims=True)
            if faulty:
                x = centred / (jnp.std(x, -1, keepdims=True) + 1e-5)
            else:
                x = centred / jnp.sqrt(jnp.var(x, -1, keepdims=True) + 1e-5)
            return LinenDense(10)(x)

    net = Net()
    record, params = fit_pure(
        net.apply,
        net.init(jax.random.key(seed), task.x[:2]),
        optax.adam(3e-3),
        cross_entropy,
        (images, task.y),
        size=50,
        steps=200,
        seed=seed,
    )
    return Trained(record, accuracy(net.apply(params, task.test_x), task.test_y))


def _overflow_in_half_precision(faulty: bool, seed: int) -> Trained:
    """The loss is multiplied by 2**17 for gradients of 16 bits, which overflow."""
    task = digits()
    scale = 2.0 ** (17 if faulty else 7)

    def train_step(model: Any, optimizer: Any, x: jax.Array, y: jax.Array) -> Any:
        def loss_fn(model: Any) -> Any:
            loss = cross_entropy(model(x).astype(jnp.float32), y)
            return loss * scale, loss

        (_, loss), grads = nnx.value_and_grad(loss_fn, has_aux=True)(model)
        optimizer.update(model, jax.tree.map(lambda g: g / scale, grads))
        return loss

    model = Mlp((784, 64, 64, 10), dtype=jnp.float16, rngs=nnx.Rngs(seed))
    batches = batches_of((task.x, task.y), size=64, steps=200, seed=seed)
    record = run_nnx(train_step, model, optax.adam(2e-3), batches)
    return Trained(record, accuracy(predict(model, task.test_x), task.test_y))


def _norm_of_zeros(faulty: bool, seed: int) -> Trained:
    """A penalty adds the norms of all parameters, biases too, which are 0 at the start."""
    task = houses()
    classes, test_classes = ((y > 0).astype(np.int32) for y in (task.y, task.test_y))
    tx = optax.adamax(1e-2)

    def penalty(params: Any) -> jax.Array:
        if faulty:
            norms = [jnp.linalg.norm(leaf) for leaf in jax.tree.leaves(params)]
        else:
            norms = [jnp.linalg.norm(layer["w"]) for layer in params]
        return 1e-3 * sum(norms, jnp.zeros(()))

    def step(params: Any, opt_state: Any, features: jax.Array, target: jax.Array) -> Any:
        def objective(params: Any) -> jax.Array:
            return cross_entropy(dense(params, features), target) + penalty(params)

        loss, grads = jax.value_and_grad(objective)(params)
        updates, opt_state = tx.update(grads, opt_state, params)
        return optax.apply_updates(params, updates), opt_state, loss

    params = dense_params(seed, (8, 32, 16, 8, 2))
    batches = batches_of((task.x, classes), size=32, steps=250, seed=seed)
    record, (params, _) = run_pure(step, (params, tx.init(params)), batches)
    return Trained(record, accuracy(dense(params, jnp.asarray(task.test_x)), test_classes))


REPORTED: tuple[ReportedFault, ...] = (
    ReportedFault(
        "distance of an image from itself",
        "https://github.com/keras-team/keras/issues/9097",
        "gradients not finite",
        _distance_of_equals,
        "nnx",
        0.75,
    ),
    ReportedFault(
        "root of padded errors",
        "https://github.com/jax-ml/jax/issues/347",
        "gradients not finite",
        _root_of_padding,
        "optax",
        0.7,
    ),
    ReportedFault(
        "deviation of zeros",
        "https://github.com/keras-team/keras/issues/2960",
        "gradients not finite",
        _deviation_of_zeros,
        "linen",
        0.75,
    ),
    ReportedFault(
        "overflow in half precision",
        "https://github.com/keras-team/keras/issues/16552",
        "gradients not finite",
        _overflow_in_half_precision,
        "nnx",
        0.8,
    ),
    ReportedFault(
        "norms of biases that are zero",
        "https://github.com/FluxML/Flux.jl/issues/1254",
        "gradients not finite",
        _norm_of_zeros,
        "optax",
        0.8,
    ),
)
