"""`python -m experiments bench-stream`: training on images in their files, beside resident ones.

The ten-digit network without statistics, so that nothing but the training itself hides the reading.
In each round all sources train the same steps one after the other; a ratio is the median of the
ratios within a round, so that a machine that slows down slows all of them. The files lie in a
temporary folder and, unless memory is short, in the system's cache: what is measured is reading,
decoding and handing over, and not the disk.

Command: python -m experiments bench-stream --data mnist5k --out stream.json
"""

import tempfile
import time
from pathlib import Path
from statistics import median
from typing import Annotated, Any

import jax
import numpy as np
import typer
from flax import nnx

from convjax.data import (
    Dataset,
    Split,
    Stream,
    epoch_order,
    load,
    normalization,
    stream_folder,
)
from convjax.io.json_files import write_json
from convjax.nn.models import ConvNet, digits_net
from convjax.optim.optimizers import adam
from convjax.optim.schedules import one_cycle
from convjax.runs.environment import environment
from convjax.train.device_data import Images
from convjax.train.trainer import Trainer
from experiments.terminal.console import console
from experiments.terminal.options import Data, DataDir, OutFile, mistakes_reported, prepare_file

BATCH_SIZES = (64, 512)
# As many images at either batch size: a few seconds on two cores, and several chunks.
IMAGES = 64 << 10
QUICK_STEPS, QUICK_ROUNDS, QUICK_IMAGES = 3, 2, 200
LR_MAX = 0.06

RESIDENT, MEMMAP, FOLDER = "resident", "memory-mapped .npy", "folder of PNG files"


def sources(split: Split, folder: Path) -> dict[str, Images | Stream]:
    """Returns the same images on the device, in a file of pixels, and in one file each.

    Args:
      folder: an empty one, for the files.

    Raises:
      ImportError: if Pillow is not installed.
    """
    np.save(folder / "images.npy", split.images)
    mapped = np.load(folder / "images.npy", mmap_mode="r")
    _write_folder(split, folder / "set")
    decoded = stream_folder(folder / "set").train
    # Of the folder in its own order, by class; put back into the split's.
    place = np.argsort(np.argsort(split.labels, kind="stable"), kind="stable")
    return {
        RESIDENT: Images.put(split),
        MEMMAP: Stream(mapped, split.labels),
        FOLDER: Stream(_Reordered(decoded.images, place), split.labels),
    }


class _Reordered:
    """Rows in another order."""

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
            'writing images needs Pillow, which is not installed: pip install "convjax[data]"'
        ) from error
    # A folder of images has a second split, with the same classes: one image of each.
    firsts = np.unique(split.labels, return_index=True)[1]
    for name, wanted in (("train", range(len(split.labels))), ("test", firsts)):
        for i in wanted:
            image, label = split.images[i], split.labels[i]
            # Names of equal length keep their order, also for more than ten classes.
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
        split = Split(split.images[:QUICK_IMAGES], split.labels[:QUICK_IMAGES])
    sizes = [size for size in BATCH_SIZES if size <= len(split.labels)]
    if not sizes:
        raise ValueError(
            f"data must hold at least {BATCH_SIZES[0]} images, got {len(split.labels)}."
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
    if quick:  # to compile
        network = ConvNet((channels, 4, 4, classes), stride=4, rngs=nnx.Rngs(0))
    trainer = Trainer(network, adam(), mean=mean, std=std, watch=None)
    steps = QUICK_STEPS if quick else IMAGES // size
    examples = len(found[RESIDENT].labels)
    epochs = -(-steps // (examples // size))  # an epoch leaves its last images out
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
                f"{name} trains otherwise than resident data: no figure means anything."
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
    lines = ["| batch | images | images per second | of resident |", "|---|---|---|---|"]
    lines += [
        f"| {row['batch_size']} | {row['source']} | {row['median_images_per_second']:,.0f} | "
        f"{row['ratio']:.2f} |"
        for row in rows
    ]
    return "\n".join(lines)


def run_bench_stream(
    data: Data = "mnist5k",
    data_dir: DataDir = None,
    rounds: Annotated[
        int, typer.Option(min=1, help="Trainings of each case, taken in turns; medians are shown.")
    ] = 5,
    quick: Annotated[
        bool,
        typer.Option("--quick", help="A small network, three steps, two rounds: decides nothing."),
    ] = False,
    out: OutFile = Path("stream.json"),
) -> None:
    """Measures training on streamed images beside resident ones, and writes stream.json."""
    shown = console()
    with mistakes_reported("stopped; nothing was written."):
        prepare_file(out)
        rows = measure_streams(load(data, data_dir=data_dir), rounds, quick)
        write_json(
            out, {"environment": environment(), "data": data, "quick": quick, "streams": rows}
        )
    shown.print(markdown_streams(rows), highlight=False, markup=False)
    shown.print(f"all figures: {out}", highlight=False, soft_wrap=True)
