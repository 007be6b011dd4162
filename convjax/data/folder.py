"""Image folders: one folder per split, in it one per class, in it the images."""

import hashlib
import importlib.util
import os
import re
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import numpy as np
from jaxtyping import Int32, UInt8

from convjax.data.cache import cached
from convjax.data.dataset import DataError, Dataset, Split
from convjax.data.paths import expanded

_TRAIN_NAMES = ("train", "training")
_TEST_NAMES = ("test", "testing", "valid")
_SUFFIXES = (".png", ".jpg", ".jpeg")
GREY_MODES = ("L", "1")
# Not every format that Pillow recognises by its content: it passes PostScript to another program.
FORMATS = ("PNG", "JPEG")
# An image of 4096×4096. A file of a few kilobytes may unfold to thousands of times as many.
_MAX_PIXELS = 1 << 24

# The image files of one split by class: classes sorted, files in natural order.
_Listing = dict[str, list[Path]]


def load_folder(
    folder: str | os.PathLike[str], *, cache_dir: str | os.PathLike[str] | None = None
) -> Dataset:
    """Returns the images of a folder `train/CLASS/*.png` and `test/CLASS/*.png`.

    The training folder may be called train or training, the other test, testing or valid (the
    first of these that exists). Images are .png, .jpg or .jpeg; hidden files are ignored. Class
    names are sorted; within a class files are in natural order: 2.png before 10.png. Images are
    decoded once and then cached until a file's name, size or modification time changes.

    Memory is bounded by the number of files times the size of the first, which is at most 2^24
    pixels. Nothing in the files is executed.

    Args:
      folder: contains the two splits.
      cache_dir: see `convjax.data.load`.

    Returns:
      Images (N, H, W, 1) if all are greyscale (PIL modes L, 1 and I;16, of which the upper eight
      bits are kept), otherwise (N, H, W, 3) in RGB.

    Raises:
      DataError: for a missing or unreadable folder, a class without images or with an unprintable
        name, classes that differ between the splits, an unreadable or too large image, images of
        different sizes, and without Pillow.
    """
    with reading_errors(folder):
        root, train, test = list_splits(folder)
        return cached(
            f"folder-{hashlib.sha256(os.fsencode(root)).hexdigest()[:32]}",
            _fingerprint(root, (train, test)),
            lambda: _decode(root, train, test),
            cache_dir=cache_dir,
            required=False,
        )


@contextmanager
def reading_errors(folder: str | os.PathLike[str]) -> Iterator[None]:
    """Turns errors of the file system into a `DataError` with the folder's name."""
    try:
        yield
    # Circular links are a RuntimeError.
    except (OSError, RuntimeError) as error:
        reason = getattr(error, "strerror", None) or error
        raise DataError(
            f"{os.fspath(folder)} cannot be read: {reason}. Check the path, its links and its "
            "permissions."
        ) from error


def list_splits(folder: str | os.PathLike[str]) -> tuple[Path, _Listing, _Listing]:
    """Returns the absolute path of a folder, and the files of its training and its test split.

    Raises:
      DataError: if the folder or a split is missing, or their classes differ.
      OSError, RuntimeError: if the folder cannot be read.
    """
    root = expanded(folder).resolve()
    if not root.is_dir():
        raise DataError(
            f"{root} is not a folder. Give the path of a folder with train/CLASS/*.png and "
            "test/CLASS/*.png."
        )
    train, test = _list_split(root, _TRAIN_NAMES), _list_split(root, _TEST_NAMES)
    if list(train) != list(test):
        only = {"training": sorted(train.keys() - test.keys())}
        only["test"] = sorted(test.keys() - train.keys())
        differing = "; ".join(
            f"{', '.join(names)} only in {s}" for s, names in only.items() if names
        )
        raise DataError(
            f"{root} must have the same classes in both splits, got {differing}. Add or remove "
            "class folders."
        )
    return root, train, test


def _list_split(root: Path, names: tuple[str, ...]) -> _Listing:
    """Returns the image files of a split by class; the split is the first of `names` that exists.

    Raises:
      DataError: if none exists, or a class has no images.
    """
    present = [root / name for name in names if (root / name).is_dir()]
    if not present:
        fix = (
            "To load its IDX files, give the name of the data set, and this folder as data_dir."
            if any(root.glob("*ubyte*"))
            else "Rename or move the folders."
        )
        raise DataError(
            f"{root} has no folder {' or '.join(names)}; images belong in {names[0]}/CLASS/*.png. "
            f"{fix}"
        )
    split = present[0]
    classes = sorted(p.name for p in split.iterdir() if p.is_dir() and not p.name.startswith("."))
    if not classes:
        raise DataError(
            f"{split} has no class folder; images belong in {split.name}/CLASS/*.png. Move them "
            "into one folder per class."
        )
    for name in classes:
        if not name.isprintable():
            raise DataError(
                f"class names must be printable characters, got {str(split / name)!r}. Rename the "
                "folder in all splits."
            )
    listing = {name: sorted(_images(split / name), key=_natural) for name in classes}
    for name, files in listing.items():
        if not files:
            raise DataError(
                f"{split / name} must have at least one image ({', '.join(_SUFFIXES)}), got none. "
                "Add images, or remove the folder from all splits."
            )
    return listing


