"""The training loops of the zoo, in Flax NNX and with parameters that are apart."""

from collections.abc import Callable, Iterable
from dataclasses import replace
from typing import Any

import jax
import numpy as np
import optax
from flax import nnx

from experiments.diagnosis_study.healthy.architectures import ZooArchitecture
from experiments.diagnosis_study.healthy.layer_maker import Style
from experiments.diagnosis_study.healthy.optimisers import Optimiser
from experiments.diagnosis_study.healthy.task_data import HostArray, TaskSplit
from experiments.diagnosis_study.healthy.tasks import Loss, Task
from experiments.diagnosis_study.user_loops import Trained, batches_of, run_nnx, run_pure

PRE_TRAINING_STEPS = 120  # of a backbone that is frozen later


def train(
    architecture: ZooArchitecture, task: Task, optimiser: Optimiser, style: Style, seed: int
) -> Trained:
    """Runs a training; returns its record and its score on the held-out examples."""
    optimiser = replace(optimiser, steps=style.longer * optimiser.steps)
    split = task.data(seed)
    model = architecture.build(task.outputs, style, seed)
    run = _train_nnx if architecture.library == "nnx" else _train_pure
    if optimiser.head_only:
        fresh = architecture.build(task.outputs, style, seed + 1)
        _pre_train(model, fresh.head, architecture.adam, task, split, seed)
    transform = optimiser.transformation(architecture)
    batches = task.batches(split.train, size=optimiser.batch, steps=optimiser.steps, seed=seed)
    return run(model, transform, task, optimiser, batches, split)


def nnx_step(loss: Loss) -> Callable[..., jax.Array]:
    """Returns a step of a model of Flax NNX, not compiled."""

    def train_step(model: Any, optimizer: nnx.Optimizer, x: jax.Array, y: jax.Array) -> jax.Array:
        def loss_of(model: Any) -> jax.Array:
            return loss(model(x), y)

        value, grads = nnx.value_and_grad(loss_of)(model)
        optimizer.update(model, grads)
        return value

    return train_step


def averaging_step(loss: Loss, decay: float) -> Callable[..., jax.Array]:
    """Returns a step that also moves a second model, whose parameters are an average."""
    plain = nnx_step(loss)

    def train_step(
        model: Any, optimizer: nnx.Optimizer, x: jax.Array, y: jax.Array, average: Any
    ) -> jax.Array:
        value = plain(model, optimizer, x, y)
        old, new = nnx.state(average, nnx.Param), nnx.state(model, nnx.Param)
        nnx.update(average, jax.tree.map(lambda a, b: decay * a + (1 - decay) * b, old, new))
        return value

    return train_step


def pure_step(
    apply: Callable[..., tuple[jax.Array, Any]], transform: optax.GradientTransformation, loss: Loss
) -> Callable[..., Any]:
    """Returns a step of parameters, other variables and the optimiser's state, not compiled.

    Args:
      apply: returns outputs and new variables, given all variables and inputs.
      transform: the optimiser.
      loss: of outputs and targets.
    """

    def train_step(params: Any, others: Any, opt_state: Any, x: jax.Array, y: jax.Array) -> Any:
        def loss_of(params: Any) -> tuple[jax.Array, Any]:
            outputs, new = apply({"params": params, **others}, x)
            return loss(outputs, y), new

        (value, others), grads = jax.value_and_grad(loss_of, has_aux=True)(params)
        updates, opt_state = transform.update(grads, opt_state, params)
        return optax.apply_updates(params, updates), others, opt_state, value

    return train_step


def _train_nnx(
    model: Any,
    transform: optax.GradientTransformation,
    task: Task,
    optimiser: Optimiser,
    batches: Iterable[tuple[Any, ...]],
    split: TaskSplit,
) -> Trained:
    step, evaluated = nnx_step(task.goal.loss), model
    if optimiser.average:
        evaluated = nnx.clone(model)
        step = averaging_step(task.goal.loss, optimiser.average)
        batches = ((*batch, evaluated) for batch in batches)
    record = run_nnx(step, model, transform, batches)
    if optimiser.average:
        nnx.update(evaluated, nnx.state(model, nnx.BatchStat))
    evaluated.eval()
    outputs = nnx.jit(lambda model, x: model(x))(evaluated, split.test.x)
    return Trained(record, task.goal.score(_numbers(outputs), split.test.y))


def _train_pure(
    model: Any,
    transform: optax.GradientTransformation,
    task: Task,
    optimiser: Optimiser,
    batches: Iterable[tuple[Any, ...]],
    split: TaskSplit,
) -> Trained:
    others = dict(model.init())
    params = others.pop("params")
    step = pure_step(model.apply, transform, task.goal.loss)
    state = (params, others, transform.init(params))
    record, (params, others, _) = run_pure(step, state, batches)
    outputs = jax.jit(model.predict)({"params": params, **others}, split.test.x)
    return Trained(record, task.goal.score(_numbers(outputs), split.test.y))


def _pre_train(model: Any, head: Any, rate: float, task: Task, split: TaskSplit, seed: int) -> None:
    """Trains a whole model without a record, then gives it a new last layer."""
    step = nnx.jit(nnx_step(task.goal.loss))
    optimizer = nnx.Optimizer(model, optax.adam(rate), wrt=nnx.Param)
    arrays = (split.train.x, split.train.y)
    for x, y in batches_of(arrays, size=64, steps=PRE_TRAINING_STEPS, seed=seed + 1):
        step(model, optimizer, x, y)
    model.head = head


def _numbers(outputs: jax.Array) -> HostArray:
    return np.asarray(outputs)
