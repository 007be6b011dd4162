"""Times of the variants of one case, measured in turns, with their compiled programs."""

from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, dataclass
from statistics import median
from time import perf_counter
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from experiments.layout_study.cases import NETWORK, CaseStep, Shape, Variant, convolution, network
from experiments.layout_study.hlo import CompiledProgram, describe

# A measurement repeats the step for about this time.
SECONDS = 0.01


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
    calls = []
    for program in programs:
        program.run(1)
        once = _seconds(program.run, 1)
        calls.append(max(1, round(SECONDS / max(once, 1e-6))))
    times: list[list[float]] = [[] for _ in programs]
    for _ in range(rounds):
        for i, program in enumerate(programs):
            times[i].append(_seconds(program.run, calls[i]))
    return [
        LayoutTiming(
            case=str(case) if case else NETWORK,
            layout=program.variant.layout,
            method=program.variant.method,
            force=program.variant.force,
            dtype=dtype,
            backward=backward,
            where=program.where,
            seconds=median(of),
            compile_seconds=program.compile_seconds,
            deviation=deviations[program.variant],
            compiled=asdict(program.compiled),
        )
        for program, of in zip(programs, times, strict=True)
    ]


def reference_of(case: Shape | None, dtype: str, backward: bool) -> list[np.ndarray]:
    """Returns the results of NHWC by lax."""
    variant = Variant("NHWC", "lax")
    return results_of(_make(case, variant, dtype, backward), variant)


def results_of(made: tuple[CaseStep, Any, CaseStep], variant: Variant) -> list[np.ndarray]:
    """Returns the results of one variant as float32 arrays."""
    _, state, results = made
    compiled = jax.jit(results).lower(state).compile(variant.compiler_options)
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
    began = perf_counter()
    if where == "loop":

        def repeated(state: Any, count: Any) -> Any:
            return jax.lax.fori_loop(0, count, lambda _, s: step(s), state)

        lowered = jax.jit(repeated).lower(state, 1)
    else:
        lowered = jax.jit(step).lower(state)
    program = lowered.compile(variant.compiler_options)
    seconds = perf_counter() - began

    def run(count: int) -> None:
        if where == "loop":
            jax.block_until_ready(program(state, count))
            return
        now = state
        for _ in range(count):
            now = program(now)
        jax.block_until_ready(now)

    return _Program(variant, where, run, describe(program, jax.default_backend()), seconds)


def _seconds(run: Callable[[int], None], count: int) -> float:
    began = perf_counter()
    run(count)
    return (perf_counter() - began) / count
