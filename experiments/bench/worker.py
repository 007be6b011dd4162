"""The child processes of the benchmark, and the parent's interface to them.

    python -m experiments.bench.worker jax|torch DATA.npz

A child reads one JSON request per line from its standard input and answers each with one JSON line.
JAX and PyTorch run in separate processes, so that their threads do not compete. The child for
PyTorch never imports JAX, so that its memory and its cold start are those of PyTorch.
`multiprocessing` would import the parent's main module, and with it JAX, into every child.
"""

import json
import os
import platform
import subprocess
import sys
import tempfile
import time
import traceback
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np

from experiments.bench.case import MATRIX, BenchCase, EngineProgram

# CPU devices that JAX shows, so that ours can also train on both, if there are as many cores.
CPU_DEVICES = 2
ROOT = Path(__file__).resolve().parents[2]


class BenchError(ValueError):
    """A child process died; the message has the end of its stderr."""


class RefusalError(BenchError):
    """A child process reported an error and continues to run."""


def host_peak() -> int:
    """Returns the peak resident memory of this process in bytes.

    On Linux, ru_maxrss includes the memory of the parent before exec; VmHWM does not.
    """
    status = Path("/proc/self/status")
    if status.exists():
        for line in status.read_text().splitlines():
            if line.startswith("VmHWM:"):
                return int(line.split()[1]) * 1024
    import resource  # not on Windows

    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak if platform.system() == "Darwin" else peak * 1024


class Child:
    """The child's side: answers requests, and keeps the prepared programs.

    Args:
      engine: "jax" or "torch".
      path: of the data, see `experiments.bench.jax_engine.setup`.
    """

    def __init__(self, engine: str, path: str):
        self.path = path
        self.programs: dict[BenchCase, EngineProgram] = {}
        if engine == "torch":
            from experiments.bench import torch_engine

            self.make: Callable[[BenchCase, Mapping[str, Any]], EngineProgram] = (
                torch_engine.TorchProgram
            )
            self.about, self.product = torch_engine.about, torch_engine.product
            self.device_peak = torch_engine.device_peak
        else:
            from experiments.bench import jax_engine

            self.make, self.setup = jax_engine.JaxProgram, jax_engine.setup
            self.about, self.product = jax_engine.about, jax_engine.product
            self.device_peak = jax_engine.device_peak

    def answer(self, do: str, case: dict[str, Any] | None = None, **others: Any) -> Any:
        """Answers one request: setup, about, rate, prepare, run or peak."""
        if do == "setup":
            return self.setup(self.path, **others)
        if do == "about":
            return self.about()
        if do == "peak":
            return {"host_bytes": host_peak(), "device_bytes": self.device_peak()}
        if do == "rate":
            return self._rate(**others)
        chosen = BenchCase(**(case or {}))
        if do == "prepare" and chosen not in self.programs:
            with np.load(self.path) as data:
                program = self.make(chosen, data)
            self.programs[chosen] = program
        program = self.programs[chosen]
        program.reset()
        began = time.perf_counter()
        program.epoch()
        seconds = time.perf_counter() - began
        return {"seconds": seconds, "compile_seconds": program.compile_seconds}

    def _rate(self, repeats: int) -> dict[str, list[float]]:
        """Returns the floating-point operations per second of each repeat of a matrix product."""
        product = self.product()
        times = 20 if self.about()["accelerator"] else 1  # hides the time of a launch
        product(2)
        rates = []
        for _ in range(repeats):
            began = time.perf_counter()
            product(times)
            rates.append(2 * MATRIX**3 * times / (time.perf_counter() - began))
        return {"flops": rates}


class Worker:
    """The parent's side: a child process, for a `with` statement.

    Args:
      engine: "jax" or "torch".
      path: of the data, see `experiments.bench.jax_engine.setup`.
      settings: environment variables of the child, in addition to the parent's.
      command: another program, for tests.
    """

    def __init__(
        self,
        engine: str,
        path: Path,
        *,
        settings: Mapping[str, str] | None = None,
        command: Sequence[str] | None = None,
    ):
        self.engine = engine
        # A file: a pipe would fill up, as the parent does not read it while it waits for an answer.
        self._stderr = tempfile.TemporaryFile("w+")  # noqa: SIM115  # closed in __exit__
        found = {k: v for k, v in os.environ.items() if not k.startswith("JAX_COMPILATION_CACHE")}
        found["PYTHONPATH"] = os.pathsep.join(filter(None, [str(ROOT), found.get("PYTHONPATH")]))
        found.setdefault("JAX_NUM_CPU_DEVICES", str(min(CPU_DEVICES, os.cpu_count() or 1)))
        found["XLA_PYTHON_CLIENT_PREALLOCATE"] = "false"  # both engines share a GPU's memory
        self._process = subprocess.Popen(
            command or [sys.executable, "-m", "experiments.bench.worker", engine, str(path)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=self._stderr,
            text=True,
            env={**found, **(settings or {})},
        )

    def ask(self, do: str, case: BenchCase | None = None, **others: Any) -> dict[str, Any]:
        """Sends a request and returns the answer.

        Args:
          do: the request: setup, about, rate, prepare, run or peak.
          case: the case to prepare or run.
          others: further arguments of the request.

        Raises:
          RefusalError: if the child reports an error.
          BenchError: if the child dies.
        """
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        request = {"do": do, **others} | ({} if case is None else {"case": asdict(case)})
        line = ""
        with suppress(BrokenPipeError):
            self._process.stdin.write(json.dumps(request) + "\n")
            self._process.stdin.flush()
            line = self._process.stdout.readline()
        if not line:
            status = self._process.wait()
            self._stderr.seek(0)
            last = "".join(self._stderr.readlines()[-15:]).strip() or "(nothing)"
            raise BenchError(
                f"the {self.engine} worker died with exit status {status} when asked to {do}"
                f"{'' if case is None else f' {case}'}; the end of its stderr:\n{last}"
            )
        reply: dict[str, Any] = json.loads(line)
        if "error" in reply:
            raise RefusalError(reply["error"])
        return reply

    def __enter__(self) -> "Worker":
        return self

    def __exit__(self, *error: object) -> None:
        for pipe in (self._process.stdin, self._process.stdout):
            assert pipe is not None
            with suppress(BrokenPipeError):
                pipe.close()  # the child ends with its input
        try:
            self._process.wait(10)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()
        self._stderr.close()


def main(engine: str, path: str) -> None:
    """Answers requests until the input ends."""
    # The output of libraries goes to stderr, so that the pipe has only the answers.
    replies = os.fdopen(os.dup(1), "w")
    os.dup2(2, 1)
    child = Child(engine, path)
    for line in sys.stdin:
        try:
            reply = child.answer(**json.loads(line))
        except Exception as error:
            traceback.print_exc()
            # A DataError is a message for the user. Compared by name: the PyTorch child must not
            # import the class.
            kind = type(error).__name__
            reply = {"error": str(error) if kind == "DataError" else f"{kind}: {error}"}
        print(json.dumps(reply), file=replies, flush=True)


if __name__ == "__main__":
    main(*sys.argv[1:])
