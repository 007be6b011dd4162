"""The file of a trajectory of fastai: its fields, read and checked before anything is trained."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from convjax.io.array_schema import Axis, Field, check_fields
from convjax.io.npz import NpzError, read_npz
from convjax.stats.bins import FASTAI

Trajectory = Mapping[str, Any]

# The fields of a trajectory besides the parameters.
_STEPS, _LAYERS = Axis("steps"), Axis("layers")
FIELDS = {
    "config": Field("U", (Axis("parts"),)),
    **dict.fromkeys(("batch_size", "steps", "epochs"), Field("i")),
    **dict.fromkeys(("lr_max", "mean", "std"), Field("f")),
    "data": Field("U"),
    "order": Field("i", (Axis("images"),)),
    "valid": Field("i", (Axis("validation images"),)),
    "layers": Field("U", (_LAYERS,)),
    **dict.fromkeys(("loss", "lr", "mom"), Field("f", (_STEPS,))),
    **dict.fromkeys(("act_mean", "act_std", "act_near_zero"), Field("f", (_STEPS, _LAYERS))),
    "act_hist": Field("i", (_STEPS, _LAYERS, Axis("bins"))),
    **dict.fromkeys(("valid_loss", "valid_accuracy"), Field("f")),
}
_SIZES = {"parts": 2, "bins": FASTAI.count}

# PyTorch's names of the variables of a convolution and a batch norm, after the block number.
VARIABLES = {
    "0.weight": ("conv", "kernel"),
    "0.bias": ("conv", "bias"),
    "1.weight": ("norm", "scale"),
    "1.bias": ("norm", "bias"),
    "1.running_mean": ("norm", "mean"),
    "1.running_var": ("norm", "var"),
}


class TrajectoryError(ValueError):
    """A file is not a trajectory, or not one of the chapter's network."""


def read(file: Path) -> dict[str, Any]:
    """Reads a trajectory; nothing in the file is executed.

    Raises:
      TrajectoryError: if the file is not a trajectory.
    """
    try:
        golden = read_npz(file)
    except FileNotFoundError:
        raise TrajectoryError(f"FILE {file} does not exist. Correct its path.") from None
    except NpzError as error:
        raise TrajectoryError(
            f"FILE {file} is not a complete .npz file: {error}. Take another copy of it."
        ) from error
    missing = [name for name in FIELDS if name not in golden]
    if missing:
        raise TrajectoryError(
            f"FILE {file} is not a trajectory: it lacks {', '.join(missing)}. The recorded "
            "trajectories of fastai are in tests/golden."
        )
    try:
        check_fields(golden, FIELDS, _SIZES)
        _check_values(golden)
    except ValueError as error:
        raise TrajectoryError(f"FILE {file} is not a trajectory: {error}.") from None
    return golden


def tensors(golden: Trajectory, when: str) -> list[str]:
    """Returns the names of the parameters of a trajectory.

    Args:
      golden: the trajectory.
      when: "init" or "final".
    """
    return [name.removeprefix(f"{when}/") for name in golden if name.startswith(f"{when}/")]


def _check_values(golden: Trajectory) -> None:
    schedule, norm = map(str, golden["config"])
    if schedule not in ("flat", "onecycle") or norm not in ("none", "batch"):
        raise ValueError(
            f"config must be (flat or onecycle, none or batch), got ({schedule}, {norm})"
        )
    if str(golden["data"]) not in ("mnist", "mnist5k"):
        raise ValueError(f"data must be mnist or mnist5k, got {golden['data']}")
    images, size, epochs = len(golden["order"]), int(golden["batch_size"]), int(golden["epochs"])
    steps = len(golden["loss"])
    if min(images, size, epochs) < 1 or images % size or images // size * epochs != steps:
        raise ValueError(
            f"order must be complete batches for all steps, got {images} images for {steps} steps "
            f"in {epochs} epochs of batches of {size}"
        )
    if not len(golden["valid"]):
        raise ValueError("valid must have one image or more, got none")
    final = tensors(golden, "final")
    foreign = [name for name in final if name.partition(".")[2] not in VARIABLES]
    if not final or foreign or set(final) != set(tensors(golden, "init")):
        raise ValueError(
            "init/ and final/ must have the same tensors, named like 0.0.weight or "
            f"1.1.running_var, got {', '.join(foreign) or 'different tensors'}"
        )
    for name in final:
        first, last = golden[f"init/{name}"], golden[f"final/{name}"]
        if first.shape != last.shape or {first.dtype.kind, last.dtype.kind} != {"f"}:
            raise ValueError(
                f"{name} must be real numbers of one shape, got {first.dtype} {first.shape} in "
                f"init/ and {last.dtype} {last.shape} in final/"
            )
