"""One training over several devices: each takes its part of every batch.

Parameters and data lie on every device. Within the step each device sees its own examples only;
`mean_over_devices` and batch norm's `axis_name` make of that the step over the whole batch. Devices
of other processes are no different, if every process makes the same calls with the same values
(`convjax.distributed`): each places what its own devices hold.
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

# How an array lies on the mesh: the same on every device, or split along its first or second axis.
REPLICATED: Any = P()
SPLIT_FIRST: Any = P(AXIS)
SPLIT_SECOND: Any = P(None, AXIS)


def data_mesh(devices: Sequence[jax.Device]) -> Mesh:
    """Returns the mesh that splits a batch over the devices, in their order.

    Raises:
      TypeError: if it is no sequence of devices.
      ValueError: if there is no device, one twice, none of this process, or two platforms.
    """
    if isinstance(devices, str) or not isinstance(devices, Sequence):
        raise TypeError(
            f"devices must be a sequence of JAX's devices, such as jax.devices()[:2], got "
            f"{devices!r}."
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
        raise ValueError(f"devices must be of one platform, got {list(devices)}.")
    # Not jax.make_mesh, which may take the devices in another order.
    return Mesh(np.asarray(devices, object), (AXIS,))


def spans_processes(mesh: Mesh) -> bool:
    """Tells whether some of the mesh's devices belong to other processes."""
    return any(device.process_index != jax.process_index() for device in mesh.devices.flat)


def place(tree: Any, mesh: Mesh, spec: Any) -> Any:
    """Puts the arrays of a tree on the mesh as `spec` says, where they are not there yet.

    With devices of other processes every process calls this with the same values, or at least with
    the right ones where its own devices are: nothing is sent from one to another.
    """
    sharding = NamedSharding(mesh, spec)
    if not spans_processes(mesh):
        return jax.device_put(tree, sharding)

    def placed(leaf: Any) -> jax.Array:
        if isinstance(leaf, jax.Array) and leaf.sharding == sharding:
            return leaf
        values = np.asarray(leaf)
        # As device_put would: float64 only where it is enabled.
        values = values.astype(jax.dtypes.canonicalize_dtype(values.dtype), copy=False)
        # Not device_put, which compares the values of all processes, and waits for them.
        return jax.make_array_from_callback(values.shape, sharding, values.__getitem__)

    return jax.tree.map(placed, tree)


def replicate(tree: Any, mesh: Mesh) -> Any:
    """Copies the arrays of a tree to every device of the mesh, where they are not there yet."""
    return place(tree, mesh, REPLICATED)


def gather(tree: Any) -> Any:
    """Brings a tree whose arrays lie on several devices to JAX's default device.

    A program would repeat its work on each of them. A tree on one device stays as it is. Arrays on
    devices of other processes must be replicated; the default device is one of this process.
    """
    leaves = (leaf for leaf in jax.tree.leaves(tree) if isinstance(leaf, jax.Array))
    if all(len(leaf.devices()) == 1 for leaf in leaves):
        return tree
    # By way of the host: arrays moved from a mesh keep its mark, for which JAX compiles anew.
    return jax.device_put(jax.device_get(tree))


def on_devices(
    function: Callable[..., Any], mesh: Mesh, in_specs: Any, out_specs: Any
) -> Callable[..., Any]:
    """Returns a function that runs on every device of the mesh at once.

    It is `jax.shard_map` without its check of varying values: with it, the gradient with respect to
    a replicated parameter would arrive summed over the devices, parameter by parameter, and the
    mean of `mean_over_devices` would be that sum. Without it nothing verifies that outputs said to
    be REPLICATED agree; the tests do.
    """
    return jax.shard_map(
        function, mesh=mesh, in_specs=in_specs, out_specs=out_specs, check_vma=False
    )


def mean_over_devices(tree: Any) -> Any:
    """Returns the mean over the devices of every floating-point array of a tree.

    One exchange for all of them, in the widest of their dtypes: on CPU, devices waiting for each
    other costs as much for one number as for all gradients of the chapter's network. The price is
    a copy of the gradients, and that the exchange cannot begin before the last of them is there.
    """
    flat, unravel = ravel_pytree(tree)
    return unravel(lax.pmean(flat, AXIS))


def gather_over_devices(tree: Any) -> Any:
    """Returns every array of a tree with a first axis more, the device, the same on each of them.

    One exchange for each dtype, as between processes each costs the way there and back. Within one
    process the host fetches the devices' own arrays instead.
    """
    leaves, structure = jax.tree.flatten(tree)
    gathered: dict[int, jax.Array] = {}
    # In the order of the leaves and not of a set, which may differ between processes.
    for dtype in dict.fromkeys(leaf.dtype for leaf in leaves):
        alike = [i for i, leaf in enumerate(leaves) if leaf.dtype == dtype]
        flat = lax.all_gather(jnp.concatenate([leaves[i].ravel() for i in alike]), AXIS)
        ends = np.cumsum([leaves[i].size for i in alike])[:-1]
        for i, part in zip(alike, jnp.split(flat, ends, axis=1), strict=True):
            gathered[i] = part.reshape(-1, *leaves[i].shape)
    return jax.tree.unflatten(structure, [gathered[i] for i in range(len(leaves))])
