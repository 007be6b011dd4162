"""Data that fit no memory: images read while the device works, in the order of the batches."""

from __future__ import annotations

import importlib.util
import os
import struct
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from convjax.data import folder as folders
from convjax.data import idx
from convjax.data._normalization import mean_and_std
from convjax.data.catalog import CLASS_NAMES
from convjax.data.dataset import DataError, ImageArray, LabelArray
from convjax.data.paths import expanded
from convjax.data.sources import FileSource, ImageSource, image_source

# Grain's account of an element takes 0.1 to 0.5 ms: it should hold more than a small batch.
_ELEMENT_BYTES = 1 << 20

# Reading waits for the disk, and decoding for the processor without Python's lock.
_THREADS = min(8, (os.cpu_count() or 1) + 1)


class Stream:
    """Images that stay in their files, with their labels.

    It takes the place of `convjax.Images` in `Trainer.run` and `Trainer.evaluate`; the results are the same
    bit for bit, whichever it is. Grain reads ahead in threads while the device computes.

    Args:
        images: (N, H, W, C) uint8, read by rows: `np.memmap` (as `np.load(file, mmap_mode="r")`
            makes it), an array in memory, one of a library for files, or a `ImageSource`.
        labels: (N,), whole numbers from 0.

    Attributes:
        images: the source, a `ImageSource`.
        labels: (N,) int32, in memory.

    Raises:
        DataError: for images of another dtype or number of axes, counts that differ, labels that
            are not whole or negative, and a file that is shorter than its images.
    """

    images: ImageSource
    labels: LabelArray

    def __init__(self, images: ArrayLike | ImageSource, labels: ArrayLike):
        self.images = image_source(images)
        given = np.asarray(labels)
        if given.ndim != 1 or given.dtype.kind not in "iu" or len(given) != len(self):
            raise DataError(
                f"labels: got {given.dtype} of shape {given.shape} for {len(self)} images; one "
                "whole number for each image is needed: check that both belong together"
            )
        if given.min() < 0 or given.max() > np.iinfo(np.int32).max:
            raise DataError(
                f"labels: got {given.min()} to {given.max()}; labels are class indices from 0: "
                "renumber them"
            )
        self.labels = given.astype(np.int32)

    def __len__(self) -> int:
        return self.images.shape[0]

    def __repr__(self) -> str:
        size = "×".join(map(str, self.images.shape[1:]))
        return f"Stream({len(self)} images of {size})"

    def read(self, indices: NDArray[np.integer[Any]]) -> ImageArray:
        """Returns images, (…, H, W, C), of indices (…); −1 stands for none, which is black.

        Raises:
            DataError: where a file cannot be read.
        """
        flat = indices.ravel()
        wanted = flat >= 0
        if wanted.all():
            images = self.images.read(flat)
        else:
            images = np.zeros((flat.size, *self.images.shape[1:]), np.uint8)
            images[wanted] = self.images.read(flat[wanted])
        return images.reshape(*indices.shape, *self.images.shape[1:])

    def normalization(self) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
        """Mean and standard deviation of each channel, as `convjax.data._normalization` of all.

        Reads all images once for each channel.
        """
        channels = range(self.images.shape[-1])
        mean, std = np.array([mean_and_std(_Channel(self.images, c)) for c in channels]).T  # type: ignore[arg-type]
        return mean, std

    @contextmanager
    def reading(
        self, order: NDArray[np.integer[Any]], *, ahead: int
    ) -> Iterator[Iterator[ImageArray]]:
        """Reads the images of (T, B) indices step by step, and up to `ahead` steps in advance.

        Yields:
            An iterator over T arrays (B, H, W, C). The threads stop with the block.

        Raises:
            ImportError: if Grain is not installed.
            DataError: from the iterator, where a file cannot be read.
        """
        grain = _grain()
        bytes_per_step = order.shape[1] * int(np.prod(self.images.shape[1:]))
        group = max(1, min(ahead, _ELEMENT_BYTES // bytes_per_step))
        source = grain.MapDataset.source(_Groups(self, order, group))
        buffer = max(1, ahead // group)
        options = grain.ReadOptions(num_threads=min(_THREADS, buffer), prefetch_buffer_size=buffer)
        elements = iter(source.to_iter_dataset(options))
        try:
            yield (step for element in elements for step in element)
        finally:
            elements.close()


class _Groups:
    """What Grain reads: some steps' images at a time."""

    def __init__(self, stream: Stream, order: NDArray[np.integer[Any]], group: int):
        self._stream, self._order, self._group = stream, order, group

    def __len__(self) -> int:
        return -(-len(self._order) // self._group)

    def __getitem__(self, index: Any) -> ImageArray:
        first = int(index) * self._group
        return self._stream.read(self._order[first : first + self._group])

    def __repr__(self) -> str:  # Grain prints it in its messages
        return f"{self._stream!r} in {len(self)} reads"


class _Channel:
    """One channel of the images, as far as `mean_and_std` looks at it."""

    def __init__(self, images: ImageSource, channel: int):
        self._images, self._channel = images, channel
        self.size = int(np.prod(images.shape[:-1]))

    def __len__(self) -> int:
        return self._images.shape[0]

    def __getitem__(self, index: Any) -> NDArray[np.uint8]:
        rows = np.arange(len(self))[index]
        return self._images.read(np.atleast_1d(rows))[..., self._channel].reshape(
            *np.shape(rows), *self._images.shape[1:-1]
        )


@dataclass(frozen=True)
class Streams:
    """A training and a test split that stay in their files, with the names of their classes.

    Attributes:
        name, class_names: as of `convjax.data.Dataset`.
        train, test: the splits, in file order.
    """

    name: str
    train: Stream
    test: Stream
    class_names: tuple[str, ...]


def stream_idx(name: str, folder: str | os.PathLike[str]) -> Streams:
    """Opens MNIST or Fashion-MNIST in its four IDX files, of which only the labels are read.

    Args:
        name: "mnist" or "fashion_mnist".
        folder: where the files are, or a subfolder with the name of the data set.

    Raises:
        DataError: as `convjax.data.load`, and for images that are compressed.
    """
    if name not in idx.IDX_DATASETS:
        raise DataError(
            f"name: got {name!r}; the data sets in IDX files are {', '.join(idx.IDX_DATASETS)}: "
            "choose one"
        )
    files = idx.find_idx_files(expanded(folder), name)
    if files is None:
        raise DataError(
            f"{name}: {folder} has none of its four IDX files, nor has its subfolder {name}: "
            "correct the path"
        )
    train, test = (
        Stream(_idx_rows(images), idx.read_idx(labels, 1))
        for images, labels in (files[:2], files[2:])
    )
    return Streams(name, train, test, CLASS_NAMES[name])


def _idx_rows(path: Path) -> FileSource:
    """The rows of an IDX file of images, (N, H, W, 1)."""
    if path.suffix == ".gz":
        raise DataError(
            f"{path}: is compressed, and single images cannot be read from it: unpack it with "
            "gunzip, or load the data into memory"
        )
    magic = idx.MAGIC[3]
    try:
        with path.open("rb") as file:
            header = file.read(16)
    except OSError as error:
        raise DataError(f"{path}: cannot be read ({error.strerror}): check the path") from error
    if len(header) < 16 or header[:4] != magic:
        raise DataError(
            f"{path}: starts with {header[:4].hex(' ') or 'nothing'}; an IDX file of images starts "
            f"with {magic.hex(' ')} and three sizes: check the path"
        )
    shape = struct.unpack(">3I", header[4:])
    if 0 in shape:
        raise DataError(
            f"{path}: the header announces {' × '.join(map(str, shape))} entries; each axis needs "
            "at least one: check that the source is not empty"
        )
    return FileSource(path, 16, (*shape, 1))


def stream_folder(folder: str | os.PathLike[str]) -> Streams:
    """Opens a folder of images `train/CLASS/*.png` and `test/CLASS/*.png`, decoded when needed.

    The headers of all files are read, so that one image of another size is found before the
    training and not in the middle of it. See `convjax.data.load` for the names.

    Raises:
        DataError: as `convjax.data.load` for a folder.
    """
    root = expanded(folder).resolve()
    if not root.is_dir():
        raise DataError(
            f"{root}: no such folder; a folder with train/CLASS/*.png and test/CLASS/*.png is "
            "needed: correct the path"
        )
    train = folders.list_split(root, folders.TRAIN_NAMES)
    test = folders.list_split(root, folders.TEST_NAMES)
    if list(train) != list(test):
        raise DataError(
            f"{root}: the splits have different classes ({', '.join(train)} and "
            f"{', '.join(test)}); both need the same: add or remove class folders"
        )
    files = [[path for paths in listing.values() for path in paths] for listing in (train, test)]
    image = _image_shape([*files[0], *files[1]])
    of_train, of_test = (
        Stream(FolderSource(paths, image), folders.labels_of(listing))
        for paths, listing in zip(files, (train, test), strict=True)
    )
    return Streams(root.name, of_train, of_test, tuple(train))


class FolderSource:
    """Image files, decoded when they are read.

    Args:
        files: one per image.
        image: (H, W, C) of all; greyscale files give three equal channels where C is 3.
    """

    def __init__(self, files: list[Path], image: tuple[int, int, int]):
        self._files = files
        self.shape, self.dtype = (len(files), *image), np.dtype(np.uint8)

    def read(self, indices: NDArray[np.integer[Any]]) -> ImageArray:
        """See `ImageSource.read`."""
        images = np.empty((len(indices), *self.shape[1:]), np.uint8)
        for image, index in zip(images, indices, strict=True):
            path = self._files[int(index)]
            image[...] = folders.read_image(path, self._files[0], self.shape[1:3])
        return images


def _image_shape(files: list[Path]) -> tuple[int, int, int]:
    """Returns (H, W, C) of images by their headers; C is 1 where all are greyscale."""
    if importlib.util.find_spec("PIL") is None:
        raise DataError(
            f"{files[0]}: decoding images needs Pillow, which is not installed: run pip install "
            '"convjax[data]"'
        )
    from PIL import Image

    # The first is decoded, so that a folder of something else is found at once.
    height, width, _ = folders.read_image(files[0], files[0], None).shape
    channels = 1
    for path in files:
        try:
            with Image.open(path, formats=folders.FORMATS) as image:
                size, mode = (image.height, image.width), image.mode
        except Exception as error:  # as in `read_image`
            raise DataError(
                f"{path}: cannot be decoded ({type(error).__name__}: {error}); a readable PNG or "
                "JPEG image is needed: replace or remove the file"
            ) from error
        folders.check_size(path, size, files[0], (height, width))
        if not (mode in folders.GREY_MODES or mode.startswith("I")):
            channels = 3
    return height, width, channels


def _grain() -> Any:
    try:
        import grain
    except ImportError as error:
        raise ImportError(
            'streaming needs Grain, which is not installed: pip install "convjax[stream]"'
        ) from error
    return grain
