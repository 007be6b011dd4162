"""A stream's images as the pieces of data that one chunk of steps after the other needs."""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import jax
import numpy as np
import numpy.typing as npt
from jax.sharding import Mesh, NamedSharding

from convjax import parallel
from convjax.data import Stream

# Pixels of a chunk at most, where one step has no more. Two chunks lie on the device (one at work,
# one arriving), and on the host two and what is read ahead, at most a third.
CHUNK_BYTES = 1 << 28


def steps_at_once(stream: Stream, batch_size: int) -> int:
    """Returns how many steps' images make at most `CHUNK_BYTES`; 1 where one step has more."""
    return max(1, CHUNK_BYTES // (batch_size * int(np.prod(stream.images.shape[1:]))))


@contextmanager
def pieces(
    stream: Stream, order: npt.NDArray[np.int32], length: int, mesh: Mesh | None
) -> Iterator[Iterator[tuple[Any, Any, Any]]]:
    """Reads the images of chunks of `length` steps and puts them where the training takes place.

    Args:
      order: (T, B) indices, −1 for no example. This process reads the columns of its own devices.
      mesh: of the devices; None for JAX's default device.

    Yields:
      An iterator over the chunks' (images, labels, order). Each device has the images of its own
      columns, step by step, and an order (length, B) that counts them from 0, or −1. Past the last
      step the images are black.
    """
    devices = 1 if mesh is None else mesh.size
    part = order.shape[1] // devices
    own = [0]
    if mesh is not None:
        here = jax.process_index()
        own = [i for i, device in enumerate(mesh.devices.flat) if device.process_index == here]
    columns = np.concatenate([np.arange(i * part, (i + 1) * part) for i in own])
    counted = np.arange(length * part, dtype=np.int32).reshape(length, part)
    counted = np.tile(counted, (1, devices))

    def put(rows: npt.NDArray[Any]) -> Any:
        """Puts (own devices, length, part, …) on the devices, first axis length·part of each."""
        rows = rows.reshape(len(own), length * part, *rows.shape[3:])
        if mesh is None:
            return jax.device_put(rows[0])

        def of_device(index: Any) -> npt.NDArray[Any]:
            return rows[own.index((index[0].start or 0) // (length * part))]

        return jax.make_array_from_callback(
            (devices * length * part, *rows.shape[2:]),
            NamedSharding(mesh, parallel.SPLIT_FIRST),
            of_device,
        )

    def read(steps: Iterator[npt.NDArray[np.uint8]]) -> Iterator[tuple[Any, Any, Any]]:
        for first in range(0, len(order), length):
            chunk = order[first : first + length]
            # New memory each time: on CPU the device may use it as it is.
            images = np.zeros((len(own), length, part, *stream.images.shape[1:]), np.uint8)
            for i in range(len(chunk)):
                images[:, i] = next(steps).reshape(len(own), part, *images.shape[3:])
            chunk = np.pad(chunk, [(0, length - len(chunk)), (0, 0)], constant_values=-1)
            mine = stream.labels[chunk[:, columns]].reshape(length, len(own), part)
            labels = np.ascontiguousarray(mine.swapaxes(0, 1))
            yield put(images), put(labels), np.where(chunk >= 0, counted, np.int32(-1))

    with stream.reading(order[:, columns], ahead=length) as steps:
        yield read(steps)
