"""Times of the variants of one case, measured in turns, with their compiled programs."""

from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, dataclass
from time import perf_counter
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from convjax.analysis.hlo import CompiledProgram, describe
from convjax.analysis.step_programs import (
    compile_step,
    conv_options,
    runner,
    seconds_in_turns,
)
from experiments.layout_study.cases import NETWORK, CaseStep, Shape, Variant, convolution, network


@dataclass(frozen=True)
class LayoutTiming:
    """One variant of one case.

    Attributes:
      case: the shape as text, or "chapter's network".
      where: "entry" or "loop".
      seconds: of one step; the median over the rounds.
      compile_seconds: while another program compiles, too; or of reading the cache.
      deviation: from NHWC by lax in the same dtype, see `deviation`.
      compiled: the fields of the `CompiledProgram`.
    """

    case: str
    layout: str
    method: str
    force: str
    dtype: str
    backward: bool
    where: str
    seconds: float
    compile_seconds: float
    deviation: float
    compiled: dict[str, Any]

    @property
    def variant(self) -> Variant:
        """Layout, method and forced physical layout."""
        return Variant(self.layout, self.method, self.force)


@dataclass
class _Program:
    variant: Variant
    where: str
    run: Callable[[int], None]  # takes a number of steps
    compiled: CompiledProgram
    compile_seconds: float


def measure_case(
    case: Shape | None,
    variants: Sequence[Variant],
    dtype: str,
    backward: bool,
    rounds: int,
    reference: Sequence[np.ndarray],
) -> list[LayoutTiming]:
    """Measures all variants of one case in turns, outside and in a loop.

    Args:
      case: a shape, or None for the chapter's network.
      variants: to compare.
      dtype: of images and parameters.
      backward: whether the step computes the gradients.
      rounds: number of measurements of each variant.
      reference: the results of NHWC by lax, see `reference_of`.
    """
    made = {v: _make(case, v, dtype, backward) for v in variants}
    deviations = {
        variant: deviation(results_of(made[variant], variant), reference) for variant in variants
    }
    jobs = [(v, where) for v in variants for where in ("entry", "loop")]
    with ThreadPoolExecutor(2) as pool:
        programs = list(pool.map(lambda job: _compile(*made[job[0]][:2], *job), jobs))
    times = seconds_in_turns([program.run for program in programs], rounds)
    return [
        LayoutTiming(
            case=str(case) if case else NETWORK,
            layout=program.variant.layout,
            method=program.variant.method,
            force=program.variant.force,
            dtype=dtype,
            backward=backward,
            where=program.where,
            seconds=seconds,
            compile_seconds=program.compile_seconds,
            deviation=deviations[program.variant],
            compiled=asdict(program.compiled),
        )
        for program, seconds in zip(programs, times, strict=True)
    ]


def reference_of(case: Shape | None, dtype: str, backward: bool) -> list[np.ndarray]:
    """Returns the results of NHWC by lax."""
    variant = Variant("NHWC", "lax")
    return results_of(_make(case, variant, dtype, backward), variant)


def results_of(made: tuple[CaseStep, Any, CaseStep], variant: Variant) -> list[np.ndarray]:
    """Returns the results of one variant as float32 arrays.

    Products of float32 numbers are exact to float32, which a GPU would else take in TF32, with 10
    bits, and a TPU in bfloat16, with 8.
    """
    _, state, results = made
    with jax.default_matmul_precision("highest"):
        compiled = jax.jit(results).lower(state).compile(conv_options(variant.force))
    return [np.asarray(found).astype(np.float32) for found in compiled(state)]


def deviation(found: Sequence[np.ndarray], reference: Sequence[np.ndarray]) -> float:
    """Returns the largest norm of a difference between arrays, relative to the reference's norm.

    Norms rather than elements: a ReLU that rounding turns on or off changes single gradients fully.
    """
    return max(
        float(np.linalg.norm(ours - theirs) / (np.linalg.norm(theirs) or 1))
        for ours, theirs in zip(found, reference, strict=True)
    )


def _make(
    case: Shape | None, variant: Variant, dtype: str, backward: bool
) -> tuple[CaseStep, Any, CaseStep]:
    if case is None:
        return network(variant, jnp.dtype(dtype), backward)
    return convolution(case, variant, jnp.dtype(dtype), backward)


def _compile(step: CaseStep, state: Any, variant: Variant, where: str) -> _Program:
    in_loop, backend = where == "loop", jax.default_backend()
    platform = {"gpu": "cuda"}.get(backend, backend)
    began = perf_counter()
    program = compile_step(step, state, platform, in_loop=in_loop, force=variant.force)
    seconds = perf_counter() - began
    described = describe(program, backend, in_loop=in_loop)
    return _Program(variant, where, runner(program, state, in_loop), described, seconds)
