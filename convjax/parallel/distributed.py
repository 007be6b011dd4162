"""Several processes that train together: finding each other, agreeing, and ending.

`initialize` comes before anything that uses a device. From then on `jax.devices()` are those of all
processes, and `convjax.Trainer(…, devices=jax.devices())` trains over them: every process makes the
same calls with the same values. With one process everything here does nothing.
"""

import atexit
import math
import operator
import signal
import socket
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from itertools import pairwise
from typing import Any

import jax
import numpy as np
from jax import lax

# Orbax and Grain use it as well: there is no public way to the coordinator's client.
from jax._src import distributed as _jax_distributed

from convjax.parallel.heartbeat import PEER_GONE, Peers
from convjax.parallel.mesh import AXIS, REPLICATED, SPLIT_FIRST, data_mesh, on_devices, place

__all__ = [
    "PEER_GONE",
    "any_process",
    "broadcast",
    "initialize",
    "is_primary",
    "peers_watched",
    "process_count",
]

# Where only a peer's end could keep us waiting, which the watch finds.
_LONG = 7 * 24 * 3600.0

_FLAGS = "--coordinator HOST:PORT --processes N --process-id I"

_peers: Peers | None = None
_calls: dict[str, int] = {}  # how often each kind of meeting took place


def initialize(
    coordinator: str | None = None,
    processes: int | None = None,
    process_id: int | None = None,
    *,
    timeout: float = 60.0,
    heartbeat: float = 20.0,
) -> None:
    """Connects this process with the others, and watches them from here on.

    A process that finds another one gone, stopped or cut off ends by itself: a line on stderr
    (after JAX's own, where JAX was first), exit status `PEER_GONE`, within little more than
    `heartbeat` seconds. See `peers_watched` for what the training itself needs.

    Args:
      coordinator: HOST:PORT of process 0, where it listens and the others reach it.
      processes: how many there are.
      process_id: this one's, from 0; each once. None for all three takes what JAX detects of the
        cluster: Slurm, Open MPI, Cloud TPU, Kubernetes.
      timeout: seconds within which all must have connected, and within which all must end.
      heartbeat: seconds of silence after which a process counts as gone. A long compilation is no
        silence, but a thread that keeps Python's lock for so long is.

    Raises:
      ValueError: if only some are given, one cannot be, the port is taken, or there is no cluster
        to detect.
      RuntimeError: from JAX, if a device was used before, or for the second call.
    """
    global _peers
    _check(coordinator, processes, process_id, timeout, heartbeat)
    if coordinator is not None and process_id == 0:
        _check_free(coordinator)
    peers = Peers(process_id or 0, processes or 1, coordinator, heartbeat)
    where = coordinator or "the coordinator"
    peers.catch_aborts(
        f"not all {f'{processes} ' if processes else ''}processes connected at {where} within "
        f"{timeout:g} s. Start every one of them, each with an id of its own from 0, and the same "
        "address, which all must reach."
    )
    handler = signal.getsignal(signal.SIGTERM)
    try:
        jax.distributed.initialize(
            coordinator,
            processes,
            process_id,
            initialization_timeout=math.ceil(timeout),
            # Ours comes first, and with a message.
            heartbeat_timeout_seconds=math.ceil(max(60.0, 4 * heartbeat)),
            shutdown_timeout_seconds=math.ceil(timeout),
        )
    except Exception as error:
        peers.let_aborts_be()
        if coordinator is not None or not isinstance(error, ValueError):
            raise
        raise ValueError(
            f"no cluster was detected (JAX: {error}) Name the processes with {_FLAGS}, the same N "
            "and address for each, and I from 0 to N − 1."
        ) from error
    # JAX takes SIGTERM for its own notice of preemption; a process that does not ask for that
    # notice could not be terminated.
    if threading.current_thread() is threading.main_thread() and handler is not None:
        signal.signal(signal.SIGTERM, handler)
    state = _jax_distributed.global_state
    peers.process, peers.processes = state.process_id, state.num_processes
    if state.num_processes > 1:
        peers.start(state.client)
        # Before JAX's own, which was registered earlier.
        atexit.register(peers.at_exit)
        _peers = peers
    else:
        peers.let_aborts_be()


