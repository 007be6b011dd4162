"""Images with labels: in memory from one function, `load`, or left in their files by a `Stream`."""

from convjax.data._load import load
from convjax.data._normalization import normalization
from convjax.data.batches import epoch_order
from convjax.data.dataset import DataError, Dataset, Split
from convjax.data.mnist5k import mnist5k_unsplit
from convjax.data.selection import select_classes
from convjax.data.stream import Stream, Streams, stream_folder, stream_idx

__all__ = [
    "DataError",
    "Dataset",
    "Split",
    "Stream",
    "Streams",
    "epoch_order",
    "load",
    "mnist5k_unsplit",
    "normalization",
    "select_classes",
    "stream_folder",
    "stream_idx",
]
