"""Images with labels, from one function: `load`."""

from convjax.data.batches import epoch_order
from convjax.data.embedded import mnist5k_unsplit
from convjax.data.loading import load
from convjax.data.normalization import normalization
from convjax.data.selection import select_classes
from convjax.data.types import DataError, Dataset, Split

__all__ = [
    "DataError",
    "Dataset",
    "Split",
    "epoch_order",
    "load",
    "mnist5k_unsplit",
    "normalization",
    "select_classes",
]
