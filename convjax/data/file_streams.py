"""Streams of data sets in files: IDX files and image folders."""

import os
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from jaxtyping import Integer, UInt8

from convjax.data import idx_sets
from convjax.data._normalization import image_slices
from convjax.data.catalog import CLASS_NAMES
from convjax.data.dataset import DataError, check_splits
from convjax.data.file_labels import Labels
from convjax.data.folder import read_each
from convjax.data.idx import idx_image_offset
from convjax.data.labelled_files import list_files, reading_errors
from convjax.data.paths import expanded
from convjax.data.picture_files import check_pillow
from convjax.data.picture_scale import check_brightness
from convjax.data.pictures import PictureOptions, picture_options, picture_shape, read_picture
from convjax.data.set_checks import ImageFacts, warn_of_unlikely
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

    def __post_init__(self) -> None:
        check_splits(self.name, self.train, self.test, self.class_names)


def stream_idx(name: str, folder: str | os.PathLike[str], *, check: bool = True) -> Streams:
    """Opens MNIST, or a set made like it, in its four IDX files; only labels stay in memory.

    Args:
      name: of a set that `convjax.data.load` reads from IDX files, such as "mnist".
      folder: contains the files, or a subfolder with the name of the data set.
      check: reads all images once, to warn of what is unlikely in them as `convjax.data.load` does.
        The headers, the lengths of the files and the labels are always checked.

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
    for i, source in enumerate(sources):
        idx_sets.check_counts(files[2 * i], source.shape[0], files[2 * i + 1], len(labels[i]))
    if idx_sets.transposed(name):
        sources = [TransposedSource(source) for source in sources]
    train, test = (Stream(*pair) for pair in zip(sources, labels, strict=True))
    streams = Streams(name, train, test, CLASS_NAMES[name])
    if check:
        _warn_of_unlikely(streams, *(_facts(stream) for stream in (train, test)))
    return streams


def _facts(stream: Stream) -> ImageFacts:
    indices = np.arange(len(stream))
    parts = image_slices(stream.images.shape)
    return ImageFacts.join([ImageFacts.of(stream.images.read(indices[part])) for part in parts])


def _warn_of_unlikely(streams: Streams, train: ImageFacts, test: ImageFacts) -> None:
    splits = (train, streams.train.labels), (test, streams.test.labels)
    warn_of_unlikely(streams.name, *splits, streams.class_names)


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
        during it, and warns of what is unlikely, as `convjax.data.load` does. False reads the
        headers, and the ends of PNG, JPEG and WebP: they show a picture of another size or kind,
        and a truncated one, but not one that is damaged within.

    Raises:
      DataError: as `convjax.data.load` for a folder.

    Examples:
      >>> import pathlib, tempfile
      >>> import numpy as np
      >>> from PIL import Image
      >>> root = pathlib.Path(tempfile.mkdtemp())
      >>> for i, name in enumerate(("cat.1.png", "cat.2.png", "dog.1.png", "dog.2.png")):
      ...     Image.new("RGB", (40, 30 + i), (60 * i, 0, 99)).save(root / name)
      >>> streams = stream_folder(
      ...     root, resize=16, labels=lambda name: name.split(".")[0], test_share=0.5
      ... )
      >>> streams.train, streams.class_names
      (Stream(2 images of 16×16×3), ('cat', 'dog'))
    """
    options = picture_options(resize, resize_method, background)
    with reading_errors(folder):
        files = list_files(folder, labels=labels, test_share=test_share, split_seed=split_seed)
        check_pillow(files.root)
        shapes = read_each(files.paths, options, picture_shape)
        facts = _decoded(files.paths, options, shapes[0][:2]) if check else []
    shape = *shapes[0][:2], max(channels for *_, channels in shapes)

    def stream(split: Sequence[tuple[Path, str]]) -> Stream:
        source = FolderSource([path for path, _ in split], shape, options)
        return Stream(source, files.labels(split))

    streams = Streams(files.root.name, stream(files.train), stream(files.test), files.class_names)
    if check:
        number = len(files.train)
        train, test = ImageFacts.join(facts[:number]), ImageFacts.join(facts[number:])
        check_brightness(files.paths, [*train.highest.tolist(), *test.highest.tolist()])
        _warn_of_unlikely(streams, train, test)
    return streams


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


def _decoded(
    paths: Sequence[Path], options: PictureOptions, size: tuple[int, int]
) -> list[ImageFacts]:
    """Decodes every picture once, in threads, and returns what is known of each.

    Raises:
      DataError: after all have been decoded, if any cannot be.
    """

    def decode(path: Path) -> ImageFacts | Exception:
        try:
            return ImageFacts.of(read_picture(path, options, paths[0], size)[np.newaxis])
        except (DataError, MemoryError) as error:
            return error

    # Decoders release Python's lock.
    with ThreadPoolExecutor(min(8, os.cpu_count() or 1)) as threads:
        found = dict(zip(paths, threads.map(decode, paths), strict=True))

    def known(path: Path, *_: object) -> ImageFacts:
        facts = found[path]
        if isinstance(facts, Exception):
            raise facts
        return facts

    return read_each(paths, options, known)
