"""Data on the device: a whole split, or the chunks of a stream."""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any, NamedTuple

import jax
import numpy as np
from jax.sharding import Mesh, NamedSharding
from jaxtyping import Array, Int32, Num, UInt8

from convjax._checks import check_type
from convjax._display import array_text
from convjax.data import Split, Stream
from convjax.parallel.mesh import SPLIT_FIRST
from convjax.parallel.placement import Placement
from convjax.train._arguments import check_images, check_split

# Bound of a chunk's pixels in bytes, unless one step has more. Two chunks are on the device, one in
# use and one arriving. On the host are two, and what is read ahead: at most a third.
CHUNK_BYTES = 1 << 28

# Images of a stream that processes compare.
_COMPARED = 4


class Images(NamedTuple):
    """A split on the device, or a copy on each of several devices.

    Attributes:
      images: uint8 (N, H, W, C), or numbers of floating point (N, …) of any shape.
      labels: int32 (N,), or what else the loss takes, with the examples first.

    Examples:
      >>> import convjax
      >>> dataset = convjax.data.load("mnist5k")
      >>> images = convjax.Images.put(dataset.test)
      >>> images.images.shape, str(images.labels.dtype)
      ((1000, 28, 28, 1), 'int32')
    """

    images: Num[Array, "N ..."]
    labels: Num[Array, "N ..."]

    def __repr__(self) -> str:
        return f"Images({array_text(self.images)}, labels {array_text(self.labels)})"

    @classmethod
    def put(cls, split: Split, devices: Sequence[jax.Device] | None = None) -> "Images":
        """Copies a split of a data set to the device.

        Args:
          split: images and labels on the host.
          devices: those of a `Trainer` over several devices, each of which gets the whole split;
            without them such a trainer copies it at every call. The processes of the devices
            compare their splits.

        Raises:
          TypeError: if the split has no images and labels.
          ValueError: in every process, if the splits of the processes differ.
        """
        check_split(split)
        here = split.images, split.labels
        if devices is None:
            return cls(*jax.device_put(here))
        placement = Placement(devices)
        placement.agree("Images.put", dict(zip(("images", "labels"), here, strict=True)))
        return cls(*placement.put(here))


def check_data(data: Any, name: str = "data") -> None:
    """Checks a split to train on or to score.

    Raises:
      TypeError: if it is neither `Images` nor a `Stream`, or the images are whole numbers but not
        uint8.
      ValueError: if the axes of pixels are not (N, H, W, C), the labels are more or fewer, or there
        is no example.
    """
    if not isinstance(data, Stream):
        fix = "Images.put(split) copies a split to the device; a Stream leaves it in its files."
        check_type(name, data, Images, fix)
        check_images(data.images, data.labels, name)
    if not len(data.labels):
        raise ValueError(f"{name} must hold at least one example, got none.")


def compared(value: Any) -> Any:
    """Returns what processes compare of a value; of a stream, the labels and a few images."""
    if not isinstance(value, Stream):
        return value
    few = np.linspace(0, len(value) - 1, _COMPARED).astype(int)
    return {"shape": value.images.shape, "labels": value.labels, "images": value.read(few)}


def steps_at_once(stream: Stream, batch_size: int) -> int:
    """Returns the number of steps whose images have at most `CHUNK_BYTES`, but at least 1."""
    return max(1, CHUNK_BYTES // (batch_size * int(np.prod(stream.images.shape[1:]))))


@contextmanager
def stream_chunks(
    stream: Stream,
    order: Int32[np.ndarray, "T B"],
    length: int,
    mesh: Mesh | None,
    first_step: int | None = None,
) -> Iterator[Iterator[tuple[Any, Any, Any]]]:
    """Reads the images of chunks of `length` steps and puts them on the devices of the training.

    Args:
      stream: of the whole split.
      order: indices of the examples of each batch, −1 for no example. This process reads only the
        columns of its own devices.
      length: steps per chunk.
      mesh: of the devices; None for JAX's default device.
      first_step: number of the first step in a training, see `Stream.reading`.

    Yields:
      An iterator over (images, labels, order) of each chunk. Each device has the images of its own
      columns, step by step, and an order (length, B) that numbers them from 0, with −1 for no
      example. Past the last step the images are black.
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

    def put(rows: Num[np.ndarray, "D L P ..."]) -> Any:
        """Puts rows on this process's devices; each gets one axis of length·part rows."""
        rows = rows.reshape(len(own), length * part, *rows.shape[3:])
        if mesh is None:
            return jax.device_put(rows[0])

        def of_device(index: Any) -> Num[np.ndarray, "N ..."]:
            return rows[own.index((index[0].start or 0) // (length * part))]

        return jax.make_array_from_callback(
            (devices * length * part, *rows.shape[2:]),
            NamedSharding(mesh, SPLIT_FIRST),
            of_device,
        )

    def read(steps: Iterator[UInt8[np.ndarray, "..."]]) -> Iterator[tuple[Any, Any, Any]]:
        for first in range(0, len(order), length):
            chunk = order[first : first + length]
            # New memory for each chunk: on CPU the device may use it without a copy.
            images = np.zeros((len(own), length, part, *stream.images.shape[1:]), np.uint8)
            for i in range(len(chunk)):
                images[:, i] = next(steps).reshape(len(own), part, *images.shape[3:])
            chunk = np.pad(chunk, [(0, length - len(chunk)), (0, 0)], constant_values=-1)
            mine = stream.labels[chunk[:, columns]].reshape(length, len(own), part)
            labels = np.ascontiguousarray(mine.swapaxes(0, 1))
            yield put(images), put(labels), np.where(chunk >= 0, counted, np.int32(-1))

    with stream.reading(order[:, columns], ahead=length, first_step=first_step) as steps:
        yield read(steps)
