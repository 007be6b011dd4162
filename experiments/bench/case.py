"""One case of the benchmark, a way to train an epoch, and the interface of its program."""

from dataclasses import dataclass
from typing import Any, Protocol

MATRIX = 2048  # side of the square matrices whose product measures the device's rate


@dataclass(frozen=True)
class BenchCase:
    """One way to train an epoch.

    Attributes:
      program: "convjax", "torch" (eager), "torch-compile" or "torch-graph" (CUDA graph).
      layout: NHWC, NCHW or CHWN; for PyTorch NHWC is channels_last.
      norm: None or "batch".
      batch_size: images per step.
      stats: "none", "scalars" (no histogram) or "all"; for ours also one of
        `experiments.bench.cases.QUANTITIES`.
      every: steps from one with statistics to the next.
      dtype: of parameters and activations.
      devices: number of devices for ours, which share each batch; 1 is JAX's default device.
    """

    program: str
    layout: str
    norm: str | None = None
    batch_size: int = 64
    stats: str = "none"
    every: int = 1
    dtype: str = "float32"
    devices: int = 1

    @property
    def engine(self) -> str:
        """The child process that runs the case: "jax" or "torch"."""
        return "jax" if self.program == "convjax" else "torch"


class EngineProgram(Protocol):
    """The program of a case in a child process."""

    @property
    def compile_seconds(self) -> float | None:
        """Seconds of compiling so far; None if nothing is compiled."""

    def reset(self) -> None:
        """Restores the initial parameters."""

    def epoch(self) -> Any:
        """Trains one epoch, waits for the device, and returns a result that has the losses."""
