"""The replay of trajectories recorded from fastai, step by step, with the code that every run uses.

A trajectory (an .npz file) has initial parameters, the order of the images, and what fastai on
PyTorch computed in float64 at each step: loss, rate, momentum and the statistics of every layer. At
the end it has the parameters and the validation figures. Equal formulas agree to rounding; a
different formula deviates visibly.

Command: python -m experiments parity tests/golden/mnist5k_onecycle_batchnorm.npz
"""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx

from convjax.data import load, mnist5k_unsplit
from convjax.nn import models
from convjax.ops.layout import kernel_to
from convjax.optim import optimizers, schedules
from convjax.train.device_data import Images
from convjax.train.trainer import Trainer
from experiments.fastai_parity.trajectory import (
    VARIABLES,
    Trajectory,
    TrajectoryError,
    read,
    tensors,
)

# Bounds on the relative deviations. Rounding in float64 stays far below: about 1e-12.
BOUNDS = {
    "loss": 1e-9,
    "lr": 1e-9,
    "mom": 1e-9,
    "valid_loss": 1e-9,
    "final": 1e-8,
    # Moments were recorded in float32; relative to each layer's standard deviation.
    "act_mean": 1e-5,
    "act_std": 1e-5,
    # Counts.
    "act_near_zero": 0,
    "act_hist": 0,
    "valid_correct": 0,
}


def replay(file: Path, *, data_dir: Path | None = None, layout: str = "auto") -> dict[str, Any]:
    """Repeats the training of a trajectory and compares.

    Args:
      file: a trajectory.
      data_dir: folder with the MNIST files, for trajectories on the whole data set.
      layout: of the network.

    Returns:
      {"file", "steps", the largest deviation of each quantity, "bounds", "holds"}.

    Raises:
      TrajectoryError: if the file is not a trajectory.
      DataError: if the images cannot be loaded.
    """
    golden = read(file)
    with jax.enable_x64(True):
        try:
            measured = _train(golden, data_dir, layout)
        except TrajectoryError as error:
            raise TrajectoryError(f"FILE {file}: {error}") from None
        deviations = _compare(golden, measured)
    holds = all(deviations[name] <= bound for name, bound in BOUNDS.items())
    return {
        "file": str(file),
        "steps": len(golden["loss"]),
        **deviations,
        "bounds": BOUNDS,
        "holds": holds,
    }


def _train(golden: Trajectory, data_dir: Path | None, layout: str) -> dict[str, Any]:
    train, test = _images(str(golden["data"]), data_dir)
    schedule, norm = map(str, golden["config"])
    model = models.digits_net(
        norm="batch" if norm == "batch" else None,
        layout=layout,
        param_dtype=jnp.float64,
        rngs=nnx.Rngs(0),
    )
    for name in tensors(golden, "init"):
        variable = _variable(model, name)
        value = jnp.asarray(golden[f"init/{name}"])
        if value.ndim == 4:
            value = kernel_to(value, "NHWC", source="NCHW")
        if value.shape != variable.shape:
            raise TrajectoryError(
                f"init/{name} must have the shape of the chapter's network, "
                f"got {golden[f'init/{name}'].shape}."
            )
        variable[...] = value
    trainer = Trainer(
        model, optimizers.adam(), mean=float(golden["mean"]), std=float(golden["std"])
    )
    for name in ("order", "valid"):
        indices, images = golden[name], len((train if name == "order" else test).labels)
        if not 0 <= indices.min() <= indices.max() < images:
            raise TrajectoryError(
                f"{name} must be indices from 0 to {images - 1}, got {indices.min()} to "
                f"{indices.max()}."
            )
    order = golden["order"].reshape(-1, int(golden["batch_size"]))
    order = np.tile(order, (int(golden["epochs"]), 1))
    lr_max, steps = float(golden["lr_max"]), len(order)
    policy = (
        schedules.one_cycle(steps, lr_max) if schedule == "onecycle" else schedules.constant(lr_max)
    )
    state, record = trainer.run(trainer.start(model), train, order, policy.table(steps), rows=steps)
    if record.mean.shape != golden["act_mean"].shape:
        raise TrajectoryError(
            f"layers must be the {len(record.layers)} of the chapter's network, got "
            f"{len(golden['layers'])}."
        )
    valid = Images(*(rows[golden["valid"]] for rows in test))
    trained: Any = trainer.model(state)
    return {
        "record": record,
        "scores": trainer.evaluate(state, valid),
        "final": {
            name: _in_torch_order(_variable(trained, name)[...])
            for name in tensors(golden, "final")
        },
    }


def _compare(golden: Trajectory, measured: Mapping[str, Any]) -> dict[str, Any]:
    record, scores = measured["record"], measured["scores"]
    scale = golden["act_std"]
    # The standard deviation of a dead layer is 0; its mean is then compared with 1.
    scale = np.where(scale > 0, scale, 1)
    correct = round(float(golden["valid_accuracy"]) * len(golden["valid"]))
    counts = np.rint(golden["act_near_zero"] * record.sizes)
    return {
        "loss": _relative(record.loss, golden["loss"]),
        "lr": _relative(record.learning_rate, golden["lr"]),
        "mom": _relative(record.momentum, golden["mom"]),
        "valid_loss": _relative(scores.loss, golden["valid_loss"]),
        # NumPy's maximum is NaN if any tensor has a NaN; Python's may ignore it.
        "final": float(
            np.max(
                [
                    np.abs(value - golden[f"final/{name}"]).max()
                    / max(np.abs(golden[f"final/{name}"]).max(), 1e-300)
                    for name, value in measured["final"].items()
                ]
            )
        ),
        "act_mean": float((np.abs(record.mean - golden["act_mean"]) / scale).max()),
        "act_std": float((np.abs(record.std - golden["act_std"]) / scale).max()),
        "act_near_zero": int(np.abs(np.rint(record.near_zero * record.sizes) - counts).max()),
        "act_hist": int(np.abs(record.hist - golden["act_hist"]).max()),
        "valid_correct": abs(scores.correct - correct),
    }


def _relative(value: Any, reference: Any) -> float:
    return float((np.abs(value - reference) / np.abs(reference)).max())


def _images(data: str, data_dir: Path | None) -> tuple[Images, Images]:
    if data == "mnist5k":  # the indices count the 5,000 images in the order of the file
        images = Images.put(mnist5k_unsplit())
        return images, images
    dataset = load(data, data_dir=data_dir)
    return Images.put(dataset.train), Images.put(dataset.test)


def _variable(model: Any, name: str) -> Any:
    """Returns the variable with a name of PyTorch: "2.1.running_var" is the variance of block 2.

    Raises:
      TrajectoryError: if the network does not have it.
    """
    block, _, rest = name.partition(".")
    # In PyTorch the convolution of a block has index 0, with or without a norm: "2.0.weight".
    layer, attribute = VARIABLES[rest]
    try:
        return getattr(getattr(model.blocks[int(block)], layer), attribute)
    except (ValueError, IndexError, AttributeError):
        raise TrajectoryError(f"the chapter's network has no {name}.") from None


def _in_torch_order(value: jax.Array) -> np.ndarray:
    return np.asarray(kernel_to(value, "NCHW", source="NHWC") if value.ndim == 4 else value)
