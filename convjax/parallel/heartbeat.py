"""A training's other processes: whether they are still there, and an end in bounded time if not.

Every process writes a counter into the key-value store of JAX's coordinator, again and again, and
reads those of the others. The counting goes on while the process compiles or waits for a device, so
that nothing but a process that is gone, stopped or cut off falls silent.
"""

import contextlib
import ctypes
import os
import signal
import socket
import sys
import threading
import time
from typing import Any

# Exit status of a process that ends because another one is gone.
PEER_GONE = 4

# A counter is written and read so many times in the seconds after which silence is the end.
_BEATS = 10

_ROOT = "convjax/peers/"


class Peers:
    """The watch over the processes of a training.

    Args:
      process, processes: this one's id, and how many there are.
      coordinator: HOST:PORT of process 0's service, or None where JAX found it by itself.
      heartbeat: seconds of silence after which a process counts as gone.

    Attributes:
      advice: the end of the message, telling how to go on.
    """

    def __init__(self, process: int, processes: int, coordinator: str | None, heartbeat: float):
        self.process, self.processes, self.heartbeat = process, processes, heartbeat
        self.advice = "Start all processes again."
        self._coordinator = coordinator
        self._interval = heartbeat / _BEATS
        self._client: Any = None
        self._found: dict[str, str] = {}
        self._answers = 0  # of the coordinator
        self._stopped = threading.Event()
        self._ending = threading.Lock()
        self._finished = False
        self._leaving: int | None = None  # with which exit status
        self._threads: list[threading.Thread] = []
        self._on_abort: Any = None

    # --- before the connection ---------------------------------------------------------------

    def catch_aborts(self, connecting: str) -> None:
        """Ends in our way where JAX would abort this process.

        JAX's client answers every loss of its coordinator, also a connection that does not come
        about, with a stack trace and abort(): neither Python nor a handler of Python's is asked,
        hence the C library's `signal`.

        Args:
          connecting: the message as long as there is no connection.
        """
        if os.name != "posix":
            return

        def on_abort(number: int) -> None:
            del number
            if self._leaving is not None:
                os._exit(self._leaving)
            self.end(connecting if self._client is None else self._lost_connection())

        # The attribute keeps the callback alive, which C knows by its address alone.
        self._on_abort = ctypes.CFUNCTYPE(None, ctypes.c_int)(on_abort)
        ctypes.CDLL(None).signal(signal.SIGABRT, self._on_abort)

    def let_aborts_be(self) -> None:
        """Takes back what `catch_aborts` did."""
        if os.name == "posix":
            ctypes.CDLL(None).signal(signal.SIGABRT, None)  # SIG_DFL is 0

    def _lost_connection(self) -> str:
        for i in range(self.processes):
            if f"left/{i}" in self._found:
                return self._left(i)
        if self.process and self._coordinator and not _listens(self._coordinator):
            return self._gone(0)
        return (
            "JAX ended this process, most likely because it lost the others; its own message is "
            f"above. {self.advice}"
        )

    # --- the watch -----------------------------------------------------------------------------

    def start(self, client: Any) -> None:
        """Starts to write this process's counter and to read the others'."""
        self._client = client
        # Two threads: where the coordinator is stopped, a call to it does not return.
        for work in (self._beat, self._judge):
            thread = threading.Thread(target=work, name=f"convjax-peers{work.__name__}")
            thread.daemon = True
            thread.start()
            self._threads.append(thread)

    def _beat(self) -> None:
        while True:
            try:
                self._client.key_value_set(f"{_ROOT}beat/{self.process}", str(self._answers), True)
                found = self._client.key_value_dir_get(_ROOT)
                self._found = {key.removeprefix(_ROOT): value for key, value in found}
                self._answers += 1
            except Exception:
                pass  # no answer, and those are counted
            if self._stopped.wait(self._interval):
                return

    def _judge(self) -> None:
        # Beats are counted and not seconds: a process that was itself stopped for a minute, or a
        # computer that slept, has missed none.
        others = [i for i in range(self.processes) if i != self.process]
        last, silent = dict.fromkeys(others, ""), dict.fromkeys(others, 0)
        answers, unanswered, warned = 0, 0, 0
        while not self._stopped.wait(self._interval):
            if self._finished or self._leaving is not None:
                continue
            unanswered = unanswered + 1 if self._answers == answers else 0
            answers = self._answers
            if unanswered > _BEATS:
                self.end(self._gone(0))
            if unanswered:
                continue
            found = self._found
            for i in others:
                beat = found.get(f"beat/{i}", "")
                silent[i] = silent[i] + 1 if beat == last[i] else 0
                last[i] = beat
            named = [i for i in range(self.processes) if f"gone/{i}" in found]
            gone = named or [i for i in others if silent[i] > _BEATS]
            if gone:
                self._tell(gone[0])
                self.end(self._gone(gone[0]))
            left = [i for i in others if f"left/{i}" in found]
            warned += bool(left)
            # The same mistake may be on its way out of this process.
            if warned > _BEATS // 3:
                self._linger()
                self.end(self._left(left[0]))

    def _tell(self, gone: int) -> None:
        """Lets the others end for the same reason, before this process is silent, too."""
        if gone:
            try:
                self._client.key_value_set(f"{_ROOT}gone/{gone}", "", True)
            except Exception:
                return
            self._linger()

    def _linger(self) -> None:
        """With process 0 the coordinator goes: first let the others read why."""
        if self.process == 0:
            time.sleep(3 * self._interval)

    def _name(self, process: int) -> str:
        return f"process {process} (of 0 to {self.processes - 1})"

    def _gone(self, process: int) -> str:
        if process == self.process:
            return (
                f"the other processes ended without this one, {self._name(process)}, which had not "
                f"answered for {self.heartbeat:g} s. {self.advice}"
            )
        return (
            f"{self._name(process)} is gone or did not answer for {self.heartbeat:g} s; the "
            f"training cannot go on without it. {self.advice}"
        )

    def _left(self, process: int) -> str:
        return f"{self._name(process)} stopped: {self._found[f'left/{process}']}. {self.advice}"

    # --- the end -------------------------------------------------------------------------------

    def wait_for_verdict(self) -> None:
        """Waits as long as it takes to see whether a peer is gone; then this does not return."""
        # The silence, the look after it, and the time in which process 0 lingers; and as much again
        # for a computer with more to do.
        time.sleep(2 * (_BEATS + 5) * self._interval)

    def leave(self, reason: str, status: int) -> None:
        """Says that this process stops by a mistake of its own, with that exit status."""
        self._leaving = status
        lines = reason.splitlines() or ["an error"]
        # Where nobody hears it, the others find its silence.
        with contextlib.suppress(Exception):
            self._client.key_value_set(f"{_ROOT}left/{self.process}", lines[0].rstrip("."), True)

    def finish(self) -> None:
        """Says that the training is over: from here on nobody's silence matters."""
        self._finished = True

    def at_exit(self) -> None:
        """Stops the watch; after a mistake of this process's own, without waiting for the rest.

        JAX would wait for the others, which are in the middle of their work.
        """
        if self._leaving is not None:
            self._linger()
            _flush()
            os._exit(self._leaving)
        self._stopped.set()
        # A thread that comes back from C++ while Python shuts down would crash the process.
        for thread in self._threads:
            thread.join(self.heartbeat)
            if thread.is_alive():
                self.end(self._gone(0))

    def end(self, message: str) -> None:
        """Ends this process with a line on stderr and exit status 4."""
        if not self._ending.acquire(blocking=False):
            time.sleep(self.heartbeat)  # another thread is at it
        if threading.current_thread() is threading.main_thread():
            _flush()
        else:
            # In a thread of its own: the main one may hold the lock of a stream for good.
            flushing = threading.Thread(target=_flush, daemon=True)
            with contextlib.suppress(RuntimeError):  # Python is shutting down, and flushes itself
                flushing.start()
                flushing.join(1.0)
        with contextlib.suppress(OSError):  # nobody reads it any more
            os.write(2, f"error: {message}\n".encode())
        # Not sys.exit, which would wait for the device and for the others.
        os._exit(PEER_GONE)


def _flush() -> None:
    for stream in (sys.stdout, sys.stderr):
        # Closed, full, or None where there is no console.
        with contextlib.suppress(OSError, ValueError, AttributeError):
            stream.flush()


def _listens(address: str) -> bool:
    """Tells whether something accepts connections at HOST:PORT."""
    host, port = address.rsplit(":", 1)
    try:
        with socket.create_connection((host.strip("[]"), int(port)), timeout=1.0):
            return True
    except OSError:
        return False
