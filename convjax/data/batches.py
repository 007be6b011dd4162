"""The order in which an epoch visits the training examples."""

from __future__ import annotations

import operator

import numpy as np
from numpy.typing import NDArray

from convjax.data.dataset import DataError

_LARGEST = np.iinfo(np.int32).max


def epoch_order(
    num_examples: int,
    batch_size: int,
    *,
    seed: int,
    epoch: int,
    drop_last: bool = True,
) -> NDArray[np.int32]:
    """Example indices of every batch of one epoch.

    The permutation depends on `seed` and `epoch` alone: not on the JAX version, and not on the
    NumPy version either, because NumPy guarantees the streams of its bit generators but not those
    of `Generator.permutation`. Hence the stable sort of 64-bit random keys.

    Args:
        num_examples: how many examples there are, N.
        batch_size: examples per batch, B, at most N.
        seed: run's seed, 0 or more.
        epoch: number of the epoch, from 0.
        drop_last: leave out the N mod B examples that do not fill a batch (others each epoch).
            Otherwise they make a last batch, filled up with -1, which stands for no example.

    Returns:
        (steps, B) int32; `steps` is N // B with `drop_last`, else N / B rounded up. No example
        appears twice.

    Raises:
        DataError: for numbers below their minimum, and a batch larger than the data.
    """
    num_examples = _whole("num_examples", num_examples, 1)
    batch_size = _whole("batch_size", batch_size, 1)
    seed = _whole("seed", seed, 0)
    epoch = _whole("epoch", epoch, 0)
    if num_examples > _LARGEST:
        raise DataError(
            f"num_examples: got {num_examples}; indices are int32, so at most {_LARGEST}: "
            "split the data"
        )
    if batch_size > num_examples:
        raise DataError(
            f"batch_size: got {batch_size} for {num_examples} examples; a batch may not be larger "
            f"than the data: use at most {num_examples}"
        )
    # A spawn key, unlike a second word of entropy, keeps (seed, epoch) apart from every other pair.
    bits = np.random.PCG64(np.random.SeedSequence(seed, spawn_key=(epoch,)))
    order = np.argsort(bits.random_raw(num_examples), kind="stable").astype(np.int32)
    remainder = num_examples % batch_size
    if drop_last:
        order = order[: num_examples - remainder]
    elif remainder:
        order = np.pad(order, (0, batch_size - remainder), constant_values=-1)
    return order.reshape(-1, batch_size)


def _whole(name: str, value: int, minimum: int) -> int:
    try:
        whole = operator.index(value)
    except TypeError:
        raise DataError(
            f"{name}: got {value!r}; it must be a whole number from {minimum}: convert it with int"
        ) from None
    if whole < minimum:
        raise DataError(f"{name}: got {whole}; it must be at least {minimum}: pass a larger number")
    return whole
