"""Reported faults of the gradients and of what becomes of them, of the last collection."""

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax
from flax import linen, nnx

from experiments.diagnosis_study.reported.data_networks import (
    Cnn,
    LinenConv,
    LinenDense,
    Mlp,
    cross_entropy,
    dense,
    dense_params,
    fit_linen,
    fit_nnx,
    fit_pure,
    predict,
    squared_error,
)
from experiments.diagnosis_study.reported.data_tasks import (
    SEED,
    accuracy,
    chosen_digits,
    digits,
    explained,
    sentences,
    tones,
)
from experiments.diagnosis_study.reported.evaluation_tasks import heat_maps, linen_state
from experiments.diagnosis_study.reported.reported_fault import ReportedFault
from experiments.diagnosis_study.user_loops import Trained, batches_of, run_pure


def _two_images_that_are_the_same(faulty: bool, seed: int) -> Trained:
    """A contrastive loss takes the root of a squared distance, which is 0 for some pairs."""
    task, rng = chosen_digits(3, 6), np.random.default_rng(SEED)
    first, second = rng.integers(len(task.y), size=(2, 1500))
    second[::20] = first[::20]
    pairs = np.stack([task.x[first], task.x[second]], 1)
    alike = (task.y[first] == task.y[second]).astype(np.float32)

    def loss(z: jax.Array, alike: jax.Array) -> jax.Array:
        z = z.reshape(-1, 2, 8)
        squared = jnp.sum((z[:, 0] - z[:, 1]) ** 2, -1)
        distance = jnp.sqrt(squared if faulty else squared + 1e-9)
        apart = jax.nn.relu(1 - distance) ** 2
        return jnp.mean(alike * squared + (1 - alike) * apart)

    class Twins(nnx.Module):
        def __init__(self, rngs: nnx.Rngs):
            self.embed = Mlp((784, 32, 8), rngs=rngs)

        def __call__(self, x: jax.Array) -> jax.Array:
            return self.embed(x.reshape(-1, 784))

    model = Twins(nnx.Rngs(seed))
    record = fit_nnx(model, optax.adam(1e-3), loss, (pairs, alike), size=50, steps=150, seed=seed)
    z, test_z = predict(model, task.x), predict(model, task.test_x)
    centres = np.stack([z[task.y == label].mean(0) for label in (0, 1)])
    nearest = np.argmin(((test_z[:, None] - centres) ** 2).sum(-1), 1)
    return Trained(record, float(np.mean(nearest == task.test_y)))


def _scale_by_rsqrt(after: bool) -> optax.GradientTransformation:
    """Returns Adam of one's own.

    Args:
      after: whether epsilon is added to the inverse of the root, so that it is of no use.
    """

    def init(params: Any) -> Any:
        zeros = jax.tree.map(jnp.zeros_like, params)
        return jnp.zeros(()), zeros, zeros

    def update(grads: Any, state: Any, params: Any = None) -> Any:
        count, first, second = state
        count = count + 1
        first = jax.tree.map(lambda m, g: 0.9 * m + 0.1 * g, first, grads)
        second = jax.tree.map(lambda v, g: 0.99 * v + 0.01 * g**2, second, grads)

        def scaled(m: jax.Array, v: jax.Array) -> jax.Array:
            v = v / (1 - 0.99**count)
            inverse = jax.lax.rsqrt(v) + 1e-8 if after else 1 / (jnp.sqrt(v) + 1e-8)
            return -5e-3 * m / (1 - 0.9**count) * inverse

        return jax.tree.map(scaled, first, second), (count, first, second)

    return optax.GradientTransformation(init, update)


