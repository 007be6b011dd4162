"""MNIST, Fashion-MNIST and CIFAR-10 from tensorflow-datasets, prepared once and then cached.

TensorFlow and tensorflow-datasets are imported only while a data set is prepared; later runs read
the cached arrays.
"""

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

# Packages that prepare these sets with tensorflow-datasets 4.9; the second is a dependency that it
# does not declare.
_NEEDED = ("tensorflow_datasets", "importlib_resources", "tensorflow")
_CONNECT_SECONDS = 10
PREPARED = ("mnist", "fashion_mnist", "cifar10")


def load_prepared(name: str, *, cache_dir: str | os.PathLike[str] | None = None) -> Dataset:
    """Returns a data set from the cache; tensorflow-datasets prepares it the first time.

    Images are in the order of the original files, as from `load_idx`, not in the shuffled order
    in which tensorflow-datasets stores them by default.

    Args:
      name: "mnist", "fashion_mnist" or "cifar10".
      cache_dir: see `convjax.data.load`. Downloads and prepared files are kept below it until the
        arrays are ready, and are then removed.

    Returns:
      Training and test images, (60000 and 10000, 28, 28, 1), for CIFAR-10 (50000 and 10000, 32,
      32, 3).

    Raises:
      DataError: if nothing is cached and the cache cannot be written, TensorFlow or
        tensorflow-datasets is not installed, or the download or preparation fails.
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
    # The deprecation warnings of TensorFlow and tensorflow-datasets do not concern the caller.
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        try:
            import tensorflow
            import tensorflow_datasets
        except ImportError as error:
            raise _not_installed(name, str(error)) from error
        # JAX needs the GPU's memory. If the program already uses TensorFlow, its choice stays.
        with contextlib.suppress(RuntimeError):
            tensorflow.config.set_visible_devices([], "GPU")
        # A download, a file format or a full disk may raise any kind of error.
        try:
            arrays = _prepare_arrays(tensorflow_datasets, name, folder)
        except DataError:
            raise
        except Exception as error:
            raise DataError(
                f"{name} could not be downloaded or prepared by tensorflow-datasets "
                f"({type(error).__name__}: {error}). {_retry(name)}"
            ) from error
    dataset = Dataset(
        name=name,
        train=_split(arrays["train"]),
        test=_split(arrays["test"]),
        class_names=CLASS_NAMES[name],
    )
    # The arrays hold everything; the downloads and records would double the space.
    shutil.rmtree(folder, ignore_errors=True)
    return dataset


def _prepare_arrays(tfds: Any, name: str, folder: Path) -> dict[str, dict[str, np.ndarray]]:
    builder = tfds.builder(name, data_dir=folder)
    _check_network(name, list(builder.url_infos or ()))
    # In the order of the original files a seed gives the same batches as with IDX files.
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
        raise _not_installed(name, f"{', '.join(missing)} not found")


def _check_network(name: str, urls: list[str]) -> None:
    """Raises DataError without a network, for which tensorflow-datasets would retry for minutes."""
    import requests

    for url in urls[:1]:
        try:
            requests.head(url, timeout=_CONNECT_SECONDS)
        except requests.RequestException as error:
            raise DataError(
                f"{name} cannot be downloaded: {url} cannot be reached ({type(error).__name__}). "
                f"{_retry(name)}"
            ) from error


def _not_installed(name: str, reason: str) -> DataError:
    return DataError(
        f"{name} is not cached, and preparing it needs tensorflow-datasets with TensorFlow "
        f'({reason}). Run pip install "convjax[tfds]", {_alternative(name)}.'
    )


def _retry(name: str) -> str:
    return f"Try again with a network connection, {_alternative(name)}."


def _alternative(name: str) -> str:
    if name == "cifar10":
        return (
            "pass its archive, or a folder with its images, train/CLASS/*.png and "
            "test/CLASS/*.png, as data_dir, or copy the cache folder from another machine"
        )
    return (
        'pass the folder with its four IDX files as data_dir, or use "mnist5k", which needs no '
        "network"
    )
