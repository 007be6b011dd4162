"""Prepared data sets kept as files: written atomically, verified when read, rebuilt when damaged.

A file is a line with format version and SHA-256 digest of all that follows, a line of JSON (names,
shapes), and the bytes of the four arrays. Nothing in it is ever executed or unpickled.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import logging
import math
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

_FORMAT = b"convjax-dataset-1"
# Far above any list of class names; bounds what a damaged file can make readline collect.
_MAX_HEADER_BYTES = 16 << 20
_ARRAYS = (("train", "images"), ("train", "labels"), ("test", "images"), ("test", "labels"))
_DTYPES: dict[str, np.dtype[Any]] = {"images": np.dtype("u1"), "labels": np.dtype("<i4")}

_log = logging.getLogger(__name__)


class DamagedCacheError(DataError):
    """A cache file whose content is not what was written."""


def cache_folder(cache_dir: str | os.PathLike[str] | None = None) -> Path:
    """The folder for prepared data: `cache_dir`, else $CONVJAX_CACHE_DIR, else the user's cache."""
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
    """The data set stored under `key`, built and stored first where it is not there.

    Several processes may ask at once: one builds, the others wait for it. Reading takes no lock,
    because files are only ever replaced whole.

    Args:
        key: file name without suffix.
        fingerprint: stands for the state of the source; another one than the stored makes the
            entry stale, and it is replaced.
        build: makes the data set.
        cache_dir: see `cache_folder`.
        required: whether building without being able to store is an error. Otherwise a warning
            says so and the data set is built each time.

    Raises:
        DataError: before anything is built, where the cache is `required` and cannot be written.
    """
    folder = cache_folder(cache_dir)
    path = folder / f"{key}.data"
    try:
        dataset = read(path, fingerprint)
    except DamagedCacheError as error:
        _log.warning("%s; building it again", error)
        dataset = None
    if dataset is not None:
        return dataset
    obstacle = _obstacle_to_writing(folder)
    if obstacle is not None:
        message = (
            f"cache folder {folder}: it cannot be written ({obstacle}); prepared data are kept "
            "there: choose another with cache_dir or $CONVJAX_CACHE_DIR"
        )
        if required:
            raise DataError(message)
        warnings.warn(f"{message}; going on without a cache", stacklevel=2)
        return build()
    with filelock.FileLock(folder / f"{key}.lock"):
        # Another process may have finished while this one waited.
        with contextlib.suppress(DamagedCacheError):
            dataset = read(path, fingerprint)
        if dataset is None:
            dataset = build()
            try:
                write(path, fingerprint, dataset)
            except OSError as error:
                warnings.warn(
                    f"cache file {path}: it could not be written ({error}); the data are loaded "
                    "but will be prepared again next time: make room there, or choose another "
                    "folder with cache_dir or $CONVJAX_CACHE_DIR",
                    stacklevel=2,
                )
    return dataset


def write(path: Path, fingerprint: str, dataset: Dataset) -> None:
    """Store a data set, so that `path` holds either the old content or all of the new.

    The caller holds the lock of this entry: all writers use the same temporary file, so that one
    that was killed leaves nothing that piles up.
    """
    arrays = [
        np.ascontiguousarray(getattr(getattr(dataset, split), kind), _DTYPES[kind])
        for split, kind in _ARRAYS
    ]
    header = json.dumps(
        {
            "fingerprint": fingerprint,
            "name": dataset.name,
            "class_names": dataset.class_names,
            "shapes": [array.shape for array in arrays],
        }
    )
    parts: list[bytes | memoryview] = [
        header.encode() + b"\n",
        *(array.data.cast("B") for array in arrays),
    ]
    digest = hashlib.sha256()
    for part in parts:
        digest.update(part)
    temporary = path.with_name(f".{path.name}.tmp")
    try:
        with temporary.open("wb") as file:
            file.write(b"%s %s\n" % (_FORMAT, digest.hexdigest().encode()))
            for part in parts:
                file.write(part)
            file.flush()
            os.fsync(file.fileno())
        temporary.replace(path)
    finally:
        temporary.unlink(missing_ok=True)


def read(path: Path, fingerprint: str) -> Dataset | None:
    """The stored data set, or None where there is none for this fingerprint and format.

    Raises:
        DamagedCacheError: for content that is not what was written. Memory stays bounded by the
            length of the file, whatever its header says.
    """
    try:
        with path.open("rb") as file:
            format_name, _, expected = file.readline(256).rstrip(b"\n").partition(b" ")
            if format_name != _FORMAT:
                if format_name.startswith(_FORMAT.rstrip(b"0123456789")):
                    return None
                raise ValueError("the first line does not name the format")
            header = file.readline(_MAX_HEADER_BYTES)
            info: dict[str, Any] = json.loads(header)
            digest = hashlib.sha256(header)
            left = os.fstat(file.fileno()).st_size - file.tell()
            arrays = {}
            for (split, kind), shape in zip(_ARRAYS, info["shapes"], strict=True):
                dtype = _DTYPES[kind]
                num_bytes = math.prod(shape) * dtype.itemsize
                if not 0 < num_bytes <= left:
                    raise ValueError(f"an array of {num_bytes} bytes where {left} are left")
                left -= num_bytes
                array = np.empty(shape, dtype)
                buffer = array.data.cast("B")
                if file.readinto(buffer) != num_bytes:
                    raise ValueError("the file ends early")
                digest.update(buffer)
                arrays[split, kind] = array
            if left or digest.hexdigest().encode() != expected:
                raise ValueError("the checksum does not match")
            if info["fingerprint"] != fingerprint:
                return None
            names = (info["name"], *info["class_names"])
            if not all(isinstance(name, str) for name in names):
                raise ValueError("a name is no text")
            return Dataset(
                name=info["name"],
                train=Split(arrays["train", "images"], arrays["train", "labels"]),
                test=Split(arrays["test", "images"], arrays["test", "labels"]),
                class_names=tuple(info["class_names"]),
            )
    except (FileNotFoundError, NotADirectoryError):
        return None
    except (OSError, ValueError, TypeError, LookupError, RecursionError) as error:
        raise DamagedCacheError(
            f"cache file {path}: it is damaged or unreadable ({error})"
        ) from error


def _obstacle_to_writing(folder: Path) -> OSError | None:
    try:
        folder.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryFile(dir=folder):
            return None
    except OSError as error:
        return error
