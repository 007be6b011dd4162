"""Labelled images: `load` reads them into memory, a `Stream` leaves them in their files."""

from convjax.data._load import load
from convjax.data._normalization import normalization
from convjax.data.batches import epoch_order
from convjax.data.dataset import DataError, Dataset, Split
from convjax.data.file_streams import Streams, stream_folder, stream_idx
from convjax.data.mnist5k import mnist5k_unsplit
from convjax.data.pictures import read_image
from convjax.data.selection import select_classes
from convjax.data.stream import Stream

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
    "read_image",
    "select_classes",
    "stream_folder",
    "stream_idx",
]
