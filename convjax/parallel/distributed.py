"""Training in several processes: connecting them, exchanging values, and ending together.

`initialize` comes before anything that uses a device. From then on `jax.devices()` are those of all
processes, and `convjax.Trainer(…, devices=jax.devices())` trains over them: every process makes the
same calls with the same values. With one process everything here does nothing.
"""

import atexit
import math
import os
import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from itertools import pairwise
from typing import Any

import jax
import numpy as np
from jax import lax

# JAX has no public access to the coordinator's client; Orbax and Grain use this one as well.
from jax._src import distributed as _jax_distributed
from jaxtyping import UInt8

from convjax.parallel.arguments import FLAGS, check_port_free, check_processes, check_times
from convjax.parallel.local_gpus import local_device_ids, visible_gpus
from convjax.parallel.mesh import AXIS, REPLICATED, SPLIT_FIRST, data_mesh, on_devices, place
from convjax.parallel.peer_monitor import PEER_GONE, PeerMonitor

__all__ = [
    "PEER_GONE",
    "any_process",
    "broadcast",
    "initialize",
    "is_primary",
    "monitor_peers",
    "process_count",
]

# Seconds to wait for a peer. Its failure is detected by the monitor, which ends this process.
_LONG = 7 * 24 * 3600.0

_monitor: PeerMonitor | None = None
_calls: dict[str, int] = {}  # how many calls of each kind were made; part of their keys


def initialize(
    coordinator: str | None = None,
    processes: int | None = None,
    process_id: int | None = None,
    *,
    timeout: float = 60.0,
    heartbeat: float = 20.0,
) -> None:
    """Connects this process with the others, and monitors them from here on.

    A process ends when another one is killed, is stopped or loses its connection: with a line on
    stderr, which may follow JAX's own, and the exit status `PEER_GONE`, within little more than
    `heartbeat` seconds. The training itself belongs into `monitor_peers`.

    The processes of one computer share its NVIDIA GPUs evenly: one task per node of Slurm takes all
    of them, and one task per GPU its own, see `convjax.parallel.local_gpus`.

    Args:
      coordinator: HOST:PORT of process 0, where it listens and the others reach it.
      processes: how many processes there are.
      process_id: the id of this one, from 0. Without all three JAX detects them from the cluster:
        Slurm, Open MPI, Cloud TPU, Kubernetes.
      timeout: seconds within which all must have connected, and within which all must end.
      heartbeat: seconds without a heartbeat after which a process counts as dead, rounded up to
        whole seconds. A long compilation does not delay heartbeats.

    Raises:
      ValueError: if only some of the three are given, one is invalid, the port is in use, no
        cluster is detected, or the processes of this computer cannot share its GPUs evenly.
      RuntimeError: from JAX, if a device was used before, or at the second call.
    """
    global _monitor
    check_times(timeout=timeout, heartbeat=heartbeat)
    check_processes(coordinator, processes, process_id)
    if coordinator is not None and process_id == 0:
        check_port_free(coordinator)
    gpus = local_device_ids(
        os.environ,
        visible_gpus(os.environ),
        coordinator=coordinator,
        processes=processes,
        process_id=process_id,
    )
    monitor = PeerMonitor(process_id or 0, processes or 1, heartbeat)
    where = coordinator or "the coordinator"
    monitor.catch_aborts(
        f"not all {f'{processes} ' if processes else ''}processes connected at {where} within "
        f"{timeout:g} s. Start every process with its own id, from 0, and with the same address, "
        "which all must reach."
    )
    handler = signal.getsignal(signal.SIGTERM)
    try:
        jax.distributed.initialize(
            coordinator,
            processes,
            process_id,
            local_device_ids=gpus,
            initialization_timeout=math.ceil(timeout),
            heartbeat_timeout_seconds=math.ceil(heartbeat),
            shutdown_timeout_seconds=math.ceil(timeout),
        )
    except Exception as error:
        monitor.restore_aborts()
        if coordinator is not None or not isinstance(error, ValueError):
            raise
        raise ValueError(
            f"no cluster was detected (JAX: {error}) Name the processes with {FLAGS}, the same N "
            "and address for each, and I from 0 to N − 1."
        ) from error
    # JAX handles SIGTERM as a notice of preemption. Nothing here uses that notice, so SIGTERM would
    # not terminate the process.
    if threading.current_thread() is threading.main_thread() and handler is not None:
        signal.signal(signal.SIGTERM, handler)
    state = _jax_distributed.global_state
    monitor.process, monitor.processes = state.process_id, state.num_processes
    if state.num_processes > 1:
        monitor.start(state.client)
        # Runs before JAX's own exit function, which was registered earlier.
        atexit.register(monitor.at_exit, timeout)
        _monitor = monitor
    else:
        monitor.restore_aborts()


def process_count() -> int:
    """Returns the number of processes. Unlike `jax.process_count`, it uses no device.

    Examples:
      >>> from convjax import distributed
      >>> distributed.process_count()
      1
    """
    return 1 if _monitor is None else _monitor.processes


