"""What compilers make of a network in each layout of its images, for chips present and absent."""

import warnings
from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from itertools import product
from statistics import median
from time import perf_counter
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx

from convjax._checks import check_function, check_whole
from convjax._display import Displayed
from convjax.analysis.chips import CHIPS, is_present, shapes_on
from convjax.analysis.hlo import CompiledProgram, describe
from convjax.analysis.products import count_products
from convjax.analysis.training_step import Network, State, TrainingStep, training_step
from convjax.ops.layout import KERNEL_AXES, check_layout, images_to

# A measurement repeats the step for about this time.
SECONDS = 0.02

# Programs whose costs differ by less are said to be equal.
TOLERANCE = 0.02

# Headings of `LayoutProgram.figures`; bytes touched are read and written, and moves are operations
# that only move data.
FIGURES = (
    *("ms", "cycles", "launches", "MiB touched", "memory, MiB", "moves", "MiB moved"),
    *("in memory", "computed by"),
)


@dataclass(frozen=True)
class LayoutProgram:
    """A network in one layout, compiled for one target.

    Attributes:
      target: "cpu" or a chip, such as "h100".
      layout: of the network.
      force: "" or, on a GPU, "nchw" or "nhwc": the order in memory that the compiler had to give
        every convolution. Without it the compiler chooses, whatever the network's layout.
      program: what the compiler made.
      seconds: of one step, the median of measurements in turns; None where the device is not there.
      compile_seconds: of this computer.
    """

    target: str
    layout: str
    force: str
    program: CompiledProgram
    seconds: float | None
    compile_seconds: float

    def __str__(self) -> str:
        return self.layout + (f", {self.force} forced" if self.force else "")

    @property
    def cost(self) -> tuple[float, str]:
        """What decides between layouts, the less the better, and what it is.

        The time where it was measured, the compiler's cycles on a TPU, and otherwise the bytes that
        are read and written.
        """
        if self.seconds is not None:
            return self.seconds, "time"
        if self.program.cycles is not None:
            return self.program.cycles, "cycles"
        return float(self.program.bytes or 0), "bytes"

    def figures(self) -> tuple[str, ...]:
        """Returns the texts of a row of a table, in the order of `FIGURES`."""
        made = self.program

        def number(value: float | None, scale: float = 1, digits: int = 0) -> str:
            return "-" if value is None else f"{value / scale:,.{digits}f}"

        return (
            number(self.seconds, 1e-3, 3),
            number(made.cycles),
            number(made.launches),
            number(made.bytes, 2**20, 1),
            number(made.memory_bytes, 2**20, 1),
            str(made.transposes + made.copies),
            number(made.moved_bytes, 2**20, 1),
            self.physical,
            self.implementations,
        )

    @property
    def physical(self) -> str:
        """How many convolutions have each order of the input in memory, such as "5 NHWC"."""
        return counted(of.physical for of in self.program.convolutions)

    @property
    def implementations(self) -> str:
        """How many convolutions each implementation computes, such as "5 Eigen"."""
        return counted(of.how.removeprefix("__cudnn$") for of in self.program.convolutions)