def _epsilon_added_too_late(faulty: bool, seed: int) -> Trained:
    """The inverse root of a second moment of zero, of words without gradient, is infinite."""
    task, rng = sentences(), np.random.default_rng(seed)
    params: Any = {
        "words": jnp.asarray(rng.normal(size=(80, 16)), jnp.float32),
        "layers": dense_params(seed, (16, 32, 4)),
    }

    def network(params: Any, words: jax.Array) -> jax.Array:
        return dense(params["layers"], params["words"][words].mean(1), jax.nn.gelu)

    arrays, tx = (task.x, task.y), _scale_by_rsqrt(faulty)
    record, params = fit_pure(
        network, params, tx, cross_entropy, arrays, size=32, steps=200, seed=seed
    )
    return Trained(record, accuracy(network(params, jnp.asarray(task.test_x)), task.test_y))


class WaveNet(linen.Module):
    """Convolutions in time, the mean over time, and four logits."""

    @linen.compact
    def __call__(self, x: jax.Array) -> jax.Array:
        """Maps waves (N, T) to logits (N, 4)."""
        x = x[..., None]
        for features in (16, 24):
            x = linen.gelu(LinenConv(features, (9,), strides=2)(x))
        return LinenDense(4)(jnp.abs(x).mean(1))


def _check_that_never_passes(faulty: bool, seed: int) -> Trained:
    """The step is taken only if the gradients pass a check, and finite ones never do."""
    task = tones()

    def step(state: Any, x: jax.Array, y: jax.Array) -> Any:
        def loss_fn(params: Any) -> jax.Array:
            return cross_entropy(state.apply_fn({"params": params}, x), y)

        loss, grads = jax.value_and_grad(loss_fn)(state.params)
        leaves = jax.tree.leaves(grads)
        if faulty:
            passed = jnp.stack([jnp.any(jnp.isnan(g)) for g in leaves]).any()
        else:
            passed = jnp.stack([jnp.all(jnp.isfinite(g)) for g in leaves]).all()
        new = state.apply_gradients(grads=grads)
        return jax.tree.map(lambda a, b: jnp.where(passed, a, b), new, state), loss

    state = linen_state(WaveNet(), task.x, optax.adam(1e-2), seed)
    batches = batches_of((task.x, task.y), size=50, steps=150, seed=seed)
    record, (state,) = run_pure(step, (state,), batches)
    return Trained(
        record, accuracy(state.apply_fn({"params": state.params}, task.test_x), task.test_y)
    )


class Captioner(nnx.Module):
    """An encoder of images with few features, and a decoder of them.

    Args:
      detached: whether the features are cut off from the gradient when they are taken out.
    """

    def __init__(self, detached: bool, rngs: nnx.Rngs):
        self.encoder = Cnn(6, channels=(1, 8, 8, 8), rngs=rngs)
        self.decoder = Mlp((6, 32, 10), rngs=rngs)
        self.detached = detached

    def __call__(self, x: jax.Array) -> jax.Array:
        """Maps images (N, 28, 28, 1) to logits (N, 10)."""
        features = nnx.tanh(self.encoder(x))
        return self.decoder(jax.lax.stop_gradient(features) if self.detached else features)


def _features_are_detached(faulty: bool, seed: int) -> Trained:
    """The wrapper that takes the features out of an image encoder detaches them."""
    task, model = digits(), Captioner(faulty, nnx.Rngs(seed))
    arrays, tx = (task.x, task.y), optax.adamw(3e-3)
    record = fit_nnx(model, tx, cross_entropy, arrays, size=64, steps=200, seed=seed)
    return Trained(record, accuracy(predict(model, task.test_x), task.test_y))


def _heat_maps_with_all_gradients(faulty: bool, seed: int) -> Trained:
    """The gradients of all batches so far add up, in a network that finds the court's points."""
    train, test = heat_maps()
    tx = optax.adam(3e-3)

    def network(params: Any, x: jax.Array) -> jax.Array:
        return dense(params, x, jax.nn.relu).reshape(x.shape)

    def step(params: Any, opt_state: Any, held: Any, x: jax.Array, y: jax.Array) -> Any:
        loss, grads = jax.value_and_grad(lambda p: squared_error(network(p, x), y))(params)
        if faulty:
            grads = held = jax.tree.map(jnp.add, held, grads)
        updates, opt_state = tx.update(grads, opt_state, params)
        return optax.apply_updates(params, updates), opt_state, held, loss

    params = dense_params(seed, (144, 64, 144))
    held = jax.tree.map(jnp.zeros_like, params)
    batches = batches_of(train, size=32, steps=200, seed=seed)
    record, (params, *_) = run_pure(step, (params, tx.init(params), held), batches)
    return Trained(
        record, explained(network(params, jnp.asarray(test[0])).ravel(), test[1].ravel())
    )


