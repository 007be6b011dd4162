"""The page of several runs: what they differ in, and what came of it."""

from collections.abc import Sequence

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
    HOW_TO_READ,
    IN_THE_STRIPS,
    NO_HISTOGRAMS,
    NO_LAYERS,
    NO_METRICS,
    NO_RECORD,
    diagnosis,
)
from convjax.report.typed_arrays import TypedArrays

LEAD = "What the trainings differ in, what came of it, and what happened inside each."

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
        "Only what is not the same in all. Two trainings that differ in more than one thing do not "
        "tell which of them made the difference, and one that differs in the seed tells how far "
        "chance goes."
    )
    blocks: list[Block] = []
    for which, caption in (("config", "Configuration"), ("environment", "Environment")):
        table = tables.differing(runs, which, caption)
        blocks.append(table or Text(f"{caption}: no difference."))
    return Section("differences", "What differs", lead, blocks)


def _outcome(runs: Sequence[NamedRun]) -> Section:
    lead = "The figures at the end. Accuracy and validation loss are of images never trained on."
    return Section("outcome", "What came out", lead, [tables.outcomes(runs), *_told(runs)])


def _told(runs: Sequence[NamedRun]) -> list[Block]:
    """Returns which runs lack which file, in sentences."""
    found: list[Block] = []
    for lacking, text in (
        ([run.name for run in runs if not run.metrics], NO_METRICS),
        ([run.name for run in runs if run.record is None], NO_RECORD),
    ):
        if lacking:
            found.append(Text(f"{', '.join(lacking)}: {text[0].lower()}{text[1:]}"))
    return found


def _curves(lines: _Lines, arrays: TypedArrays) -> Section:
    lead = (
        "The same axes for all: which falls faster, which further. A name in the legend hides its "
        "line and shows it again."
    )
    charts = training_curves.curves_of_several(lines, arrays)
    if not charts:
        return Section("curves", "Loss and accuracy", lead, [Text(NO_RECORD)])
    block = Charts(charts, [line for line, _ in lines])
    return Section("curves", "Loss and accuracy", lead, [block])


def _schedule(lines: _Lines, arrays: TypedArrays) -> Section:
    lead = "The learning rates and momenta that the optimisers used at each step."
    if all(run.record is None for _, run in lines):
        return Section("schedule", "Schedule", lead, [Text(NO_RECORD)])
    block = Charts(training_curves.schedule(lines, arrays), [line for line, _ in lines])
    return Section("schedule", "Schedule", lead, [block])


def _statistics(lines: _Lines, arrays: TypedArrays) -> Section:
    lead = (
        "The outputs of one layer, before a ReLU that follows. Near zero by fastai's count, "
        "x ≤ 0.05, is all that a ReLU will silence."
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
        blocks.append(Text(f"All have one scale of colours. {IN_THE_STRIPS}", quiet=True))
    return Section("dimensions", "Colour dimensions", HOW_TO_READ, blocks)


def _diagnoses(runs: Sequence[NamedRun]) -> Section:
    lead = "What each record says is wrong with its training, in the order in which to mend it."
    blocks: list[Block] = []
    for run in runs:
        found = diagnosis(run)
        blocks.append(Findings(found, run.name) if found else Text(f"{run.name}: no record."))
    return Section("diagnosis", "Diagnosis", lead, blocks)
