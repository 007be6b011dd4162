"""Streams of data sets in files: IDX files and image folders."""

import os
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from jaxtyping import Integer, UInt8

from convjax.data import idx_sets
from convjax.data.catalog import CLASS_NAMES
from convjax.data.dataset import DataError
from convjax.data.file_labels import Labels
from convjax.data.folder import check_pillow, read_each
from convjax.data.idx import idx_image_offset
from convjax.data.labelled_files import list_files, reading_errors
from convjax.data.paths import expanded
from convjax.data.pictures import PictureOptions, picture_options, picture_shape, read_picture
from convjax.data.sources import FileSource, ImageSource
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
    """Opens MNIST, or a set made like it, in its four IDX files; only labels are read at once.

    Args:
      name: of a set that `convjax.data.load` reads from IDX files, such as "mnist".
      folder: contains the files, or a subfolder with the name of the data set.

    Raises:
      DataError: as `convjax.data.load`, and if the images are compressed.
    """
    if name not in idx_sets.IDX_DATASETS:
        raise DataError(f"name must be one of {', '.join(idx_sets.IDX_DATASETS)}, got {name!r}.")
    files = idx_sets.find_idx_files(expanded(folder), name)
    if files is None:
        raise DataError(
            f"{folder} must hold the four IDX files of {name}, but has none of them, nor has its "
            f"subfolder {name}. Correct the path."
        )
    labels = [idx_sets.idx_labels(name, path) for path in files[1::2]]
    idx_sets.check_identity(name, files, [None, labels[0], None, labels[1]])
    sources: list[ImageSource] = [_idx_source(path) for path in files[::2]]
    if idx_sets.transposed(name):
        sources = [TransposedSource(source) for source in sources]
    train, test = (Stream(*pair) for pair in zip(sources, labels, strict=True))
    return Streams(name, train, test, CLASS_NAMES[name])


class TransposedSource:
    """Images whose rows and columns are exchanged in their file.

    Args:
      source: of the images as stored, (N, W, H, C).
    """

    def __init__(self, source: ImageSource):
        number, width, height, channels = source.shape
        self.shape, self.dtype = (number, height, width, channels), source.dtype
        self._source = source

    def read(self, indices: Integer[np.ndarray, " n"]) -> UInt8[np.ndarray, "n H W C"]:
        """See `ImageSource.read`."""
        return self._source.read(indices).swapaxes(1, 2)


def _idx_source(path: Path) -> FileSource:
    """Returns the images of an IDX file, (N, H, W, 1)."""
    offset, shape = idx_image_offset(path)
    return FileSource(path, offset, (*shape, 1))


def stream_folder(
    folder: str | os.PathLike[str],
    *,
    resize: int | tuple[int, int] | None = None,
    resize_method: str = "crop",
    background: int | tuple[int, int, int] = 255,
    labels: Labels | None = None,
    test_share: float | None = None,
    split_seed: int = 0,
    check: bool = True,
) -> Streams:
    """Opens a folder of pictures, which are decoded when they are needed.

    The folder and the options are those of `convjax.data.load`, and so are the pixels, bit for bit.

    Args:
      folder: contains the splits, or the classes of one.
      resize, resize_method, background, labels, test_share, split_seed: as for `convjax.data.load`.
      check: decodes every picture once, so that a damaged one is found before the training and not
        during it. False reads the headers alone, which show a picture of another size or kind, but
        not one that is truncated.

    Raises:
      DataError: as `convjax.data.load` for a folder.

    Examples:
      >>> import pathlib, tempfile
      >>> import numpy as np
      >>> from PIL import Image
      >>> root = pathlib.Path(tempfile.mkdtemp())
      >>> for i, name in enumerate(("cat.1.png", "cat.2.png", "dog.1.png", "dog.2.png")):
      ...     Image.new("RGB", (40, 30 + i)).save(root / name)
      >>> streams = stream_folder(
      ...     root, resize=16, labels=lambda name: name.split(".")[0], test_share=0.25
      ... )
      >>> streams.train, streams.class_names
      (Stream(3 images of 16×16×3), ('cat', 'dog'))
    """
    options = picture_options(resize, resize_method, background)
    with reading_errors(folder):
        files = list_files(folder, labels=labels, test_share=test_share, split_seed=split_seed)
        check_pillow(files.root)
        shape = _common_shape(files.paths, options, check=check)

    def stream(split: Sequence[tuple[Path, str]]) -> Stream:
        source = FolderSource([path for path, _ in split], shape, options)
        return Stream(source, files.labels(split))

    return Streams(files.root.name, stream(files.train), stream(files.test), files.class_names)


class FolderSource:
    """Picture files, decoded when they are read.

    Args:
      files: one per picture.
      shape: (H, W, C) of all; greyscale files give three equal channels if C is 3.
      options: what to make of them.
    """

    def __init__(
        self,
        files: list[Path],
        shape: tuple[int, int, int],
        options: PictureOptions = PictureOptions(),  # noqa: B008  # frozen
    ):
        self._files, self._options = files, options
        self.shape, self.dtype = (len(files), *shape), np.dtype(np.uint8)

    def read(self, indices: Integer[np.ndarray, " n"]) -> UInt8[np.ndarray, "n H W C"]:
        """See `ImageSource.read`."""
        images = np.empty((len(indices), *self.shape[1:]), np.uint8)
        size = self.shape[1], self.shape[2]
        for image, index in zip(images, indices, strict=True):
            path = self._files[int(index)]
            image[...] = read_picture(path, self._options, self._files[0], size)
        return images


def _common_shape(
    paths: Sequence[Path], options: PictureOptions, *, check: bool
) -> tuple[int, int, int]:
    """Returns (H, W, C) of pictures; C is 1 if all are greyscale."""
    shapes = read_each(paths, options, picture_shape)
    if check:

        def decode(path: Path) -> Exception | None:
            try:
                read_picture(path, options, paths[0], shapes[0][:2])
            except (DataError, MemoryError) as error:
                return error
            return None

        # Decoders release Python's lock.
        with ThreadPoolExecutor(min(8, os.cpu_count() or 1)) as threads:
            faults = dict(zip(paths, threads.map(decode, paths), strict=True))

        def known(path: Path, *_: object) -> tuple[int, int]:
            if (fault := faults[path]) is not None:
                raise fault
            return (0, 0)

        read_each(paths, options, known)
    height, width, _ = shapes[0]
    return height, width, max(channels for *_, channels in shapes)
