"""The trainer of the diagnosis study: runs a `TrainingSpec`, returns its record and accuracy."""

import warnings
from collections.abc import Callable
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import numpy.typing as npt
import optax
from flax import linen, nnx

from convjax.data import Dataset, epoch_order, load, normalization
from convjax.nn._capture import capture
from convjax.nn.layers import BatchNorm
from convjax.optim import optimizers, schedules
from convjax.optim.optimizers import Optimizer, path_name
from convjax.stats.layers import layer_stats
from convjax.stats.parameters import parameter_stats
from convjax.stats.recorder import Recorder
from convjax.stats.watch import INPUT, LABELS, Watch
from convjax.train.device_data import Images
from convjax.train.losses import cross_entropy
from convjax.train.trainer import Trainer
from experiments.diagnosis_study.faults import WEIGHTS, TrainingSpec
from experiments.diagnosis_study.networks import CLASSES
from experiments.diagnosis_study.user_loops import Trained

MARKED_SHARE = 0.002  # of the examples are corrupt: about one in every eight batches of 64
LAGGING = 0.9999  # momentum of running statistics that hardly move
SLOW, FAST = 1e-6, 300.0  # factors on the rate of one kernel
BURST, BURST_EVERY, BURST_STEPS = 40.0, 66, 8  # of the rate, in the schedule of that name


def weighted_cross_entropy(logits: jax.Array, labels: jax.Array) -> jax.Array:
    """Returns the cross entropy of each example, times the weight that its label is marked with."""
    marks = labels // CLASSES
    losses = cross_entropy(logits, labels % CLASSES)
    # Selected before the product is used, because 0 times NaN would make every loss NaN.
    return jnp.where(marks == 0, losses, losses * jnp.asarray(WEIGHTS)[marks])


class UncheckedTrainer(Trainer):
    """A trainer that refuses no data: faults of labels are meant, and marks are added to them."""

    def check(self, *args: Any, **settings: Any) -> None:
        """Checks nothing."""


