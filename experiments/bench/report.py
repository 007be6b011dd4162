"""Tables of the benchmark: one per group, one of cold starts, and the figures with their bars."""

from collections.abc import Sequence
from dataclasses import replace
from statistics import median
from typing import Any

from convjax.terminal.tables import TextTable
from experiments.bench.case import BenchCase
from experiments.bench.cases import Ratio, Timing, faster, program, ratios, statistics

# Bars on PyTorch / ours, by statistics and batch size; on the overhead of statistics, by kind and
# cadence; on batch norm / none, the share of the matrix-product rate, and seconds of compiling.
FASTER = {("none", 64): 4.0, ("none", 512): 2.0, ("all", 64): 6.0, ("all", 512): 3.0}
OVERHEAD = {("scalars", 1): 1.05, ("all", 1): 1.25, ("all", 8): 1.05}
NORM, SHARE, COMPILE = 1.25, 0.4, (1.5, 0.3)

COLORED = {"holds": "[green]holds[/]", "missed": "[red]missed[/]", "": ""}


def bars(
    timings: Sequence[Timing], starts: Sequence[dict[str, Any]], roof: float
) -> list[dict[str, Any]]:
    """Returns the figures that decide whether the engine is fast enough: name, value, bar, side."""
    rows: list[tuple[str, float, float | None, bool]] = []
    for timing in timings:
        case, plain = timing.case, timing.group.cases[0]
        if timing.group.kind != "engines" or case.dtype != "float32":
            continue
        rival = faster(timings, plain, case.stats)
        if rival is None or replace(plain, stats=case.stats, devices=case.devices) != case:
            continue
        bar = None if case.norm else FASTER[case.stats, case.batch_size]
        name = "with all statistics, PyTorch with hooks / ours"
        if case.stats == "none":
            name = "epoch without statistics, PyTorch / ours"
        name += f" on {case.devices} devices" if case.devices > 1 else ""
        norm = ", batch norm" if case.norm else ""
        name += f", batch {case.batch_size}{norm}"
        rows.append((name, Ratio(rival, timing).median, bar, True))
    for ratio in ratios(timings):
        case, kind = ratio.above.case, ratio.above.group.kind
        if kind == "cadence" and (case.stats, case.every) in OVERHEAD:
            name = f"overhead, {statistics(case)}, batch {case.batch_size}"
            rows.append((name, ratio.median, OVERHEAD[case.stats, case.every], False))
        if kind == "quantities":
            name = f"overhead, {case.stats} at every step, batch {case.batch_size}"
            rows.append((name, ratio.median, None, False))
        if kind == "norm":
            rows.append((f"batch norm / none, batch {case.batch_size}", ratio.median, NORM, False))
    for timing in timings:
        case, group = timing.case, timing.group
        share = timing.share(roof)
        if group.kind == "engines" and case == group.cases[0] and not case.norm and share:
            bar = SHARE if case.batch_size == 512 else None
            rows.append(
                (f"share of matrix-product rate, batch {case.batch_size}", share, bar, True)
            )
    for start in starts:
        if (start["case"]["program"], start["case"]["batch_size"]) == ("convjax", 64):
            for which, seconds, bar in zip(
                ("first", "cached"), start["compile_seconds"], COMPILE, strict=True
            ):
                name = f"compile seconds, {which}, {statistics(BenchCase(**start['case']))}"
                rows.append((name, seconds, bar, False))
    return [
        {"name": n, "value": v, "bar": b, "side": "at least" if least else "at most"}
        for n, v, b, least in rows
    ]


def group_table(timings: Sequence[Timing]) -> TextTable:
    """Returns the table of one group: times, and the ratio to our case with as many statistics."""
    rows: list[tuple[str, ...]] = []
    found = {id(ratio.above): ratio for ratio in ratios(timings)}
    for timing in timings:
        case, ratio = timing.case, found.get(id(timing))
        norm = f", {case.norm} norm" if timing.group.kind == "norm" and case.norm else ""
        below = None if ratio is None else statistics(ratio.below.case)
        rows.append(
            (
                f"{program(case)}{norm}",
                case.layout,
                statistics(case),
                "-" if timing.compile_seconds is None else f"{timing.compile_seconds:.2f}",
                *(f"{f(timing.seconds):.4f}" for f in (median, min, max)),
                f"{timing.steps_per_second:.0f}",
                "1" if ratio is None else f"{ratio.median:.3f} × ours, {below}",
            )
        )
    headings = (
        *("program", "layout", "statistics", "compile s", "epoch s", "from", "to", "steps/s"),
        "ratio",
    )
    return TextTable(headings, rows, timings[0].group.title, left=3)


def start_table(starts: Sequence[dict[str, Any]]) -> TextTable:
    """Returns the table of cold starts, each with the figures of its first and second start."""
    rows = []
    for start in starts:
        case = BenchCase(**start["case"])
        rows.append(
            (
                f"{case.program} {case.layout}",
                str(case.batch_size),
                statistics(case),
                _pair(start["seconds"]),
                _pair(start["compile_seconds"]),
                _pair(start["host_bytes"], 1e-6, 0),
                _pair(start["device_bytes"], 1e-6, 0),
            )
        )
    headings = (
        *("program", "batch", "statistics", "first epoch done after s", "compile s", "peak MB"),
        "device's peak MB",
    )
    return TextTable(headings, rows, "fresh processes: first / second", left=3)


def bar_table(rows: Sequence[dict[str, Any]], *, colored: bool = False) -> TextTable:
    """Returns the table of what was measured and what is required.

    Args:
      colored: whether the verdicts have rich's markup.
    """
    cells: list[Sequence[str]] = [_bar_cells(row) for row in rows]
    if colored:
        cells = [(*figures, COLORED[verdict]) for *figures, verdict in cells]
    return TextTable(("figure", "measured", "bar", ""), cells, "bars", left=1)


def markdown_bars(found: dict[str, Any]) -> str:
    """Returns the bars of a bench.json in Markdown, and its notes."""
    notes = [f"\nnote: {note}" for note in found["notes"]]
    return "\n".join([bar_table(found["bars"]).markdown(rule=" --- "), *notes])


def _bar_cells(row: dict[str, Any]) -> tuple[str, str, str, str]:
    """Returns name, figure, bar and verdict: "holds", "missed", or "" without a bar."""
    name, value, bar = row["name"], row["value"], row["bar"]
    if bar is None:
        return name, f"{value:.3f}", "", ""
    least = row["side"] == "at least"
    verdict = "holds" if (value >= bar if least else value <= bar) else "missed"
    return name, f"{value:.3f}", f"{'≥' if least else '≤'} {bar:g}", verdict


def _pair(values: Sequence[float | None], unit: float = 1.0, digits: int = 2) -> str:
    return " / ".join("-" if v is None else f"{v * unit:.{digits}f}" for v in values)