def _check(
    coordinator: str | None,
    processes: int | None,
    process_id: int | None,
    timeout: float,
    heartbeat: float,
) -> None:
    for name, seconds in (("timeout", timeout), ("heartbeat", heartbeat)):
        if not (math.isfinite(seconds) and seconds > 0):
            raise ValueError(f"{name} must be a positive number of seconds, got {seconds!r}.")
    given = {"coordinator": coordinator, "processes": processes, "process_id": process_id}
    missing = [name for name, value in given.items() if value is None]
    if len(missing) == len(given):
        return
    if missing or coordinator is None or processes is None or process_id is None:
        raise ValueError(
            f"coordinator, processes and process_id go together, got no {' and no '.join(missing)}."
            f" Name all three, {_FLAGS}, or none for what JAX detects of the cluster."
        )
    host, _, port = coordinator.rpartition(":")
    if not host or not (port.isascii() and port.isdigit()) or not 0 < int(port) < 2**16:
        raise ValueError(
            f"coordinator must be HOST:PORT with a port from 1 to 65535, got {coordinator!r}."
        )
    try:
        processes, process_id = operator.index(processes), operator.index(process_id)
    except TypeError:
        raise ValueError(
            f"processes and process_id must be whole numbers, got {processes!r} and {process_id!r}."
        ) from None
    if processes < 1 or not 0 <= process_id < processes:
        raise ValueError(
            f"process_id must be from 0 to processes − 1, got {process_id} of {processes}."
        )


def _check_free(coordinator: str) -> None:
    """Raises ValueError if the port is taken, for which JAX 0.12 has no message but a crash."""
    port = int(coordinator.rpartition(":")[2])
    with socket.socket() as trial:
        trial.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            trial.bind(("", port))
        except OSError as error:
            raise ValueError(
                f"coordinator {coordinator}: port {port} of this computer cannot be had "
                f"({error.strerror}). Choose another, the same for every process."
            ) from error


def process_count() -> int:
    """Returns how many processes there are; unlike JAX's own this uses no device."""
    return 1 if _peers is None else _peers.processes


def is_primary() -> bool:
    """Tells whether this is process 0, the one that writes files and speaks."""
    return jax.process_index() == 0


@contextmanager
def peers_watched(advice: str = "Start all processes again.") -> Iterator[None]:
    """Surrounds all that the processes do together; outermost, so that it sees how they end.

    Leaving it normally waits for all others to come as far. An exception lets them end as well: a
    collective operation that fails because a peer is gone becomes the message about that peer; any
    other is raised here, and the others name it on stderr and end with status `PEER_GONE`. A stop
    on which all have agreed (`any_process`) therefore leaves the block normally, and raises
    SystemExit or the like behind it.

    Args:
      advice: the message's last sentence, telling how to go on.
    """
    if _peers is None:
        yield
        return
    _peers.advice = advice
    try:
        yield
    except BaseException as error:
        status = _status(error)
        if status:
            if _may_be_a_peers(error):
                _peers.wait_for_verdict()
            _peers.leave(_reason(error), status)
            raise
        _meet("end")
        _peers.finish()
        raise
    _meet("end")
    _peers.finish()


def _reason(error: BaseException) -> str:
    """Returns an exception's kind and words; of an exit, which has none, those of its cause."""
    exits = isinstance(error, SystemExit) or hasattr(error, "exit_code")
    if exits and error.__context__ is not None:
        error = error.__context__
    return f"{type(error).__name__}: {error}"


def _status(error: BaseException) -> int:
    """Returns the exit status that Python, or Click, makes of an exception."""
    if isinstance(error, KeyboardInterrupt):
        return 130
    code = getattr(error, "exit_code", getattr(error, "code", 1))
    if isinstance(error, SystemExit) and code is None:
        return 0
    return code if isinstance(code, int) else 1


