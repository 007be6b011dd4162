"""The detection of a failed peer: every other process ends in bounded time, with a message.

JAX's coordinator detects the failure: it counts a process as dead if it sends no heartbeat for
`heartbeat_timeout_seconds`. This module adds what JAX (0.10.2 to 0.12) lacks:

* JAX ends the surviving processes with `abort()`: a stack trace, and the status of a crash. Here a
  line on stderr names the dead process and what to do, and the exit status is `PEER_GONE`. JAX's
  `get_live_nodes` returns the living processes. Only a signal handler of the C library is notified
  of `abort()`, because neither Python code nor Python's signal handlers run then.
* A process that stops by an exception takes JAX's whole shutdown timeout to end, and the others end
  after it by `abort()`, without a reason. Here it writes its reason into the coordinator's
  key-value store, from where the others print it, and all end at once.
* A process that lives and does not come to what the others wait for keeps them waiting forever, or
  as long as a library of collective operations allows. Here all end after `wait` seconds with a
  message that names the process and the operation.
* The lines that JAX and its coordinator log before an `abort()` hide the message here.
  `hide_jax_log` turns them off.
"""

import contextlib
import ctypes
import os
import signal
import sys
import threading
import time
from typing import Any

# JAX has no public access to the level of its log in C++.
from jax._src.lib import utils as _jax_utils

# Exit status of a process that ends because another one has failed.
PEER_GONE = 4

_ROOT = "convjax/peers/"

# Seconds within which an answer that the coordinator has already sent arrives.
_GRACE = 2.0

# The environment variable that keeps JAX's log.
_SHOW_LOG = "TF_CPP_MIN_LOG_LEVEL=0"

# Rounds after which the others have certainly read what a process has written.
_ROUNDS = 3


