"""`python -m experiments bench-stream`: training on images read from files and on resident images.

The network is the ten-digit one without statistics, so that only the training itself can hide the
reading. In each round, all sources train the same steps in turn. A ratio is the median of the
ratios within a round, so that a machine that slows down slows all of them. The files are in a
temporary folder and, unless memory is short, in the system's cache, so that reading, decoding and
transferring are measured, and not the disk. A quick run takes a small network, three steps and two
rounds.

Command: python -m experiments bench-stream --data mnist5k --out stream.json
"""

import tempfile
import time
from pathlib import Path
from statistics import median
from typing import Any

import jax
import numpy as np
from flax import nnx
from rich.console import Console

from convjax.data import (
    Dataset,
    Split,
    Stream,
    epoch_order,
    load,
    normalization,
    stream_folder,
)
from convjax.nn.models import ConvNet, digits_net
from convjax.optim.optimizers import adam
from convjax.optim.schedules import one_cycle
from convjax.runs.environment import environment
from convjax.terminal.command import measure_to_file
from convjax.terminal.tables import TextTable
from convjax.train.device_data import Images
from convjax.train.trainer import Trainer

BATCH_SIZES = (64, 512)
# Images per measurement, for every batch size: a few seconds on two cores, and several chunks.
IMAGES = 64 << 10
QUICK_STEPS, QUICK_ROUNDS, QUICK_IMAGES = 3, 2, 200
LR_MAX = 0.06

RESIDENT, MEMMAP, FOLDER = "resident", "memory-mapped .npy", "folder of PNG files"


def sources(split: Split, folder: Path) -> dict[str, Images | Stream]:
    """Returns the same images from three sources: the device, one file of pixels, a file per image.

    Args:
      split: the images and labels.
      folder: an empty folder for the files.

    Raises:
      ImportError: if Pillow is not installed.
    """
    np.save(folder / "images.npy", split.images)
    mapped = np.load(folder / "images.npy", mmap_mode="r")
    _write_folder(split, folder / "set")
    decoded = stream_folder(folder / "set").train
    # The folder orders its images by class; this restores the split's order.
    place = np.argsort(np.argsort(split.labels, kind="stable"), kind="stable")
    return {
        RESIDENT: Images.put(split),
        MEMMAP: Stream(mapped, split.labels),
        FOLDER: Stream(_Reordered(decoded.images, place), split.labels),
    }


class _Reordered:
    """Images of another source in another order."""

    def __init__(self, rows: Any, place: np.ndarray):
        self.shape, self.dtype = rows.shape, rows.dtype
        self._rows, self._place = rows, place

    def read(self, indices: np.ndarray) -> np.ndarray:
        return self._rows.read(self._place[indices])


def _write_folder(split: Split, folder: Path) -> None:
    try:
        from PIL import Image
    except ImportError as error:
        raise ImportError(
            'Pillow must be installed to write images: pip install "convjax[data]"'
        ) from error
    # A folder must have a test split with the same classes: the negative of one image of each.
    firsts = np.unique(split.labels, return_index=True)[1]
    for name, wanted in (("train", range(len(split.labels))), ("test", firsts)):
        for i in wanted:
            image, label = np.asarray(split.images[i]), split.labels[i]
            image = image if name == "train" else 255 - image
            # Names of equal length keep the order of more than ten classes.
            path = folder / name / f"{label:06}" / f"{i:09}.png"
            path.parent.mkdir(parents=True, exist_ok=True)
            Image.fromarray(image[..., 0] if image.shape[-1] == 1 else image).save(path)


def measure_streams(dataset: Dataset, rounds: int, quick: bool) -> list[dict[str, Any]]:
    """Returns a row for each batch size and source.

    Raises:
      ValueError: if the data set is smaller than every batch.
    """
    split = dataset.train
    if quick:
        # Spread over the set, which may be sorted by class.
        count = min(QUICK_IMAGES, len(split.labels))
        chosen = np.linspace(0, len(split.labels) - 1, count).astype(int)
        split = Split(split.images[chosen], split.labels[chosen])
    sizes = [size for size in BATCH_SIZES if size <= len(split.labels)]
    if not sizes:
        raise ValueError(
            f"data must have at least {BATCH_SIZES[0]} images, got {len(split.labels)}."
        )
    rows = []
    with tempfile.TemporaryDirectory(prefix="convjax-stream-") as name:
        found = sources(split, Path(name))
        for size in sizes:
            rows += _measure(dataset, found, size, QUICK_ROUNDS if quick else rounds, quick)
    return rows


def _measure(
    dataset: Dataset, found: dict[str, Images | Stream], size: int, rounds: int, quick: bool
) -> list[dict[str, Any]]:
    mean, std = normalization(dataset.train.images)
    channels, classes = dataset.train.images.shape[-1], len(dataset.class_names)
    network = digits_net(in_features=channels, classes=classes, rngs=nnx.Rngs(0))
    if quick:  # compiles faster
        network = ConvNet((channels, 4, 4, classes), stride=4, rngs=nnx.Rngs(0))
    trainer = Trainer(network, adam(), mean=mean, std=std, watch=None)
    steps = QUICK_STEPS if quick else IMAGES // size
    examples = len(found[RESIDENT].labels)
    epochs = -(-steps // (examples // size))  # an epoch omits an incomplete last batch
    order = np.concatenate(
        [epoch_order(examples, size, seed=0, epoch=epoch) for epoch in range(epochs)]
    )[:steps]
    table = one_cycle(steps, LR_MAX).table(steps)

    def train(data: Images | Stream) -> tuple[float, np.ndarray]:
        """Returns images per second and the losses."""
        state = jax.block_until_ready(trainer.start(network))
        began = time.perf_counter()
        state, record = trainer.run(state, data, order, table)
        jax.block_until_ready(state)
        return steps * size / (time.perf_counter() - began), record.loss

    losses = {name: train(data)[1] for name, data in found.items()}  # compiles
    for name, loss in losses.items():
        if not (loss == losses[RESIDENT]).all():
            raise ValueError(
                f"{name} must train to the losses of resident data, got others. No figure is valid."
            )
    speeds: dict[str, list[float]] = {name: [] for name in found}
    for _ in range(rounds):
        for name, data in found.items():
            speeds[name].append(train(data)[0])
    return [
        {
            "batch_size": size,
            "source": name,
            "steps": steps,
            "images_per_second": each,
            "median_images_per_second": median(each),
            "ratio": median(a / b for a, b in zip(each, speeds[RESIDENT], strict=True)),
        }
        for name, each in speeds.items()
    ]


def markdown_streams(rows: list[dict[str, Any]]) -> str:
    """Returns the table of images per second, and the ratio to resident data."""
    cells = [
        (
            str(row["batch_size"]),
            row["source"],
            f"{row['median_images_per_second']:,.0f}",
            f"{row['ratio']:.2f}",
        )
        for row in rows
    ]
    return TextTable(("batch", "images", "images per second", "of resident"), cells).markdown()


def run_bench_stream(data: str, data_dir: Path | None, rounds: int, quick: bool, out: Path) -> None:
    """Measures training on streamed and on resident images, and writes stream.json."""

    def measure(_: Console) -> dict[str, Any]:
        rows = measure_streams(load(data, data_dir=data_dir), rounds, quick)
        return {"environment": environment(), "data": data, "quick": quick, "streams": rows}

    measure_to_file(out, measure, lambda report: [markdown_streams(report["streams"])])