@dataclass(frozen=True, repr=False)
class LayoutComparison(Displayed):
    """A network in several layouts, compiled for several targets; `str` gives a table.

    Attributes:
      images: shape (N, H, W, C).
      backward: whether the step computes gradients and changes the parameters.
      in_loop: whether the step was compiled as the body of a loop.
      rows: in the order of the targets and layouts.
    """

    images: tuple[int, ...]
    backward: bool
    in_loop: bool
    rows: tuple[LayoutProgram, ...]

    def recommended(self) -> dict[str, str]:
        """Returns, by target, the layout of least cost, with the reason."""
        targets = dict.fromkeys(row.target for row in self.rows)
        return {
            name: _recommendation([r for r in self.rows if r.target == name]) for name in targets
        }

    def __repr__(self) -> str:
        targets = ", ".join(dict.fromkeys(row.target for row in self.rows))
        return f"LayoutComparison({len(self.rows)} programs for {targets})"

    def __str__(self) -> str:
        head = ("target", "layout", *FIGURES)
        lines = [head, *((row.target, str(row), *row.figures()) for row in self.rows)]
        widths = [max(map(len, column)) for column in zip(*lines, strict=True)]
        left = {0, 1, len(head) - 2, len(head) - 1}
        texts = [
            "  ".join(
                cell.ljust(width) if i in left else cell.rjust(width)
                for i, (cell, width) in enumerate(zip(line, widths, strict=True))
            ).rstrip()
            for line in lines
        ]
        passes = "forward and backward" if self.backward else "forward"
        place = "in a loop" if self.in_loop else "outside of a loop"
        first = f"images {self.images}, {passes}, {place}; without ms: compiled, not run"
        advice = [f"{target}: {text}" for target, text in self.recommended().items()]
        return "\n".join([first, texts[0], "-" * max(map(len, texts)), *texts[1:], *advice])


def compare_layouts(
    make_network: Callable[[str], Network],
    images: Any,
    targets: Sequence[str] = ("cpu",),
    *,
    layouts: Sequence[str] = tuple(KERNEL_AXES),
    images_in: str | None = "NHWC",
    backward: bool = True,
    images_gradient: bool = False,
    in_loop: bool = False,
    rounds: int = 5,
) -> LayoutComparison:
    """Compares what compilers make of a network in several layouts of its images.

    One training step is compiled for each layout and target: the forward pass, the gradients of the
    mean square of the output, and a small change of the parameters. Where the target is the
    device of this process, or its CPU, the programs are run in turns, too. For a chip that is not
    there they are compiled by the chip's own compiler, which the extra `targets` installs; without
    a device there is no autotuning, so that cuDNN's algorithms are not chosen.

    For a GPU each layout is compiled three times: as the compiler likes, and with the order in
    memory of all convolutions forced to NCHW and to NHWC.

    Args:
      make_network: maps a layout, "NHWC", "NCHW" or "CHWN", to the network in it: an NNX module, a
        function of images, or a pair (function, parameters) whose function takes both, such as
        (module.apply, variables) of Linen.
      images: (N, H, W, C), or their shape, for which random normal numbers are drawn; of another
        dtype than float32 a `jax.ShapeDtypeStruct`.
      targets: "cpu", "a100", "h100", "h200", "v5e" or "v6e".
      layouts: of the networks.
      images_in: the order in which all networks take their images; None if each takes them in its
        own layout.
      backward: False leaves out the gradients.
      images_gradient: whether the gradient of the images is computed, too, as in a layer that is
        not the first; of a function without parameters it is computed in any case.
      in_loop: whether the step is compiled as the body of a loop, as under `jax.lax.scan`, which
        XLA compiles differently on CPU.
      rounds: measurements of each program on a device.

    Returns:
      The programs, with a recommendation by target; `print` shows the table.

    Raises:
      TypeError: if make_network is not a function, or makes no network.
      ValueError: for an unknown target or layout, no target or layout, or images without four axes.
      ImportError: if the compiler of a target is not installed.

    Warns:
      UserWarning: if the networks of two layouts have different numbers of multiplications, as
        after a pooling or a reshape that does not know the layout.

    Examples:
      >>> import convjax, jax, jax.numpy as jnp
      >>> from flax import nnx
      >>> def make_network(layout):
      ...     return convjax.ConvNet((1, 4, 2), layout=layout, rngs=nnx.Rngs(0))
      >>> found = convjax.compare_layouts(make_network, jnp.ones((2, 8, 8, 1)), rounds=1)
      >>> [row.layout for row in found.rows]
      ['NHWC', 'NCHW', 'CHWN']
      >>> len(found.rows[0].program.convolutions) + found.rows[0].program.products > 0
      True
    """
    if isinstance(make_network, nnx.Module):
        raise TypeError(
            "make_network must be a function of a layout, got a network. Pass a function that "
            "makes it: lambda layout: convjax.digits_net(layout=layout, rngs=nnx.Rngs(0))."
        )
    check_function("make_network", make_network, "of a layout")
    if isinstance(images, tuple) and all(isinstance(size, int) for size in images):
        images = jax.ShapeDtypeStruct(images, jnp.float32)
    shape = tuple(getattr(images, "shape", ()))
    if len(shape) != 4 or 0 in shape:
        raise ValueError(
            f"images must have the four axes NHWC, none of them empty, got shape {shape}."
        )
    for name, given in (("targets", targets), ("layouts", layouts)):
        if isinstance(given, str) or not given:
            raise ValueError(f"{name} must be a sequence of one name or more, got {given!r}.")
    for layout in layouts:
        check_layout(layout)
    if images_in is not None:
        check_layout(images_in)
    check_whole("rounds", rounds, 1)
    for target in targets:
        if target != "cpu" and target not in CHIPS:
            raise ValueError(f"target must be one of cpu, {', '.join(CHIPS)}, got {target!r}.")
        if target != "cpu" and not is_present(target):
            shapes_on((), target)  # raises where a compiler is missing, before the first is used
    if isinstance(images, jax.ShapeDtypeStruct):
        drawn = np.random.default_rng(0).standard_normal(shape)
        images = jnp.asarray(drawn).astype(images.dtype)
    steps = {
        layout: training_step(
            make_network(layout),
            images_to(images, images_in or layout),
            backward=backward,
            images_gradient=images_gradient,
        )
        for layout in layouts
    }
    _check_equal_work(steps)
    rows = [
        row
        for target in targets
        for row in _compiled_for(target, steps, in_loop=in_loop, rounds=rounds)
    ]
    return LayoutComparison(shape, backward, in_loop, tuple(rows))


