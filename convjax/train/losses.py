"""Losses and metrics: functions of the model's outputs and the labels, one number per example.

A loss or metric of one's own is such a function. It returns the shape (N,); from (N, …), such as
one number per pixel, the mean over the other axes is taken.
"""

from collections.abc import Callable, Mapping, Sequence
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
import optax
from jaxtyping import Array, Float, Num, Shaped

from convjax._checks import check_function, describe_value
from convjax._precision import at_least_float32

# From outputs and labels to one number, or truth value, per example.
PerExample = Callable[[Any, Any], Any]


def cross_entropy(
    logits: Float[Array, "N ... K"], labels: Num[Array, "N ..."]
) -> Float[Array, "N ..."]:
    """Returns −log softmax(logits)[label] per example or pixel, in float32 or wider.

    Args:
      logits: one for each of K classes.
      labels: classes from 0, without the axis K; or probabilities of the classes, with it.

    Examples:
      >>> import jax.numpy as jnp
      >>> from convjax.train import cross_entropy
      >>> logits = jnp.array([[0.0, 0.0], [2.0, 0.0]])
      >>> [round(float(loss), 4) for loss in cross_entropy(logits, jnp.array([1, 0]))]
      [0.6931, 0.1269]
    """
    logits = at_least_float32(logits)
    if labels.shape not in (logits.shape, logits.shape[:-1]):
        raise ValueError(
            f"labels must be one class per row of the logits {logits.shape}, shape "
            f"{logits.shape[:-1]}, or one probability per logit, got the shape {labels.shape}. "
            "They would be broadcast."
        )
    if labels.shape == logits.shape:
        return optax.softmax_cross_entropy(logits, labels)
    return optax.softmax_cross_entropy_with_integer_labels(logits, labels)


def binary_cross_entropy(
    logits: Float[Array, "N ..."], labels: Num[Array, "N ..."]
) -> Float[Array, "N ..."]:
    """Returns the cross entropy of each logit with its label from 0 to 1, in float32 or wider.

    For one logit per example, or for many labels of which each may be true.

    Args:
      logits: (N,), (N, 1) or one for each of K labels, (N, K).
      labels: as many.

    Examples:
      >>> import jax.numpy as jnp
      >>> from convjax.train import binary_cross_entropy
      >>> losses = binary_cross_entropy(jnp.zeros((2, 1)), jnp.array([1, 0]))
      >>> [round(float(loss), 4) for loss in losses]
      [0.6931, 0.6931]
    """
    logits = at_least_float32(logits)
    labels = _like(labels, logits)
    return optax.sigmoid_binary_cross_entropy(logits.reshape(labels.shape), labels)


def squared_error(
    outputs: Float[Array, "N ..."], labels: Num[Array, "N ..."]
) -> Float[Array, "N ..."]:
    """Returns the square of each difference, in float32 or wider; for regression.

    Args:
      outputs: as many as labels; (N, 1) for labels (N,), too.
      labels: the values.

    Examples:
      >>> import jax.numpy as jnp
      >>> from convjax.train import squared_error
      >>> squared_error(jnp.array([[1.0], [5.0]]), jnp.array([3.0, 4.0])).tolist()
      [4.0, 1.0]
    """
    outputs = at_least_float32(outputs)
    labels = _like(labels, outputs)
    return jnp.square(outputs.reshape(labels.shape) - labels)


def accuracy(outputs: Float[Array, "N ..."], labels: Num[Array, "N ..."]) -> Shaped[Array, "N ..."]:
    """Returns whether each answer is right.

    The answer is the class of the largest of K outputs, and the label a class, or the largest of K
    probabilities. A single output answers 1 where it is positive.

    Examples:
      >>> import jax.numpy as jnp
      >>> from convjax.train import accuracy
      >>> accuracy(jnp.array([[0.1, 0.9], [0.8, 0.2]]), jnp.array([1, 1])).tolist()
      [True, False]
    """
    if outputs.ndim > 1 and outputs.shape[-1] > 1:
        if labels.shape == outputs.shape:
            return jnp.argmax(outputs, -1) == jnp.argmax(labels, -1)
        if labels.shape == outputs.shape[:-1]:
            return jnp.argmax(outputs, -1) == labels
    return binary_accuracy(outputs, labels)