def _may_be_a_peers(error: BaseException) -> bool:
    # JAX raises ValueError where Gloo lost a connection (seen with 0.10.2), and its own exception
    # for other libraries and for the coordinator.
    words = ("gloo", "nccl", "collective", "unavailable", "deadline_exceeded", "coordination")
    text = str(error).lower()
    return isinstance(error, Exception) and any(word in text for word in words)


def any_process(flag: bool) -> bool:
    """Tells whether the flag is True in any process; each asks as often as the others.

    By the coordinator and not by the devices, which may be busy for long.
    """
    if _peers is None:
        return bool(flag)
    if flag:
        _client().key_value_set(f"{_next('any')}/{_peers.process}", "")
    place = _meet("any")
    found = bool(_client().key_value_dir_get(f"{place}/"))
    # Everyone has read the last one but this, or would not be here.
    if _peers.process == 0 and _calls["any"] > 1:
        _client().key_value_delete(f"convjax/any/{_calls['any'] - 1}/")
    return found


def broadcast(tree: Any) -> Any:
    """Returns process 0's values of a tree of host arrays, in every process, bit for bit.

    Args:
      tree: the same structure, shapes and dtypes everywhere, of NumPy arrays or numbers; the values
        matter in process 0 alone.

    Raises:
      ValueError: if this process's tree has another structure, shape or dtype than process 0's.
    """
    if _peers is None:
        return tree
    leaves, structure = jax.tree.flatten(tree)
    arrays = [np.asarray(leaf) for leaf in leaves]
    kinds = f"{structure} {[(a.shape, a.dtype.str) for a in arrays]}"
    key = _next("broadcast")
    _calls["broadcast"] = _calls.get("broadcast", 0) + 1
    if _peers.process == 0:
        _client().key_value_set(key, kinds)
    wanted = _client().blocking_key_value_get(key, int(_LONG * 1000))
    # All learn of it, lest some wait for the rest.
    if any_process(kinds != wanted):
        raise ValueError(
            f"the tree must be built alike in every process, got {kinds:.200} where process 0 has "
            f"{wanted:.200}."
        )
    # Bytes, to which nothing happens on the way: a sum of floating-point numbers with zeros would
    # turn −0 into 0.
    parts = [a.reshape(-1).view(np.uint8) if a.size else np.zeros(0, np.uint8) for a in arrays]
    data = np.concatenate([np.zeros(0, np.uint8), *parts])
    if not data.size:
        return tree
    received = _from_first(data if _peers.process == 0 else np.zeros_like(data))
    ends = np.cumsum([0, *(part.size for part in parts)])
    pieces = [received[a:b] for a, b in pairwise(ends)]
    restored = [
        piece.copy().view(array.dtype).reshape(array.shape)
        for piece, array in zip(pieces, arrays, strict=True)
    ]
    return jax.tree.unflatten(structure, restored)


def _from_first(data: np.ndarray) -> np.ndarray:
    """Returns process 0's bytes, (n,) uint8, in every process; the others give zeros."""
    first = {device.process_index: device for device in reversed(jax.devices())}
    mesh = data_mesh([first[process] for process in sorted(first)])
    # Each process's device takes one row: its own bytes.
    rows = np.broadcast_to(data, (len(first), len(data)))
    total = on_devices(lambda row: lax.psum(row[0], AXIS), mesh, SPLIT_FIRST, REPLICATED)
    return np.asarray(jax.jit(total)(place(rows, mesh, SPLIT_FIRST)))


def _client() -> Any:
    return _jax_distributed.global_state.client


def _next(kind: str) -> str:
    return f"convjax/{kind}/{_calls.get(kind, 0) + 1}"


def _meet(kind: str, timeout: float = _LONG) -> str:
    """Waits for all processes at a place that is new at every call, and returns its key."""
    place = _next(kind)
    _calls[kind] = _calls.get(kind, 0) + 1
    _client().wait_at_barrier(place, int(timeout * 1000))
    return place
