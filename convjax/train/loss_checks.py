"""Checks that outputs, labels, loss and metrics fit together."""

from collections.abc import Callable, Mapping
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax.extend.core import Literal

from convjax.train.losses import (
    PerExample,
    binary_cross_entropy,
    cross_entropy,
    per_example,
    squared_error,
)

# So many examples for each output, and the largest label tells how many classes there are; and so
# many outputs for each of these are too many.
EXAMPLES_PER_OUTPUT, OUTPUTS_PER_CLASS = 4, 4

_COUNTS = "Pass what only counts answers as one of the metrics."


def check_labels(labels: Any, logits: tuple[int, ...]) -> None:
    """Checks that every label has a logit, because cross entropy is NaN without it.

    Args:
      labels: of N examples.
      logits: shape of the logits of any number of examples.

    Raises:
      TypeError: if they are neither whole numbers nor probabilities.
      ValueError: if their shape does not fit the logits', or one is negative or too large.
    """
    if len(logits) < 2:
        raise ValueError(
            f"model must return logits (N, classes) for the cross entropy, got the shape {logits} "
            "for 2 examples. For one logit per example pass "
            "loss=convjax.train.binary_cross_entropy."
        )
    *positions, classes = logits[1:]
    if labels.shape[1:] == logits[1:] and jnp.issubdtype(labels.dtype, jnp.floating):
        apart = float(jnp.abs(jnp.sum(jnp.asarray(labels), -1) - 1).max())
        if not (apart <= 1e-2 and float(labels.min()) >= 0):  # NaN is neither
            raise ValueError(
                "labels of the shape of the logits must be probabilities that sum to 1 for the "
                f"cross entropy, got sums that differ from it by up to {apart:.3g}. Where several "
                "may be true, pass loss=convjax.train.binary_cross_entropy."
            )
        return
    if labels.shape[1:] == tuple(positions) and jnp.issubdtype(labels.dtype, jnp.floating):
        raise TypeError(
            f"labels must be one whole number per example for the cross entropy, got "
            f"{labels.dtype}. Convert classes with labels.astype(np.int32); for values pass "
            "loss=convjax.train.squared_error."
        )
    if labels.shape[1:] != tuple(positions) or not jnp.issubdtype(labels.dtype, jnp.integer):
        error = TypeError if labels.shape[1:] == tuple(positions) else ValueError
        raise error(
            f"labels must be one whole number per example, or one probability per logit, got "
            f"{labels.dtype} of the shape {labels.shape} for logits of the shape (N, "
            f"{', '.join(map(str, logits[1:]))}). Convert one-hot rows of whole numbers with "
            "labels.argmax(-1), and truth values with labels.astype(np.int32)."
        )
    lowest, highest = int(labels.min()), int(labels.max())
    if lowest < 0:
        raise ValueError(f"labels must be 0 or above, got {lowest}.")
    if highest >= classes:
        advice = "Number the classes from 0."
        if classes == 1:
            advice = "For one logit pass loss=convjax.train.binary_cross_entropy."
        raise ValueError(
            f"labels must be below the model's {classes} logits, got {highest}. {advice}"
        )


def check_shares(labels: Any) -> None:
    """Raises ValueError if labels of the binary cross entropy are not from 0 to 1."""
    lowest, highest = float(labels.min()), float(labels.max())
    if not 0 <= lowest <= highest <= 1:
        raise ValueError(
            f"labels must be from 0 to 1 for the binary cross entropy, got {lowest:g} to "
            f"{highest:g}. Renumber them: labels == 2, say."
        )


