"""The tasks of the cases about updates, and the evaluation of what a network has learned of them.

Arrays are NumPy, float32 or int32. Synthetic data is drawn with a fixed seed, so that the seed of a
training changes its parameters and its batches alone.
"""

from collections.abc import Callable
from functools import cache
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import numpy.typing as npt
import optax
from flax import nnx
from flax.training.train_state import TrainState
from jax.ad_checkpoint import checkpoint_name

from convjax.data import load

Array = npt.NDArray[Any]
Params = dict[str, jax.Array]


class Task(NamedTuple):
    """Inputs and targets, for training and for evaluation."""

    train: tuple[Array, Array]
    test: tuple[Array, Array]


def split(x: Array, y: Array, share: float = 0.8) -> Task:
    """Returns the first share of the examples for training, and the others for evaluation."""
    first = round(share * len(x))
    return Task((x[:first], y[:first]), (x[first:], y[first:]))


@cache
def digits(*, flat: bool = False, step: int = 1) -> Task:
    """Returns the embedded digits from 0 to 1.

    Args:
      flat: whether an image is a row of pixels, (N, H·W), instead of (N, H, W, 1).
      step: every which pixel of a row and of a column is kept.
    """

    def prepared(images: Array) -> Array:
        x = images[:, ::step, ::step] / np.float32(255)
        return x.reshape(len(x), -1) if flat else x

    data = load("mnist5k")
    (x, y), (test_x, test_y) = (
        (prepared(part.images), np.asarray(part.labels, np.int32))
        for part in (data.train, data.test)
    )
    return Task((x, y), (test_x, test_y))


@cache
def rings() -> Task:
    """Returns points in the plane, (1500, 2), and whether they are on the outer ring."""
    rng = np.random.default_rng(0)
    label = rng.integers(0, 2, 1500)
    radius = np.where(label, 1.4, 0.6) + 0.12 * rng.normal(size=1500)
    angle = rng.uniform(0, 2 * np.pi, 1500)
    points = np.stack([radius * np.cos(angle), radius * np.sin(angle)], 1)
    return split(points.astype(np.float32), label.astype(np.int32))


@cache
def measurements() -> Task:
    """Returns rows of 8 normalised columns, (2000, 8), and a smooth target (2000, 1) of std 1."""
    rng = np.random.default_rng(1)
    x = rng.normal(size=(2000, 8))
    y = np.sin(x[:, 0]) + x[:, 1] * x[:, 2] / 2 + 0.7 * np.abs(x[:, 3]) - 0.5 * x[:, 4]
    y = (y - y.mean()) / y.std() + 0.05 * rng.normal(size=2000)
    return split(x.astype(np.float32), y[:, None].astype(np.float32))


@cache
def species() -> Task:
    """Returns rows of 10 columns, (2400, 10), and one of four classes that their signs decide."""
    rng = np.random.default_rng(2)
    x = rng.normal(size=(2400, 10))
    label = 2 * (x[:, 0] * x[:, 1] > 0) + (x[:, 2] + x[:, 3] > 0)
    return split(x.astype(np.float32), label.astype(np.int32))


@cache
def strokes() -> Task:
    """Returns noisy digits, (N, 14, 14, 1), and whether each pixel is ink, of the same shape."""
    rng = np.random.default_rng(3)
    (x, _), (test_x, _) = digits(step=2)

    def noisy(ink: Array) -> tuple[Array, Array]:
        noise = 0.35 * rng.normal(size=ink.shape)
        return (ink + noise).astype(np.float32), (ink > 0.5).astype(np.float32)

    return Task(noisy(x[:2000]), noisy(test_x[:500]))


@cache
def centres() -> Task:
    """Returns maps with a bright spot, (1600, 12, 12, 1), and its centre, (1600, 2), of std 1."""
    rng = np.random.default_rng(4)
    centre = rng.uniform(2, 9, (1600, 1, 1, 2))
    grid = np.stack(np.meshgrid(np.arange(12), np.arange(12), indexing="ij"), -1)
    spot = np.exp(-(((grid - centre) ** 2).sum(-1)) / 4)[..., None]
    x = spot + 0.1 * rng.normal(size=spot.shape)
    y = (centre[:, 0, 0] - 5.5) / 2.02  # the std of a uniform distribution of width 7
    return split(((x - x.mean()) / x.std()).astype(np.float32), y.astype(np.float32))


@cache
def heat_maps() -> Task:
    """Returns maps with a spot, (1600, 12, 12, 1), and a smoother spot at the same place."""
    train, test = centres()

    def smooth(y: Array) -> Array:
        centre = (y * 2.02 + 5.5)[:, None, None]
        grid = np.stack(np.meshgrid(np.arange(12), np.arange(12), indexing="ij"), -1)
        heat = np.exp(-(((grid - centre) ** 2).sum(-1)) / 12)[..., None]
        return ((heat - 0.2) / 0.25).astype(np.float32)

    return Task((train[0], smooth(train[1])), (test[0], smooth(test[1])))


@cache
def next_letters() -> Task:
    """Returns three letters of 0 to 19, (4000, 3), and the one that mostly follows them."""
    rng = np.random.default_rng(5)
    letters = rng.integers(0, 20, (4000, 3))
    follows = rng.permutation(20)
    label = np.where(letters[:, 0] < 10, follows[letters[:, 2]], letters[:, 1])
    label = np.where(rng.random(4000) < 0.05, rng.integers(0, 20, 4000), label)
    return split(letters.astype(np.int32), label.astype(np.int32))


