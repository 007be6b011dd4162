"""Data parallelism: one training on several devices, each of which takes a part of every batch.

Parameters and data are replicated on every device. Within the step a device has its own examples
only. `mean_over_devices` and the `axis_name` of batch norm turn that into the step of the whole
batch. Devices of other processes are used alike if every process makes the same calls with the same
values (`convjax.distributed`): each process places the parts of its own devices.
"""

from collections.abc import Callable, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax
from jax.flatten_util import ravel_pytree
from jax.sharding import Mesh, NamedSharding
from jax.sharding import PartitionSpec as P

AXIS = "batch"  # the mesh's only axis

# Partition of an array over the mesh: a copy on every device, or split along axis 0 or 1.
REPLICATED: Any = P()
SPLIT_FIRST: Any = P(AXIS)
SPLIT_SECOND: Any = P(None, AXIS)


def data_mesh(devices: Sequence[jax.Device]) -> Mesh:
    """Returns the mesh that splits a batch over devices, in their order.

    Raises:
      TypeError: if devices is not a sequence of devices.
      ValueError: if it is empty, has a device twice, none of this process, or several platforms.

    Examples:
      >>> import jax
      >>> from convjax.parallel import data_mesh
      >>> dict(data_mesh(jax.devices()[:1]).shape)
      {'batch': 1}
    """
    if isinstance(devices, str) or not isinstance(devices, Sequence):
        raise TypeError(
            f"devices must be a sequence of JAX devices, got {devices!r}. jax.devices()[:2] is one."
        )
    if not devices or len(set(devices)) != len(devices):
        raise ValueError(
            f"devices must be one device or more, each once, got {list(devices)}. "
            "jax.devices() lists those there are."
        )
    if jax.process_index() not in {device.process_index for device in devices}:
        raise ValueError(
            f"devices must include one of this process, got {list(devices)}. jax.local_devices() "
            "lists those; jax.devices() those of all processes."
        )
    if len({device.platform for device in devices}) > 1:
        raise ValueError(
            f"devices must be of one platform, got {list(devices)}. Leave out the others."
        )
    # Not jax.make_mesh, which may take the devices in another order.
    return Mesh(np.asarray(devices, object), (AXIS,))


def spans_processes(mesh: Mesh) -> bool:
    """Returns whether some devices of the mesh belong to other processes."""
    return any(device.process_index != jax.process_index() for device in mesh.devices.flat)


def processes_of(mesh: Mesh) -> tuple[int, ...]:
    """Returns the processes that the devices of the mesh belong to."""
    return tuple(sorted({device.process_index for device in mesh.devices.flat}))


def place(tree: Any, mesh: Mesh, spec: Any) -> Any:
    """Places the arrays of a tree on the mesh; those already there stay as they are.

    No values are sent between processes: every process passes the same values, or at least the
    right ones for its own devices.

    Args:
      tree: arrays of the host or of devices.
      mesh: the devices.
      spec: REPLICATED, SPLIT_FIRST or SPLIT_SECOND.
    """
    sharding = NamedSharding(mesh, spec)
    if not spans_processes(mesh):
        return jax.device_put(tree, sharding)

    def placed(leaf: Any) -> jax.Array:
        if isinstance(leaf, jax.Array) and leaf.sharding == sharding:
            return leaf
        values = np.asarray(leaf)
        # As device_put does: float64 only where it is enabled.
        values = values.astype(jax.dtypes.canonicalize_dtype(values.dtype), copy=False)
        # Not device_put, which compares the values of all processes and waits for them.
        return jax.make_array_from_callback(values.shape, sharding, values.__getitem__)

    return jax.tree.map(placed, tree)


def replicate(tree: Any, mesh: Mesh) -> Any:
    """Copies the arrays of a tree to every device of the mesh; those already there stay."""
    return place(tree, mesh, REPLICATED)


def gather(tree: Any) -> Any:
    """Moves a tree whose arrays are on several devices to JAX's default device.

    On several devices, each would repeat the work of a program. A tree on one device stays as it
    is. Arrays on devices of other processes must be replicated.
    """
    leaves = (leaf for leaf in jax.tree.leaves(tree) if isinstance(leaf, jax.Array))
    if all(len(leaf.devices()) == 1 for leaf in leaves):
        return tree
    # Through the host: arrays moved from a mesh keep its sharding, for which JAX compiles again.
    return jax.device_put(jax.device_get(tree))


def on_devices(
    function: Callable[..., Any], mesh: Mesh, in_specs: Any, out_specs: Any
) -> Callable[..., Any]:
    """Returns a function that runs on every device of the mesh.

    It is `jax.shard_map` without its check of varying values. With that check, the gradient with
    respect to a replicated parameter is summed over the devices, parameter by parameter, and
    `mean_over_devices` would return that sum. Without it nothing verifies that REPLICATED outputs
    agree; the tests do.

    Args:
      function: of the device's parts of the arguments.
      mesh: the devices.
      in_specs: the partition of each argument.
      out_specs: the partition of each result.
    """
    return jax.shard_map(
        function, mesh=mesh, in_specs=in_specs, out_specs=out_specs, check_vma=False
    )


def mean_over_devices(tree: Any) -> Any:
    """Returns the mean over the devices of every floating-point array of a tree.

    There is one exchange for all arrays, in the widest of their dtypes: on CPU, the wait of devices
    for each other takes as long for one number as for all gradients of the chapter's network. The
    cost is a copy of the gradients, and that the exchange begins only after the last of them.
    """
    flat, unravel = ravel_pytree(tree)
    return unravel(lax.pmean(flat, AXIS))


def gather_over_devices(tree: Any) -> Any:
    """Returns every array of a tree from all devices, stacked along a new first axis.

    There is one exchange for each dtype, because each costs a round trip between processes. Within
    one process the host fetches the arrays of the devices instead.
    """
    leaves, structure = jax.tree.flatten(tree)
    gathered: dict[int, jax.Array] = {}
    # In the order of the leaves: that of a set may differ between processes.
    for dtype in dict.fromkeys(leaf.dtype for leaf in leaves):
        alike = [i for i, leaf in enumerate(leaves) if leaf.dtype == dtype]
        flat = lax.all_gather(jnp.concatenate([leaves[i].ravel() for i in alike]), AXIS)
        ends = np.cumsum([leaves[i].size for i in alike])[:-1]
        for i, part in zip(alike, jnp.split(flat, ends, axis=1), strict=True):
            gathered[i] = part.reshape(-1, *leaves[i].shape)
    return jax.tree.unflatten(structure, [gathered[i] for i in range(len(leaves))])
