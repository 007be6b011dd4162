"""One way to train an epoch, and what an engine makes of it."""

from dataclasses import dataclass
from typing import Any, Protocol

MATRIX = 2048  # edge of the square matrices whose product gives the machine's rate


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
      every: statistics at every `every`-th step.
      dtype: of parameters and activations.
      devices: over which ours trains, each with its part of the batch; 1 is JAX's default.
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
        """Which child runs it."""
        return "jax" if self.program == "convjax" else "torch"


class EngineProgram(Protocol):
    """What a child makes of a case."""

    @property
    def compile_seconds(self) -> float | None:
        """Seconds of compiling so far; None where nothing is compiled."""

    def reset(self) -> None:
        """Goes back to the initial parameters."""

    def epoch(self) -> Any:
        """Trains one epoch and returns when the device is done; the result tells its losses."""
