"""Batch norm over a batch that is split: moments over a mapped axis, and models that allow it."""

import jax
from flax import nnx

from convjax.nn.layers import BatchNorm


def set_axis_name(model: nnx.Module, axis_name: str | None) -> None:
    """Lets each batch norm of a model, ours and Flax's, use the moments over a mapped axis.

    With the axis of the mesh that is what PyTorch's `SyncBatchNorm.convert_sync_batchnorm` does;
    with None each batch norm sees only what it is called with.
    """
    for _, module in nnx.iter_modules(model):
        if isinstance(module, BatchNorm | nnx.BatchNorm):
            module.axis_name = axis_name
        if isinstance(module, nnx.BatchNorm):
            module.axis_index_groups = None


def check_splits(model: nnx.Module) -> None:
    """Checks that a model's step over parts of a batch can be that over the whole.

    Raises:
      ValueError: if the model draws random numbers, or keeps batch statistics of another kind than
        batch norm's.
    """
    if jax.tree.leaves(nnx.state(model, nnx.RngState)):
        raise ValueError(
            "devices must be None for a model that draws random numbers, as dropout does: every "
            "device would draw the same ones for its part of the batch."
        )
    for path, module in nnx.iter_modules(model):
        known = isinstance(module, BatchNorm | nnx.BatchNorm)
        if not known and any(isinstance(v, nnx.BatchStat) for v in vars(module).values()):
            raise ValueError(
                f"devices must be None for a model with batch statistics that only its own "
                f"{type(module).__name__} ({'.'.join(map(str, path)) or 'the model itself'}) "
                "knows: every device would keep those of its part of the batch."
            )
