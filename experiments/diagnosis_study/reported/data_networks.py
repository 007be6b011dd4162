"""The networks and the usual loops of the reported faults about data, labels and losses."""

from collections.abc import Callable, Iterator, Sequence
from functools import partial
from itertools import pairwise
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax
from flax import linen, nnx

from convjax.stats.record import Record
from experiments.diagnosis_study.user_loops import HostArray, batches_of, run_nnx, run_pure

Function = Callable[..., jax.Array]


def lecun_normal(key: jax.Array, shape: Sequence[int], dtype: Any = jnp.float32, **_: Any) -> Any:
    """Returns weights of variance 1 / inputs, drawn by NumPy.

    JAX would compile a program for each shape, which takes most of the time of a short training.
    """
    if isinstance(key, jax.core.Tracer):  # Linen asks for the shape at every call
        return nnx.initializers.lecun_normal()(key, shape, dtype)
    rng = np.random.default_rng(np.asarray(jax.random.key_data(key)).ravel())
    return jnp.asarray(rng.normal(size=shape) / np.sqrt(np.prod(shape[:-1])), dtype)


Linear, Conv = (partial(kind, kernel_init=lecun_normal) for kind in (nnx.Linear, nnx.Conv))
LinenDense, LinenConv, LinenConvTranspose = (
    partial(kind, kernel_init=lecun_normal)
    for kind in (linen.Dense, linen.Conv, linen.ConvTranspose)
)


def unchanged(x: jax.Array) -> jax.Array:
    """Returns its argument: the output of a network without a non-linearity."""
    return x


class Mlp(nnx.Module):
    """Fully connected layers on flattened examples, and a function of the last layer's output."""

    def __init__(
        self,
        sizes: Sequence[int],
        *,
        activation: Function = nnx.relu,
        last: Function = unchanged,
        rngs: nnx.Rngs,
        **options: Any,
    ):
        self.layers = nnx.List([Linear(i, o, rngs=rngs, **options) for i, o in pairwise(sizes)])
        self.activation, self.last = activation, last

    def __call__(self, x: jax.Array) -> jax.Array:
        """Maps examples (N, …) to (N, outputs)."""
        x = x.reshape(len(x), -1)
        for layer in self.layers[:-1]:
            x = self.activation(layer(x))
        return self.last(self.layers[-1](x))


