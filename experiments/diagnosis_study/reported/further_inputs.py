"""Further reported faults of the inputs, for measuring: their values, labels and order."""

from collections.abc import Iterator
from itertools import cycle, repeat
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax
from flax import nnx

from experiments.diagnosis_study.reported.data_networks import (
    Conv,
    Linear,
    LinenCnn,
    UNet,
    cross_entropy,
    dense,
    dense_params,
    fit_linen,
    fit_nnx,
    fit_pure,
    mask_cross_entropy,
    predict,
    squared_error,
)
from experiments.diagnosis_study.reported.data_tasks import (
    SEED,
    accuracy,
    binary_accuracy,
    digits,
    explained,
    overlap,
    strokes,
)
from experiments.diagnosis_study.reported.reported_fault import ReportedFault
from experiments.diagnosis_study.user_loops import HostArray, Trained, batches_of, run_nnx, run_pure


def _far_from_zero(faulty: bool, seed: int) -> Trained:
    """The points of a curve lie around 25, and enter a small network of sigmoids as they are."""
    rng = np.random.default_rng(SEED)
    x = rng.uniform(20, 30, (300, 1)).astype(np.float32)
    y = np.sin(0.9 * x[:, 0])
    shown = x if faulty else (x - 25) / 3

    def apply(params: Any, x: jax.Array) -> jax.Array:
        return dense(params, x, jax.nn.sigmoid)

    record, params = fit_pure(
        apply,
        dense_params(seed, (1, 12, 12, 1)),
        optax.sgd(0.1, momentum=0.9),
        squared_error,
        (shown[:200], y[:200]),
        size=100,
        steps=300,
        seed=seed,
    )
    return Trained(record, explained(apply(params, jnp.asarray(shown[200:])), y[200:]))


def _raw_counts(faulty: bool, seed: int) -> Trained:
    """A model of clicks has counts of up to millions beside the embedding of an article."""
    rng = np.random.default_rng(SEED)
    article = rng.integers(40, size=4400).astype(np.int32)
    logarithms = rng.normal(size=(4400, 4))
    logit = 2 * (rng.normal(size=40)[article] + logarithms @ [1.5, -1, 1, 0.5])
    clicked = (logit + rng.logistic(size=4400) > 0).astype(np.int32)
    counts = np.exp(2 * logarithms + [5, 7, 9, 11]) if faulty else logarithms
    counts = counts.astype(np.float32)

    class Clicks(nnx.Module):
        def __init__(self, rngs: nnx.Rngs):
            self.articles = nnx.Embed(40, 8, rngs=rngs)
            self.hidden, self.out = Linear(12, 32, rngs=rngs), Linear(32, 1, rngs=rngs)

        def __call__(self, batch: dict[str, jax.Array]) -> jax.Array:
            x = jnp.concatenate([self.articles(batch["article"]), batch["counts"]], -1)
            return self.out(nnx.relu(self.hidden(x)))[:, 0]

    def train_step(model: Any, optimizer: Any, batch: dict[str, jax.Array]) -> Any:
        def loss_fn(model: Any) -> jax.Array:
            clicked = batch["clicked"].astype(jnp.float32)
            return optax.sigmoid_binary_cross_entropy(model(batch), clicked).mean()

        loss, grads = nnx.value_and_grad(loss_fn)(model)
        optimizer.update(model, grads)
        return {"loss": loss}

    def in_dicts() -> Iterator[tuple[dict[str, jax.Array]]]:
        arrays = (article[:4000], counts[:4000], clicked[:4000])
        for batch in batches_of(arrays, size=64, steps=250, seed=seed):
            yield (dict(zip(("article", "counts", "clicked"), batch, strict=True)),)

    model = Clicks(nnx.Rngs(seed))
    record = run_nnx(train_step, model, optax.adam(3e-3), in_dicts())
    test = {"article": jnp.asarray(article[4000:]), "counts": jnp.asarray(counts[4000:])}
    return Trained(record, binary_accuracy(model(test), clicked[4000:]))


