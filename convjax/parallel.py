"""One training over several devices: each takes its part of every batch.

Parameters and data lie on every device. Within the step each device sees its own examples only;
`mean_over_devices` and batch norm's `axis_name` make of that the step over the whole batch.
"""

from collections.abc import Callable, Sequence
from typing import Any

import jax
import numpy as np
from flax import nnx
from jax import lax
from jax.flatten_util import ravel_pytree
from jax.sharding import Mesh, NamedSharding
from jax.sharding import PartitionSpec as P

from convjax.layers import BatchNorm

AXIS = "batch"  # the mesh's only axis

# How an array lies on the mesh: the same on every device, or split along its first or second axis.
EVERYWHERE: Any = P()
FIRST: Any = P(AXIS)
SECOND: Any = P(None, AXIS)


def data_mesh(devices: Sequence[jax.Device]) -> Mesh:
    """Returns the mesh that splits a batch over the devices, in their order.

    Raises:
      ValueError: if there is no device, or one twice.
    """
    if not devices or len(set(devices)) != len(devices):
        raise ValueError(
            f"devices must be one device or more, each once, got {list(devices)}. "
            "jax.devices() lists those there are."
        )
    # Not jax.make_mesh, which may take the devices in another order.
    return Mesh(np.asarray(devices, object), (AXIS,))


def everywhere(tree: Any, mesh: Mesh) -> Any:
    """Copies the arrays of a tree to every device of the mesh, where they are not there yet."""
    return jax.device_put(tree, NamedSharding(mesh, EVERYWHERE))


def on_devices(
    function: Callable[..., Any], mesh: Mesh, in_specs: Any, out_specs: Any
) -> Callable[..., Any]:
    """Returns a function that runs on every device of the mesh at once, as `jax.shard_map`."""
    # check_vma would sum the gradient of every parameter by itself, and on CPU waiting for the
    # other devices costs as much for one number as for all gradients.
    return jax.shard_map(
        function, mesh=mesh, in_specs=in_specs, out_specs=out_specs, check_vma=False
    )


def mean_over_devices(tree: Any) -> Any:
    """Returns the mean over the devices of every array of a tree, in one exchange."""
    flat, unravel = ravel_pytree(tree)
    return unravel(lax.pmean(flat, AXIS))


def synchronize(model: nnx.Module) -> None:
    """Lets each batch norm of the model, ours and Flax's, normalise over the whole batch.

    What PyTorch's `SyncBatchNorm.convert_sync_batchnorm` does.

    Raises:
      ValueError: if the model draws random numbers.
    """
    if jax.tree.leaves(nnx.state(model, nnx.RngState)):
        raise ValueError(
            "devices must be None for a model that draws random numbers, as dropout does: every "
            "device would draw the same ones for its part of the batch."
        )
    for _, module in nnx.iter_modules(model):
        if isinstance(module, BatchNorm | nnx.BatchNorm):
            module.axis_name = AXIS