def _images(folder: Path) -> Iterator[Path]:
    for path in folder.iterdir():
        if path.suffix.lower() in _SUFFIXES and not path.name.startswith(".") and path.is_file():
            yield path


def _natural(path: Path) -> tuple[list[str | int], str]:
    """Returns a key that sorts runs of digits as numbers; the name itself separates 1 from 01."""
    # Splitting on a group alternates text and digits, so that equal positions have equal types.
    parts = re.split(r"([0-9]+)", path.name)
    return [int(part) if index % 2 else part for index, part in enumerate(parts)], path.name


def _fingerprint(root: Path, splits: tuple[_Listing, ...]) -> str:
    digest = hashlib.sha256()
    for listing in splits:
        for files in listing.values():
            for path in files:
                stat = path.stat()
                name = os.fsencode(path.relative_to(root))
                digest.update(b"%s\0%d %d\n" % (name, stat.st_size, stat.st_mtime_ns))
    return digest.hexdigest()


def _decode(root: Path, train: _Listing, test: _Listing) -> Dataset:
    check_pillow(root)
    files = [path for listing in (train, test) for paths in listing.values() for path in paths]
    pixels: list[UInt8[np.ndarray, "H W C"]] = []
    try:
        for path in files:
            # Sizes are compared before decoding, so that one file cannot take more memory.
            pixels.append(read_image(path, files[0], pixels[0].shape[:2] if pixels else None))
        num_channels = max(image.shape[2] for image in pixels)
        images = np.concatenate(
            [np.broadcast_to(image, (1, *image.shape[:2], num_channels)) for image in pixels]
        )
    except MemoryError:
        height, width = pixels[0].shape[:2]
        raise DataError(
            f"the {len(files)} images of {height}×{width} in {root} do not fit in memory. Use "
            "fewer or smaller images, or stream them with stream_folder."
        ) from None
    num_train = sum(map(len, train.values()))
    return Dataset(
        name=root.name,
        train=Split(images[:num_train], folder_labels(train)),
        test=Split(images[num_train:], folder_labels(test)),
        class_names=tuple(train),
    )


def folder_labels(listing: _Listing) -> Int32[np.ndarray, " N"]:
    """Returns the label of each file: the index of its class."""
    return np.repeat(np.arange(len(listing), dtype=np.int32), [len(f) for f in listing.values()])


def check_pillow(root: Path) -> None:
    """Raises DataError if Pillow is not installed."""
    if importlib.util.find_spec("PIL") is None:
        raise DataError(
            f"decoding the images of {root} needs Pillow, which is not installed. Run pip install "
            '"convjax[data]".'
        )


def read_image(path: Path, first: Path, size: tuple[int, ...] | None) -> UInt8[np.ndarray, "H W C"]:
    """Returns the decoded pixels of an image, with one channel or three.

    Args:
      path: the image.
      first: the image whose size the others must have.
      size: height and width of `first`; None if they are not yet known.

    Raises:
      DataError: if the image cannot be decoded, is too large, or has another size.
    """
    from PIL import Image

    try:
        # Pillow warns of damaged metadata, and of a transparency that RGB does not have.
        with warnings.catch_warnings(action="ignore"), Image.open(path, formats=FORMATS) as image:
            check_size(path, (image.height, image.width), first, size)
            if image.mode.startswith("I"):
                # Pillow's own conversion clips 16 bits at 255 instead of scaling them.
                return (np.asarray(image).astype(np.uint16) >> 8).astype(np.uint8)[..., np.newaxis]
            if image.mode in GREY_MODES:
                return np.asarray(image.convert("L"))[..., np.newaxis]
            return np.asarray(image.convert("RGB"))
    except (DataError, MemoryError):
        raise
    except Image.DecompressionBombError as error:  # raised before `check_size` is called
        raise DataError(f"{path} is too large an image ({error}). Resize it.") from error
    # Decoders of damaged files raise many kinds of errors, even SyntaxError.
    except Exception as error:
        raise undecodable(path, error) from error


def undecodable(path: Path, error: Exception) -> DataError:
    """Returns the error of an image that cannot be decoded."""
    return DataError(
        f"{path} cannot be decoded ({type(error).__name__}: {error}). Replace it with a readable "
        "PNG or JPEG image, or remove the file."
    )


def check_size(
    path: Path, found: tuple[int, int], first: Path, size: tuple[int, ...] | None
) -> None:
    """Checks the height and width that a file declares, before anything is decoded.

    Raises:
      DataError: if they are too large, or differ from `size`, those of `first`.
    """
    height, width = found
    if height * width > _MAX_PIXELS:
        raise DataError(
            f"{path} must have at most {_MAX_PIXELS} pixels, got {height}×{width} "
            "(height×width). Resize it."
        )
    if size is not None and found != size:
        raise DataError(
            f"{path} must be {size[0]}×{size[1]} (height×width) like {first}, got "
            f"{height}×{width}. Resize it."
        )
