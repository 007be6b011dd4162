"""Batch norm for a batch split over devices: moments over a mapped axis."""

import jax
from flax import nnx

from convjax.nn.layers import BatchNorm


def set_axis_name(model: nnx.Module, axis_name: str | None) -> None:
    """Sets the mapped axis over which each batch norm of a model computes its moments.

    It changes the batch norms of convjax and of Flax. With the axis of the mesh this does what
    PyTorch's `SyncBatchNorm.convert_sync_batchnorm` does.

    Args:
      model: changed in place.
      axis_name: the mapped axis; None for the moments of the input alone.
    """
    for _, module in nnx.iter_modules(model):
        if isinstance(module, BatchNorm | nnx.BatchNorm):
            module.axis_name = axis_name
        if isinstance(module, nnx.BatchNorm):
            module.axis_index_groups = None


def check_splits(model: nnx.Module) -> None:
    """Checks that a model's step on parts of a batch can equal the step on the whole batch.

    Raises:
      ValueError: if the model draws random numbers, or has batch statistics outside batch norms.
    """
    if jax.tree.leaves(nnx.state(model, nnx.RngState)):
        raise ValueError(
            "devices must be None for a model that draws random numbers, as dropout does. Every "
            "device would draw the same numbers for its part of the batch."
        )
    for path, module in nnx.iter_modules(model):
        known = isinstance(module, BatchNorm | nnx.BatchNorm)
        if not known and any(isinstance(v, nnx.BatchStat) for v in vars(module).values()):
            raise ValueError(
                "devices must be None for a model with batch statistics outside batch norms, got "
                f"{type(module).__name__} ({'.'.join(map(str, path)) or 'the model itself'}). "
                "Every device would keep the statistics of its part of the batch."
            )
