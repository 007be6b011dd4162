"""The page that compares runs: their differences, results, curves and diagnoses."""

from collections.abc import Sequence

from convjax.plots.heatmap import HOW_TO_READ
from convjax.report import color_dims, layer_charts, tables, training_curves
from convjax.report.components import (
    Block,
    Charts,
    Findings,
    LineStyle,
    Section,
    Text,
    distinct_lines,
)
from convjax.report.named_run import NamedRun
from convjax.report.run_page import (
    NO_HISTOGRAMS,
    NO_LAYERS,
    NO_METRICS,
    NO_RECORD,
    NO_SCHEDULE,
    diagnosis,
)
from convjax.report.typed_arrays import TypedArrays

LEAD = "The differences between the trainings, their results, and the statistics of each."

_Lines = Sequence[tuple[LineStyle, NamedRun]]


def sections(runs: Sequence[NamedRun], arrays: TypedArrays) -> list[Section]:
    """Returns the parts of the page."""
    lines = list(zip(distinct_lines([run.name for run in runs]), runs, strict=True))
    return [
        _differences(runs),
        _outcome(runs),
        _curves(lines, arrays),
        _schedule(lines, arrays),
        _statistics(lines, arrays),
        _dimensions(lines, arrays),
        _diagnoses(runs),
    ]


def _differences(runs: Sequence[NamedRun]) -> Section:
    lead = (
        "Values that are the same in all trainings are left out. If two trainings differ in more "
        "than one value, either may explain the results. Trainings that differ only in the seed "
        "show the effect of chance."
    )
    blocks: list[Block] = []
    for which, caption in (("config", "Configuration"), ("environment", "Environment")):
        table = tables.differing(runs, which, caption)
        blocks.append(table or Text(f"{caption}: no difference."))
    return Section("differences", "Differences", lead, blocks)


def _outcome(runs: Sequence[NamedRun]) -> Section:
    lead = "Accuracy and validation loss are measured on images that are not used for training."
    return Section("outcome", "Results", lead, [tables.outcomes(runs), *_missing_files(runs)])


def _missing_files(runs: Sequence[NamedRun]) -> list[Block]:
    """Returns a sentence for each file that runs lack."""
    found: list[Block] = []
    for lacking, text in (
        ([run.name for run in runs if not run.metrics], NO_METRICS),
        ([run.name for run in runs if run.record is None], NO_RECORD),
    ):
        if lacking:
            found.append(Text(f"{', '.join(lacking)}: {text[0].lower()}{text[1:]}"))
    return found


def _curves(lines: _Lines, arrays: TypedArrays) -> Section:
    lead = "All trainings share the axes. Click a name in the legend to hide or show its line."
    charts = training_curves.curves_of_several(lines, arrays)
    if not charts:
        return Section("curves", "Loss and accuracy", lead, [Text(NO_RECORD)])
    block = Charts(charts, [line for line, _ in lines])
    return Section("curves", "Loss and accuracy", lead, [block])


def _schedule(lines: _Lines, arrays: TypedArrays) -> Section:
    lead = "The learning rate and the momentum that each optimiser used at each step."
    if all(run.record is None for _, run in lines):
        return Section("schedule", "Schedule", lead, [Text(NO_RECORD)])
    charts = training_curves.schedule(lines, arrays)
    block = Charts(charts, [line for line, _ in lines]) if charts else Text(NO_SCHEDULE)
    return Section("schedule", "Schedule", lead, [block])


def _statistics(lines: _Lines, arrays: TypedArrays) -> Section:
    lead = (
        "The outputs of one layer, before a ReLU that follows. fastai's count of values near zero, "
        "x ≤ 0.05, includes all values that a ReLU sets to zero."
    )
    block: Block = Text(NO_LAYERS)
    if any(layer_charts.has_layers(run.record) for _, run in lines):
        block = layer_charts.layers_of_several(lines, arrays)
    return Section("layers", "Layer by layer", lead, [block])


def _dimensions(lines: _Lines, arrays: TypedArrays) -> Section:
    kept = [run for _, run in lines if color_dims.has_histograms(run.record)]
    blocks: list[Block] = [Text(NO_HISTOGRAMS)]
    if kept:
        lacking = [run.name for _, run in lines if run not in kept]
        blocks = [color_dims.dimensions_of_several(lines, arrays)]
        blocks += [Text(f"Without histograms: {', '.join(lacking)}.")] if lacking else []
        words = color_dims.bins_caption([run.record for run in kept if run.record])
        blocks.append(Text(f"All charts have one colour scale. {words}", quiet=True))
    return Section("dimensions", "Colour dimensions", HOW_TO_READ, blocks)


def _diagnoses(runs: Sequence[NamedRun]) -> Section:
    lead = "The problems that each record shows, in the order in which to fix them."
    blocks: list[Block] = []
    for run in runs:
        found = diagnosis(run)
        blocks.append(Findings(found, run.name) if found else Text(f"{run.name}: no record."))
    return Section("diagnosis", "Diagnosis", lead, blocks)
