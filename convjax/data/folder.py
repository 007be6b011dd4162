"""Image folders: every picture decoded into memory, once, and then cached."""

import hashlib
import os
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, TypeVar

import numpy as np
from jaxtyping import UInt8

from convjax.data.cache import cached
from convjax.data.dataset import DataError, Dataset, Split
from convjax.data.file_labels import Labels
from convjax.data.labelled_files import LabelledFiles, list_files, reading_errors
from convjax.data.picture_files import check_pillow
from convjax.data.picture_scale import check_brightness
from convjax.data.pictures import PictureOptions, read_picture

# The version of what is made of a file, in the fingerprint of the cache.
_DECODING = 3
_SHOWN = 5

_Result = TypeVar("_Result")


def load_folder(
    folder: str | os.PathLike[str],
    options: PictureOptions = PictureOptions(),  # noqa: B008  # frozen
    *,
    labels: Labels | None = None,
    test_share: float | None = None,
    split_seed: int = 0,
    cache_dir: str | os.PathLike[str] | None = None,
) -> Dataset:
    """Returns the images of a folder, as `convjax.data.load` describes them.

    Images are decoded once and then cached until an option, or a file's name, size, modification
    time, label or split changes. Memory is bounded by the number of files times the size of the
    first, which without resizing is at most 2^24 pixels. Nothing in the files is executed.

    Args:
      folder: contains the splits, or the classes of one.
      options: the size of the images, and the background of transparent ones.
      labels, test_share, split_seed, cache_dir: see `convjax.data.load`.

    Returns:
      Images (N, H, W, 1) if all are greyscale (PIL modes L, LA, 1 and I;16, of which the upper
      eight bits are kept) and stay so on the background, otherwise (N, H, W, 3) in RGB.

    Raises:
      DataError: for a missing or unreadable folder, a class without images or with an unprintable
        name, a missing label, classes that differ between the splits, an unreadable or too large
        image, images of different sizes, and without Pillow.
    """
    with reading_errors(folder):
        files = list_files(folder, labels=labels, test_share=test_share, split_seed=split_seed)
        key = hashlib.sha256(os.fsencode(files.root))
        if options != PictureOptions():  # each form of a folder has its own entry
            key.update(repr(options).encode())
        return cached(
            f"folder-{key.hexdigest()[:32]}",
            _fingerprint(files, options),
            lambda: _decode(files, options),
            cache_dir=cache_dir,
            required=False,
        )


def _fingerprint(files: LabelledFiles, options: PictureOptions) -> str:
    digest = hashlib.sha256(f"{_DECODING} {options!r}\n".encode())
    for split in (files.train, files.test):
        for path, label in split:
            # The time of the last change of the file itself differs where the modification time is
            # copied with the content.
            stat = path.stat()
            name = os.fsencode(path.relative_to(files.root)) + b"\0" + label.encode()
            digest.update(
                b"%s\0%d %d %d\n" % (name, stat.st_size, stat.st_mtime_ns, stat.st_ctime_ns)
            )
        digest.update(b"\n")
    return digest.hexdigest()


def _decode(files: LabelledFiles, options: PictureOptions) -> Dataset:
    check_pillow(files.root)
    paths = files.paths
    pixels: list[UInt8[np.ndarray, "H W C"]] = []
    try:
        pixels = read_each(paths, options, read_picture)
        check_brightness(paths, [int(image.max()) for image in pixels])
        num_channels = max(image.shape[2] for image in pixels)
        images: UInt8[np.ndarray, "N H W C"] = np.concatenate(
            [np.broadcast_to(image, (1, *image.shape[:2], num_channels)) for image in pixels]
        )
    except MemoryError:
        size = "×".join(map(str, pixels[0].shape[:2] if pixels else options.size or ()))
        raise DataError(
            f"the {len(paths)} images{f' of {size}' * bool(size)} in {files.root} do not fit in "
            "memory. Use fewer or smaller images (resize=), or stream them with stream_folder."
        ) from None
    num_train = len(files.train)
    return Dataset(
        name=files.root.name,
        train=Split(images[:num_train], files.labels(files.train)),
        test=Split(images[num_train:], files.labels(files.test)),
        class_names=files.class_names,
    )


def read_each(
    paths: Sequence[Path],
    options: PictureOptions,
    read: Callable[[Path, PictureOptions, Path, tuple[int, int] | None], _Result],
) -> list[_Result]:
    """Returns what a function reads of every picture.

    Args:
      paths: of the pictures.
      options: what to make of them.
      read: `read_picture` or `picture_shape`, or a function with the same arguments.

    Raises:
      DataError: after all have been read, if any cannot be. The message names the first with its
        fault, and some of the others.
    """
    found: list[_Result] = []
    faults: list[tuple[Path, DataError]] = []
    size: tuple[int, int] | None = None
    for path in paths:
        # Sizes are compared before decoding, so that one file cannot take more memory.
        try:
            result = read(path, options, paths[0], size)
        except DataError as error:
            faults.append((path, error))
            continue
        if size is None and path == paths[0]:
            shape: Any = getattr(result, "shape", result)
            size = (shape[0], shape[1])
        found.append(result)
    if faults:
        _, first = faults[0]
        others = ", ".join(str(path) for path, _ in faults[1 : 1 + _SHOWN])
        more = f", and {len(faults) - 1 - _SHOWN} more" * (len(faults) > 1 + _SHOWN)
        raise DataError(f"{first}{f' Also wrong: {others}{more}.' if others else ''}") from first
    return found
