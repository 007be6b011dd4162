"""Images that stay where they are, and of which some are read at a time."""

from __future__ import annotations

import mmap
import os
from pathlib import Path
from typing import Any, Protocol

import numpy as np
from numpy.typing import ArrayLike, NDArray

from convjax.data.dataset import DataError, ImageArray


class ImageSource(Protocol):
    """A source of images uint8 (N, H, W, C); several threads may read at once."""

    @property
    def shape(self) -> tuple[int, ...]:
        """(N, H, W, C)."""

    @property
    def dtype(self) -> np.dtype[Any]:
        """uint8."""

    def read(self, indices: NDArray[np.integer[Any]]) -> ImageArray:
        """Returns the images of (n,) indices from 0 to N − 1, (n, H, W, C).

        Raises:
            DataError: where they cannot be read, with the name of the file.
        """


class ArraySource:
    """Rows of anything that has a shape and is indexed like an array.

    Args:
        images: (N, H, W, C) uint8: an array in memory, or one of a library for files, of which one
            row at a time is read.

    Raises:
        DataError: for another dtype or number of axes, and for no image.
    """

    def __init__(self, images: Any):
        shape, dtype = getattr(images, "shape", None), getattr(images, "dtype", None)
        if shape is None or dtype != np.uint8 or len(shape) != 4 or 0 in shape:
            raise DataError(
                f"images: got {dtype or type(images).__name__}"
                f"{'' if shape is None else f' of shape {tuple(shape)}'}; they must be uint8 with "
                "non-empty axes (N, H, W, C): convert and reshape them"
            )
        self.shape = tuple(map(int, shape))
        self.dtype = np.dtype(np.uint8)
        self._images = images

    def read(self, indices: NDArray[np.integer[Any]]) -> ImageArray:
        """See `ImageSource.read`."""
        if isinstance(self._images, np.ndarray):
            return np.asarray(self._images[indices])
        return np.stack([np.asarray(self._images[int(i)], np.uint8) for i in indices])


class FileSource:
    """Rows of a file that holds the pixels of one image after the other.

    By reads at a position and not by mapping the file: a mapped file that becomes shorter kills the
    process that touches it, with a bus error that no code can catch.

    Args:
        path: the file, uncompressed.
        offset: of the first image, in bytes.
        shape: (N, H, W, C).
        step: bytes from one image to the next; left out, they lie next to each other.

    Raises:
        DataError: where the file cannot be opened, or is too short.
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
        self.read(np.array([shape[0] - 1]))  # so that a file too short shows here

    def read(self, indices: NDArray[np.integer[Any]]) -> ImageArray:
        """See `ImageSource.read`."""
        images = np.empty((len(indices), *self.shape[1:]), np.uint8)
        try:
            # Opened each time, so that threads have positions of their own.
            with self._path.open("rb", buffering=0) as file:
                for image, index in zip(images, indices, strict=True):
                    file.seek(self._offset + int(index) * self._step)
                    if file.readinto(image.data) < self._bytes:
                        raise self._too_short()
        except OSError as error:
            raise self._unreadable(error) from error
        return images

    def _unreadable(self, error: OSError) -> DataError:
        return DataError(
            f"{self._path}: cannot be read ({error.strerror}); its images are read while the "
            "training goes on: check the path, its permissions and the disk"
        )

    def _too_short(self) -> DataError:
        number, *image = self.shape
        return DataError(
            f"{self._path}: ends before the last of {number} images of "
            f"{'×'.join(map(str, image))} bytes; it must not change while it is read: restore it"
        )


def image_source(images: ArrayLike | ImageSource) -> ImageSource:
    """Returns the rows of a source or of an array, which are read from its file if it is mapped."""
    if hasattr(images, "read"):
        return images  # type: ignore[return-value]
    rows = ArraySource(images)
    place = _place_in_file(images)
    if place is None:
        return rows
    return FileSource(*place, rows.shape, step=images.strides[0])  # type: ignore[union-attr]


def _place_in_file(images: Any) -> tuple[str, int] | None:
    """Returns file and offset of an array, or of a part of one, that `np.memmap` maps."""
    mapped = getattr(images, "_mmap", None)
    name = getattr(images, "filename", None)
    if not isinstance(images, np.memmap) or not isinstance(mapped, mmap.mmap) or not name:
        return None
    # The pixels of one image must lie next to each other, and no image before the first.
    one = images[0]
    if not one.flags.c_contiguous or images.strides[0] < one.nbytes:
        return None
    # A view keeps the offset of the array it was taken from: its own follows from the addresses.
    start = np.frombuffer(mapped, np.uint8).__array_interface__["data"][0]
    mapped_from = images.offset - images.offset % mmap.ALLOCATIONGRANULARITY
    return name, images.__array_interface__["data"][0] - start + mapped_from
