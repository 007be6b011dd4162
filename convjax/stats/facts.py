"""Facts of a batch that tell how its output, labels and loss fit together, as numbers.

They are what one would print before a training: the range of the output, the range and kinds of
the labels, and the losses that this output and these labels have by the usual formulas. A few
operations on the output alone; nothing is taken of hidden layers.
"""

import math
from collections.abc import Mapping, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, Int

from convjax.stats.merging import mean_of_rows

# Classes whose frequencies are counted where the number of outputs does not say how many there are.
_CLASSES = 64

# Probabilities are at least this where a logarithm is taken of them.
_LEAST = 1e-30


def batch_facts(output: Any, labels: Any) -> dict[str, Float[Array, ""]]:
    """Returns the facts of a batch by name; those that cannot be taken are missing.

    - "outputs", "examples": the last axis of the output (1 without one), and its first.
    - "output low", "output high": of its finite values.
    - "output not finite": share of its values.
    - "output sum low", "output sum high": of its sums over the last axis.
    - "label low", "label high"; "label not whole": share that are not whole numbers.
    - "label size": number of labels of an example.
    - "label sum low", "label sum high": of its sums over the last axis, where labels have the shape
      of the outputs; and "label mixture", their mean entropy in nats.
    - "label entropy by output": of labels with the shape of the outputs, mean over the outputs:
      the binary cross entropy of the best constant answer; and "label entropy of each", that of
      the labels themselves, which is above 0 for fractions.
    - "label entropy": of the labels' classes in the batch, in nats, with the correction of Miller
      and Madow for small batches; and "label classes", how many different ones.
    - "loss of logits", "loss of probabilities": the cross entropy, if the output is one or the
      other; over labels that are classes, NaN if there are none.
    - "squared error", "absolute error": means, and "hinge loss", for labels of -1 and 1.
    - "squared error of pairs", "absolute error of pairs", "loss of pairs" (of logits): those of
      each output with each target, as two shapes that broadcast have it.

    A record may have two more: "dropout noise", see `convjax.nn.outputs.LayerOutputs`, and "loss by
    hand", 1 where outputs and labels are those that the step's program compares.

    Args:
      output: of the network, (N, …, K) or (N,).
      labels: as the loss gets them, or None.

    Examples:
      >>> import jax.numpy as jnp
      >>> from convjax.stats.facts import batch_facts
      >>> facts = batch_facts(jnp.array([[0.5, 0.5], [0.25, 0.75]]), jnp.array([0, 1]))
      >>> {name: round(float(facts[name]), 3) for name in ("output sum high", "label classes")}
      {'output sum high': 1.0, 'label classes': 2.0}
      >>> round(float(facts["loss of probabilities"]), 3)
      0.49
    """
    found: dict[str, Any] = {}
    if _is_real(output) and output.ndim:
        found |= _of_output(output)
    if _is_real(labels) and labels.ndim:
        found |= _of_labels(labels, output)
        if "outputs" in found:
            found |= _losses(output.astype(jnp.float32), labels)
    return {name: jnp.asarray(value, jnp.float32) for name, value in found.items()}


def _is_real(x: Any) -> bool:
    kinds = jnp.floating, jnp.integer
    known = isinstance(x, jax.Array | np.ndarray) and x.size > 0
    return known and any(jnp.issubdtype(x.dtype, kind) for kind in kinds)


def _of_output(output: Any) -> dict[str, Any]:
    x = output.astype(jnp.float32)
    finite = jnp.isfinite(x)
    found = {
        "outputs": x.shape[-1] if x.ndim > 1 else 1,
        "examples": len(x),
        "output low": jnp.min(jnp.where(finite, x, jnp.inf)),
        "output high": jnp.max(jnp.where(finite, x, -jnp.inf)),
        "output not finite": jnp.mean(~finite),
    }
    if x.ndim > 1 and x.shape[-1] > 1:
        sums = jnp.sum(x, -1)
        found |= {"output sum low": jnp.min(sums), "output sum high": jnp.max(sums)}
    return found


