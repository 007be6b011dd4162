"""The order in which an epoch visits the training examples."""

import numpy as np
from jaxtyping import Int32

from convjax._checks import check_whole
from convjax.data.dataset import DataError

_LARGEST = np.iinfo(np.int32).max


def epoch_order(
    num_examples: int,
    batch_size: int,
    *,
    seed: int,
    epoch: int,
    drop_last: bool = True,
) -> Int32[np.ndarray, "T B"]:
    """Returns the example indices of every batch of one epoch.

    The permutation depends on `seed` and `epoch` alone. It is the stable sort of 64-bit random
    keys: NumPy guarantees the streams of its bit generators across versions, but not those of
    `Generator.permutation`.

    Args:
      num_examples: number of examples, N.
      batch_size: examples per batch, B, at most N.
      seed: the seed of the run, 0 or more.
      epoch: number of the epoch, from 0.
      drop_last: leaves out the N mod B examples that do not fill a batch (others each epoch).
        Otherwise they make a last batch, padded with -1, which stands for no example.

    Returns:
      Indices (T, B), where T is N // B with `drop_last`, else N / B rounded up. No example appears
      twice.

    Raises:
      TypeError: if an argument is not a whole number.
      ValueError: if a number is below its minimum.
      DataError: if a batch is larger than the data, or the indices do not fit int32.

    Examples:
      >>> epoch_order(10, 5, seed=0, epoch=0).tolist()
      [[6, 3, 8, 1, 4], [5, 9, 2, 7, 0]]
      >>> epoch_order(10, 4, seed=0, epoch=0, drop_last=False)[-1].tolist()
      [7, 0, -1, -1]
    """
    num_examples = check_whole("num_examples", num_examples, 1)
    batch_size = check_whole("batch_size", batch_size, 1)
    seed = check_whole("seed", seed, 0)
    epoch = check_whole("epoch", epoch, 0)
    if num_examples > _LARGEST:
        raise DataError(
            f"num_examples must be at most {_LARGEST}, because indices are int32, got "
            f"{num_examples}. Split the data."
        )
    if batch_size > num_examples:
        raise DataError(
            f"batch_size must be at most the number of examples, {num_examples}, got "
            f"{batch_size}. Use smaller batches."
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
