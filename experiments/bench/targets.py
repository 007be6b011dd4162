"""`python -m experiments bench --target`: the training step, compiled for chips there or not.

XLA compiles for a GPU or TPU without one. Its text says how many kernels and library calls a step
launches on a GPU, and on a TPU it has the compiler's own estimate of cycles. These are counts of
what was compiled, not run: they are exact, and say nothing of time on a GPU. Without a device
there is no autotuning, so that cuDNN's algorithms are not chosen. Where the chip is the device of
the process, the program also runs.

The steps per second that a chip allows at best are, on a GPU, those at its published bandwidth or
at the peak of its matrix units, whichever are fewer; the time that launches take is not among them,
since nobody publishes it. On a TPU they are its clock over the estimated cycles.

The program is a chunk of 128 steps of the chapter's network on 60,000 resident images, batch 512,
layout NHWC. The extra `targets` installs the compilers.
"""

import re
import warnings
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, replace
from functools import partial
from pathlib import Path
from statistics import median
from time import perf_counter
from typing import Any

import jax
import jax.numpy as jnp
from flax import nnx

from convjax import Images, Trainer, Watch, adam, digits_net
from convjax.analysis.chips import CHIPS, is_present, shapes_on
from convjax.analysis.hlo import Computation, computations, touched_bytes
from convjax.analysis.products import count_products
from convjax.runs.environment import environment
from convjax.terminal.command import measure_to_file
from convjax.terminal.tables import TextTable

IMAGES, BATCH, STEPS = 60_000, 512, 128
EVERY = 8  # steps from one with statistics to the next, in the third kind of program
ROUNDS = 5  # measurements of a chunk on a device


@dataclass(frozen=True)
class CompiledStep:
    """What a compiler made of one step.

    Attributes:
      target: of `convjax.analysis.chips.CHIPS`.
      norm: of the network, "none" or "batch".
      statistics: "none", "all", or "all, every 8th".
      launches: of a step on a GPU: kernels, copies and library calls.
      library_calls: of them, those of cuDNN and cuBLAS.
      copies: of them.
      cycles: of a step, by the compiler's estimate; None on a GPU.
      known_length: whether the compiler knows the number of rounds of the loop; None on a TPU,
        whose text does not say it.
      host_transfers: instructions in the chunk that send to the host or wait for it.
      temporary_bytes: memory besides arguments and results.
      touched_bytes: that a step reads and writes; None on a TPU, where copies between its memories
        run beside the rest.
      products: floating-point operations of the matrix products and convolutions of a step, two
        for each multiplication.
      at_best: steps per second that the chip allows.
      measured: steps per second of the device; None where it is not there.
      compile_seconds: of this computer.
    """

    target: str
    norm: str
    statistics: str
    launches: float | None
    library_calls: float | None
    copies: float | None
    cycles: float | None
    known_length: bool | None
    host_transfers: int
    temporary_bytes: int
    touched_bytes: float | None
    products: float
    at_best: float
    measured: float | None
    compile_seconds: float


def compiled_step(target: str, norm: str, statistics: str) -> CompiledStep:
    """Compiles a chunk of steps for a target.

    Args:
      target, norm, statistics: as for `CompiledStep`.

    Raises:
      ImportError: if the compiler of the target is not installed.
    """
    chip, here = CHIPS[target], is_present(target)
    everything = Watch.everything()
    watch = {"none": None, "all": everything, "all, every 8th": replace(everything, every=EVERY)}
    model = digits_net(norm=None if norm == "none" else norm, layout="NHWC", rngs=nnx.Rngs(0))
    trainer = Trainer(model, adam(), mean=0.1307, std=0.3081, watch=watch[statistics])
    arguments: Any = (
        trainer.start(model),
        Images(jnp.zeros((IMAGES, 28, 28, 1), jnp.uint8), jnp.zeros(IMAGES, jnp.int32)),
        jnp.zeros((STEPS, BATCH), jnp.int32),
        {name: jnp.full(STEPS, 1e-3) for name in ("learning_rate", "momentum")},
        jnp.int32(0),
    )
    shapes = arguments if here else shapes_on(arguments, target)
    began = perf_counter()
    traced = jax.jit(trainer.chunks.take, donate_argnums=0).trace(*shapes)
    program = traced.lower(lowering_platforms=(chip.platform,)).compile()
    seconds = perf_counter() - began
    text, on_gpu = str(program.as_text()), chip.platform == "cuda"
    found = computations(text)

    def launched(*opcodes: str) -> float | None:
        def count(of: Computation) -> int:
            return sum(not opcodes or made.opcode in opcodes for made in of.launched())

        return per_step(found, count) if on_gpu else None

    def touched(of: Computation) -> float:
        return sum(touched_bytes(made, of.instructions, found) for made in of.launched())

    cycles = None if on_gpu else per_step(found, lambda of: sum(i.cycles for i in of.launched()))
    moved = per_step(found, touched) if on_gpu else None
    one = (*(jnp.zeros((BATCH, *x.shape[1:]), x.dtype) for x in arguments[1]), 1e-3, 0.9)
    step = jax.make_jaxpr(partial(trainer.step, watched=statistics == "all"))(arguments[0], *one)
    products = 2.0 * count_products(step).known.total()
    if moved is not None:
        slowest = max(moved / chip.bandwidth, products / chip.products["float32"])
    else:  # the cycles are those of reading and writing, too
        assert cycles is not None
        assert chip.clock is not None
        slowest = cycles / chip.clock
    return CompiledStep(
        target,
        norm,
        statistics,
        launched(),
        launched("custom-call"),
        launched("copy"),
        cycles,
        all_lengths_known(found) if on_gpu else None,
        len(re.findall(r" (?:infeed|outfeed|send|recv)\(", text)),
        int(program.memory_analysis().temp_size_in_bytes),
        moved,
        products,
        1 / slowest,
        _measured(program, arguments) if here else None,
        seconds,
    )


