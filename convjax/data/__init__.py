"""Images with labels: in memory from one function, `load`, or left in their files by a `Stream`."""

from convjax.data.batches import epoch_order
from convjax.data.embedded import mnist5k_unsplit
from convjax.data.loading import load
from convjax.data.normalization import normalization
from convjax.data.selection import select_classes
from convjax.data.stream import Stream, Streams, stream_folder, stream_idx
from convjax.data.types import DataError, Dataset, Split

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
