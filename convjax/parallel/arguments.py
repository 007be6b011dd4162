"""Checks of the arguments that connect processes, before any connection."""

import math
import operator
import socket

# The options of a command that names its processes.
FLAGS = "--coordinator HOST:PORT --processes N --process-id I"


def check_times(**seconds: float) -> None:
    """Raises ValueError if a number of seconds, given by its name, is not positive and finite."""
    for name, value in seconds.items():
        if not (math.isfinite(value) and value > 0):
            raise ValueError(
                f"{name} must be a positive number of seconds, got {value!r}. Give one above 0."
            )


def check_processes(coordinator: str | None, processes: int | None, process_id: int | None) -> None:
    """Raises ValueError if only some of the three are given, or one is invalid."""
    given = {"coordinator": coordinator, "processes": processes, "process_id": process_id}
    missing = [name for name, value in given.items() if value is None]
    if len(missing) == len(given):
        return
    if missing or coordinator is None or processes is None or process_id is None:
        raise ValueError(
            f"coordinator, processes and process_id must be given together, got no "
            f"{' and no '.join(missing)}. Name all three, {FLAGS}, or none, and JAX detects the "
            "cluster."
        )
    host, _, port = coordinator.rpartition(":")
    if not host or not (port.isascii() and port.isdigit()) or not 0 < int(port) < 2**16:
        raise ValueError(
            f"coordinator must be HOST:PORT with a port from 1 to 65535, got {coordinator!r}. Give "
            "the address of process 0."
        )
    try:
        processes, process_id = operator.index(processes), operator.index(process_id)
    except TypeError:
        raise ValueError(
            f"processes and process_id must be whole numbers, got {processes!r} and {process_id!r}."
            " Count the processes from 0."
        ) from None
    if processes < 1 or not 0 <= process_id < processes:
        raise ValueError(
            f"process_id must be from 0 to processes − 1, got {process_id} of {processes}. Give "
            "each process its own id."
        )


def check_port_free(coordinator: str) -> None:
    """Raises ValueError if the port is in use; JAX 0.12 would crash without a message."""
    port = int(coordinator.rpartition(":")[2])
    with socket.socket() as trial:
        trial.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            trial.bind(("", port))
        except OSError as error:
            raise ValueError(
                f"coordinator must have a free port, got {coordinator}, whose port {port} cannot "
                f"be opened ({error.strerror}). Choose another one, the same for every process."
            ) from error
