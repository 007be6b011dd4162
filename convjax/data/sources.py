"""Sources of images: arrays and files from which some images are read at a time."""

import mmap
import os
from pathlib import Path
from typing import Any, Protocol, runtime_checkable

import numpy as np
from jaxtyping import Integer, UInt8

from convjax.data.dataset import DataError, dimensions


@runtime_checkable
class ImageSource(Protocol):
    """A source of images uint8 (N, H, W, C); several threads may read at once."""

    @property
    def shape(self) -> tuple[int, ...]:
        """(N, H, W, C)."""

    @property
    def dtype(self) -> np.dtype[Any]:
        """uint8."""

    def read(self, indices: Integer[np.ndarray, " n"]) -> UInt8[np.ndarray, "n H W C"]:
        """Returns the images of indices from 0 to N − 1.

        Raises:
          DataError: if they cannot be read; the message names the file.
        """


@runtime_checkable
class IndexedArray(Protocol):
    """An array of NumPy, or of a library for files, from which single rows can be read."""

    @property
    def shape(self) -> tuple[int, ...]:
        """(N, H, W, C)."""

    @property
    def dtype(self) -> Any:
        """uint8."""

    def __getitem__(self, index: Any, /) -> Any:
        """Returns a row."""


class ArraySource:
    """Images of an array.

    Args:
      images: (N, H, W, C) uint8: an array in memory, or one of a library for files, which is read
        one row at a time.

    Raises:
      DataError: for another dtype or number of axes, and without any image.
    """

    def __init__(self, images: IndexedArray):
        shape, dtype = getattr(images, "shape", None), getattr(images, "dtype", None)
        if shape is None or dtype != np.uint8 or len(shape) != 4 or 0 in shape:
            raise DataError(
                "images must be uint8 with non-empty axes (N, H, W, C), got "
                f"{dtype or type(images).__name__}"
                f"{'' if shape is None else f' of shape {tuple(shape)}'}. Convert and reshape them."
            )
        self.shape = tuple(map(int, shape))
        self.dtype = np.dtype(np.uint8)
        self._images = images

    def read(self, indices: Integer[np.ndarray, " n"]) -> UInt8[np.ndarray, "n H W C"]:
        """See `ImageSource.read`."""
        if isinstance(self._images, np.ndarray):
            return np.asarray(self._images[indices])
        return np.stack([np.asarray(self._images[int(i)], np.uint8) for i in indices])


class FileSource:
    """Images of a file that holds the pixels of one image after the other.

    They are read at their positions. A memory map would be less safe: if its file becomes shorter,
    a process that accesses it is killed by a bus error, which no code can catch.

    Args:
      path: the file, uncompressed.
      offset: position of the first image, in bytes.
      shape: (N, H, W, C).
      step: bytes from one image to the next; default the bytes of one image.

    Raises:
      DataError: if the file cannot be opened, or is too short.
    """

    def __init__(
        self,
        path: str | os.PathLike[str],
        offset: int,
        shape: tuple[int, ...],
        *,
        step: int | None = None,
    ):
        self.shape, self.dtype = shape, np.dtype(np.uint8)
        self._path, self._offset = Path(path), offset
        self._bytes = int(np.prod(shape[1:]))
        self._step = self._bytes if step is None else step
        self.read(np.array([shape[0] - 1]))  # fails here if the file is too short

    def read(self, indices: Integer[np.ndarray, " n"]) -> UInt8[np.ndarray, "n H W C"]:
        """See `ImageSource.read`."""
        images = np.empty((len(indices), *self.shape[1:]), np.uint8)
        try:
            # Opened each time, so that each thread has its own position.
            with self._path.open("rb", buffering=0) as file:
                for image, index in zip(images, indices, strict=True):
                    file.seek(self._offset + int(index) * self._step)
                    if file.readinto(image.data) < self._bytes:
                        raise self._too_short()
        except OSError as error:
            raise DataError(
                f"{self._path} cannot be read: {error.strerror}. Its images are read during the "
                "training: check the path, its permissions and the disk."
            ) from error
        return images

    def _too_short(self) -> DataError:
        number, *image = self.shape
        return DataError(
            f"{self._path} must hold {number} images of {dimensions(tuple(image))} bytes, but ends "
            "before the last. Restore it; it must not change while it is read."
        )


def image_source(images: IndexedArray | ImageSource) -> ImageSource:
    """Returns a source as it is, and makes one of an array.

    The images of a memory map are read from its file if each lies in one piece.
    """
    if isinstance(images, ImageSource):
        return images
    source = ArraySource(images)
    position = _memmap_position(images) if isinstance(images, np.ndarray) else None
    if position is None:
        return source
    file, offset, step = position
    return FileSource(file, offset, source.shape, step=step)


def _memmap_position(images: np.ndarray) -> tuple[str | os.PathLike[str], int, int] | None:
    """Returns file, offset and step of a memory map or a view of one, None for another array."""
    mapped = images
    while isinstance(mapped.base, np.ndarray):
        mapped = mapped.base
    # A memory map of an open file has no name.
    if not (
        isinstance(mapped, np.memmap) and isinstance(mapped.base, mmap.mmap) and mapped.filename
    ):
        return None
    # The pixels of one image must lie next to each other, and the images in ascending order.
    one = images[0]
    if not one.flags.c_contiguous or images.strides[0] < one.nbytes:
        return None
    # A view inherits the offset of the whole map: the distance of the addresses adds its own.
    offset = mapped.offset + images.ctypes.data - mapped.ctypes.data
    return mapped.filename, offset, images.strides[0]