class PeerMonitor:
    """The monitor of the other processes of a training, a thread.

    Args:
      process: the id of this process.
      processes: how many there are.
      heartbeat: seconds without a heartbeat after which JAX counts a process as dead.
      wait: seconds to wait for a process that lives.

    Attributes:
      advice: the last sentence of the message, which says how to resume.
    """

    def __init__(self, process: int, processes: int, heartbeat: float, wait: float = 600.0):
        self.process, self.processes, self.heartbeat = process, processes, heartbeat
        self.wait = wait
        self.advice = "Start all processes again."
        self._interval = min(1.0, heartbeat / 10)  # seconds between two rounds
        self._client: Any = None
        self._rounds = 0
        # How many operations of all processes this one has come to, the last one, and when.
        self._arrived = 0, "the connection", time.monotonic()
        self._published = 0
        self._others: dict[int, tuple[int, str]] = {}  # the same of the others
        self._ending = threading.Lock()
        self._finished = threading.Event()
        self._failed: int | None = None  # the exit status, once this process has failed itself
        self._thread = threading.Thread(target=self._run, name="convjax-peers", daemon=True)
        self._on_abort: Any = None

    # --- JAX's abort() -------------------------------------------------------------------------

    def catch_aborts(self, connecting: str) -> None:
        """Replaces the crash of JAX's `abort()` by a message and the exit status `PEER_GONE`.

        Args:
          connecting: the message while there is no connection, which ends by `abort()` as well.
        """
        if os.name != "posix":
            return

        def on_abort(number: int) -> None:
            del number
            if self._failed is not None:
                os._exit(self._failed)
            if self._client is None:
                self.end(connecting)
            rounds = self._rounds
            # If the coordinator knows which process is dead, the monitor ends this one meanwhile.
            time.sleep(_GRACE + 2 * _ROUNDS * self._interval)
            if self.process and self._rounds == rounds and not self._finished.is_set():
                self.end(self._gone(0))
            self.end(
                "JAX's coordinator ended the training, as it does if two processes have one id; "
                f"{_SHOW_LOG} in the environment shows its reason. {self.advice}"
            )

        # The attribute keeps the callback alive: C has only its address.
        self._on_abort = ctypes.CFUNCTYPE(None, ctypes.c_int)(on_abort)
        ctypes.CDLL(None).signal(signal.SIGABRT, self._on_abort)

    def restore_aborts(self) -> None:
        """Undoes `catch_aborts`."""
        if os.name == "posix":
            ctypes.CDLL(None).signal(signal.SIGABRT, None)  # SIG_DFL is 0

    # --- operations of all processes -----------------------------------------------------------

    def arrive(self, call: str) -> None:
        """Notes that this process has come to an operation that all processes carry out together.

        The number of operations is the same in all of them. A process that has come to one more
        than another waits for it.
        """
        self._arrived = self._arrived[0] + 1, call, time.monotonic()

    def end_all(self, missing: int, call: str, wait: float) -> None:
        """Ends all processes because one did not come to an operation within `wait` seconds."""
        if self._failed is not None:
            time.sleep(_GRACE + _ROUNDS * self._interval)  # another thread ends the process
        at = self._others.get(missing, (0, ""))[1]
        reason = (
            f"{self._name(missing)} did not come to {call} within {wait:g} s"
            f"{f'; it last came to {at}' if at else ''}. If it needs longer, as "
            "to compile, raise --wait (wait= of convjax.distributed.initialize); else let all "
            "processes make the same calls"
        )
        self.fail(reason, PEER_GONE)
        self._let_others_read()
        self.end(f"{reason}. {self.advice}")

    def _publish(self) -> None:
        """Writes to which operation this process has come, for messages of the others."""
        count, call, _ = self._arrived
        if count != self._published:
            self._published = count
            self._client.key_value_set(f"{_ROOT}at/{self.process}", f"{count} {call}", True)

    def _find_missing(self, found: dict[str, str]) -> None:
        """Ends all processes if another has not come to where this one has waited for long."""
        for i in range(self.processes):
            number, _, call = found.get(f"{_ROOT}at/{i}", "0 ").partition(" ")
            if i != self.process:
                self._others[i] = int(number), call
        count, call, since = self._arrived
        behind = [i for i, (others, _) in self._others.items() if others < count]
        if behind and time.monotonic() - since > self.wait and not self.over():
            # In its own thread: the others read why only while this one takes part in the rounds.
            ending = threading.Thread(
                target=self.end_all, args=(behind[0], call, self.wait), daemon=True
            )
            ending.start()
            ending.join(_GRACE / 10)  # until `over` is true

    # --- the rounds ----------------------------------------------------------------------------

    def start(self, client: Any) -> None:
        """Starts the monitor.

        Args:
          client: of JAX's coordinator.
        """
        self._client = client
        self._thread.start()

    def _run(self) -> None:
        everyone = list(range(self.processes))
        found: dict[str, str] = {}
        while found.get(f"{_ROOT}last") != str(self._rounds):
            self._finished.wait(self._interval)
            try:
                if self.process == 0 and self._finished.is_set():
                    self._client.key_value_set(f"{_ROOT}last", str(self._rounds + 1), True)
                # Returns in all living processes together, so that all count the same rounds.
                live = self._client.get_live_nodes(everyone)
            except Exception:  # there is no coordinator without process 0
                if not self.over():
                    self.end(self._gone(0))
                return
            self._rounds += 1
            gone = [i for i in everyone if i not in live]
            if gone and self.over():
                return
            if not gone:  # once a process is dead, JAX aborts, and this call does not return
                with contextlib.suppress(Exception):
                    self._publish()
                    found = dict(self._client.key_value_dir_get(_ROOT))
                    self._find_missing(found)
            failed = [i for i in everyone if f"{_ROOT}failed/{i}" in found and i != self.process]
            if failed and not self.over():
                # The same exception may be about to leave this process, with its own status.
                time.sleep(_ROUNDS * self._interval)
            if (failed or gone) and not self.over():
                if self.process == 0:
                    self._let_others_read()
                self.end(self._stopped(failed[0], found) if failed else self._gone(gone[0]))

    def over(self) -> bool:
        """Whether this process ends for another reason than its peers."""
        return self._finished.is_set() or self._failed is not None

    def _let_others_read(self) -> None:
        """Waits until the others have read why they end: the coordinator ends with process 0."""
        time.sleep(_ROUNDS * self._interval)

    def _name(self, process: int) -> str:
        return f"process {process} (of 0 to {self.processes - 1})"

    def _gone(self, process: int) -> str:
        return (
            f"{self._name(process)} is gone or did not answer for {self.heartbeat:g} s; the "
            f"training cannot continue without it. {self.advice}"
        )

    def _stopped(self, process: int, found: dict[str, str]) -> str:
        reason = found[f"{_ROOT}failed/{process}"]
        return f"{self._name(process)} stopped: {reason}. {self.advice}"

    # --- the end -------------------------------------------------------------------------------

    def wait_for_failure(self) -> None:
        """Waits until the failure of a peer would have been detected; if so, does not return."""
        time.sleep(2 * self.heartbeat + 2 * _GRACE)

    def fail(self, reason: str, status: int) -> None:
        """Reports to the others that this process stops by an exception, with an exit status."""
        self._failed = status
        lines = reason.splitlines() or ["an error"]
        # Without a coordinator the others are notified by the missing heartbeat.
        with contextlib.suppress(Exception):
            self._client.key_value_set(f"{_ROOT}failed/{self.process}", lines[0].rstrip("."), True)

    def finish(self) -> None:
        """Ends the monitoring: the training is over in all processes."""
        self._finished.set()

    def at_exit(self, timeout: float) -> None:
        """Stops the monitor; after an exception of this process, without waiting for the others.

        Args:
          timeout: seconds within which the others must end as well.
        """
        if self._failed is not None:
            # JAX would wait for the others, which are in the middle of their work.
            self._let_others_read()
            _flush()
            os._exit(self._failed)
        self._finished.set()
        # A thread that returns from C++ while Python shuts down would crash the process.
        self._thread.join(timeout)
        if self._thread.is_alive():
            self.end(f"the other processes did not end within {timeout:g} s. {self.advice}")

    def end(self, message: str) -> None:
        """Ends this process with a line on stderr and the exit status `PEER_GONE`."""
        if not self._ending.acquire(blocking=False):
            time.sleep(self.heartbeat)  # another thread ends the process
        if threading.current_thread() is threading.main_thread():
            _flush()
        else:
            # In its own thread: the main thread may hold the lock of a stream forever.
            flushing = threading.Thread(target=_flush, daemon=True)
            with contextlib.suppress(RuntimeError):  # Python is shutting down, and flushes itself
                flushing.start()
                flushing.join(1.0)
        with contextlib.suppress(OSError):  # the reader of a pipe may have ended
            os.write(2, f"error: {message}\n".encode())
        # Not sys.exit, which would wait for the device and for the others.
        os._exit(PEER_GONE)


def hide_jax_log() -> None:
    """Turns off JAX's log in C++, its fatal messages included, unless the user asks for it."""
    if _level() != "0":
        _jax_utils.absl_set_min_log_level(4)  # above FATAL, 3


def show_jax_log() -> None:
    """Undoes `hide_jax_log`."""
    _jax_utils.absl_set_min_log_level(int(_level()))


def _level() -> str:
    found = os.environ.get("TF_CPP_MIN_LOG_LEVEL", "")
    return found if found in ("0", "1", "2", "3") else "1"  # JAX's default


def _flush() -> None:
    for stream in (sys.stdout, sys.stderr):
        # Closed, full, or None where there is no console.
        with contextlib.suppress(OSError, ValueError, AttributeError):
            stream.flush()
