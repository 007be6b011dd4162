"""The cache of prepared data sets: .npz files, verified when read and rebuilt when damaged."""

import contextlib
import json
import logging
import os
import tempfile
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

import filelock
import numpy as np
import platformdirs

from convjax.data.dataset import DataError, Dataset, Split
from convjax.data.paths import expanded
from convjax.io.array_schema import Axis, Field, check_fields
from convjax.io.atomic import atomic_write, partial_files
from convjax.io.npz import NpzError, read_npz

# The version of the files' content, in the array "format".
_FORMAT = 2

_IMAGE_AXES = (Axis("height"), Axis("width"), Axis("channels"))
_FIELDS = {
    "format": Field("i"),
    "header": Field("U"),  # JSON, which unlike NumPy's text keeps every name that a file can have
    "train.images": Field("u", (Axis("train"), *_IMAGE_AXES)),
    "train.labels": Field("i", (Axis("train"),)),
    "test.images": Field("u", (Axis("test"), *_IMAGE_AXES)),
    "test.labels": Field("i", (Axis("test"),)),
}

_log = logging.getLogger(__name__)


class DamagedCacheError(DataError):
    """A cache file's content differs from what was written."""


def cache_folder(cache_dir: str | os.PathLike[str] | None = None) -> Path:
    """Returns the folder of prepared data.

    It is `cache_dir`, else $CONVJAX_CACHE_DIR, else convjax's folder in the user's cache.
    """
    chosen = cache_dir or os.environ.get("CONVJAX_CACHE_DIR")
    if chosen:
        return expanded(chosen).absolute()
    return Path(platformdirs.user_cache_dir("convjax", appauthor=False))


def cached(
    key: str,
    fingerprint: str,
    build: Callable[[], Dataset],
    *,
    cache_dir: str | os.PathLike[str] | None,
    required: bool,
) -> Dataset:
    """Returns the data set stored under `key`; builds and stores it first if it is missing.

    Of several processes that ask at once, one builds and the others wait for it. Reading takes no
    lock, because files are replaced atomically.

    Args:
      key: file name without suffix.
      fingerprint: identifies the state of the source. An entry with another one is stale, and is
        replaced.
      build: makes the data set.
      cache_dir: see `cache_folder`.
      required: makes a folder that cannot be written an error. Otherwise it is a warning, and the
        data set is built each time.

    Raises:
      DataError: before anything is built, if the cache is `required` and cannot be written.
    """
    folder = cache_folder(cache_dir)
    path = folder / f"{key}.npz"
    try:
        dataset = read(path, fingerprint)
    except DamagedCacheError as error:
        _log.warning("%s Building it again.", error)
        dataset = None
    if dataset is not None:
        return dataset
    obstacle = _write_error(folder)
    if obstacle is not None:
        message = (
            f"cache folder {folder} cannot be written: {obstacle}. Choose another for prepared "
            "data with cache_dir or $CONVJAX_CACHE_DIR."
        )
        if required:
            raise DataError(message)
        warnings.warn(f"{message} Continuing without a cache.", stacklevel=2)
        return build()
    with filelock.FileLock(folder / f"{key}.lock"):
        # Another process may have finished while this one waited.
        with contextlib.suppress(DamagedCacheError):
            dataset = read(path, fingerprint)
        if dataset is None:
            dataset = build()
            _store(path, fingerprint, dataset)
    return dataset


def _store(path: Path, fingerprint: str, dataset: Dataset) -> None:
    """Writes an entry whose lock is held, with a warning if that fails."""
    # Killed processes leave files of hundreds of megabytes.
    for partial in partial_files(path.parent):
        if partial.name.startswith(f".{path.name}."):
            partial.unlink(missing_ok=True)
    try:
        write(path, fingerprint, dataset)
    except OSError as error:
        warnings.warn(
            f"cache file {path} could not be written: {error}. The data are loaded, but will be "
            "prepared again next time. Free space there, or choose another folder with cache_dir "
            "or $CONVJAX_CACHE_DIR.",
            stacklevel=3,
        )


def write(path: Path, fingerprint: str, dataset: Dataset) -> None:
    """Stores a data set atomically."""
    header = {
        "fingerprint": fingerprint,
        "name": dataset.name,
        "class_names": dataset.class_names,
    }
    arrays: dict[str, Any] = {"format": _FORMAT, "header": json.dumps(header)}
    for name in ("train", "test"):
        split: Split = getattr(dataset, name)
        arrays |= {f"{name}.images": split.images, f"{name}.labels": split.labels}
    with atomic_write(path) as file:
        np.savez(file, **arrays)


def read(path: Path, fingerprint: str) -> Dataset | None:
    """Returns a stored data set, or None if there is none of this fingerprint and format.

    Nothing in the file is executed, and memory is bounded by its length.

    Raises:
      DamagedCacheError: if the content differs from what was written.
    """
    if not path.exists():
        return None
    try:
        arrays = read_npz(path, limit=0)  # `write` compresses nothing
        if "format" in arrays and int(arrays["format"]) != _FORMAT:
            return None
        check_fields(arrays, _FIELDS)
        header = json.loads(str(arrays["header"]))
        if header["fingerprint"] != fingerprint:
            return None
        names = (header["name"], *header["class_names"])
        if not all(isinstance(name, str) for name in names):
            raise ValueError("a name must be text")
        train, test = (
            Split(arrays[f"{name}.images"], arrays[f"{name}.labels"]) for name in ("train", "test")
        )
        return Dataset(header["name"], train, test, tuple(header["class_names"]))
    except FileNotFoundError:
        return None
    except (NpzError, ValueError, TypeError, LookupError, RecursionError) as error:
        raise DamagedCacheError(f"cache file {path} is damaged or unreadable: {error}.") from error


def _write_error(folder: Path) -> OSError | None:
    """Returns why nothing can be written to a folder, or None; makes the folder if needed."""
    try:
        folder.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryFile(dir=folder):
            return None
    except OSError as error:
        return error
