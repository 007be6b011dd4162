"""The page of one run, from its results to its configuration."""

from collections.abc import Sequence

from convjax.diagnosis._diagnose import Diagnosis, diagnose
from convjax.diagnosis.evidence import network_columns
from convjax.io.json_files import flatten
from convjax.plots.heatmap import HOW_TO_READ
from convjax.plots.layer_choice import LayerChoice, choose, choose_parameters, describe_choice
from convjax.plots.parameters import kernel_columns
from convjax.report import color_dims, layer_charts, predictions, tables, training_curves
from convjax.report.components import Block, Charts, Findings, LineStyle, Section, Text, series
from convjax.report.named_run import NamedRun
from convjax.report.typed_arrays import TypedArrays
from convjax.stats.nonfinite import first_non_finite
from convjax.stats.record import Record

LEAD = (
    "The results of this training, its course, the statistics of the network's layers, and the "
    "answers that are wrong."
)
RECORD_LEAD = (
    "The course of this training, the statistics of the network's layers, gradients and updates, "
    "and the diagnosis."
)
NO_RECORD = "There is no record of the steps yet. record.npz is written at the first evaluation."
RESULT_OF_RECORD = "The steps and the loss of this training, and what the diagnosis says."
NO_LAYERS = "The record has no statistics of layers, because the training watched none."
NO_HISTOGRAMS = "The record has no histograms of layers. Train with Watch(histogram=True)."
NO_SCHEDULE = (
    "The record has no learning rate and no momentum. Give Recorder.add learning_rate=… at each "
    "step."
)
NO_PARAMETERS = (
    "The record has no gradients and updates. Train with Watch(gradients=True, updates=True)."
)
NO_PREDICTIONS = (
    "There are no predictions. predictions.npz is written at the end of a training, or with "
    "convjax.runs.predictions.Predictions.of(…).save."
)
NO_METRICS = "There are no metrics yet. metrics.jsonl is written at the first evaluation."


def sections(
    run: NamedRun,
    arrays: TypedArrays,
    layers: LayerChoice | None = None,
    found: Diagnosis | None = None,
) -> list[Section]:
    """Returns the parts of the page of a run's folder.

    Args:
      run: the run.
      arrays: gets the numbers of the charts.
      layers: the layers to show, see `convjax.plots.layer_choice.choose`.
      found: the diagnosis of the record, by default that of `diagnosis`.
    """
    found = diagnosis(run) if found is None else found
    return [
        _outcome(run, found),
        *_of_record(run, arrays, layers, found),
        _predictions(run),
        _setup(run),
    ]


def sections_of_record(
    run: NamedRun,
    arrays: TypedArrays,
    layers: LayerChoice | None = None,
    found: Diagnosis | None = None,
) -> list[Section]:
    """Returns the parts of the page of a record alone, without those that it has nothing for.

    The arguments are those of `sections`.
    """
    found = diagnosis(run) if found is None else found
    outcome = Section("outcome", "Results", RESULT_OF_RECORD, _results(run, found))
    parts = [outcome, *_of_record(run, arrays, layers, found)]
    return [part for part in parts if any(not isinstance(block, Text) for block in part.blocks)]


def _of_record(
    run: NamedRun, arrays: TypedArrays, layers: LayerChoice | None, found: Diagnosis | None
) -> list[Section]:
    return [
        _curves(run, arrays, found),
        _schedule(run, arrays),
        _network(run, layers, found),
        _statistics(run, arrays, layers, found),
        _dimensions(run, arrays, layers, found),
        _parameters(run, arrays, layers, found),
        _diagnosis(found),
    ]


def diagnosis(run: NamedRun) -> Diagnosis | None:
    """Returns the diagnosis of the record; None if there is no record or it has no steps."""
    if run.record is None or not run.record.steps:
        return None
    return diagnose(run.record, classes=_classes(run, run.record))


def _classes(run: NamedRun, record: Record) -> int | None:
    """Returns the number of classes if the network has one logit per class, else None.

    The configuration has the names of the classes under "classes" and a "batch_size" at any depth.
    A network with a single logit has two classes but no cross entropy over them, and so another
    loss of guessing.
    """
    names, network = run.config.get("classes"), network_columns(record)
    if not (isinstance(names, list) and len(names) > 1 and network):
        return None
    logits = int(record.sizes[network[-1]])
    batch_sizes = [
        value
        for name, value in flatten(run.config).items()
        if name.rpartition(".")[2] == "batch_size" and isinstance(value, int)
    ]
    return len(names) if any(logits == size * len(names) for size in batch_sizes) else None