def _measured(program: Any, arguments: Any) -> float:
    """Returns the steps per second of a compiled chunk, the median of several."""
    state, *rest = arguments
    times = []
    for _ in range(1 + ROUNDS):
        began = perf_counter()
        state, *_ = jax.block_until_ready(program(state, *rest))
        times.append(perf_counter() - began)
    return STEPS / median(times[1:])


def all_lengths_known(found: dict[str, Computation]) -> bool:
    """Returns whether the compiler knows how often each loop runs."""
    loops = [loop for of in found.values() for loop in of.loops()]
    return all("known_trip_count" in loop.rest for loop in loops)


def per_step(found: dict[str, Computation], of: Callable[[Computation], float]) -> float:
    """Returns the mean over the steps of a chunk of what is known of each computation.

    A loop over the unwatched steps within one over groups of steps runs for all but one step of
    each group.
    """
    bodies = [loop.refers("body") for computation in found.values() for loop in computation.loops()]
    inner = {loop.refers("body") for body in bodies for loop in found[body].loops()}
    outer = sum(of(found[body]) for body in bodies if body not in inner)
    if not inner:
        return outer
    return (outer + (EVERY - 1) * sum(of(found[body]) for body in inner)) / EVERY


def bench_targets(targets: Sequence[str], quick: bool, out: Path) -> None:
    """Compiles the training step for chips, runs it where the chip is there, and writes a file.

    Args:
      targets: of `convjax.analysis.chips.CHIPS`.
      quick: leaves out batch norm and every 8th step.
      out: the file of the results.
    """

    def measure(shown: Any) -> dict[str, Any]:
        for name in targets:
            if name not in CHIPS or not is_present(name):
                shapes_on((), name)  # raises for an unknown chip or a missing compiler
        rows = []
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # of a TPU that is not there
            for name in targets:
                for norm in ("none",) if quick else ("none", "batch"):
                    for kind in ("none", "all") if quick else ("none", "all", "all, every 8th"):
                        rows.append(asdict(compiled_step(name, norm, kind)))
                        shown.print(f"{name}, norm {norm}, statistics {kind}")
        return {"environment": environment(), "compiled_steps": rows}

    measure_to_file(out, measure, lambda report: [markdown_targets(report["compiled_steps"])])


def markdown_targets(rows: list[dict[str, Any]]) -> str:
    """Returns the table of compiled steps, in Markdown."""
    titles = (
        *("target", "norm", "statistics", "launches per step", "over none", "library calls"),
        *("copies", "cycles per step", "over none", "lengths known", "MiB touched", "memory, MiB"),
        *("steps/s at best", "measured", "compile seconds"),
    )
    cells = []
    plain = {(r["target"], r["norm"]): r for r in rows if r["statistics"] == "none"}

    def number(value: Any) -> str:
        return "-" if value is None else f"{value:,.0f}"

    def mebibytes(value: Any) -> str:
        return "-" if value is None else f"{value / 2**20:,.1f}"

    def over(row: dict[str, Any], name: str) -> str:
        base = plain.get((row["target"], row["norm"]))
        if row["statistics"] == "none" or base is None or row[name] is None:
            return "-"
        return f"{row[name] / base[name]:.2f}"

    for row in rows:
        known = {None: "-", True: "yes", False: "no"}[row["known_length"]]
        cells.append(
            (
                *(row["target"], row["norm"], row["statistics"], number(row["launches"])),
                *(over(row, "launches"), number(row["library_calls"]), number(row["copies"])),
                *(number(row["cycles"]), over(row, "cycles"), known),
                *(mebibytes(row[name]) for name in ("touched_bytes", "temporary_bytes")),
                *(number(row[name]) for name in ("at_best", "measured", "compile_seconds")),
            )
        )
    return TextTable(titles, cells).markdown()