@dataclass
class StudyTrainer:
    """Runs trainings; keeps the data on the device and the programs of the last structure.

    Only the last structure is kept, because a process has room for about a hundred programs.

    Args:
      dataset: the embedded digits by default.
    """

    dataset: Dataset = field(default_factory=lambda: load("mnist5k"))
    _compiled: tuple[TrainingSpec, Any] | None = None

    @cached_property
    def images(self) -> Images:
        """The training images on the device."""
        return Images.put(self.dataset.train)

    @cached_property
    def test(self) -> Images:
        """The test images on the device."""
        return Images.put(self.dataset.test)

    def run(self, plan: TrainingSpec) -> Trained:
        """Runs a training; returns its record and the accuracy on the test images."""
        data = Images(self.images.images, jnp.asarray(self.labels(plan)))
        order = self.order(plan)
        if plan.architecture == "linen":
            return self._run_linen(plan, data, order)
        model = self.model(plan)
        trainer = self.trainer(plan)
        state, record = trainer.run(trainer.start(model), data, order, table(plan))
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # of images on a wrong scale, which are meant
            return Trained(record, trainer.evaluate(state, self.test).accuracy)

    def labels(self, plan: TrainingSpec) -> npt.NDArray[np.int32]:
        """Returns the labels of a training, with the marks of corrupt examples."""
        rng = np.random.default_rng(plan.seed)
        labels = np.array(self.dataset.train.labels, np.int32)
        if plan.labels == "shuffled":
            labels = rng.permutation(labels)
        elif plan.labels == "constant":
            labels[:] = rng.integers(CLASSES)
        marked = rng.choice(len(labels), round(MARKED_SHARE * len(labels)), replace=False)
        labels[marked] += CLASSES * plan.bad
        return labels

    def order(self, plan: TrainingSpec) -> npt.NDArray[np.integer[Any]]:
        """Returns the image indices of each batch, (steps, batch)."""
        size, examples = plan.batch_size, len(self.dataset.train.labels)
        epochs = -(-plan.steps // (examples // size))
        orders = [epoch_order(examples, size, seed=plan.seed, epoch=e) for e in range(epochs)]
        return np.concatenate(orders)[: plan.steps]

    def model(self, plan: TrainingSpec) -> nnx.Module:
        """Returns the network with its initial parameters, including faults."""
        model = plan.network.build(plan.seed)
        for module in (m for _, m in nnx.iter_modules(model)):
            if plan.lag and isinstance(module, BatchNorm):
                module.momentum = LAGGING
        params = nnx.state(model, nnx.Param)
        nnx.update(model, with_fault(params, plan))
        return model

    def compiled(self, plan: TrainingSpec, make: Callable[[], Any]) -> Any:
        """Returns the program of a structure, compiled by `make` unless it is that of the last."""
        if self._compiled is None or self._compiled[0] != plan.structure:
            self._compiled = None
            jax.clear_caches()
            self._compiled = plan.structure, make()
        return self._compiled[1]

    def trainer(self, plan: TrainingSpec) -> Trainer:
        """Returns the trainer of a specification."""

        def make() -> Trainer:
            mean, std = self.scale(plan)
            model = self.model(plan)
            return UncheckedTrainer(
                model,
                optimizer(plan, nnx.state(model, nnx.Param)),
                mean=mean,
                std=std,
                loss=weighted_cross_entropy,
                watch=Watch.everything(),
            )

        found: Trainer = self.compiled(plan, make)
        return found

    def scale(self, plan: TrainingSpec) -> tuple[Any, Any]:
        """Returns mean and std on the scale p/255; raw pixels are 0 to 255."""
        return (0.0, 1 / 255) if plan.raw else normalization(self.dataset.train.images)

    def _run_linen(
        self, plan: TrainingSpec, data: Images, order: npt.NDArray[np.integer[Any]]
    ) -> Trained:
        """Runs a training of a Linen model, in a custom loop."""
        model = plan.network.build(plan.seed)
        mean, std = self.scale(plan)

        def normalized(images: Any) -> jax.Array:
            return ((images / 255 - mean) / std).astype(jnp.float32)

        params = model.init(jax.random.key(plan.seed), normalized(data.images[:1]))["params"]
        params = with_fault(params, plan)
        chosen = optimizer(plan, params)
        opt_state = chosen.transform.init(params)
        step = self.compiled(plan, lambda: linen_step(model, chosen, normalized))
        recorder, rates = Recorder(), table(plan)
        for i, batch in enumerate(order):
            params, opt_state, loss, layers, parameters = step(
                params,
                opt_state,
                data.images[batch],
                data.labels[batch],
                rates["learning_rate"][i],
                rates["momentum"][i],
            )
            recorder.add(loss, layers, parameters, learning_rate=rates["learning_rate"][i])
        logits = model.apply({"params": params}, normalized(self.test.images))
        accuracy = float(jnp.mean(jnp.argmax(logits, -1) == self.test.labels))
        return Trained(recorder.record(), accuracy)


def linen_step(
    model: linen.Module, chosen: Optimizer, normalized: Callable[[jax.Array], jax.Array]
) -> Callable[..., Any]:
    """Returns the jitted step of a watched Linen model.

    Args:
      model: the network.
      chosen: the optimiser.
      normalized: normalises images.
    """

    @jax.jit
    def step(
        params: Any,
        opt_state: Any,
        images: jax.Array,
        labels: jax.Array,
        rate: jax.Array,
        momentum: jax.Array,
    ) -> Any:
        x = normalized(images)

        def loss_fn(params: Any) -> tuple[jax.Array, Any]:
            logits, outputs = capture(model, {"params": params}, x)
            layers = layer_stats({INPUT: x, LABELS: labels} | outputs, units=True)
            return jnp.mean(weighted_cross_entropy(logits, labels)), layers

        (loss, layers), grads = jax.value_and_grad(loss_fn, has_aux=True)(params)
        opt_state = chosen.set(opt_state, rate, momentum)
        updates, opt_state = chosen.transform.update(grads, opt_state, params)
        updated = optax.apply_updates(params, updates)
        parameters = parameter_stats(params, grads=grads, updated=updated)
        return updated, opt_state, loss, layers, parameters

    return step


def with_fault(params: Any, plan: TrainingSpec) -> Any:
    """Returns initial parameters with the specified `gain` and `sleep`."""

    def changed(path: Any, value: jax.Array) -> jax.Array:
        name = path_name(path)
        if name.endswith("kernel"):
            return value * plan.gain
        return value + plan.sleep if name == plan.network.hidden else value

    return jax.tree_util.tree_map_with_path(changed, params)


def optimizer(plan: TrainingSpec, params: Any) -> Optimizer:
    """Returns the optimiser, which may have another rate for one kernel."""
    paths = [path_name(path) for path, _ in jax.tree_util.tree_leaves_with_path(params)]
    second = [name for name in paths if name.endswith("kernel")][1]
    scale = None
    if plan.frozen or plan.fast:
        rates = (SLOW if plan.frozen else FAST, 1.0)
        scale = optimizers.group_scale(rates, lambda name: 0 if name == second else 1)
    make = optimizers.adam if plan.optimizer == "adam" else optimizers.sgd
    return make(group_scale=scale)


def table(plan: TrainingSpec) -> dict[str, jax.Array]:
    """Returns the learning rate and momentum of each step."""
    healthy = plan.network.adam if plan.optimizer == "adam" else plan.network.sgd
    rate, steps = plan.rate * healthy, plan.steps
    if plan.schedule == "constant":
        return schedules.constant(rate, 0.9).table(steps)
    if plan.schedule == "bursts":
        within = np.arange(steps) % BURST_EVERY
        rates = np.where(within < BURST_EVERY - BURST_STEPS, rate, BURST * rate)
        return {
            "learning_rate": jnp.asarray(rates, jnp.float32),
            "momentum": jnp.full(steps, 0.9),
        }
    share = 0.7 if plan.schedule == "long-warm-up" else 0.25
    return schedules.one_cycle(steps, 2 * rate, pct_start=share).table(steps)
