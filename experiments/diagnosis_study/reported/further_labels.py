"""Further reported faults of the labels and targets, for measuring."""

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax
from flax import linen, nnx

from experiments.diagnosis_study.reported.data_networks import (
    Cnn,
    LinenDense,
    LinenMlp,
    LinenUNet,
    Mlp,
    UNet,
    cross_entropy,
    dense,
    dense_params,
    fit_linen,
    fit_nnx,
    fit_pure,
    predict,
    squared_error,
    unchanged,
)
from experiments.diagnosis_study.reported.data_tasks import (
    SEED,
    accuracy,
    digits,
    explained,
    houses,
    overlap,
    recalled,
    sentences,
    strokes,
)
from experiments.diagnosis_study.reported.reported_fault import ReportedFault
from experiments.diagnosis_study.user_loops import HostArray, Trained, batches_of, run_nnx


def _codes_already_replaced(faulty: bool, seed: int) -> Trained:
    """Diseases are looked up by code in visits whose codes were already replaced by numbers."""
    rng = np.random.default_rng(SEED)
    codes = np.array([f"{'ABCDEF'[i // 10]}{i % 10:02}" for i in range(60)])
    visits = rng.integers(60, size=(2800, 10)).astype(np.int32)
    diseases = codes[rng.permutation(60)[:12]].reshape(4, 3)

    def found(visits: HostArray) -> Any:
        return np.stack([np.isin(visits, d).any(1) for d in diseases], 1).astype(np.float32)

    y = found(visits.astype(str) if faulty else codes[visits])[:2400]

    class Net(linen.Module):
        @linen.compact
        def __call__(self, visits: jax.Array) -> jax.Array:
            x = linen.Embed(60, 24)(visits).sum(1)
            return LinenDense(4)(linen.relu(LinenDense(48)(x)))

    def loss(logits: jax.Array, y: jax.Array) -> jax.Array:
        return optax.sigmoid_binary_cross_entropy(logits, y).mean()

    record, net = fit_linen(
        Net(), optax.adam(1e-2), loss, (visits[:2400], y), size=64, steps=250, seed=seed
    )
    return Trained(record, recalled(net(visits[2400:]), found(codes[visits[2400:]])))


def _vectors_of_ones(faulty: bool, seed: int) -> Trained:
    """The function that makes vectors of classes sets a whole row to 1 in place of an element."""
    task = digits()
    vectors = np.ones((len(task.y), 10)) if faulty else np.eye(10)[task.y]

    def loss(logits: jax.Array, y: jax.Array) -> jax.Array:
        return optax.softmax_cross_entropy(logits, y).mean()

    model = Mlp((784, 64, 10), activation=nnx.elu, rngs=nnx.Rngs(seed))
    arrays = (task.x, vectors.astype(np.float32))
    record = fit_nnx(model, optax.adam(1e-3), loss, arrays, size=50, steps=200, seed=seed)
    return Trained(record, accuracy(predict(model, task.test_x), task.test_y))


def _one_class_too_many(faulty: bool, seed: int) -> Trained:
    """A few sentences are of a fifth topic, for which the network has no output."""
    task = sentences()
    rng = np.random.default_rng(SEED)
    x, y = task.x.copy(), task.y.copy()
    other = rng.permutation(len(y))[:30]
    x[other], y[other] = rng.integers(32, 60, size=(30, 12)), 4
    params: Any = {
        "words": jnp.asarray(rng.normal(size=(60, 16)), jnp.float32),
        "layers": dense_params(seed, (16, 32, 4 if faulty else 5)),
    }

    def network(params: Any, words: jax.Array) -> jax.Array:
        return dense(params["layers"], params["words"][words].mean(1), jnp.tanh)

    tx = optax.sgd(0.2, momentum=0.9)
    record, params = fit_pure(
        network, params, tx, cross_entropy, (x, y), size=32, steps=250, seed=seed
    )
    return Trained(record, accuracy(network(params, jnp.asarray(task.test_x)), task.test_y))


def _dice_of_255(faulty: bool, seed: int) -> Trained:
    """Masks of 0 and 255, no longer scaled when they are resized, enter Dice's loss."""
    task = strokes()
    masks = (task.y * (255 if faulty else 1)).astype(np.uint8)

    def dice(p: jax.Array, masks: jax.Array) -> jax.Array:
        p, y = p[..., 0], masks.astype(jnp.float32)
        both, either = jnp.sum(p * y, (1, 2)), jnp.sum(p, (1, 2)) + jnp.sum(y, (1, 2))
        return 1 - jnp.mean((2 * both + 1) / (either + 1))

    model = UNet(1, last=nnx.sigmoid, rngs=nnx.Rngs(seed))
    arrays = (task.x, masks)
    record = fit_nnx(model, optax.adam(3e-3), dice, arrays, size=16, steps=200, seed=seed)
    return Trained(record, overlap(predict(model, task.test_x) - 0.5, task.test_y))


