"""The values of process 0 in every process, sent through the devices."""

from itertools import pairwise
from typing import Any

import jax
import numpy as np
from jax import lax
from jaxtyping import Array, UInt8

from convjax.parallel import exchange
from convjax.parallel.agreement import agree
from convjax.parallel.mesh import AXIS, REPLICATED, SPLIT_FIRST, data_mesh, on_devices, place
from convjax.parallel.timed_jit import TimedJit


def broadcast(tree: Any) -> Any:
    """Returns the values of process 0 for a tree of host arrays, in every process, bit for bit.

    Args:
      tree: NumPy arrays or numbers, with the same structure, shapes and dtypes in every process.
        Only the values of process 0 matter.

    Raises:
      ValueError: if the tree of this process has another structure, shape or dtype than that of
        process 0.

    Examples:
      >>> from convjax import distributed
      >>> distributed.broadcast({"lr": 0.1})
      {'lr': 0.1}
    """
    peers = exchange.current()
    if peers is None:
        return tree
    leaves, structure = jax.tree.flatten(tree)
    arrays = [np.asarray(leaf) for leaf in leaves]
    kinds = f"{structure} of {', '.join(f'{a.dtype.str}{list(a.shape)}' for a in arrays)}"
    agree(
        {"structure, shapes and dtypes of the tree": kinds},
        call="broadcast",
        fix="Pass the same tree in each.",
    )
    # As bytes, which stay as they are: a sum of floating-point numbers with zeros would turn −0
    # into 0.
    parts = [a.reshape(-1).view(np.uint8) if a.size else np.zeros(0, np.uint8) for a in arrays]
    data = np.concatenate([np.zeros(0, np.uint8), *parts])
    if not data.size:
        return tree
    received = _broadcast_bytes(data if peers.monitor.process == 0 else np.zeros_like(data))
    ends = np.cumsum([0, *(part.size for part in parts)])
    pieces = [received[a:b] for a, b in pairwise(ends)]
    restored = [
        piece.copy().view(array.dtype).reshape(array.shape)
        for piece, array in zip(pieces, arrays, strict=True)
    ]
    return jax.tree.unflatten(structure, restored)


def _broadcast_bytes(data: UInt8[np.ndarray, " N"]) -> UInt8[np.ndarray, " N"]:
    """Returns the bytes of process 0 in every process; the others pass zeros."""
    first = {device.process_index: device for device in reversed(jax.devices())}
    mesh = data_mesh([first[process] for process in sorted(first)])
    # Each process's device takes one row: its own bytes.
    rows = np.broadcast_to(data, (len(first), len(data)))
    total = on_devices(_broadcast_row, mesh, SPLIT_FIRST, REPLICATED)
    program = TimedJit(total, processes=sorted(first))
    return np.asarray(program(place(rows, mesh, SPLIT_FIRST)))


def _broadcast_row(row: UInt8[Array, "1 N"]) -> UInt8[Array, " N"]:
    return lax.psum(row[0], AXIS)