def _check_equal_work(steps: Mapping[str, TrainingStep]) -> None:
    numbers = {
        layout: count_products(jax.make_jaxpr(step.forward)(step.state)).known.total()
        for layout, step in steps.items()
    }
    if len(set(numbers.values())) > 1:
        text = ", ".join(f"{number:,} in {layout}" for layout, number in numbers.items())
        warnings.warn(
            f"make_network makes networks that differ: the forward pass has {text} "
            "multiplications. A pooling, a norm or a reshape may not know the layout; "
            "convjax.ops.max_pool and avg_pool do.",
            stacklevel=3,
        )


def _compiled_for(
    target: str, steps: Mapping[str, TrainingStep], *, in_loop: bool, rounds: int
) -> list[LayoutProgram]:
    """Returns the rows of a target, measured in turns where its device is there."""
    chip = CHIPS.get(target)
    platform = "cpu" if chip is None else chip.platform
    here = chip is None or is_present(target)
    device = (jax.devices("cpu") if chip is None else jax.devices())[0]
    forces = ("", "nchw", "nhwc") if platform == "cuda" else ("",)
    rows, runs = [], []
    for (layout, step), force in product(steps.items(), forces):
        state = jax.device_put(step.state, device) if here else shapes_on(step.state, target)
        began = perf_counter()
        compiled = compile_step(step.step, state, platform, in_loop=in_loop, force=force)
        seconds = perf_counter() - began
        backend = {"cuda": "gpu"}.get(platform, platform)
        program = describe(compiled, backend, in_loop=in_loop)
        rows.append(LayoutProgram(target, layout, force, program, None, seconds))
        runs.append(runner(compiled, state, in_loop))
    if not here:
        return rows
    times = seconds_in_turns(runs, rounds)
    return [
        LayoutProgram(row.target, row.layout, row.force, row.program, of, row.compile_seconds)
        for row, of in zip(rows, times, strict=True)
    ]


