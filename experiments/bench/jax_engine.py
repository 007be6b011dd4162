"""The benchmark's training with `convjax.Trainer`, and the data for both engines."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx

from convjax import Images, Trainer, Watch, adam, digits_net, one_cycle
from convjax.analysis import summary
from convjax.data import Split, epoch_order, load, normalization
from convjax.ops.layout import resolve_layout
from convjax.runs.environment import environment
from experiments.bench.case import MATRIX, BenchCase

LR_MAX = 0.06

# By the statistics of a case: "all" is the chapter's; the entries from "gradients" on are one
# quantity alone, without histograms except for the last two.
ALONE = Watch(activations=False, histogram=False, gradients=True)
WATCHED: dict[str, Watch | None] = {
    "none": None,
    "scalars": Watch(histogram=False),
    "all": Watch(),
    "scalars and units": Watch(histogram=False, units=True),
    "gradients": ALONE,
    "updates": replace(ALONE, gradients=False, updates=True),
    "inputs": replace(ALONE, gradients=False, inputs=True),
    "evaluation": replace(ALONE, gradients=False, evaluation=True),
    "gradients and updates with histograms": replace(ALONE, histogram=True, updates=True),
    "everything": Watch.everything(),
}


class JaxProgram:
    """An epoch of `convjax.Trainer`."""

    def __init__(self, case: BenchCase, data: Mapping[str, Any]):
        kept = WATCHED[case.stats]
        watch = None if kept is None else replace(kept, every=case.every)
        images = data["images"]
        self.model = digits_net(
            in_features=images.shape[-1],
            classes=int(data["classes"]),
            norm=case.norm,
            layout=case.layout,
            param_dtype=np.dtype(case.dtype),  # jax has registered bfloat16 with NumPy
            rngs=nnx.Rngs(0),
        )
        devices = None if case.devices == 1 else jax.devices()[: case.devices]
        self.trainer = Trainer(
            self.model,
            adam(),
            mean=data["mean"],
            std=data["std"],
            watch=watch,
            devices=devices,
        )
        self.images = Images.put(Split(images, data["labels"]), devices)
        self.order = data[f"order_{case.batch_size}"]
        self.table = {
            name: data[f"{name}_{case.batch_size}"] for name in ("learning_rate", "momentum")
        }

    @property
    def compile_seconds(self) -> float | None:
        """Seconds of tracing and compiling so far."""
        return self.trainer.compile_seconds

    def reset(self) -> None:
        """Restores the initial parameters."""
        self.state = jax.block_until_ready(self.trainer.start(self.model))

    def epoch(self) -> Any:
        """Trains one epoch and returns the record."""
        self.state, record = self.trainer.run(self.state, self.images, self.order, self.table)
        jax.block_until_ready(self.state)
        return record


def product() -> Callable[[int], Any]:
    """Returns a function that multiplies two float32 matrices a number of times and waits."""
    a = jax.random.normal(jax.random.key(0), (MATRIX, MATRIX), jnp.float32)
    product = jax.jit(jnp.dot)
    return lambda times: jax.block_until_ready([product(a, a) for _ in range(times)][-1])


def about() -> dict[str, Any]:
    """Returns the environment, the devices, and the layout for "auto" on this machine."""
    return {
        "environment": environment(),
        "device": str(jax.devices()[0].device_kind),
        "devices": len(jax.devices()),
        "accelerator": jax.default_backend() != "cpu",
        "layout": resolve_layout("auto"),
    }


def device_peak() -> int | None:
    """Returns the device's peak memory in bytes; None if the backend has no count, as on CPU."""
    return (jax.devices()[0].memory_stats() or {}).get("peak_bytes_in_use")


def setup(
    path: str, data: str, data_dir: str | None, batch_sizes: Sequence[int], quick: bool
) -> dict[str, Any]:
    """Writes the data of the training to a file, which both engines read.

    Args:
      path: of the file.
      data: a name or a folder, as for `convjax.data.load`.
      data_dir: folder of the data set's files.
      batch_sizes: those to prepare; sizes above the number of images are left out.
      quick: whether an epoch has three steps only.

    Returns:
      The number of images, the prepared batch sizes, the images per epoch of each, and the
      floating-point operations per image.
    """
    dataset = load(data, data_dir=data_dir)
    images, labels = dataset.train.images, dataset.train.labels
    classes, image = len(dataset.class_names), images.shape[1:]
    mean, std = normalization(images)
    arrays: dict[str, Any] = {"images": images, "labels": labels, "mean": mean, "std": std}
    per_epoch = {}
    for size in (size for size in batch_sizes if size <= len(labels)):
        order = epoch_order(len(labels), size, seed=0, epoch=0)[: 3 if quick else None]
        table = one_cycle(len(order), LR_MAX).table(len(order))
        arrays[f"order_{size}"], per_epoch[size] = order, order.size
        arrays |= {f"{name}_{size}": np.asarray(column) for name, column in table.items()}
    np.savez(path, classes=np.asarray(classes), **arrays)
    network = nnx.eval_shape(
        lambda: digits_net(in_features=image[-1], classes=classes, rngs=nnx.Rngs(0), layout="NHWC")
    )
    counted = [row.multiplications or 0 for row in summary(network, (1, *image)).rows]
    # Forward, and backward to weights and input; the first layer needs no gradient of the images.
    flops = 2 * (3 * sum(counted) - counted[0])
    return {
        "examples": len(labels),
        "batch_sizes": list(per_epoch),
        "images_per_epoch": per_epoch,
        "flops_per_image": flops,
    }
