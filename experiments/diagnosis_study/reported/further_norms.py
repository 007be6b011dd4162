"""Further reported faults of batch norm: its statistics are lost, lag, or are trained on."""

from itertools import pairwise
from typing import Any

import jax
import optax
from flax import linen, nnx

from experiments.diagnosis_study.reported.data_networks import (
    LinenConv,
    LinenDense,
    cross_entropy,
    lecun_normal,
    mask_cross_entropy,
    predict,
    squared_error,
)
from experiments.diagnosis_study.reported.data_tasks import (
    accuracy,
    chosen_digits,
    digits,
    overlap,
    strokes,
)
from experiments.diagnosis_study.reported.evaluation_tasks import explained, heat_maps
from experiments.diagnosis_study.reported.reported_fault import ReportedFault
from experiments.diagnosis_study.user_loops import Trained, batches_of, run_nnx, run_pure


class MaskNet(linen.Module):
    """Convolutions with batch norm, and a logit for each pixel."""

    @linen.compact
    def __call__(self, x: jax.Array, train: bool) -> jax.Array:
        """Maps images (N, H, W, 1) to logits of the same shape."""
        for features in (8, 8):
            x = LinenConv(features, (3, 3), use_bias=False)(x)
            x = linen.relu(linen.BatchNorm(use_running_average=not train, momentum=0.9)(x))
        return LinenConv(1, (1, 1))(x)


def _statistics_never_updated(faulty: bool, seed: int) -> Trained:
    """Segments with statistics of the batch, and forgets the line that keeps their average."""
    task, network, tx = strokes(), MaskNet(), optax.adam(5e-3)
    # Images as a camera gives them: neither centred nor of deviation 1.
    x, test_x = 3 * task.x + 2, 3 * task.test_x + 2

    def step(variables: Any, opt_state: Any, batch: dict[str, jax.Array]) -> Any:
        def loss_fn(params: Any) -> Any:
            logits, new = network.apply(
                {**variables, "params": params}, batch["image"], True, mutable=["batch_stats"]
            )
            return mask_cross_entropy(logits, batch["mask"]), new

        (loss, new), grads = jax.value_and_grad(loss_fn, has_aux=True)(variables["params"])
        updates, opt_state = tx.update(grads, opt_state)
        params = optax.apply_updates(variables["params"], updates)
        kept = {} if faulty else new
        return {**variables, **kept, "params": params}, opt_state, loss

    variables = network.init(jax.random.key(seed), x[:2], True)
    batches = (
        ({"image": image, "mask": mask},)
        for image, mask in batches_of((x, task.y), size=32, steps=150, seed=seed)
    )
    state = variables, tx.init(variables["params"])
    record, (variables, _) = run_pure(step, state, batches)
    return Trained(record, overlap(network.apply(variables, test_x, False), task.test_y))


class ResNet(nnx.Module):
    """Residual blocks with batch norm, and three logits.

    Args:
      momentum: of the running statistics.
    """

    def __init__(self, momentum: float, rngs: nnx.Rngs):
        init = lecun_normal
        self.enter = nnx.Conv(1, 12, (3, 3), strides=4, kernel_init=init, rngs=rngs)
        self.convs = nnx.List(
            [nnx.Conv(12, 12, (3, 3), kernel_init=init, rngs=rngs) for _ in range(3)]
        )
        self.norms = nnx.List([nnx.BatchNorm(12, momentum=momentum, rngs=rngs) for _ in range(3)])
        self.head = nnx.Linear(12, 3, kernel_init=init, rngs=rngs)

    def __call__(self, x: jax.Array) -> jax.Array:
        """Maps images (N, 28, 28, 1) to logits (N, 3)."""
        x = self.enter(x)
        for conv, norm in zip(self.convs, self.norms, strict=True):
            x = x + nnx.relu(norm(conv(x)))
        return self.head(x.mean((1, 2)))


def _too_few_batches(faulty: bool, seed: int) -> Trained:
    """Trains for so few batches that the running statistics are still those of the beginning."""

    def step(model: ResNet, optimizer: nnx.Optimizer[Any], x: jax.Array, y: jax.Array) -> Any:
        loss, grads = nnx.value_and_grad(lambda model: cross_entropy(model(x), y))(model)
        optimizer.update(model, grads)
        return loss

    task = chosen_digits(0, 1, 7)
    x, test_x = 255 * (task.x - 0.5), 255 * (task.test_x - 0.5)
    model = ResNet(0.999 if faulty else 0.9, nnx.Rngs(seed))
    batches = batches_of((x / 32, task.y), size=32, steps=80, seed=seed)
    record = run_nnx(step, model, optax.adam(1e-2), batches)
    return Trained(record, accuracy(predict(model, test_x / 32), task.test_y))


