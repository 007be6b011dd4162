"""Further reported faults of the evaluation, which uses a wrong average of the weights.

The loops pass the loss of their own evaluation to `Recorder.add`.
"""

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import optax

import convjax
from experiments.diagnosis_study.reported.data_networks import (
    cross_entropy,
    dense,
    dense_params,
    squared_error,
)
from experiments.diagnosis_study.reported.data_tasks import accuracy, digits, explained, houses
from experiments.diagnosis_study.reported.evaluation import pure_step
from experiments.diagnosis_study.reported.reported_fault import ReportedFault
from experiments.diagnosis_study.user_loops import Trained, batches_of


def _averaged(
    seed: int,
    sizes: tuple[int, ...],
    arrays: tuple[Any, Any],
    tx: optax.GradientTransformation,
    average: Callable[[Any, Any], Any],
    loss_of: Callable[..., jax.Array],
    *,
    labels: bool,
) -> tuple[convjax.Record, Any]:
    """Returns the record of a loop that evaluates an average of its weights, and that average.

    Args:
      seed: of the weights and of the order.
      sizes: of the layers.
      arrays: inputs and targets.
      tx: the optimiser.
      average: returns the new average, given the old one and the weights.
      loss_of: returns the loss, given output and targets.
      labels: whether the targets are labels.
    """
    params: Any = {f"dense{i}": layer for i, layer in enumerate(dense_params(seed, sizes))}

    def network(params: Any, x: jax.Array) -> jax.Array:
        return dense(list(params.values()), x)

    recorder, step = convjax.Recorder(), pure_step(network, loss_of, tx, labels=labels)
    evaluate = jax.jit(lambda params, x, y: loss_of(network(params, x), y))
    opt_state, averaged = tx.init(params), params
    for x, y in batches_of(arrays, size=50, steps=240, seed=seed):
        params, opt_state, *result = step(params, opt_state, x, y)
        averaged = average(averaged, params)
        recorder.add(*result, eval_loss=evaluate(averaged, x, y))
    return recorder.record(), list(averaged.values())


def _average_pushed_away(faulty: bool, seed: int) -> Trained:
    """Adds the difference of average and weights to the average, instead of subtracting it."""
    task, sign = houses(), 1.0 if faulty else -1.0

    def average(averaged: Any, params: Any) -> Any:
        return jax.tree.map(lambda a, p: a + sign * 0.05 * (a - p), averaged, params)

    options = {"tx": optax.adam(5e-3), "average": average, "loss_of": squared_error}
    arrays = task.x, task.y
    record, params = _averaged(seed, (8, 48, 48, 1), arrays, labels=False, **options)
    return Trained(record, explained(dense(params, jnp.asarray(task.test_x)), task.test_y))


def _names_of_a_wrapper(faulty: bool, seed: int) -> Trained:
    """Averages weights by name, where a wrapper puts a word before each name, so that none fit."""
    task, prefix = digits(), "compiled." if faulty else ""

    def average(averaged: dict[str, Any], params: dict[str, Any]) -> dict[str, Any]:
        wrapped = {prefix + name: layer for name, layer in params.items()}
        return {
            name: jax.tree.map(lambda a, p: 0.9 * a + 0.1 * p, layer, wrapped[name])
            if name in wrapped
            else layer
            for name, layer in averaged.items()
        }

    options = {"tx": optax.adamw(2e-3), "average": average, "loss_of": cross_entropy}
    arrays = task.x, task.y
    record, params = _averaged(seed, (784, 64, 10), arrays, labels=True, **options)
    return Trained(record, accuracy(dense(params, jnp.asarray(task.test_x)), task.test_y))


_OTHER = "evaluation of other parameters"
_GITHUB = "https://github.com/"

REPORTED: tuple[ReportedFault, ...] = (
    ReportedFault(
        "average that is pushed away from the weights",
        _GITHUB + "ostris/ai-toolkit/issues/1034",
        _OTHER,
        _average_pushed_away,
        "optax",
        0.7,
    ),
    ReportedFault(
        "average by names that do not fit",
        _GITHUB + "wandb/senpai/pull/2899",
        _OTHER,
        _names_of_a_wrapper,
        "optax",
        0.8,
    ),
)