def _of_labels(labels: Any, output: Any) -> dict[str, Any]:
    y = labels.astype(jnp.float32)
    found = {
        "label low": jnp.min(y),
        "label high": jnp.max(y),
        "label not whole": jnp.mean(y != jnp.round(y)),
        "label size": y.size / len(y),
    }
    if _is_real(output) and labels.shape == output.shape:
        rows = y.reshape(-1, y.shape[-1] if y.ndim > 1 else 1)
        shares = jnp.clip(jnp.mean(rows, 0), 0, 1)
        logs = shares * jnp.log(shares + _LEAST) + (1 - shares) * jnp.log(1 - shares + _LEAST)
        both = (shares > 0) & (shares < 1)  # of Miller and Madow, for two classes
        found["label entropy by output"] = jnp.mean(both / (2 * len(rows)) - logs)
        part = jnp.clip(y, 0, 1)
        each = part * jnp.log(part + _LEAST) + (1 - part) * jnp.log(1 - part + _LEAST)
        found["label entropy of each"] = -jnp.mean(each)
    classes = _CLASSES
    if _is_real(output) and output.ndim == labels.ndim + 1:
        classes = max(output.shape[-1], 2)
    counts = _class_counts(y, classes)
    if y.ndim > 1 and _is_real(output) and y.shape == output.shape and y.shape[-1] > 1:
        # One row of probabilities per example.
        rows = y.reshape(-1, y.shape[-1])
        counts, sums = jnp.sum(rows, 0), jnp.sum(rows, -1)
        logs = jnp.log(jnp.clip(rows, _LEAST, None))
        found |= {
            "label sum low": jnp.min(sums),
            "label sum high": jnp.max(sums),
            "label mixture": -jnp.mean(jnp.sum(jnp.where(rows > 0, rows * logs, 0), -1)),
        }
    total = jnp.sum(counts)
    shares = counts / jnp.maximum(total, 1e-9)
    present = jnp.sum(counts > 0)
    entropy = -jnp.sum(jnp.where(shares > 0, shares * jnp.log(jnp.maximum(shares, _LEAST)), 0))
    corrected = entropy + (present - 1) / (2 * jnp.maximum(total, 1))
    return found | {"label entropy": corrected, "label classes": present}


def _class_counts(y: Any, classes: int) -> Any:
    """Returns how often each of 0 … classes − 1 occurs; other numbers count with the nearest."""
    # Rounded: 0.9 and 0.1 are the two classes of smoothed labels.
    index = jnp.clip(jnp.round(jnp.nan_to_num(y)), 0, classes - 1).astype(jnp.int32).reshape(-1)
    if classes * index.size > 2**22:  # a language model: comparisons would be too many
        return jnp.zeros(classes, jnp.float32).at[index].add(1.0)
    return jnp.sum(index[:, None] == jnp.arange(classes), 0, dtype=jnp.float32)