def is_primary() -> bool:
    """Whether this is process 0, which writes the files and prints.

    Examples:
      >>> from convjax import distributed
      >>> distributed.is_primary()
      True
    """
    return jax.process_index() == 0


@contextmanager
def monitor_peers(advice: str = "Start all processes again.") -> Iterator[None]:
    """Ends all processes together; the outermost block around everything that they do together.

    The end of the block waits until all other processes have reached it. An exception ends the
    others as well. If it comes from a collective operation that failed because a peer is dead, the
    process ends with the message about that peer. Any other exception is raised here, and the other
    processes print it and end with status `PEER_GONE`. If all processes have agreed to stop
    (`any_process`), they therefore leave the block normally, and raise SystemExit after it.

    Args:
      advice: the last sentence of the message, which says how to resume.

    Examples:
      >>> from convjax import distributed
      >>> with distributed.monitor_peers("Resume with --resume."):
      ...     total = distributed.broadcast(3)
      >>> total
      3
    """
    if _monitor is None:
        yield
        return
    _monitor.advice = advice
    try:
        yield
    except BaseException as error:
        status = _status(error)
        if status:
            if _may_come_from_peer(error):
                _monitor.wait_for_failure()
            _monitor.fail(_reason(error), status)
            raise
        _barrier("end")
        _monitor.finish()
        raise
    _barrier("end")
    _monitor.finish()


def _reason(error: BaseException) -> str:
    """Returns the class and message of an exception; of an exit those of its cause, if any."""
    exits = isinstance(error, SystemExit) or hasattr(error, "exit_code")
    if exits and error.__context__ is not None:
        error = error.__context__
    return f"{type(error).__name__}: {error}"


def _status(error: BaseException) -> int:
    """Returns the exit status with which Python, or Click, ends by an exception."""
    if isinstance(error, KeyboardInterrupt):
        return 130
    code = getattr(error, "exit_code", getattr(error, "code", 1))
    if isinstance(error, SystemExit) and code is None:
        return 0
    return code if isinstance(code, int) else 1


def _may_come_from_peer(error: BaseException) -> bool:
    # JAX raises ValueError where Gloo lost a connection (0.10.2), and its own exception for other
    # libraries and for the coordinator.
    words = ("gloo", "nccl", "collective", "unavailable", "deadline_exceeded", "coordination")
    text = str(error).lower()
    return isinstance(error, Exception) and any(word in text for word in words)


def any_process(flag: bool) -> bool:
    """Whether the flag is True in any process; every process must call this equally often.

    The answer comes from the coordinator and not from the devices, which may be busy for long.

    Examples:
      >>> from convjax import distributed
      >>> distributed.any_process(True)
      True
    """
    if _monitor is None:
        return bool(flag)
    if flag:
        _client().key_value_set(f"{_next_key('any')}/{_monitor.process}", "")
    key = _barrier("any")
    found = bool(_client().key_value_dir_get(f"{key}/"))
    # Every process has read the keys of the call before: otherwise it would not be in this one.
    if _monitor.process == 0 and _calls["any"] > 1:
        _client().key_value_delete(f"convjax/any/{_calls['any'] - 1}/")
    return found


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
    if _monitor is None:
        return tree
    leaves, structure = jax.tree.flatten(tree)
    arrays = [np.asarray(leaf) for leaf in leaves]
    kinds = f"{structure} {[(a.shape, a.dtype.str) for a in arrays]}"
    key = _next_key("broadcast")
    _calls["broadcast"] = _calls.get("broadcast", 0) + 1
    if _monitor.process == 0:
        _client().key_value_set(key, kinds)
    wanted = _client().blocking_key_value_get(key, int(_LONG * 1000))
    # All processes raise together: otherwise some would wait for the others.
    if any_process(kinds != wanted):
        raise ValueError(
            f"tree must have the same structure, shapes and dtypes in every process, got "
            f"{kinds:.200} where process 0 has {wanted:.200}. Pass the same tree in each."
        )
    # As bytes, which stay as they are: a sum of floating-point numbers with zeros would turn −0
    # into 0.
    parts = [a.reshape(-1).view(np.uint8) if a.size else np.zeros(0, np.uint8) for a in arrays]
    data = np.concatenate([np.zeros(0, np.uint8), *parts])
    if not data.size:
        return tree
    received = _broadcast_bytes(data if _monitor.process == 0 else np.zeros_like(data))
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
    total = on_devices(lambda row: lax.psum(row[0], AXIS), mesh, SPLIT_FIRST, REPLICATED)
    return np.asarray(jax.jit(total)(place(rows, mesh, SPLIT_FIRST)))


def _client() -> Any:
    return _jax_distributed.global_state.client


def _next_key(kind: str) -> str:
    return f"convjax/{kind}/{_calls.get(kind, 0) + 1}"


def _barrier(kind: str) -> str:
    """Waits for all processes at a barrier that is new at every call, and returns its key."""
    key = _next_key(kind)
    _calls[kind] = _calls.get(kind, 0) + 1
    _client().wait_at_barrier(key, int(_LONG * 1000))
    return key