@cache
def tagged_words() -> Task:
    """Returns 8 words of 0 to 29, (1500, 8), and for each whether it exceeds the word before."""
    rng = np.random.default_rng(6)
    words = rng.integers(0, 30, (1500, 8))
    before = np.concatenate([np.full((1500, 1), 30), words[:, :-1]], 1)
    return split(words.astype(np.int32), (words > before).astype(np.int32))


@cache
def series(*, first: bool = True) -> Task:
    """Returns series of 24 values, (2000, 24, 1), and the sum of three, of std 1.

    Args:
      first: whether the three first values count, or the three last.
    """
    x = np.random.default_rng(7).normal(size=(2000, 24, 1))
    counted = x[:, :3] if first else x[:, -3:]
    y = counted.sum(1) / np.sqrt(3)
    return split(x.astype(np.float32), y.astype(np.float32))


# --- losses, of logits or outputs and targets -----------------------------------------------------


def cross_entropy(logits: jax.Array, labels: jax.Array) -> jax.Array:
    """Returns the mean cross entropy of logits (..., K) and labels (...)."""
    return optax.softmax_cross_entropy_with_integer_labels(logits, labels).mean()


def binary_cross_entropy(logits: jax.Array, labels: jax.Array) -> jax.Array:
    """Returns the mean binary cross entropy of logits and labels of one shape."""
    return optax.sigmoid_binary_cross_entropy(logits, labels).mean()


def squared_error(outputs: jax.Array, targets: jax.Array) -> jax.Array:
    """Returns the mean squared error of arrays of one shape."""
    return jnp.mean((outputs - targets) ** 2)


# --- steps ----------------------------------------------------------------------------------------

Loss = Callable[[jax.Array, jax.Array], jax.Array]


def nnx_step(loss_of: Loss) -> Callable[..., jax.Array]:
    """Returns the usual step of a model and its optimiser."""

    def step(model: Any, optimizer: nnx.Optimizer[Any], x: jax.Array, y: jax.Array) -> jax.Array:
        loss, grads = nnx.value_and_grad(lambda model: loss_of(model(x), y))(model)
        optimizer.update(model, grads)
        return loss

    return step


def linen_step(loss_of: Loss) -> Callable[..., tuple[TrainState, jax.Array]]:
    """Returns the usual step of a `TrainState`."""

    def step(state: TrainState, x: jax.Array, y: jax.Array) -> tuple[TrainState, jax.Array]:
        def loss_fn(params: Any) -> jax.Array:
            return loss_of(state.apply_fn({"params": params}, x), y)

        loss, grads = jax.value_and_grad(loss_fn)(state.params)
        return state.apply_gradients(grads=grads), loss

    return step


def optax_step(
    network: Callable[..., jax.Array], loss_of: Loss, tx: optax.GradientTransformation
) -> Callable[..., Any]:
    """Returns the usual step of parameters and the state of their optimiser."""

    def step(params: Any, opt_state: Any, x: jax.Array, y: jax.Array) -> Any:
        loss, grads = jax.value_and_grad(lambda params: loss_of(network(params, x), y))(params)
        updates, opt_state = tx.update(grads, opt_state, params)
        return optax.apply_updates(params, updates), opt_state, loss

    return step


def linen_state(network: Any, x: Array, tx: optax.GradientTransformation, seed: int) -> TrainState:
    """Returns the first state of a Linen network, given some inputs."""
    params = network.init(jax.random.key(seed), x[:2])["params"]
    return TrainState.create(apply_fn=network.apply, params=params, tx=tx)


# --- networks without modules ---------------------------------------------------------------------


def dense_params(features: tuple[int, ...], seed: int, gain: float = 1.0) -> dict[str, Params]:
    """Returns kernels of std gain·√(2/fan-in) and zero biases, by the names of layers."""
    keys = jax.random.split(jax.random.key(seed), len(features) - 1)
    return {
        f"dense{i}": {
            "kernel": gain * jnp.sqrt(2 / n) * jax.random.normal(key, (n, m)),
            "bias": jnp.zeros(m),
        }
        for i, (n, m, key) in enumerate(zip(features, features[1:], keys, strict=False))
    }


def dense(
    params: dict[str, Params], x: jax.Array, nonlinearity: Callable[..., jax.Array] = jax.nn.relu
) -> jax.Array:
    """Returns the outputs of fully connected layers of the parameters of `dense_params`."""
    for i, (name, layer) in enumerate(params.items()):
        x = nonlinearity(x) if i else x
        x = checkpoint_name(x @ layer["kernel"] + layer["bias"], name)
    return x


# --- what is reached ------------------------------------------------------------------------------


def accuracy(logits: Any, labels: Array) -> float:
    """Returns the share of logits (..., K) whose largest is that of the label."""
    return float(np.mean(np.argmax(np.asarray(logits), -1) == labels))


def binary_accuracy(logits: Any, labels: Array) -> float:
    """Returns the share of logits whose sign is that of the label, 0 or 1."""
    return float(np.mean((np.asarray(logits) > 0) == (labels > 0.5)))


def explained(outputs: Any, targets: Array) -> float:
    """Returns the share of the targets' variance that the outputs explain; 0 is their mean."""
    return float(1 - np.mean((np.asarray(outputs) - targets) ** 2) / np.var(targets))