def check_losses(
    compared: Callable[[Any, Any], Mapping[str, PerExample]],
    labels: tuple[tuple[int, ...], Any],
    outputs: jax.ShapeDtypeStruct,
    *,
    training: bool,
) -> None:
    """Checks that a loss and metrics are one number per example, and the loss has a gradient.

    Args:
      compared: maps outputs and labels to the loss and the metrics by what messages call them.
      labels: shape and dtype of an example's.
      outputs: of any number of examples.
      training: whether the loss needs a gradient.

    Raises:
      ValueError: if one cannot take outputs and labels, is a single number, or has an axis that
        grows with the examples besides the first: outputs (N, 1) and labels (N,) broadcast to
        (N, N); or if the gradient of the loss is always 0.
      TypeError: if it is not of floating point.
    """
    two, three = (_losses(compared, labels, outputs, examples) for examples in (2, 3))
    for name, found in two.items():
        shape, other = _shape(found), _shape(three[name])
        if shape[:1] != (2,) or other[:1] != (3,):
            raise ValueError(
                f"{name} must return one number per example, shape (N,), got the shape {shape} for "
                "2 examples. Leave out the mean or sum over examples: the trainer takes it."
            )
        if shape[1:] != other[1:]:
            raise ValueError(
                f"{name} must return one number per example, got the shape {shape} for 2 examples: "
                "outputs and labels are broadcast, and each output compared with every label. Give "
                "both one shape: outputs[:, 0], say."
            )
        if training and name == "loss" and not jnp.issubdtype(found.dtype, jnp.floating):
            raise TypeError(
                f"loss must return numbers of floating point, got {found.dtype}, which has no "
                f"gradient. {_COUNTS}"
            )
    given = _arrays(labels, outputs, 2)
    if training and not _has_gradient(compared(*given)["loss"], *given):
        raise ValueError(
            "loss must have a gradient, got 0 for all outputs, as of argmax or a comparison. "
            f"{_COUNTS}"
        )


def _losses(compared: Any, labels: Any, outputs: Any, examples: int) -> dict[str, Any]:
    given, found = _arrays(labels, outputs, examples), {}
    for name, function in compared(*given).items():
        try:
            found[name] = jax.eval_shape(function, *given)
        except Exception as error:
            raise ValueError(
                f"{name} must take the model's outputs, {array_kind(given[0])} for {examples} "
                f"examples, and their labels, {array_kind(given[1])}: "
                f"{' '.join(str(error).split())}"
            ) from error
    return found


def _arrays(labels: Any, outputs: Any, examples: int) -> tuple[Any, Any]:
    return (
        jax.ShapeDtypeStruct((examples, *outputs.shape[1:]), outputs.dtype),
        jax.ShapeDtypeStruct((examples, *labels[0]), labels[1]),
    )


def _has_gradient(loss: PerExample, outputs: Any, labels: Any) -> bool:
    """Returns whether the gradient is computed; that of argmax is written as 0."""

    def total(outputs: Any, labels: Any) -> Any:
        return jnp.sum(loss(outputs, labels))

    program = jax.make_jaxpr(jax.grad(total))(outputs, labels).jaxpr
    (result,) = program.outvars
    made = [equation for equation in program.eqns if result in equation.outvars]
    values = [result] if not made else made[-1].invars
    return not all(isinstance(value, Literal) and not np.any(value.val) for value in values)


def _shape(found: Any) -> tuple[int, ...]:
    return tuple(getattr(found, "shape", ()))


def check_finite(name: str, array: Any) -> None:
    """Raises ValueError if numbers of floating point are not all finite."""
    if jnp.issubdtype(array.dtype, jnp.floating) and array.size:
        low, high = extent(array)
        if not (np.isfinite(low) and np.isfinite(high)):
            found = "NaN" if np.isnan(low) else f"{low if np.isinf(low) else high:g}"
            raise ValueError(
                f"{name} must be finite, got {found} among them. Replace what is not, or leave "
                "those examples out."
            )