def _outcome(run: NamedRun, found: Diagnosis | None) -> Section:
    blocks: list[Block] = []
    steps = run.record.steps if run.record else 0
    planned = run.config.get("steps")
    if not run.metrics:
        blocks.append(Text(NO_METRICS))
    elif isinstance(planned, int) and steps < planned:
        blocks.append(Text(f"Not finished: {steps:,} of {planned:,} steps so far."))
    blocks += _results(run, found)
    lead = "Accuracy and validation loss are measured on images that are not used for training."
    return Section("outcome", "Results", lead, blocks)


def _results(run: NamedRun, found: Diagnosis | None) -> list[Block]:
    """Returns whether the training diverged, the findings in words, and the figures."""
    blocks: list[Block] = []
    if run.record and (nonfinite := first_non_finite(run.record)):
        blocks.append(Text(f"This training diverged: {nonfinite}."))
    if found is not None:
        count = len(found.findings)
        blocks.append(
            Text(
                "The diagnosis below has no findings."
                if not count
                else f"The diagnosis below has {count} finding{'s' if count > 1 else ''}: "
                f"{', '.join(finding.symptom for finding in found.findings)}."
            )
        )
    table = tables.outcome(run)
    blocks += [table] if table.rows else []
    blocks += [tables.evaluations(run)] if len(run.metrics) > 1 else []
    return blocks


def _curves(run: NamedRun, arrays: TypedArrays, found: Diagnosis | None) -> Section:
    lead = (
        "The loss should fall and level off. A validation loss that rises while the training loss "
        "falls indicates overfitting. A sudden rise indicates a learning rate that is too high."
    )
    if run.record is None and not run.metrics:
        return Section("curves", "Loss and accuracy", lead, [Text(NO_RECORD)])
    findings = found.findings if found else ()
    blocks: list[Block] = [training_curves.curves_of_one(run, arrays, findings)]
    words = (
        training_curves.points(training_curves.bounded(run.record))
        if run.record is not None
        else NO_RECORD
    )
    if findings:
        words += " The numbered dotted lines mark the first step of each finding of the diagnosis."
    title = "Loss and accuracy" if run.metrics else "Loss"
    return Section("curves", title, lead, [*blocks, Text(words, quiet=True)])


def _schedule(run: NamedRun, arrays: TypedArrays) -> Section:
    lead = (
        "The learning rate and the momentum that the optimiser used at each step. In one-cycle "
        "training the rate warms up and anneals, and the momentum does the opposite."
    )
    blocks: list[Block] = [Text(NO_RECORD)]
    if run.record is not None:
        charts = training_curves.schedule([(LineStyle("this run", series(0)), run)], arrays)
        blocks = [Charts(charts) if charts else Text(NO_SCHEDULE)]
    return Section("schedule", "Schedule", lead, blocks)


def _network(run: NamedRun, layers: LayerChoice | None, found: Diagnosis | None) -> Section:
    lead = (
        "The layers in the order of their calls. Means that move away from 0 or standard "
        "deviations that move away from 1 from layer to layer show values that vanish or explode."
    )
    blocks: list[Block] = [Text(NO_RECORD)]
    if run.record is not None:
        blocks = [Text(NO_LAYERS)]
        if run.record.layers:
            blocks = [tables.layers(run.record, layers, found)]
        of_parameters = tables.parameters(run.record, layers, found)
        blocks += [of_parameters] if of_parameters else []
    return Section("network", "The network", lead, blocks)


def _columns(record: Record, layers: LayerChoice | None, found: Diagnosis | None) -> list[int]:
    """Returns the columns of the layers to draw, without input and labels unless chosen."""
    if layers is not None:
        return choose(record, record.layers, layers)
    network = network_columns(record)
    names = [record.layers[i] for i in network]
    return [network[i] for i in choose(record, names, None, found)]


