"""MNIST, Fashion-MNIST and CIFAR-10 through tensorflow-datasets, prepared once and then cached.

TensorFlow and tensorflow-datasets are imported only while a data set is prepared; later runs read
the cached arrays.
"""

from __future__ import annotations

import contextlib
import importlib.util
import os
import shutil
import warnings
from pathlib import Path
from typing import Any

import numpy as np

from convjax.data.cache import cache_folder, cached
from convjax.data.catalog import CLASS_NAMES
from convjax.data.dataset import DataError, Dataset, Split

# What tensorflow-datasets 4.9 needs to prepare these sets; the second is an undeclared dependency.
_NEEDED = ("tensorflow_datasets", "importlib_resources", "tensorflow")
_CONNECT_SECONDS = 10


def load_prepared(name: str, *, cache_dir: str | os.PathLike[str] | None = None) -> Dataset:
    """A data set from the cache, prepared there by tensorflow-datasets the first time.

    Images are in the order of the original files, as from `load_idx`, not in the shuffled order
    in which tensorflow-datasets stores them by default.

    Args:
        name: "mnist", "fashion_mnist" or "cifar10".
        cache_dir: see `convjax.data.load`. Downloads and prepared files are kept below it until
            the arrays are ready, and are then removed.

    Returns:
        train and test images, (60000 and 10000, 28, 28, 1), for CIFAR-10 (50000 and 10000, 32,
        32, 3).

    Raises:
        DataError: where nothing is cached and the cache cannot be written, TensorFlow or
            tensorflow-datasets is absent, or the download or preparation fails.
    """
    folder = cache_folder(cache_dir) / f"{name}-tfds"
    return cached(
        name,
        "tfds original order",
        lambda: _prepare(name, folder),
        cache_dir=cache_dir,
        required=True,
    )


def _prepare(name: str, folder: Path) -> Dataset:
    _check_installed(name)
    os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "2")
    # The deprecations that TensorFlow and tensorflow-datasets announce are not the caller's.
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        try:
            import tensorflow
            import tensorflow_datasets
        except ImportError as error:
            raise _absent(name, str(error)) from error
        # JAX needs the GPU's memory. A program that already uses TensorFlow has decided for itself.
        with contextlib.suppress(RuntimeError):
            tensorflow.config.set_visible_devices([], "GPU")
        # Any kind of error may come out of a download, a file format or a full disk.
        try:
            arrays = _prepare_arrays(tensorflow_datasets, name, folder)
        except DataError:
            raise
        except Exception as error:
            raise DataError(
                f"{name}: tensorflow-datasets could not download or prepare it "
                f"({type(error).__name__}: {error}); {_way_out(name)}"
            ) from error
    dataset = Dataset(
        name=name,
        train=_split(arrays["train"]),
        test=_split(arrays["test"]),
        class_names=CLASS_NAMES[name],
    )
    # The arrays hold all of it; the downloads and records would only double the space.
    shutil.rmtree(folder, ignore_errors=True)
    return dataset


def _prepare_arrays(tfds: Any, name: str, folder: Path) -> dict[str, dict[str, np.ndarray]]:
    builder = tfds.builder(name, data_dir=folder)
    _check_network(name, list(builder.url_infos or ()))
    # The order of the original files, so that a seed gives the same batches as with IDX files.
    builder.info.as_proto.disable_shuffling = True
    builder.download_and_prepare(
        download_dir=folder / "downloads",
        download_config=tfds.download.DownloadConfig(try_download_gcs=False),
    )
    return {
        split: tfds.as_numpy(builder.as_dataset(split=split, batch_size=-1))
        for split in ("train", "test")
    }


def _split(arrays: dict[str, np.ndarray]) -> Split:
    return Split(images=arrays["image"], labels=arrays["label"].astype(np.int32))


def _check_installed(name: str) -> None:
    missing = [package for package in _NEEDED if importlib.util.find_spec(package) is None]
    if missing:
        raise _absent(name, f"{', '.join(missing)} not found")


def _check_network(name: str, urls: list[str]) -> None:
    """Fail within seconds where tensorflow-datasets would go on trying for minutes."""
    import requests

    for url in urls[:1]:
        try:
            requests.head(url, timeout=_CONNECT_SECONDS)
        except requests.RequestException as error:
            raise DataError(
                f"{name}: no network: {url} cannot be reached ({type(error).__name__}); "
                f"{_way_out(name)}"
            ) from error


def _absent(name: str, reason: str) -> DataError:
    return DataError(
        f"{name}: is not cached, and preparing it needs tensorflow-datasets with TensorFlow "
        f'({reason}): run pip install "convjax[tfds]"; {_way_out(name)}'
    )


def _way_out(name: str) -> str:
    if name == "cifar10":
        return (
            "it is downloaded once and then cached: pass a folder with its images, "
            "train/CLASS/*.png and test/CLASS/*.png, as data_dir, try again with a network "
            "connection, or copy the cache folder from another machine"
        )
    return (
        "it is downloaded once and then cached: try again with a network connection, or pass the "
        'folder with its four IDX files as data_dir; "mnist5k" needs no network'
    )