def binary_accuracy(
    outputs: Float[Array, "N ..."], labels: Num[Array, "N ..."]
) -> Shaped[Array, "N ..."]:
    """Returns whether each output is positive where its label is 1, of many labels.

    Examples:
      >>> import jax.numpy as jnp
      >>> from convjax.train import binary_accuracy
      >>> binary_accuracy(jnp.array([[2.0, -1.0]]), jnp.array([[1, 1]])).tolist()
      [[True, False]]
    """
    labels = _like(labels, outputs)
    return (outputs.reshape(labels.shape) > 0) == (labels > 0.5)


def top_k_accuracy(k: int) -> PerExample:
    """Returns a metric: whether the label is among the classes of the k largest outputs.

    Examples:
      >>> import jax.numpy as jnp
      >>> from convjax.train import top_k_accuracy
      >>> top_k_accuracy(2)(jnp.array([[0.1, 0.5, 0.4]]), jnp.array([2])).tolist()
      [True]
    """

    def metric(outputs: Any, labels: Any) -> Any:
        _, classes = jax.lax.top_k(outputs, min(k, outputs.shape[-1]))
        return jnp.any(classes == labels[..., None], -1)

    metric.__name__ = f"top_{k}_accuracy"
    return metric


def _like(labels: Any, outputs: Any) -> Any:
    """Returns labels in float32 or wider, checked to be as many as the outputs."""
    same = labels.shape == outputs.shape
    if not same and (*labels.shape, 1) != outputs.shape and labels.shape != (*outputs.shape, 1):
        raise ValueError(
            f"labels must have the shape of the outputs, {outputs.shape}, got {labels.shape}. "
            "They would be broadcast, and each output compared with every label."
        )
    return at_least_float32(jnp.asarray(labels, jnp.promote_types(labels.dtype, jnp.float32)))


def default_metrics(loss: PerExample) -> dict[str, PerExample] | None:
    """Returns the metrics that go with a loss; None if its labels decide."""
    known: dict[PerExample, dict[str, PerExample]] = {
        cross_entropy: {"accuracy": accuracy},
        binary_cross_entropy: {"accuracy": binary_accuracy},
        squared_error: {},
    }
    return known.get(loss)


def named_metrics(
    metrics: Mapping[str, PerExample] | Sequence[PerExample] | None, loss: PerExample
) -> dict[str, PerExample] | None:
    """Returns the metrics of a trainer by name; None if the labels decide.

    Raises:
      TypeError: if a metric is not a function.
      ValueError: if two have one name, or a name that a row of metrics has otherwise.
    """
    if metrics is None:
        return default_metrics(loss)
    if isinstance(metrics, Mapping):
        pairs = list(metrics.items())
    elif isinstance(metrics, Sequence) and not isinstance(metrics, str):
        pairs = [(_name(metric), metric) for metric in metrics]
    else:
        raise TypeError(
            "metrics must be functions of outputs and labels, in a list or by name, got "
            f"{describe_value(metrics)}. Pass [convjax.train.accuracy]."
        )
    for name, metric in pairs:
        check_function(f"metrics[{name!r}]", metric, "from outputs and labels to one per example")
    names = [name for name, _ in pairs]
    taken = {"epoch", "step", "train_loss", "valid_loss", "seconds", "compile_seconds"}
    for name in names:
        if names.count(name) > 1 or name in taken:
            raise ValueError(
                f"metrics must have names of their own, got {name!r}. Pass a dictionary of "
                "functions by name."
            )
    return dict(pairs)


def _name(metric: Any) -> str:
    inner = metric.func if isinstance(metric, partial) else metric
    return getattr(inner, "__name__", type(inner).__name__)


def answers_classes(outputs: Any, labels: Any) -> bool:
    """Returns whether labels are whole numbers, and outputs several numbers for each.

    A single output may answer yes or no, or be a value such as an age: its metrics must be given.
    """
    whole = jnp.issubdtype(labels.dtype, jnp.integer) and labels.ndim == 1
    return bool(whole and outputs.ndim == 2 and outputs.shape[-1] > 1)


def per_example(values: Any) -> Any:
    """Returns one number per example: the mean over all axes but the first."""
    return values if values.ndim < 2 else jnp.mean(values, tuple(range(1, values.ndim)))
