"""The exchange of texts among the processes of a training, through JAX's coordinator.

No device takes part: the devices may be busy for long, and a collective operation that some
processes do not start waits without a message. Every exchange ends in bounded time, and tells a
process that makes another call from one that does not come.
"""

import json
import time
from collections.abc import Sequence
from typing import Any

from convjax.parallel.peer_monitor import PeerMonitor

# Milliseconds of one request. Between two of them Python handles signals, such as Ctrl-C.
_REQUEST = 1000


class ProcessError(ValueError):
    """Raised in all processes alike: they make other calls, or were given other values."""

    exit_code = 2  # of a process that ends by it, see `convjax.distributed.monitor_peers`


class Exchange:
    """The exchange of texts among the processes of a training.

    Args:
      client: of JAX's coordinator.
      monitor: of this process.
    """

    def __init__(self, client: Any, monitor: PeerMonitor):
        self._client, self.monitor = client, monitor
        self._calls: dict[str, int] = {}  # how many exchanges each group of processes has made

    def texts(
        self,
        call: str,
        text: str = "",
        processes: Sequence[int] | None = None,
        wait: float | None = None,
    ) -> dict[int, str]:
        """Returns the text of each process, once all of them have made this call.

        Args:
          call: what the process does, for messages.
          text: of this process.
          processes: those that take part, the same in each; None for all.
          wait: seconds to wait for the others, by default those of the monitor. After them all
            processes end.

        Raises:
          ProcessError: if another process makes another call, in all of them.
        """
        everyone = range(self.monitor.processes)
        together = sorted(processes if processes is not None else everyone)
        if len(together) < 2:
            return {self.monitor.process: text}
        group = "all" if len(together) == len(everyone) else "-".join(map(str, together))
        number = self._calls[group] = self._calls.get(group, 0) + 1
        root = f"convjax/calls/{group}"
        if group == "all":
            self.monitor.arrive(call)
        found = self._all(f"{root}/{number}", call, text, together, wait or self.monitor.wait)
        # All have read the exchange before: otherwise they would not be in this one.
        if self.monitor.process == together[0] and number > 1:
            self._client.key_value_delete(f"{root}/{number - 1}/")
        calls = {process: call for process, (call, _) in found.items()}
        first = together[0]
        other = next((i for i in together if calls[i] != calls[first]), None)
        if other is not None:
            error = ProcessError(
                f"processes must make the same calls in the same order, got {calls[first]} in "
                f"process {first} and {calls[other]} in process {other}. Let every process take "
                "the same path through the program, and stop at the same step."
            )
            self.monitor.fail(str(error), ProcessError.exit_code)  # they cannot go on together
            raise error
        return {process: text for process, (_, text) in found.items()}

    def _all(
        self, key: str, call: str, text: str, together: Sequence[int], wait: float
    ) -> dict[int, tuple[str, str]]:
        """Returns call and text of each process."""
        client, own = self._client, f"{key}/of/{self.monitor.process}"
        end = time.monotonic() + wait
        try:
            client.key_value_set(own, json.dumps((call, text)))
            if client.key_value_increment(f"{key}/count", 1) == len(together):
                given = dict(client.key_value_dir_get(f"{key}/of/"))
                every = {i: json.loads(given[f"{key}/of/{i}"]) for i in together}
                client.key_value_set(f"{key}/every", json.dumps(every))
            while True:
                try:
                    every = json.loads(client.blocking_key_value_get(f"{key}/every", _REQUEST))
                    return {int(i): (call, text) for i, (call, text) in every.items()}
                except Exception as error:
                    if "DEADLINE_EXCEEDED" not in str(error):
                        raise
                if time.monotonic() > end:
                    given = dict(client.key_value_dir_get(f"{key}/of/"))
                    missing = [i for i in together if f"{key}/of/{i}" not in given]
                    if missing:
                        self.monitor.end_all(missing[0], call, wait)
        except Exception:  # of JAX: the coordinator or a process is dead
            self.monitor.wait_for_failure()
            raise


_current: Exchange | None = None


def connect(client: Any, monitor: PeerMonitor) -> None:
    """Makes an exchange the one of this process, which `current` returns."""
    global _current
    _current = Exchange(client, monitor)


def current() -> Exchange | None:
    """Returns the exchange with the other processes, None in a training of one process."""
    return _current


def meet(call: str, processes: Sequence[int]) -> None:
    """Waits until each of some processes has made the same call."""
    if _current is not None:
        _current.texts(call, processes=processes)


def announce(call: str, processes: Sequence[int]) -> None:
    """Notes the begin of an operation on the devices of some processes, without a wait.

    The monitor ends all processes if one of them does not come to it.
    """
    if _current is not None and len(processes) == _current.monitor.processes:
        _current.monitor.arrive(call)