def compile_step(
    step: Callable[[State], State], state: Any, platform: str, *, in_loop: bool, force: str = ""
) -> jax.stages.Compiled:
    """Compiles a step, or a loop of an unknown number of steps.

    Args:
      step: maps a state to the next.
      state: arrays, or their shapes with the placement on a chip.
      platform: that the program is lowered for.
      in_loop: whether the program takes the number of steps and repeats the step.
      force: as in `LayoutProgram`.
    """

    def repeated(state: State, count: Any) -> State:
        return jax.lax.fori_loop(0, count, lambda _, state: step(state), state)

    traced = jax.jit(repeated).trace(state, 1) if in_loop else jax.jit(step).trace(state)
    return traced.lower(lowering_platforms=(platform,)).compile(conv_options(force))


def conv_options(force: str) -> dict[str, Any]:
    """Returns the compiler's options that force an order in memory, as in `LayoutProgram`."""
    return {f"xla_gpu_force_conv_{force}": True} if force else {}


def runner(compiled: Any, state: Any, in_loop: bool) -> Callable[[int], None]:
    """Returns a function that takes a number of steps and runs them to the end."""

    def run(count: int) -> None:
        if in_loop:
            jax.block_until_ready(compiled(state, count))
            return
        now = state
        for _ in range(count):
            now = compiled(now)
        jax.block_until_ready(now)

    return run


def seconds_in_turns(runs: Sequence[Callable[[int], None]], rounds: int) -> list[float]:
    """Returns the median time of a step of each program, measured in turns.

    Args:
      runs: each takes a number of steps and runs them.
      rounds: measurements of each.
    """

    def seconds(run: Callable[[int], None], count: int) -> float:
        began = perf_counter()
        run(count)
        return (perf_counter() - began) / count

    counts = []
    for run in runs:
        run(1)
        counts.append(max(1, round(SECONDS / max(seconds(run, 1), 1e-6))))
    times: list[list[float]] = [[] for _ in runs]
    for _ in range(rounds):
        for i, run in enumerate(runs):
            times[i].append(seconds(run, counts[i]))
    return list(map(median, times))


def _recommendation(rows: Sequence[LayoutProgram]) -> str:
    """Returns the layout of least cost among the rows of one target, with the reason."""
    free = [row for row in rows if not row.force]
    best = min(free, key=lambda row: row.cost)
    cost, what = best.cost
    parts = []
    equal = [row for row in free if row.cost[0] <= cost * (1 + TOLERANCE)]
    if len(free) > 1 and all(row.program == best.program for row in free):
        parts.append(f"any of {', '.join(map(str, free))}: the compiler made the same program")
    elif len(equal) == len(free) > 1:
        parts.append(f"any of {', '.join(map(str, free))}, {what} within {TOLERANCE:.0%}")
    else:
        named = " or ".join(map(str, equal))
        others = [
            f"{row.cost[0] / cost:.2f} times in {row}, which {_moves(row)}"
            for row in free
            if row not in equal
        ]
        parts.append(
            f"{named}, which {_moves(best)}" + f"; {what} {', '.join(others)}" * bool(others)
        )
    forced = min((row for row in rows if row.force), key=lambda row: row.cost, default=best)
    if forced.cost[0] < cost * (1 - TOLERANCE):
        parts.append(
            f"{forced} has {forced.cost[0] / cost:.2f} times its {what} "
            f"(XLA_FLAGS=--xla_gpu_force_conv_{forced.force}=true)"
        )
    return "; ".join(parts)


def _moves(row: LayoutProgram) -> str:
    """Says what a program moves without computing."""
    made = row.program
    number = made.transposes + made.copies
    return f"moves {made.moved_bytes / 2**20:,.1f} MiB in {number} operation{'s' * (number != 1)}"


def counted(names: Iterable[str]) -> str:
    """Returns how often each name occurs, such as "5 NHWC, 1 NCHW"."""
    counts = Counter(name or "unknown" for name in names)
    return ", ".join(f"{count} {name}" for name, count in counts.most_common())