def _count(shown: Sequence[int], total: int, what: str) -> str:
    """Returns a sentence with the number of layers that are drawn, if it is not all."""
    if len(shown) >= total:
        return ""
    count = describe_choice(len(shown), total, what)
    return f'{count} are drawn; write_report(…, layers="*") draws all. '


def _statistics(
    run: NamedRun, arrays: TypedArrays, layers: LayerChoice | None, found: Diagnosis | None
) -> Section:
    lead = (
        "The outputs of the layers at the watched steps, before a ReLU that follows. The standard "
        "deviation should be similar in all layers and stay so. fastai's count of values near "
        "zero, x ≤ 0.05, includes all values that a ReLU sets to zero; close to 100 %, the layer "
        "is dead."
    )
    if run.record is None or not layer_charts.has_layers(run.record):
        text = NO_RECORD if run.record is None else NO_LAYERS
        return Section("layers", "Layer by layer", lead, [Text(text)])
    columns = _columns(run.record, layers, found)
    count = _count(columns, len(network_columns(run.record)), "layers")
    words = count + training_curves.points(training_curves.bounded(run.record))
    charts = layer_charts.layers_of_one(run.record, columns, arrays)
    return Section("layers", "Layer by layer", lead, [charts, Text(words, quiet=True)])


def _dimensions(
    run: NamedRun, arrays: TypedArrays, layers: LayerChoice | None, found: Diagnosis | None
) -> Section:
    if run.record is None or not color_dims.has_histograms(run.record):
        text = NO_RECORD if run.record is None else NO_HISTOGRAMS
        return Section("dimensions", "Colour dimensions", HOW_TO_READ, [Text(text)])
    columns = _columns(run.record, layers, found)
    words = (
        f"{_count(columns, len(network_columns(run.record)), 'layers')}"
        f"A column is {color_dims.column_caption(run.record)}. "
        f"{color_dims.bins_caption([run.record])}"
    )
    charts = color_dims.dimensions_of_one(run.record, columns, arrays)
    return Section(
        "dimensions", "Colour dimensions", HOW_TO_READ, [charts, Text(words, quiet=True)]
    )


def _parameters(
    run: NamedRun, arrays: TypedArrays, layers: LayerChoice | None, found: Diagnosis | None
) -> Section:
    lead = (
        "The gradients and updates of each kernel. In a healthy training the ratio of update to "
        "weight is within a few decades of 10⁻³, the dashed rule of thumb. A line far from the "
        "others is a kernel that learns at another rate."
    )
    title = "Gradients and updates"
    if run.record is None or not layer_charts.has_parameters(run.record):
        text = NO_RECORD if run.record is None else NO_PARAMETERS
        return Section("parameters", title, lead, [Text(text)])
    assert run.record.parameters is not None
    kernels = kernel_columns(run.record.parameters)
    names = [run.record.parameters.names[i] for i in kernels]
    columns = [kernels[i] for i in choose_parameters(run.record, names, layers, found)]
    blocks: list[Block] = [layer_charts.parameters_of_one(run.record, columns, arrays)]
    count = _count(columns, len(kernels), "kernels")
    blocks += [Text(count.strip(), quiet=True)] if count else []
    return Section("parameters", title, lead, blocks)


def _diagnosis(found: Diagnosis | None) -> Section:
    lead = (
        "The problems that the record shows, in the order in which to fix them: the layer, the "
        "first step, the figure, and the smallest change to try."
    )
    blocks = [Findings(found) if found else Text(NO_RECORD)]
    return Section("diagnosis", "Diagnosis", lead, blocks)


def _predictions(run: NamedRun) -> Section:
    lead = "The answers of the trained network to the test images."
    blocks = predictions.blocks(run.predictions) if run.predictions else [Text(NO_PREDICTIONS)]
    return Section("predictions", "Predictions", lead, blocks)


def _setup(run: NamedRun) -> Section:
    lead = "The same configuration, versions and device reproduce the figures of this page."
    blocks: list[Block] = [tables.configuration(run.config, "Configuration")]
    if run.environment:
        blocks.append(tables.configuration(run.environment, "Environment"))
    else:
        blocks.append(Text("The versions and the device were not recorded."))
    return Section("setup", "Configuration and environment", lead, blocks)