def _losses(x: Any, labels: Any) -> dict[str, Any]:
    y = labels.astype(jnp.float32)
    found: dict[str, Any] = {}
    if labels.shape == x.shape[:-1] and x.shape[-1] > 1:
        classes = x.shape[-1]
        inside = (y >= 0) & (y < classes)
        index = jnp.clip(jnp.nan_to_num(y), 0, classes - 1).astype(jnp.int32)[..., None]
        of_logits = -jnp.take_along_axis(jax.nn.log_softmax(x), index, -1)[..., 0]
        of_shares = -jnp.log(jnp.maximum(jnp.take_along_axis(x, index, -1)[..., 0], _LEAST))
        number = jnp.sum(inside)
        found["loss of logits"] = jnp.sum(jnp.where(inside, of_logits, 0)) / number
        found["loss of probabilities"] = jnp.sum(jnp.where(inside, of_shares, 0)) / number
    elif x.size == y.size:
        flat, targets = x.reshape(-1), y.reshape(-1)
        if x.shape == y.shape and x.ndim > 1 and x.shape[-1] > 1:
            in_rows = jnp.abs(jnp.sum(y, -1) - 1).max() < 1e-3
            softmax = -jnp.mean(jnp.sum(y * jax.nn.log_softmax(x), -1))
            of_shares = -jnp.mean(jnp.sum(y * jnp.log(jnp.maximum(x, _LEAST)), -1))
        else:
            in_rows, softmax, of_shares = jnp.array(False), jnp.zeros(()), jnp.zeros(())
        binary = jnp.mean(jax.nn.softplus(flat) - targets * flat)
        share = jnp.clip(flat, _LEAST, 1)
        rest = jnp.maximum(1 - flat, 1e-7)
        of_binary = -jnp.mean(targets * jnp.log(share) + (1 - targets) * jnp.log(rest))
        found["loss of logits"] = jnp.where(in_rows, softmax, binary)
        found["loss of probabilities"] = jnp.where(in_rows, of_shares, of_binary)
        found["squared error"] = jnp.mean(jnp.square(flat - targets))
        found["absolute error"] = jnp.mean(jnp.abs(flat - targets))
        found["hinge loss"] = jnp.mean(jax.nn.relu(1 - targets * flat))
        if len(x) == len(y) and x.size < _broadcast_size(x.shape, y.shape) <= 2**22:
            apart = x - y  # (N, 1, …) and (N, …) are (N, N, …); the compiler does not store it
            found["squared error of pairs"] = jnp.mean(jnp.square(apart))
            found["absolute error of pairs"] = jnp.mean(jnp.abs(apart))
            found["loss of pairs"] = jnp.mean(jax.nn.softplus(flat)) - jnp.mean(x * y)
    return found


def _broadcast_size(*shapes: tuple[int, ...]) -> int:
    """Returns how many numbers an operation on two arrays results in, 0 if it has no result."""
    try:
        return math.prod(np.broadcast_shapes(*shapes))
    except ValueError:
        return 0


def merge_facts(
    facts: Mapping[str, Any], weights: Int[np.ndarray, " S"], starts: Int[np.ndarray, " G"]
) -> dict[str, Float[np.ndarray, " G"]]:
    """Returns facts with groups of neighbouring rows merged.

    Those that end in "low" or "high" are the lowest or highest of the group, and others the mean
    of those that were taken.

    Args:
      facts: by name, (S,) with the row first.
      weights: number of steps of each row.
      starts: the first row of each group, from 0 up.
    """
    found: dict[str, Any] = {}
    for name, column in facts.items():
        column = np.asarray(column, np.float32)
        if name.endswith("low"):
            found[name] = np.fmin.reduceat(column, starts)
        elif name.endswith("high"):
            found[name] = np.fmax.reduceat(column, starts)
        else:
            found[name] = mean_of_rows(column, weights * ~np.isnan(column), starts)
    return found


def merge_members(facts: Mapping[str, Any]) -> dict[str, Float[np.ndarray, "..."]]:
    """Returns facts whose first axis, of members or devices, is merged as `merge_facts` does."""
    found: dict[str, Any] = {}
    for name, members in facts.items():
        columns = np.asarray(members, np.float32)
        merge = np.fmin if name.endswith("low") else np.fmax if name.endswith("high") else None
        if merge is not None:
            found[name] = np.asarray(merge.reduce(columns, axis=0))
            continue
        taken = ~np.isnan(columns)
        with np.errstate(invalid="ignore", over="ignore"):  # of a training that diverged
            mean = np.sum(columns, 0, where=taken) / taken.sum(0, dtype=np.float32)
        found[name] = np.asarray(mean)
    return found


def join_facts(
    parts: Sequence[tuple[Mapping[str, Any], int]],
) -> dict[str, Float[np.ndarray, " S"]]:
    """Returns the facts of successive parts of a training, NaN where a part lacks one.

    Args:
      parts: the facts of each, and its number of rows.
    """
    names = dict.fromkeys(name for facts, _ in parts for name in facts)
    lacking = np.float32(np.nan)
    return {
        name: np.concatenate(
            [
                np.asarray(facts.get(name, np.full(rows, lacking)), np.float32)
                for facts, rows in parts
            ]
        )
        for name in names
    }