def _documents_without_words(faulty: bool, seed: int) -> Trained:
    """Features of a graph are divided by their sums, which are 0 for documents without words."""
    rng = np.random.default_rng(SEED)
    y = rng.integers(3, size=400).astype(np.int32)
    words = (rng.random((400, 60)) < 0.03 + 0.12 * (np.arange(60) // 20 == y[:, None])) * 1.0
    words[[17, 200, 333]] = 0
    links = np.triu(rng.random((400, 400)) < 0.002 + 0.02 * (y[:, None] == y), 1)
    links = links + links.T + np.eye(400)
    degrees = links.sum(1)
    spread = jnp.asarray(links / np.sqrt(degrees * degrees[:, None]), jnp.float32)
    with np.errstate(invalid="ignore"):
        x = (words / words.sum(1, keepdims=True)).astype(np.float32)
    x = x if faulty else np.nan_to_num(x)
    known = rng.random(400) < 0.5
    tx = optax.adam(1e-2)

    def network(params: Any, x: jax.Array) -> jax.Array:
        first, last = params
        x = jax.nn.relu(spread @ (x @ first["w"]) + first["b"])
        return spread @ (x @ last["w"]) + last["b"]

    def step(params: Any, opt_state: Any, x: jax.Array, y: jax.Array, known: jax.Array) -> Any:
        def loss_fn(params: Any) -> jax.Array:
            losses = optax.softmax_cross_entropy_with_integer_labels(network(params, x), y)
            return jnp.sum(losses * known) / jnp.sum(known)

        loss, grads = jax.value_and_grad(loss_fn)(params)
        updates, opt_state = tx.update(grads, opt_state, params)
        return optax.apply_updates(params, updates), opt_state, loss

    params = dense_params(seed, (60, 16, 3))
    graph = (jnp.asarray(x), jnp.asarray(y), jnp.asarray(known))
    record, (params, _) = run_pure(step, (params, tx.init(params)), repeat(graph, 150))
    logits = np.asarray(network(params, jnp.asarray(x)))
    return Trained(record, accuracy(logits[~known], y[~known]))


def _gaps_of_sensors(faulty: bool, seed: int) -> Trained:
    """Hours in which a sensor was off are not a number in the windows that a network gets."""
    rng = np.random.default_rng(SEED)
    noise = rng.normal(size=(2400, 5))
    hours = np.stack([np.convolve(n, np.ones(6), "same") for n in noise.T], 1) / np.sqrt(6)
    station = hours[:, 0] + np.tanh(2 * hours[:, 1]) * hours[:, 2] - 0.5 * np.abs(hours[:, 3])
    shown = hours.astype(np.float32)
    for sensor, hour in enumerate((150, 610, 611, 1204, 1702)):
        shown[hour : hour + 4, sensor] = np.nan
    windows = np.stack([shown[i : i + 8] for i in range(2392)])
    y = station[7:2399].astype(np.float32)
    kept = np.flatnonzero(np.isfinite(windows[:2000]).all((1, 2)) | faulty)

    class Net(nnx.Module):
        def __init__(self, rngs: nnx.Rngs):
            self.conv, self.hidden = Conv(5, 16, (3,), rngs=rngs), Linear(128, 48, rngs=rngs)
            self.out = Linear(48, 1, rngs=rngs)

        def __call__(self, x: jax.Array) -> jax.Array:
            x = nnx.gelu(self.conv(x)).reshape(len(x), -1)
            return self.out(nnx.gelu(self.hidden(x)))

    model = Net(nnx.Rngs(seed))
    rate = optax.warmup_cosine_decay_schedule(0.0, 1e-2, 25, 250)
    arrays = (windows[kept], y[kept])
    record = fit_nnx(model, optax.adamw(rate), squared_error, arrays, size=32, steps=250, seed=seed)
    return Trained(record, explained(predict(model, windows[2000:]), y[2000:]))


def _files_not_sorted(faulty: bool, seed: int) -> Trained:
    """Images come in the order in which a folder lists them, attributes in that of a table."""
    task = digits()
    listed = np.random.default_rng(SEED).permutation(len(task.x)) if faulty else slice(None)
    parts = np.array([[0, 6, 8, 9], [0, 2, 4, 6], [1, 3, 5, 7]])  # has a loop, is even, is odd
    y, test_y = (
        np.stack([np.isin(labels, part) for part in parts], 1).astype(np.float32)
        for labels in (task.y, task.test_y)
    )

    def loss(logits: jax.Array, y: jax.Array) -> jax.Array:
        p = jax.nn.sigmoid(logits)
        return -jnp.mean(y * jnp.log(p + 1e-7) + (1 - y) * jnp.log(1 - p + 1e-7))

    tx = optax.rmsprop(3e-3)
    arrays = (task.x[listed], y)
    record, net = fit_linen(LinenCnn(3), tx, loss, arrays, size=40, steps=150, seed=seed)
    return Trained(record, binary_accuracy(net(task.test_x), test_y))


def _turned_apart(faulty: bool, seed: int) -> Trained:
    """Images and masks are turned and mirrored at random, but not in the same way."""
    task = strokes()
    of_images, of_masks = (np.random.default_rng(seed + i) for i in (0, int(faulty)))

    def turned(squares: Any, rng: np.random.Generator) -> HostArray:
        draws = zip(np.asarray(squares), rng.integers(4, size=(8, 2)), strict=True)
        return np.stack([np.rot90(square, k)[:: 1 - 2 * (flip % 2)] for square, (k, flip) in draws])

    def augmented() -> Iterator[tuple[jax.Array, ...]]:
        for images, masks in batches_of((task.x, task.y), size=8, steps=200, seed=seed):
            yield jnp.asarray(turned(images, of_images)), jnp.asarray(turned(masks, of_masks))

    def train_step(model: Any, optimizer: Any, images: jax.Array, masks: jax.Array) -> Any:
        def loss_fn(model: Any) -> jax.Array:
            return mask_cross_entropy(model(images), masks)

        loss, grads = nnx.value_and_grad(loss_fn)(model)
        optimizer.update(model, grads)
        return loss

    model = UNet(1, rngs=nnx.Rngs(seed))
    record = run_nnx(train_step, model, optax.nadam(3e-3), augmented())
    return Trained(record, overlap(predict(model, task.test_x), task.test_y))


def _small_buffer(faulty: bool, seed: int) -> Trained:
    """Examples in the order of their classes are drawn from a buffer of 60 of them."""
    task, rng = digits(), np.random.default_rng(seed)
    order, size = np.argsort(task.y, kind="stable"), 60 if faulty else 4000
    buffer, following = list(order[:size]), cycle(np.roll(order, -size))
    drawn = []
    for place in rng.integers(size, size=8000):
        drawn.append(buffer[place])
        buffer[place] = next(following)

    def apply(params: Any, x: jax.Array) -> jax.Array:
        return dense(params, x, jax.nn.gelu)

    params, arrays = dense_params(seed, (784, 64, 10)), (task.x[drawn], task.y[drawn])
    in_order: dict[str, Any] = {"size": 40, "steps": 200, "seed": seed, "shuffle": False}
    record, params = fit_pure(apply, params, optax.adam(1e-3), cross_entropy, arrays, **in_order)
    return Trained(record, accuracy(apply(params, jnp.asarray(task.test_x)), task.test_y))


REPORTED: tuple[ReportedFault, ...] = (
    ReportedFault(
        "points far from zero",
        "https://datascience.stackexchange.com/questions/31499/"
        "neural-network-only-converges-when-data-cloud-is-close-to-0",
        "inputs not normalised",
        _far_from_zero,
        "optax",
        0.7,
    ),
    ReportedFault(
        "raw counts in a model of clicks",
        "https://github.com/alibaba/EasyRec/issues/23",
        "inputs not normalised",
        _raw_counts,
        "nnx",
        0.8,
    ),
    ReportedFault(
        "documents without words",
        "https://github.com/danielegrattarola/keras-gat/issues/14",
        "inputs not finite",
        _documents_without_words,
        "optax",
        0.75,
    ),
    ReportedFault(
        "gaps of sensors",
        "https://github.com/circleAhn/TESLA-tf/issues/1",
        "inputs not finite",
        _gaps_of_sensors,
        "nnx",
        0.7,
    ),
    ReportedFault(
        "files of images not sorted",
        "https://github.com/NoahVl/Explaining-In-Style-Reproducibility-Study/issues/9",
        "inputs and labels do not match",
        _files_not_sorted,
        "linen",
        0.8,
    ),
    ReportedFault(
        "images and masks turned apart",
        "https://github.com/wassname/pipe-segmentation/issues/1",
        "inputs and labels do not match",
        _turned_apart,
        "nnx",
        0.65,
    ),
    ReportedFault(
        "small buffer for shuffling",
        "https://github.com/tensorflow/tensorflow/issues/36626",
        "batches of one class",
        _small_buffer,
        "optax",
        0.75,
    ),
)