def unlikely_labels(
    loss: PerExample, labels: Any, outputs: tuple[int, ...], maps: tuple[int, ...], training: bool
) -> str:
    """Returns what is unlikely about labels that the shapes and the loss allow; "" if nothing.

    Args:
      loss: of the training.
      labels: of N examples.
      outputs: shape of the outputs of any number of examples.
      maps: shape of the maps (N, …) that the network flattens to its outputs; empty if it does not.
      training: whether the labels are those of a training split, which has every class.

    Raises:
      ValueError: if a loss of one's own is not finite for one of them, or nearly all outputs have
        no class, because the network flattens maps.
    """
    own = loss not in (cross_entropy, binary_cross_entropy, squared_error)
    if not jnp.issubdtype(labels.dtype, jnp.integer) or len(outputs) < 2 or outputs[-1] < 2:
        return ""
    classes = outputs[-1]
    if own and labels.shape[1:] == (1,) and len(outputs) == 2:
        return (
            f"labels have the shape (N, 1), and the loss may compare each with all {classes} "
            "outputs. Classes have the shape (N,): labels[:, 0]."
        )
    if labels.shape[1:] != outputs[1:-1]:
        return ""
    low, high = extent(labels)
    wrong = [int(label) for label in (low, high) if not 0 <= label < classes]
    if own and wrong:
        _check_loss_of(loss, labels, outputs, wrong)
        if labels.ndim > 1:  # a class of pixels that the loss leaves out
            return ""
        return (
            f"labels are from {low:.0f} to {high:.0f}, and the model has the outputs 0 to "
            f"{classes - 1}: the loss may take one class for another, or for none. Number the "
            "classes from 0; for labels that are no classes pass metrics=[]."
        )
    # A test split may lack classes.
    many = len(labels) >= EXAMPLES_PER_OUTPUT * classes
    channels = [size for size in maps[1:2] + maps[-1:] if high < size < classes]
    if channels:
        message = (
            f"labels are at most {high:.0f}, and the model has {classes} outputs: it flattens maps "
            f"of the shape {maps[1:]}. Images are larger than the network is made for: add a "
            "convolution, or GlobalAvgPool."
        )
        if training and many and not own:
            raise ValueError(message)
        return message
    if training and many and classes >= OUTPUTS_PER_CLASS * (high + 1):
        return (
            f"labels are at most {high:.0f} in {len(labels):,} examples, and the model has "
            f"{classes} outputs. Make it with {high + 1:.0f}, or check the labels."
        )
    return ""


def _check_loss_of(loss: PerExample, labels: Any, outputs: tuple[int, ...], wrong: Any) -> None:
    """Raises ValueError if a loss is finite for class 0, and not for labels out of range."""
    even = jnp.full((2, *outputs[1:]), 1 / outputs[-1], jnp.float32)
    for label in wrong:
        given = np.zeros((2, *outputs[1:-1]), labels.dtype)
        given[1] = label
        right, found = per_example(loss(even, jnp.asarray(given)))
        if np.isfinite(right) and not np.isfinite(found):
            raise ValueError(
                f"labels must be from 0 to {outputs[-1] - 1}, one for each of the model's outputs, "
                f"got {label}, for which the loss is {found}. Number the classes from 0."
            )


def takes_softmax(loss: PerExample, outputs: tuple[int, ...], labels: Any) -> bool:
    """Returns whether a loss is a function of the softmax of its outputs.

    It is then the same if all outputs of an example grow by 1.

    Args:
      loss: takes outputs and labels.
      outputs: shape of those of two examples.
      labels: of one example or more.
    """
    given = jnp.sin(jnp.arange(np.prod(outputs), dtype=jnp.float32)).reshape(outputs)
    labels = jnp.asarray(np.asarray(labels[:1]).repeat(2, 0))
    found, moved = (np.asarray(per_example(loss(x, labels))) for x in (given, given + 1))
    return bool(np.isfinite(found).all() and np.allclose(found, moved, rtol=1e-4, atol=1e-5))


def extent(array: Any) -> tuple[float, float]:
    """Returns the lowest and the highest number; both are NaN if one of them is."""
    if isinstance(array, jax.Array):
        return tuple(map(float, _extent(array)))  # type: ignore[return-value]
    return float(array.min()), float(array.max())


@jax.jit
def _extent(array: jax.Array) -> tuple[jax.Array, jax.Array]:
    return jnp.min(array), jnp.max(array)


def array_kind(x: Any) -> str:
    """Returns the type of an array as in "float32[2, 3]"."""
    return f"{x.dtype}[{', '.join(map(str, x.shape))}]"