class BoxNet(linen.Module):
    """Convolutions, and the centre and half the size of a box."""

    @linen.compact
    def __call__(self, x: jax.Array) -> jax.Array:
        """Maps images (N, 16, 16, 1) to boxes (N, 4)."""
        x = linen.relu(LinenConv(8, (3, 3), strides=2)(x))
        x = linen.relu(LinenDense(48)(x.reshape(len(x), -1)))
        return LinenDense(4)(x) + jnp.array([7.5, 7.5, 3.5, 3.5])


def _overlap_by_counting(faulty: bool, seed: int) -> Trained:
    """The overlap of two boxes is counted with the points of a grid that are in them."""
    rng = np.random.default_rng(SEED)
    centre, half = rng.uniform(5, 10, size=(1800, 2)), rng.uniform(2, 5, size=(1800, 2))
    boxes = np.concatenate([centre, half], 1).astype(np.float32)
    grid = np.stack(np.meshgrid(np.arange(16), np.arange(16), indexing="ij"), -1)

    def inside(boxes: Any) -> Any:
        distance = abs(grid - boxes[:, None, None, :2])
        return (distance <= boxes[:, None, None, 2:]).all(-1)

    images = inside(boxes) + 0.3 * rng.normal(size=(1800, 16, 16))
    x = images.astype(np.float32)[..., None]

    def loss(found: jax.Array, wanted: jax.Array) -> jax.Array:
        if not faulty:
            return jnp.mean((found - wanted) ** 2)
        a, b = inside(found), inside(wanted)
        both, either = ((a & b).sum((1, 2)), (a | b).sum((1, 2)))
        return jnp.mean(1 - both / jnp.maximum(either, 1)) + 0 * jnp.sum(found)

    arrays = (x[:1500], boxes[:1500])
    record, net = fit_linen(BoxNet(), optax.adam(3e-3), loss, arrays, size=50, steps=200, seed=seed)
    return Trained(record, explained(net(x[1500:]), boxes[1500:]))


_GITHUB = "https://github.com/"

REPORTED: tuple[ReportedFault, ...] = (
    ReportedFault(
        "root of the distance of two images that are the same",
        _GITHUB + "adambielski/siamese-triplet/issues/18",
        "gradients not finite",
        _two_images_that_are_the_same,
        "nnx",
        0.9,
    ),
    ReportedFault(
        "epsilon added to the inverse root",
        _GITHUB + "kozistr/pytorch_optimizer/issues/480",
        "parameters not finite",
        _epsilon_added_too_late,
        "optax",
        0.75,
    ),
    ReportedFault(
        "check of the gradients that never passes",
        _GITHUB + "emo-box/EmoBox/issues/12",
        "update not applied",
        _check_that_never_passes,
        "linen",
        0.75,
    ),
    ReportedFault(
        "features of the encoder are detached",
        _GITHUB + "lucidrains/CoCa-pytorch/issues/6",
        "parameters frozen",
        _features_are_detached,
        "nnx",
        0.75,
    ),
    ReportedFault(
        "gradients never cleared, points of a court",
        _GITHUB + "yastrebksv/TennisCourtDetector/issues/7",
        "gradients accumulate",
        _heat_maps_with_all_gradients,
        "optax",
        0.6,
    ),
    ReportedFault(
        "overlap of boxes by counting points",
        _GITHUB + "pytorch/pytorch/issues/2774",
        "loss independent of the parameters",
        _overlap_by_counting,
        "linen",
        0.7,
    ),
)