def _divergence_of_maps(faulty: bool, seed: int) -> Trained:
    """A divergence of distributions is minimised for maps whose sum is not 1; it gets negative."""
    task, rng = digits(), np.random.default_rng(SEED)
    maps, test_maps = (
        images.reshape(len(images), 14, 2, 14, 2).mean((2, 4)) for images in (task.x, task.test_x)
    )
    x, test_x = (
        (y[..., None] + 0.2 * rng.normal(size=(*y.shape, 1))).astype(np.float32)
        for y in (maps, test_maps)
    )

    def divergence(outputs: jax.Array, maps: jax.Array) -> jax.Array:
        p, y = jnp.clip(outputs[..., 0], 1e-7, 1), jnp.clip(maps, 1e-7, 1)
        return jnp.mean(jnp.sum(y * jnp.log(y / p), (1, 2)))

    loss = divergence if faulty else squared_error
    record, net = fit_linen(
        LinenUNet(1), optax.adam(3e-3), loss, (x, maps), size=16, steps=200, seed=seed
    )
    return Trained(record, explained(net(test_x).ravel(), test_maps.ravel()))


def _folders_in_order(faulty: bool, seed: int) -> Trained:
    """The loader reads one folder after the other, because it does not shuffle by default."""
    task = digits()
    order = np.argsort(task.y, kind="stable")

    def train_step(model: Any, optimizer: Any, batch: dict[str, jax.Array]) -> Any:
        def loss_fn(model: Any) -> Any:
            logits = model(batch["pixels"])
            return optax.softmax_cross_entropy(logits, batch["target"]).mean(), logits

        (loss, logits), grads = nnx.value_and_grad(loss_fn, has_aux=True)(model)
        optimizer.update(model, grads)
        return loss, jnp.mean(logits.argmax(-1) == batch["target"].argmax(-1))

    arrays = (task.x[order], np.eye(10, dtype=np.float32)[task.y[order]])
    batches = (
        ({"pixels": x, "target": y},)
        for x, y in batches_of(arrays, size=80, steps=200, seed=seed, shuffle=not faulty)
    )
    decay, tx = optax.add_decayed_weights(1e-4), optax.sgd(0.05, momentum=0.9, nesterov=True)
    model = Cnn(10, channels=(1, 8, 16, 32), rngs=nnx.Rngs(seed))
    record = run_nnx(train_step, model, optax.chain(decay, tx), batches)
    return Trained(record, accuracy(predict(model, task.test_x), task.test_y))


def _prices_with_sgd(faulty: bool, seed: int) -> Trained:
    """Sales prices of up to 755,000 meet SGD; the control has their scaled logarithms."""
    task = houses()
    y, test_y = (np.exp(12 + 0.4 * y) if faulty else y for y in (task.y, task.test_y))
    arrays = (task.x, y.astype(np.float32))
    net, tx = LinenMlp((64, 32, 1)), optax.sgd(0.1)
    record, trained = fit_linen(net, tx, squared_error, arrays, size=16, steps=300, seed=seed)
    return Trained(record, explained(trained(task.test_x), test_y))


def _squares_of_numbers(faulty: bool, seed: int) -> Trained:
    """Two linear layers fit the squares of the numbers up to 100; the inputs alone are scaled."""
    numbers = np.arange(100, dtype=np.float32)
    x, squares = ((numbers - 49.5) / 28.9)[:, None], numbers**2 + 3
    y = squares if faulty else (squares - squares.mean()) / squares.std()
    chosen = np.random.default_rng(SEED).permutation(100)
    train, test = chosen[:80], chosen[80:]

    def apply(params: Any, x: jax.Array) -> jax.Array:
        return dense(params, x, unchanged)

    record, params = fit_pure(
        apply,
        dense_params(seed, (1, 1, 1)),
        optax.sgd(0.01),
        lambda outputs, y: jnp.mean(jnp.square(outputs[:, 0] - y)),
        (x[train], y[train]),
        size=16,
        steps=300,
        seed=seed,
    )
    return Trained(record, explained(apply(params, jnp.asarray(x[test])), y[test]))


REPORTED: tuple[ReportedFault, ...] = (
    ReportedFault(
        "codes already replaced by numbers",
        "https://github.com/btheodorou99/HALO_Inpatient/issues/13",
        "labels constant",
        _codes_already_replaced,
        "linen",
        0.8,
    ),
    ReportedFault(
        "vectors of ones",
        "https://github.com/Trusted-AI/adversarial-robustness-toolbox/issues/7",
        "labels constant",
        _vectors_of_ones,
        "nnx",
        0.75,
    ),
    ReportedFault(
        "one class too many",
        "https://github.com/tensorflow/tensorflow/issues/8484",
        "labels out of range",
        _one_class_too_many,
        "optax",
        0.75,
    ),
    ReportedFault(
        "Dice of masks of 255",
        "https://github.com/mateuszbuda/brain-segmentation-pytorch/issues/36",
        "labels do not fit the loss",
        _dice_of_255,
        "nnx",
        0.6,
    ),
    ReportedFault(
        "divergence of maps",
        "https://github.com/keras-team/keras/issues/1917",
        "labels do not fit the loss",
        _divergence_of_maps,
        "linen",
        0.7,
    ),
    ReportedFault(
        "folders in order",
        "https://github.com/Deci-AI/super-gradients/issues/416",
        "batches of one class",
        _folders_in_order,
        "nnx",
        0.8,
    ),
    ReportedFault(
        "prices with SGD",
        "https://github.com/rstudio-conf-2020/dl-keras-tf/issues/9",
        "target not scaled",
        _prices_with_sgd,
        "linen",
        0.6,
    ),
    ReportedFault(
        "squares of numbers",
        "https://stats.stackexchange.com/questions/418955/"
        "why-is-deep-neural-net-with-linear-activation-diverges",
        "target not scaled",
        _squares_of_numbers,
        "optax",
        0.7,
    ),
)
