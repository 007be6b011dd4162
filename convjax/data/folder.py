"""Image folders: one folder per split, in it one per class, in it the images."""

from __future__ import annotations

import hashlib
import importlib.util
import os
import re
import warnings
from collections.abc import Iterator
from pathlib import Path

import numpy as np

from convjax.data.cache import cached
from convjax.data.dataset import DataError, Dataset, Split
from convjax.data.paths import expanded

TRAIN_NAMES = ("train", "training")
TEST_NAMES = ("test", "testing", "valid")
_SUFFIXES = (".png", ".jpg", ".jpeg")
GREY_MODES = ("L", "1")
# Not all that Pillow knows by the content: it would hand PostScript to another program.
FORMATS = ("PNG", "JPEG")
# An image of 4096×4096; a file of a few kilobytes may declare, and unfold to, thousands as many.
_MAX_PIXELS = 1 << 24

# The image files of one split by class, classes sorted, files in natural order.
_Listing = dict[str, list[Path]]


def load_folder(
    folder: str | os.PathLike[str], *, cache_dir: str | os.PathLike[str] | None = None
) -> Dataset:
    """Read a folder of images `train/CLASS/*.png` and `test/CLASS/*.png`.

    The training folder may be called train or training, the other test, testing or valid (the
    first of these that is there). Images are .png, .jpg or .jpeg; hidden files are passed over.
    Class names are sorted; within a class files are in natural order: 2.png before 10.png.
    Images are decoded once and then cached until a file's name, size or time of change differs.

    Args:
        folder: holds the two splits.
        cache_dir: see `convjax.data.load`.

    Returns:
        images (N, H, W, 1) where all are greyscale (PIL modes L, 1 and I;16, of which the upper
        eight bits are kept), otherwise (N, H, W, 3) in RGB.

    Memory is bounded by the number of files times the size of the first, which is at most 2^24
    pixels. Nothing in the files is executed.

    Raises:
        DataError: for a missing or unreadable folder, a class without images or whose name is no
            text, classes that differ between the splits, an unreadable or too large image, images
            of different sizes, and a missing Pillow.
    """
    try:
        return _load(expanded(folder).resolve(), cache_dir)
    # Links that lead in a circle are a RuntimeError.
    except (OSError, RuntimeError) as error:
        reason = getattr(error, "strerror", None) or error
        raise DataError(
            f"{os.fspath(folder)}: cannot be read ({reason}); a readable folder of images is "
            "needed: check the path, its links and its permissions"
        ) from error


def _load(root: Path, cache_dir: str | os.PathLike[str] | None) -> Dataset:
    if not root.is_dir():
        raise DataError(
            f"{root}: no such folder; a folder with train/CLASS/*.png and test/CLASS/*.png is "
            "needed: correct the path"
        )
    train = list_split(root, TRAIN_NAMES)
    test = list_split(root, TEST_NAMES)
    if list(train) != list(test):
        only = {"training": sorted(train.keys() - test.keys())}
        only["test"] = sorted(test.keys() - train.keys())
        differing = "; ".join(
            f"{', '.join(names)} only in {s}" for s, names in only.items() if names
        )
        raise DataError(
            f"{root}: the splits have different classes ({differing}); both need the same: add or "
            "remove class folders"
        )
    return cached(
        f"folder-{hashlib.sha256(os.fsencode(root)).hexdigest()[:32]}",
        _fingerprint(root, (train, test)),
        lambda: _decode(root, train, test),
        cache_dir=cache_dir,
        required=False,
    )


