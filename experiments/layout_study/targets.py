"""The comparison of layouts for chips that need not be there: its networks, table and picture."""

from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import asdict
from typing import TYPE_CHECKING, Any, NamedTuple

import jax
import jax.numpy as jnp
from flax import nnx

from convjax import compare_layouts
from convjax.analysis import LayoutProgram
from convjax.analysis.hlo import CompiledProgram, HloConvolution
from convjax.analysis.layout_programs import FIGURES
from convjax.io.json_files import write_json
from convjax.ops.layout import KERNEL_AXES
from convjax.plots import new_figure
from convjax.runs.environment import environment
from convjax.terminal.tables import TextTable
from experiments.harness import charts
from experiments.harness.lab import Lab
from experiments.layout_study.networks import DepthwiseNet, ResNetConvolutions, chapter_net

if TYPE_CHECKING:
    from matplotlib.figure import Figure


class Case(NamedTuple):
    """A network on a batch of images; `images_in` is as for `convjax.compare_layouts`."""

    name: str
    make: Callable[[str, Any], nnx.Module]
    images: tuple[int, int, int, int]
    dtype: str
    images_in: str | None


CASES = (
    Case("chapter's network", chapter_net, (512, 28, 28, 1), "float32", "NHWC"),
    Case("chapter's network", chapter_net, (512, 28, 28, 1), "bfloat16", "NHWC"),
    Case("convolutions of ResNet-50", ResNetConvolutions, (64, 224, 224, 3), "bfloat16", None),
    Case("depthwise network", DepthwiseNet, (64, 224, 224, 3), "bfloat16", None),
)


def compile_for_targets(lab: Lab) -> None:
    """Compiles training steps in every layout for the lab's targets; writes tables and a picture.

    The step is the body of a loop, as in a training. A quick run compiles the chapter's network in
    float32 alone.
    """
    rows = []
    for case in CASES[:1] if lab.quick else CASES:
        for target in lab.targets:
            lab.observer.measuring(f"{case.name}, {case.dtype}, {target}")
            found = compare_layouts(
                lambda layout, case=case: case.make(layout, jnp.dtype(case.dtype)),  # type: ignore[misc]
                jax.ShapeDtypeStruct(case.images, case.dtype),
                (target,),
                images_in=case.images_in,
                in_loop=True,
            )
            lab.observer.message(
                f"{case.name}, {case.dtype}, {target}: {found.recommended()[target]}"
            )
            named = {"network": case.name, "dtype": case.dtype, "images": case.images}
            rows += [named | saved_row(row) for row in found.rows]
    write_json(
        lab.out / "layouts_by_target.json",
        {"environment": environment(), "layouts_by_target": rows},
    )
    lab.picture("layouts_by_target", targets_picture(rows))


def markdown_layouts_by_target(rows: Sequence[dict[str, Any]]) -> str:
    """Returns the table of a layouts_by_target.json in Markdown.

    Layouts of which the compiler made the same are one row.
    """
    cells: dict[tuple[str, ...], list[str]] = {}
    for row in rows:
        made = _program(row)
        case = f"{row['network']}, {row['dtype']}, batch {row['images'][0]}"
        figures = made.figures()
        cells.setdefault((case, row["target"], *figures), []).append(str(made))
    return TextTable(
        ("network", "target", "layout", *FIGURES),
        [(case, target, _joined(names), *rest) for (case, target, *rest), names in cells.items()],
    ).markdown()


def _joined(layouts: Sequence[str]) -> str:
    """Returns names of layouts, with those that share a forced order in one list."""
    by_force: dict[str, list[str]] = {}
    for name in layouts:
        layout, _, force = name.partition(", ")
        by_force.setdefault(force, []).append(layout)
    return "; ".join(
        ("any" if len(names) == len(KERNEL_AXES) else ", ".join(names))
        + (f", {force}" if force else "")
        for force, names in by_force.items()
    )


def targets_picture(rows: Sequence[dict[str, Any]]) -> "Figure":
    """Draws the cost of each layout over that of NHWC: a panel per network, a line per target."""
    cases = list(dict.fromkeys((row["network"], row["dtype"]) for row in rows))
    targets = list(dict.fromkeys(row["target"] for row in rows))
    figure = new_figure(11, 1.6 + (0.5 + 0.35 * len(targets)) * len(cases))
    panels = figure.subplots(len(cases), 1, squeeze=False)[:, 0]
    markers = {"": "o", "nchw": "s", "nhwc": "^"}
    for axes, case in zip(panels, cases, strict=True):
        kinds = {}
        for line, target in enumerate(targets):
            made = [
                _program(row)
                for row in rows
                if (row["network"], row["dtype"], row["target"]) == (*case, target)
            ]
            base = next(of for of in made if of.layout == "NHWC" and not of.force)
            kinds[target] = base.cost[1]
            for number, of in enumerate(made):
                color = charts.COLORS[list(KERNEL_AXES).index(of.layout)]
                axes.plot(
                    [of.cost[0] / base.cost[0]],
                    [line + 0.08 * (number - (len(made) - 1) / 2)],
                    markers[of.force],
                    color=color,
                    markerfacecolor="none" if of.force else color,
                )
        axes.axvline(1, color="0.7", linewidth=1, zorder=0)
        axes.set_yticks(range(len(targets)), [f"{t}: {kinds[t]}" for t in targets])
        axes.set_ylim(len(targets) - 0.5, -0.5)
        low, high = axes.get_xlim()
        axes.set_xlim(min(low, 0.9), max(high, 1.1))
        axes.set_title(", ".join(case), loc="left")
        axes.grid(axis="x", alpha=0.3)
    panels[-1].set_xlabel("cost of a step over that of NHWC")
    shown = [
        *(("o", charts.COLORS[i], "full", layout) for i, layout in enumerate(KERNEL_AXES)),
        *((markers[force], "0.3", "none", f"{force} forced") for force in ("nchw", "nhwc")),
    ]
    for marker, color, fill, label in shown:
        panels[0].plot([], [], marker, color=color, fillstyle=fill, label=label)
    figure.legend(loc="outside upper center", fontsize="small", ncols=len(shown))
    return figure


def saved_row(row: LayoutProgram) -> dict[str, Any]:
    """Returns a row as plain data; equal convolutions stand once, with their number."""
    fields = asdict(row)
    counts = Counter(row.program.convolutions)
    fields["program"]["convolutions"] = [[*of, count] for of, count in counts.items()]
    return fields


def _program(row: dict[str, Any]) -> LayoutProgram:
    fields = {key: row[key] for key in ("target", "layout", "force", "seconds", "compile_seconds")}
    made = dict(row["program"])
    made["convolutions"] = tuple(
        HloConvolution(*of) for *of, count in made["convolutions"] for _ in range(count)
    )
    return LayoutProgram(program=CompiledProgram(**made), **fields)
