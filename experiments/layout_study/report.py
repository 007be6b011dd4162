"""The report of the comparison of layouts: a recommendation, tables and a picture."""

from collections import Counter
from collections.abc import Iterable, Sequence
from statistics import geometric_mean
from typing import TYPE_CHECKING, Any

from convjax.ops.layout import KERNEL_AXES
from convjax.plots import new_figure
from convjax.terminal.tables import TextTable
from experiments.harness import charts
from experiments.layout_study.cases import Variant
from experiments.layout_study.timing import LayoutTiming

if TYPE_CHECKING:
    from matplotlib.figure import Figure

# The variant that all others are compared with.
BASE = Variant("NHWC", "lax")
# Of a table or panel, by the place of the step.
TITLES = {"entry": "outside a loop", "loop": "in a loop"}
COLORS = dict(zip(KERNEL_AXES, charts.COLORS, strict=False))


def selected(
    rows: Iterable[LayoutTiming], where: str, dtype: str = "float32", backward: bool = True
) -> dict[tuple[str, Variant], LayoutTiming]:
    """Returns the rows of one place, dtype and direction, by case and variant."""
    return {
        (row.case, row.variant): row
        for row in rows
        if (row.where, row.dtype, row.backward) == (where, dtype, backward)
    }


def relative(
    rows: Sequence[LayoutTiming],
    variant: Variant,
    where: str,
    dtype: str = "float32",
    base: str = "",
) -> float:
    """Returns the time of a variant over that of NHWC by lax: the geometric mean over the cases.

    Args:
      rows: of all cases and variants.
      variant: the variant.
      where: "entry" or "loop".
      dtype: of the steps.
      base: where NHWC by lax runs, "entry" or "loop". Default: `where`.
    """
    found = selected(rows, where, dtype)
    bases = selected(rows, base or where, dtype)
    return geometric_mean(
        row.seconds / bases[case, BASE].seconds
        for (case, of), row in found.items()
        if of == variant
    )


def measured_variants(rows: Iterable[LayoutTiming]) -> list[Variant]:
    """Returns the variants in the order in which they were measured."""
    return list(dict.fromkeys(row.variant for row in rows))


def best(rows: Sequence[LayoutTiming], where: str) -> Variant:
    """Returns the variant with the fastest float32 steps, forward and backward."""
    return min(measured_variants(rows), key=lambda variant: relative(rows, variant, where))


def recommendation(rows: Sequence[LayoutTiming]) -> str:
    """Returns the recommended layout for this device, with the reason."""
    sentences = []
    for where, place in (("loop", "in a loop, as in a training"), ("entry", "outside a loop")):
        variant = best(rows, where)
        times = relative(rows, variant, where)
        sentences.append(
            f"{place}: {variant}"
            + (f", {times:.2f} of the time of {BASE}" if variant != BASE else "")
        )
    slower = relative(rows, BASE, "loop", base="entry")
    entry, loop = (compiled_summary(rows, BASE, where) for where in ("entry", "loop"))
    sentences.append(
        f"{BASE} takes {slower:.1f} times as long in a loop as outside: {entry.convolutions} "
        f"outside, {loop.convolutions} inside"
    )
    return "; ".join(sentences)


class CompiledSummary:
    """The compiled float32 steps, forward and backward, of one variant: sums over the cases."""

    def __init__(self, rows: Iterable[LayoutTiming]):
        compiled = [row.compiled for row in rows]
        pairs = [(how, order) for found in compiled for how, _, order, *_ in found["convolutions"]]
        self.hows, self.orders = Counter(h for h, _ in pairs), Counter(o for _, o in pairs)
        self.products, self.transposes, self.copies = (
            sum(found[name] for found in compiled) for name in ("products", "transposes", "copies")
        )
        self.moved_mib = sum(found["moved_bytes"] for found in compiled) / 2**20
        self.bytes_mib = sum(found["bytes"] or 0 for found in compiled) / 2**20

    @property
    def convolutions(self) -> str:
        """Counts by implementation, such as "20 own loops, 10 library"."""
        return _counted(self.hows) or "none"

    @property
    def physical(self) -> str:
        """Counts by physical layout of the input, such as "28 NHWC, 2 CHWN"."""
        return _counted(self.orders)


