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
from typing import Any

import jax

# JAX has no public access to the coordinator's client; Orbax and Grain use this one as well.
from jax._src import distributed as _jax_distributed

from convjax.parallel import exchange
from convjax.parallel._broadcast import broadcast
from convjax.parallel.agreement import agree, versions
from convjax.parallel.arguments import FLAGS, check_port_free, check_processes, check_times
from convjax.parallel.exchange import ProcessError
from convjax.parallel.local_gpus import local_device_ids, visible_gpus
from convjax.parallel.peer_monitor import PEER_GONE, PeerMonitor, hide_jax_log, show_jax_log

__all__ = [
    "PEER_GONE",
    "ProcessError",
    "agree",
    "any_process",
    "broadcast",
    "initialize",
    "is_primary",
    "monitor_peers",
    "process_count",
]


def initialize(
    coordinator: str | None = None,
    processes: int | None = None,
    process_id: int | None = None,
    *,
    timeout: float = 60.0,
    heartbeat: float = 20.0,
    wait: float = 600.0,
) -> None:
    """Connects this process with the others, and monitors them from here on.

    A process ends when another one is killed, is stopped or loses its connection: with a line on
    stderr and the exit status `PEER_GONE`, within little more than `heartbeat` seconds. If a
    process lives and does not come to what the others wait for, all end alike after `wait` seconds.
    The training itself belongs into `monitor_peers`.

    All processes must have the same versions of the packages. `convjax.Trainer` compares what they
    pass to it. JAX's log in C++ is turned off; TF_CPP_MIN_LOG_LEVEL=0 in the environment keeps it.

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
      wait: seconds to wait for a process that lives, such as for one that compiles longer.

    Raises:
      ValueError: if only some of the three are given, one is invalid, the port is in use, no
        cluster is detected, or the processes of this computer cannot share its GPUs evenly; in all
        processes (ProcessError), if their versions, their number or these seconds differ.
      RuntimeError: from JAX, if a device was used before, or at the second call.
    """
    check_times(timeout=timeout, heartbeat=heartbeat, wait=wait)
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
    monitor = PeerMonitor(process_id or 0, processes or 1, heartbeat, wait)
    where = coordinator or "the coordinator"
    monitor.catch_aborts(
        f"not all {f'{processes} ' if processes else ''}processes connected at {where} within "
        f"{timeout:g} s. Start every process with its own id, from 0, and with the same number and "
        "address, which all must reach."
    )
    hide_jax_log()
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
        show_jax_log()
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
    state: Any = _jax_distributed.global_state
    if state.process_id == 0:
        state.client.key_value_set("convjax/processes", str(state.num_processes))
    # As process 0 says: another one may have been started with another number.
    number = int(state.client.blocking_key_value_get("convjax/processes", round(timeout * 1000)))
    monitor.process, monitor.processes = state.process_id, number
    if number == state.num_processes == 1:
        monitor.restore_aborts()
        show_jax_log()
        return
    exchange.connect(state.client, monitor)
    monitor.start(state.client)
    # Runs before JAX's own exit function, which was registered earlier.
    atexit.register(_leave, timeout)
    seconds = {"timeout": timeout, "heartbeat": heartbeat, "wait": wait}
    agree(
        {"processes": state.num_processes, **versions(), **seconds},
        call="distributed.initialize",
        fix="Start all processes alike, and with the same versions.",
    )


def _leave(timeout: float) -> None:
    """Ends the process with the others; all end if they have not come to their end."""
    peers = exchange.current()
    assert peers is not None
    if not peers.monitor.over():
        try:
            peers.texts("the end of the program", wait=timeout)
        except ProcessError as error:
            peers.monitor.end(f"{error} {peers.monitor.advice}")
    peers.monitor.at_exit(timeout)


def process_count() -> int:
    """Returns the number of processes. Unlike `jax.process_count`, it uses no device.

    Examples:
      >>> from convjax import distributed
      >>> distributed.process_count()
      1
    """
    peers = exchange.current()
    return 1 if peers is None else peers.monitor.processes


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
    peers = exchange.current()
    if peers is None:
        yield
        return
    monitor = peers.monitor
    monitor.advice = advice
    try:
        try:
            yield
        except BaseException as error:
            if not _status(error):
                _end(peers)
            raise
        _end(peers)
    except BaseException as error:
        status = _status(error)
        if status:
            if _may_come_from_peer(error):
                monitor.wait_for_failure()
            monitor.fail(_reason(error), status)
        raise


def _end(peers: exchange.Exchange) -> None:
    peers.texts("the end of monitor_peers")
    peers.monitor.finish()


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
    peers = exchange.current()
    if peers is None:
        return bool(flag)
    return "True" in peers.texts("any_process", str(bool(flag))).values()