class SharpnessNet(linen.Module):
    """Dense layers with batch norm."""

    @linen.compact
    def __call__(self, x: jax.Array, train: bool) -> jax.Array:
        """Maps images (N, H, W, 1) to logits (N, 10)."""
        x = x.reshape(len(x), -1)
        for features in (64, 64, 64):
            x = LinenDense(features, use_bias=False)(x)
            x = linen.relu(linen.BatchNorm(use_running_average=not train, momentum=0.9)(x))
        return LinenDense(10)(x)


def _second_pass_in_evaluation_mode(faulty: bool, seed: int) -> Trained:
    """Takes the gradient at shifted weights in evaluation mode, to keep the statistics as is."""
    task, network = digits(), SharpnessNet()
    tx, radius = optax.sgd(0.5, momentum=0.9), 0.1

    def loss_fn(params: Any, stats: Any, x: jax.Array, y: jax.Array, train: bool) -> Any:
        variables = {"params": params, "batch_stats": stats}
        logits, new = network.apply(variables, x, train, mutable=["batch_stats"])
        return cross_entropy(logits, y), new.get("batch_stats", stats)

    def step(params: Any, opt_state: Any, stats: Any, x: jax.Array, y: jax.Array) -> Any:
        gradient = jax.value_and_grad(loss_fn, has_aux=True)
        (loss, new), grads = gradient(params, stats, x, y, True)
        scale = radius / (optax.tree.norm(grads) + 1e-12)
        shifted = jax.tree.map(lambda p, g: p + scale * g, params, grads)
        # The statistics of the second pass are dropped in either mode.
        grads = gradient(shifted, new, x, y, not faulty)[1]
        updates, opt_state = tx.update(grads, opt_state, params)
        return optax.apply_updates(params, updates), opt_state, new, loss

    variables = network.init(jax.random.key(seed), task.x[:2], True)
    params, stats = variables["params"], variables["batch_stats"]
    batches = batches_of((task.x, task.y), size=64, steps=150, seed=seed)
    record, (params, _, stats) = run_pure(step, (params, tx.init(params), stats), batches)
    logits = network.apply({"params": params, "batch_stats": stats}, task.test_x, False)
    return Trained(record, accuracy(logits, task.test_y))


class Autoencoder(nnx.Module):
    """Dense layers with batch norm, down to eight features and up again."""

    def __init__(self, rngs: nnx.Rngs):
        sizes = (144, 64, 32, 8, 32, 64, 144)
        self.layers = nnx.List(
            [nnx.Linear(i, o, kernel_init=lecun_normal, rngs=rngs) for i, o in pairwise(sizes)]
        )
        self.norms = nnx.List([nnx.BatchNorm(o, momentum=0.9, rngs=rngs) for o in sizes[1:-1]])

    def __call__(self, x: jax.Array) -> jax.Array:
        """Maps maps (N, H, W, 1) to maps of the same shape."""
        y = x.reshape(len(x), -1)
        for layer, norm in zip(self.layers, self.norms, strict=False):
            y = nnx.relu(norm(layer(y)))
        return self.layers[-1](y).reshape(x.shape)


def _autoencoder_in_evaluation_mode(faulty: bool, seed: int) -> Trained:
    """Trains an autoencoder whose norms have the flag of training off, as by default."""

    def step(model: Autoencoder, optimizer: nnx.Optimizer[Any], x: jax.Array) -> jax.Array:
        loss, grads = nnx.value_and_grad(lambda model: squared_error(model(x), x))(model)
        optimizer.update(model, grads)
        return loss

    (_, x), (_, test_x) = heat_maps()
    model = Autoencoder(nnx.Rngs(seed))
    if faulty:
        model.set_attributes(nnx.BatchNorm, use_running_average=True)
    batches = batches_of((x,), size=50, steps=250, seed=seed)
    record = run_nnx(step, model, optax.sgd(0.8, momentum=0.9), batches)
    return Trained(record, explained(predict(model, test_x), test_x))


_STATISTICS, _RUNNING = "batch-norm statistics", "running statistics used in training"
_GITHUB = "https://github.com/"

REPORTED: tuple[ReportedFault, ...] = (
    ReportedFault(
        "segmentation without an average of the statistics",
        _GITHUB + "hiwonjoon/tf-frrn/issues/2",
        _STATISTICS,
        _statistics_never_updated,
        "linen",
        0.6,
    ),
    ReportedFault(
        "too few batches for the running statistics",
        "https://w3toppers.com/"
        "resnet-100-accuracy-during-training-but-33-prediction-accuracy-with-the-same-data/",
        _STATISTICS,
        _too_few_batches,
        "nnx",
        0.85,
    ),
    ReportedFault(
        "second pass in evaluation mode",
        _GITHUB + "davda54/sam/issues/30",
        _RUNNING,
        _second_pass_in_evaluation_mode,
        "linen",
        0.8,
    ),
    ReportedFault(
        "autoencoder with the default of its norms",
        _GITHUB + "dmzou/RSRAE/issues/2",
        _RUNNING,
        _autoencoder_in_evaluation_mode,
        "nnx",
        0.8,
    ),
)