def compiled_summary(rows: Iterable[LayoutTiming], variant: Variant, where: str) -> CompiledSummary:
    """Returns the summary of the compiled steps of a variant."""
    found = selected(rows, where)
    return CompiledSummary(row for (_, of), row in found.items() if of == variant)


def markdown_layouts(found: dict[str, Any]) -> str:
    """Returns the tables of a layouts.json in Markdown, and the recommendation."""
    rows = [LayoutTiming(**row) for row in found["layouts"]]
    tables = [_times(rows, "entry"), _times(rows, "loop"), _means(rows), _compiler(rows)]
    parts = [table.markdown() for table in tables]
    return "\n\n".join([*parts, f"Recommended for this device: {recommendation(rows)}."])


def _times(rows: Sequence[LayoutTiming], where: str) -> TextTable:
    """Returns the times of each case relative to NHWC by lax outside a loop."""
    found, bases = selected(rows, where), selected(rows, "entry")
    columns = measured_variants(rows)
    cells = []
    for case in dict.fromkeys(case for case, _ in found):
        base = bases[case, BASE].seconds
        times = [f"{found[case, variant].seconds / base:.2f}" for variant in columns]
        cells.append((case, *times))
    return TextTable((TITLES[where], *map(str, columns)), cells)


def _means(rows: Sequence[LayoutTiming]) -> TextTable:
    columns = measured_variants(rows)
    cells = []
    for dtype in dict.fromkeys(row.dtype for row in rows):
        for where in TITLES:
            means = [f"{relative(rows, v, where, dtype, 'entry'):.2f}" for v in columns]
            cells.append((f"{dtype}, {where}", *means))
    return TextTable(("geometric mean", *map(str, columns)), cells)


def _compiler(rows: Sequence[LayoutTiming]) -> TextTable:
    headings = (
        *("compiled", "convolutions", "physical layout", "matrix products", "transposes", "copies"),
        "moved, MiB",
    )
    cells = []
    for variant in measured_variants(rows):
        for where in TITLES:
            made = compiled_summary(rows, variant, where)
            cells.append(
                (
                    f"{variant}, {where}",
                    made.convolutions,
                    made.physical,
                    str(made.products),
                    str(made.transposes),
                    str(made.copies),
                    f"{made.moved_mib:.1f}",
                )
            )
    return TextTable(headings, cells)


def picture(rows: Sequence[LayoutTiming]) -> "Figure":
    """Draws the time of each case, in one panel for steps outside and one for steps in a loop."""
    cases = list(dict.fromkeys(row.case for row in rows))
    figure = new_figure(11, 1.8 + 0.42 * len(cases))
    panels = figure.subplots(1, 2, sharex=True, sharey=True)
    for axes, where in zip(panels, TITLES, strict=True):
        found = selected(rows, where)
        for number, variant in enumerate(measured_variants(rows)):
            times = [1e3 * found[case, variant].seconds for case in cases]
            hollow = variant.method == "matmul" or variant.force
            color = COLORS[variant.layout]
            axes.plot(
                times,
                [i + 0.1 * (number - 2.5) for i in range(len(cases))],
                {"": "o", "nchw": "s", "nhwc": "^"}[variant.force],
                color=color,
                markerfacecolor="none" if hollow else color,
                label=str(variant),
            )
        axes.set_xscale("log")
        axes.set_xlabel("milliseconds per step, forward and backward")
        axes.set_title(TITLES[where])
        axes.set_yticks(range(len(cases)), cases)
        axes.set_ylim(len(cases) - 0.5, -0.5)
        axes.grid(axis="both", alpha=0.3)
    panels[0].legend(loc="upper right", fontsize="small")
    return figure


def _counted(counts: Counter[str]) -> str:
    return ", ".join(f"{count} {name or 'unknown'}" for name, count in counts.most_common())
