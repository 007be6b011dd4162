"""A network in several layouts as compilers made it: figures, a table, and a recommendation."""

from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from convjax._display import Displayed
from convjax.analysis.hlo import CompiledProgram

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
