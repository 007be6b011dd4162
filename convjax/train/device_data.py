"""Data where a training can use them: a split on the device, or the chunks of a stream."""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any, NamedTuple

import jax
import numpy as np
import numpy.typing as npt
from jax.sharding import Mesh, NamedSharding

from convjax._checks import check_type
from convjax.data import Split, Stream
from convjax.parallel.mesh import SPLIT_FIRST, data_mesh, replicate
from convjax.train._arguments import check_images, check_split

# Pixels of a chunk at most, where one step has no more. Two chunks lie on the device (one at work,
# one arriving), and on the host two and what is read ahead, at most a third.
CHUNK_BYTES = 1 << 28


class Images(NamedTuple):
    """A split on the device, or on all of several: images uint8 (N, H, W, C), labels int32 (N,)."""

    images: jax.Array
    labels: jax.Array

    @classmethod
    def put(cls, split: Split, devices: Sequence[jax.Device] | None = None) -> "Images":
        """Copies a split of a data set to the device.

        Args:
          devices: those of a `Trainer` over several, each of which takes the whole split; without
            them such a trainer copies it at every call.
        """
        check_split(split)
        here = split.images, split.labels
        if devices is None:
            return cls(*jax.device_put(here))
        return cls(*replicate(here, data_mesh(devices)))


def check_data(data: Any, name: str = "data") -> None:
    """Checks images and labels to train on or to score: `Images` or a `Stream`.

    Raises:
      TypeError: if they are neither, or their images no uint8.
      ValueError: if their axes are not (N, H, W, C) and (N,), or there is none.
    """
    if not isinstance(data, Stream):
        way_out = "Images.put(split) copies a split to the device; a Stream leaves it in its files."
        check_type(name, data, Images, way_out)
        check_images(data.images, data.labels, name)
    if not len(data.labels):
        raise ValueError(f"{name} must hold at least one example, got none.")


def steps_at_once(stream: Stream, batch_size: int) -> int:
    """Returns how many steps' images make at most `CHUNK_BYTES`; 1 where one step has more."""
    return max(1, CHUNK_BYTES // (batch_size * int(np.prod(stream.images.shape[1:]))))


@contextmanager
def stream_chunks(
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
            NamedSharding(mesh, SPLIT_FIRST),
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