def list_split(root: Path, names: tuple[str, ...]) -> _Listing:
    """The image files of a split by class, the split being the first of these names that is there.

    Raises:
        DataError: if there is none, or a class without images.
    """
    present = [root / name for name in names if (root / name).is_dir()]
    if not present:
        has_idx_files = any(root.glob("*ubyte*"))
        raise DataError(
            f"{root}: has no folder {' or '.join(names)}; images are looked for in "
            f"{names[0]}/CLASS/*.png: "
            + (
                f'IDX files, as found there, are loaded by load("mnist", data_dir="{root}")'
                if has_idx_files
                else "rename or move the folders"
            )
        )
    split = present[0]
    classes = sorted(p.name for p in split.iterdir() if p.is_dir() and not p.name.startswith("."))
    if not classes:
        raise DataError(
            f"{split}: has no class folder; images are looked for in {split.name}/CLASS/*.png: "
            "move them into a folder for each class"
        )
    for name in classes:
        if not name.isprintable():
            raise DataError(
                f"{str(split / name)!r}: a class needs a name of printable characters: rename the "
                "folder in all splits"
            )
    listing = {name: sorted(_images(split / name), key=_natural) for name in classes}
    for name, files in listing.items():
        if not files:
            raise DataError(
                f"{split / name}: holds no image ({', '.join(_SUFFIXES)}); each class needs at "
                "least one: add images, or remove the folder from all splits"
            )
    return listing


def _images(folder: Path) -> Iterator[Path]:
    for path in folder.iterdir():
        if path.suffix.lower() in _SUFFIXES and not path.name.startswith(".") and path.is_file():
            yield path


def _natural(path: Path) -> tuple[list[str | int], str]:
    """Sort key that compares runs of digits as numbers; the name itself separates 1 from 01."""
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
    if importlib.util.find_spec("PIL") is None:
        raise DataError(
            f"{root}: decoding images needs Pillow, which is not installed: run pip install "
            '"convjax[data]"'
        )
    files = [path for listing in (train, test) for paths in listing.values() for path in paths]
    pixels: list[np.ndarray] = []
    try:
        for path in files:
            # Compared before it is decoded, so that one file cannot take more than its share.
            pixels.append(read_image(path, files[0], pixels[0].shape[:2] if pixels else None))
        num_channels = max(image.shape[2] for image in pixels)
        images = np.concatenate(
            [np.broadcast_to(image, (1, *image.shape[:2], num_channels)) for image in pixels]
        )
    except MemoryError:
        height, width = pixels[0].shape[:2]
        raise DataError(
            f"{root}: {len(files)} images of {height}×{width} do not fit the memory: take fewer, "
            "or smaller ones"
        ) from None
    num_train = sum(map(len, train.values()))
    return Dataset(
        name=root.name,
        train=Split(images[:num_train], labels_of(train)),
        test=Split(images[num_train:], labels_of(test)),
        class_names=tuple(train),
    )


def labels_of(listing: _Listing) -> np.ndarray:
    """The label of each file, (N,) int32."""
    return np.repeat(np.arange(len(listing), dtype=np.int32), [len(f) for f in listing.values()])


def read_image(path: Path, first: Path, size: tuple[int, ...] | None) -> np.ndarray:
    """Decode one image to (H, W, 1) or (H, W, 3) uint8; `size` is that of `first`, if known."""
    from PIL import Image

    try:
        # Of metadata that are damaged, or a transparency that RGB does not have.
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
    except Image.DecompressionBombError as error:  # before `check_size` can say it
        raise DataError(f"{path}: the image is too large ({error}): resize it") from error
    # Decoders of damaged files raise whatever they happen to meet, SyntaxError included.
    except Exception as error:
        raise DataError(
            f"{path}: cannot be decoded ({type(error).__name__}: {error}); a readable PNG or JPEG "
            "image is needed: replace or remove the file"
        ) from error


def check_size(
    path: Path, found: tuple[int, int], first: Path, size: tuple[int, ...] | None
) -> None:
    """Check (height, width) as the file declares it, before anything is decoded."""
    height, width = found
    if height * width > _MAX_PIXELS:
        raise DataError(
            f"{path}: the image is {height}×{width} (height×width); at most {_MAX_PIXELS} pixels "
            "are decoded: resize it"
        )
    if size is not None and found != size:
        raise DataError(
            f"{path}: the image is {height}×{width}, but {first} is {size[0]}×{size[1]} "
            "(height×width); all must be of one size: resize them"
        )
