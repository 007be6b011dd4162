"""Streams of data sets in files: IDX files and image folders."""

import os
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from jaxtyping import Integer, UInt8

from convjax.data import folder as folders
from convjax.data import idx
from convjax.data.catalog import CLASS_NAMES
from convjax.data.dataset import DataError
from convjax.data.paths import expanded
from convjax.data.sources import FileSource
from convjax.data.stream import Stream


@dataclass(frozen=True)
class Streams:
    """A training and a test split that stay in their files, with the names of their classes.

    Attributes:
      name: as of `convjax.data.Dataset`.
      train: the training split, in file order.
      test: the test split, in file order.
      class_names: as of `convjax.data.Dataset`.
    """

    name: str
    train: Stream
    test: Stream
    class_names: tuple[str, ...]


def stream_idx(name: str, folder: str | os.PathLike[str]) -> Streams:
    """Opens MNIST or Fashion-MNIST in its four IDX files; only the labels are read at once.

    Args:
      name: "mnist" or "fashion_mnist".
      folder: contains the files, or a subfolder with the name of the data set.

    Raises:
      DataError: as `convjax.data.load`, and if the images are compressed.
    """
    if name not in idx.IDX_DATASETS:
        raise DataError(f"name must be one of {', '.join(idx.IDX_DATASETS)}, got {name!r}.")
    files = idx.find_idx_files(expanded(folder), name)
    if files is None:
        raise DataError(
            f"{folder} must hold the four IDX files of {name}, but has none of them, nor has its "
            f"subfolder {name}. Correct the path."
        )
    train, test = (
        Stream(_idx_source(images), idx.read_idx(labels, 1))
        for images, labels in (files[:2], files[2:])
    )
    return Streams(name, train, test, CLASS_NAMES[name])


def _idx_source(path: Path) -> FileSource:
    """Returns the images of an IDX file, (N, H, W, 1)."""
    offset, shape = idx.idx_image_offset(path)
    return FileSource(path, offset, (*shape, 1))


def stream_folder(folder: str | os.PathLike[str]) -> Streams:
    """Opens a folder of images `train/CLASS/*.png` and `test/CLASS/*.png`, decoded when needed.

    The headers of all files are read at once, so that an image of another size is found before the
    training and not during it. See `convjax.data.load` for the names.

    Raises:
      DataError: as `convjax.data.load` for a folder.
    """
    with folders.reading_errors(folder):
        root, train, test = folders.list_splits(folder)
        folders.check_pillow(root)
        files = {
            split: [path for paths in listing.values() for path in paths]
            for split, listing in (("train", train), ("test", test))
        }
        shape = _image_shape([*files["train"], *files["test"]])
    return Streams(
        name=root.name,
        train=Stream(FolderSource(files["train"], shape), folders.folder_labels(train)),
        test=Stream(FolderSource(files["test"], shape), folders.folder_labels(test)),
        class_names=tuple(train),
    )


class FolderSource:
    """Image files, decoded when they are read.

    Args:
      files: one per image.
      shape: (H, W, C) of all; greyscale files give three equal channels if C is 3.
    """

    def __init__(self, files: list[Path], shape: tuple[int, int, int]):
        self._files = files
        self.shape, self.dtype = (len(files), *shape), np.dtype(np.uint8)

    def read(self, indices: Integer[np.ndarray, " n"]) -> UInt8[np.ndarray, "n H W C"]:
        """See `ImageSource.read`."""
        images = np.empty((len(indices), *self.shape[1:]), np.uint8)
        for image, index in zip(images, indices, strict=True):
            path = self._files[int(index)]
            image[...] = folders.read_image(path, self._files[0], self.shape[1:3])
        return images


def _image_shape(files: list[Path]) -> tuple[int, int, int]:
    """Returns (H, W, C) of images by their headers; C is 1 if all are greyscale."""
    from PIL import Image

    # The first is decoded, so that a folder of other files is found at once.
    height, width, _ = folders.read_image(files[0], files[0], None).shape
    channels = 1
    for path in files:
        try:
            with Image.open(path, formats=folders.FORMATS) as image:
                size, mode = (image.height, image.width), image.mode
        except Exception as error:  # many kinds, as in `read_image`
            raise folders.undecodable(path, error) from error
        folders.check_size(path, size, files[0], (height, width))
        if not (mode in folders.GREY_MODES or mode.startswith("I")):
            channels = 3
    return height, width, channels