class Cnn(nnx.Module):
    """Strided convolutions, a linear layer, and a function of its output."""

    def __init__(
        self,
        outputs: int,
        *,
        channels: Sequence[int] = (1, 8, 16),
        last: Function = unchanged,
        rngs: nnx.Rngs,
        **options: Any,
    ):
        self.convs = nnx.List(
            [Conv(i, o, (3, 3), strides=2, rngs=rngs, **options) for i, o in pairwise(channels)]
        )
        side = -(-28 // 2 ** (len(channels) - 1))
        self.out = Linear(side * side * channels[-1], outputs, rngs=rngs, **options)
        self.last = last

    def __call__(self, x: jax.Array) -> jax.Array:
        """Maps images (N, 28, 28, C) to (N, outputs)."""
        for conv in self.convs:
            x = nnx.relu(conv(x))
        return self.last(self.out(x.reshape(len(x), -1)))


class UNet(nnx.Module):
    """Two resolutions, a connection between them, and a function of the output of each pixel."""

    def __init__(self, outputs: int, *, last: Function = unchanged, rngs: nnx.Rngs):
        self.enter = Conv(1, 8, (3, 3), rngs=rngs)
        self.down = Conv(8, 16, (3, 3), strides=2, rngs=rngs)
        self.up = Conv(16, 8, (3, 3), rngs=rngs)
        self.leave = Conv(16, outputs, (1, 1), rngs=rngs)
        self.last = last

    def __call__(self, x: jax.Array) -> jax.Array:
        """Maps images (N, H, W, 1) to (N, H, W, outputs)."""
        fine = nnx.relu(self.enter(x))
        coarse = nnx.relu(self.down(fine)).repeat(2, 1).repeat(2, 2)
        return self.last(self.leave(jnp.concatenate([fine, nnx.relu(self.up(coarse))], -1)))


class LinenMlp(linen.Module):
    """Fully connected layers on flattened examples, in Flax Linen."""

    features: Sequence[int]
    activation: Function = linen.relu

    @linen.compact
    def __call__(self, x: jax.Array) -> jax.Array:
        """Maps examples (N, …) to (N, outputs)."""
        x = x.reshape(len(x), -1)
        for features in self.features[:-1]:
            x = self.activation(LinenDense(features)(x))
        return LinenDense(self.features[-1])(x)


class LinenCnn(linen.Module):
    """Two convolutions, pooling and two dense layers, in Flax Linen."""

    outputs: int
    last: Function = unchanged

    @linen.compact
    def __call__(self, x: jax.Array) -> jax.Array:
        """Maps images (N, H, W, C) to (N, outputs)."""
        x = linen.relu(LinenConv(8, (3, 3), strides=2)(x))
        x = linen.avg_pool(linen.relu(LinenConv(16, (3, 3))(x)), (2, 2), (2, 2))
        x = linen.relu(LinenDense(32)(x.reshape(len(x), -1)))
        return self.last(LinenDense(self.outputs)(x))


class LinenUNet(linen.Module):
    """An encoder and a decoder with one connection, in Flax Linen."""

    outputs: int
    last: Function = unchanged

    @linen.compact
    def __call__(self, x: jax.Array) -> jax.Array:
        """Maps images (N, H, W, 1) to (N, H, W, outputs)."""
        fine = linen.relu(LinenConv(8, (3, 3))(x))
        coarse = linen.relu(LinenConv(16, (3, 3), strides=2)(fine))
        up = LinenConvTranspose(8, (2, 2), strides=(2, 2))(coarse)
        joined = jnp.concatenate([fine, linen.relu(up)], -1)
        return self.last(LinenConv(self.outputs, (1, 1))(joined))


def dense_params(seed: int, sizes: Sequence[int]) -> list[dict[str, jax.Array]]:
    """Returns the weights and biases of fully connected layers, with He's initialisation."""
    rng = np.random.default_rng(seed)
    return [
        {
            "w": jnp.asarray(rng.normal(size=(i, o)) * np.sqrt(2 / i), jnp.float32),
            "b": jnp.zeros(o),
        }
        for i, o in pairwise(sizes)
    ]


def dense(params: Any, x: jax.Array, activation: Function = jax.nn.relu) -> jax.Array:
    """Returns the output of fully connected layers for flattened examples."""
    x = x.reshape(len(x), -1)
    for layer in params[:-1]:
        x = activation(x @ layer["w"] + layer["b"])
    return x @ params[-1]["w"] + params[-1]["b"]


# --- losses and loops ------------------------------------------------------------------------


def cross_entropy(logits: jax.Array, labels: jax.Array) -> jax.Array:
    """Returns the mean cross entropy of logits with integer labels."""
    return optax.softmax_cross_entropy_with_integer_labels(logits, labels).mean()


def mask_cross_entropy(logits: jax.Array, masks: jax.Array) -> jax.Array:
    """Returns the mean binary cross entropy of the logits of each pixel (N, H, W, 1)."""
    return optax.sigmoid_binary_cross_entropy(logits[..., 0], masks.astype(jnp.float32)).mean()


def squared_error(predictions: jax.Array, targets: jax.Array) -> jax.Array:
    """Returns the mean squared error of outputs that have the shape of the targets but for a 1."""
    return jnp.mean((predictions.reshape(targets.shape) - targets) ** 2)


def fit_nnx(
    model: nnx.Module,
    tx: optax.GradientTransformation,
    loss: Function,
    arrays: tuple[HostArray, HostArray],
    **options: Any,
) -> Record:
    """Returns the record of a training of `loss(model(x), y)`; options are of `batches_of`."""

    def train_step(model: Any, optimizer: nnx.Optimizer[Any], x: jax.Array, y: jax.Array) -> Any:
        value, grads = nnx.value_and_grad(lambda model: loss(model(x), y))(model)
        optimizer.update(model, grads)
        return value

    return run_nnx(train_step, model, tx, batches_of(arrays, **options))


def fit_pure(
    apply: Function,
    params: Any,
    tx: optax.GradientTransformation,
    loss: Function,
    arrays: tuple[HostArray, HostArray],
    **options: Any,
) -> tuple[Record, Any]:
    """Returns the record and the last parameters of a training of `loss(apply(params, x), y)`."""

    def update(params: Any, opt_state: Any, x: jax.Array, y: jax.Array) -> Any:
        loss_value, grads = jax.value_and_grad(lambda p: loss(apply(p, x), y))(params)
        updates, opt_state = tx.update(grads, opt_state, params)
        return optax.apply_updates(params, updates), opt_state, loss_value

    state = (params, tx.init(params))
    record, (params, _) = run_pure(update, state, batches_of(arrays, **options))
    return record, params


def fit_linen(
    net: linen.Module,
    tx: optax.GradientTransformation,
    loss: Function,
    arrays: tuple[HostArray, HostArray],
    *,
    seed: int,
    **options: Any,
) -> tuple[Record, Function]:
    """Returns the record of a training of a Linen network, and the trained network as a function.

    Args:
      net: to train, from the usual initialisation.
      tx: of the optimiser.
      loss: of the outputs and the labels of a batch.
      arrays: examples and labels.
      seed: of the parameters and of the order.
      **options: of `batches_of`.
    """
    params = net.init(jax.random.key(seed), jnp.asarray(arrays[0][:2]))
    apply: Any = net.apply
    record, params = fit_pure(apply, params, tx, loss, arrays, seed=seed, **options)
    return record, lambda x: np.asarray(apply(params, jnp.asarray(x)))


def in_dicts(batches: Iterator[tuple[jax.Array, ...]]) -> Iterator[tuple[dict[str, jax.Array]]]:
    """Yields the batches as loops have them that call a step with one argument."""
    for image, label in batches:
        yield ({"image": image, "label": label},)


def predict(model: nnx.Module, x: HostArray) -> HostArray:
    """Returns the outputs of a model in evaluation mode."""
    model.eval()
    return np.asarray(nnx.jit(lambda model, x: model(x))(model, jnp.asarray(x)))
