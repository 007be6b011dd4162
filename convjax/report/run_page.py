"""The page of one run: its parts in the order in which one asks about a training."""

from convjax.diagnosis._diagnose import Diagnosis, diagnose
from convjax.diagnosis.evidence import network_columns
from convjax.report import color_dims, layer_charts, predictions, tables, training_curves
from convjax.report.components import Block, Charts, Findings, LineStyle, Section, Text, series
from convjax.report.named_run import NamedRun
from convjax.report.typed_arrays import TypedArrays
from convjax.stats.nonfinite import first_non_finite
from convjax.stats.record import Record

LEAD = (
    "What this training came to, how it went, what happened inside the network, and which answers "
    "it gets wrong."
)
NO_RECORD = "There is no record of the steps yet: record.npz comes with the first evaluation."
NO_LAYERS = "The record has no statistics of layers: the training watched none."
NO_HISTOGRAMS = "The record has no histograms of layers: train with Watch(histogram=True)."
NO_PARAMETERS = (
    "The record has no gradients and updates. Train with Watch(gradients=True, updates=True)."
)
NO_PREDICTIONS = (
    "There are no predictions: predictions.npz is written at the end of a training, and "
    "convjax.runs.predictions.Predictions.of(…).save makes one."
)
HOW_TO_READ = (
    "Each column is the histogram of a layer's outputs at one moment, the brighter the more "
    "values. Bright bands that climb and collapse mean that values grow, crash, and training "
    "starts over; a picture that fills smoothly and stays filled is healthy."
)
IN_THE_STRIPS = (
    "The bottom row of the bins counts 0 to 0.25, zeros included: bright there and dark above "
    "means that nearly all values are negative or near zero. The strips above and below give the "
    "shares that lie outside the bins. Empty: nothing but NaN."
)
NO_METRICS = "There are no metrics yet: metrics.jsonl comes with the first evaluation."


def sections(run: NamedRun, arrays: TypedArrays) -> list[Section]:
    """Returns the parts of the page."""
    found = diagnosis(run)
    return [
        _outcome(run, found),
        _curves(run, arrays, found),
        _schedule(run, arrays),
        _network(run),
        _statistics(run, arrays),
        _dimensions(run, arrays),
        _parameters(run, arrays),
        _diagnosis(found),
        _predictions(run),
        _setup(run),
    ]


def diagnosis(run: NamedRun) -> Diagnosis | None:
    """Returns what the record says of the training, None where it says nothing of the layers."""
    if run.record is None or not run.record.steps:
        return None
    return diagnose(run.record, classes=_classes(run, run.record))


def _classes(run: NamedRun, record: Record) -> int | None:
    """Returns the number of classes where the record bears it out.

    A network with a single logit has two classes and no cross entropy, whose loss of guessing
    would be another.
    """
    names, network = run.config.get("classes"), network_columns(record)
    setting = run.config.get("setting")
    batch = setting.get("batch_size") if isinstance(setting, dict) else None
    if not (isinstance(names, list) and len(names) > 1 and network and isinstance(batch, int)):
        return None
    return len(names) if record.sizes[network[-1]] == batch * len(names) else None


def _outcome(run: NamedRun, found: Diagnosis | None) -> Section:
    blocks: list[Block] = []
    steps = run.record.steps if run.record else 0
    planned = run.config.get("steps")
    if run.record and (nonfinite := first_non_finite(run.record)):
        blocks.append(Text(f"This training diverged: {nonfinite}."))
    if not run.metrics:
        blocks.append(Text(NO_METRICS))
    elif isinstance(planned, int) and steps < planned:
        blocks.append(Text(f"Not finished: {steps:,} of {planned:,} steps so far."))
    if found is not None:
        count = len(found.findings)
        blocks.append(
            Text(
                "The diagnosis below finds nothing wrong."
                if not count
                else f"The diagnosis below finds {count} thing{'s' if count > 1 else ''} wrong: "
                f"{', '.join(finding.symptom for finding in found.findings)}."
            )
        )
    table = tables.outcome(run)
    blocks += [table] if table.rows else []
    blocks += [tables.evaluations(run)] if len(run.metrics) > 1 else []
    lead = "The figures at the end. Accuracy and validation loss are of images it never trained on."
    return Section("outcome", "What came out", lead, blocks)


def _curves(run: NamedRun, arrays: TypedArrays, found: Diagnosis | None) -> Section:
    lead = (
        "The loss should fall and level off. A validation loss that rises while the training loss "
        "falls is overfitting; a jump up is a rate too high for that moment."
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
        words += " Dotted lines, numbered: where each finding of the diagnosis begins."
    return Section("curves", "Loss and accuracy", lead, [*blocks, Text(words, quiet=True)])


def _schedule(run: NamedRun, arrays: TypedArrays) -> Section:
    lead = (
        "The learning rate and the momentum that the optimiser used at each step. With one-cycle "
        "the rate warms up and anneals, and the momentum mirrors it."
    )
    blocks: list[Block] = [Text(NO_RECORD)]
    if run.record is not None:
        blocks = [
            Charts(training_curves.schedule([(LineStyle("this run", series(0)), run)], arrays))
        ]
    return Section("schedule", "Schedule", lead, blocks)


def _network(run: NamedRun) -> Section:
    lead = (
        "The layers in the order of their calls. A mean far from 0 or a standard deviation far "
        "from 1 that grows from layer to layer is how values vanish or blow up."
    )
    blocks: list[Block] = [Text(NO_RECORD)]
    if run.record is not None:
        blocks = [Text(NO_LAYERS)]
        if run.record.layers:
            blocks = [tables.layers(run.record)]
        of_parameters = tables.parameters(run.record)
        blocks += [of_parameters] if of_parameters else []
    return Section("network", "The network", lead, blocks)


def _statistics(run: NamedRun, arrays: TypedArrays) -> Section:
    lead = (
        "Every layer's outputs at every step, before a ReLU that follows: the spread should be "
        "much the same in all layers and stay so. Near zero by fastai's count, x ≤ 0.05, is all "
        "that a ReLU will silence; close to 100 % the layer is dead."
    )
    if run.record is None or not layer_charts.has_layers(run.record):
        text = NO_RECORD if run.record is None else NO_LAYERS
        return Section("layers", "Layer by layer", lead, [Text(text)])
    blocks: list[Block] = [layer_charts.layers_of_one(run.record, arrays)]
    words = Text(training_curves.points(training_curves.bounded(run.record)), quiet=True)
    return Section("layers", "Layer by layer", lead, [*blocks, words])


def _dimensions(run: NamedRun, arrays: TypedArrays) -> Section:
    if run.record is None or not color_dims.has_histograms(run.record):
        text = NO_RECORD if run.record is None else NO_HISTOGRAMS
        return Section("dimensions", "Colour dimensions", HOW_TO_READ, [Text(text)])
    words = f"Each column is {color_dims.columns_in_words(run.record)}. {IN_THE_STRIPS}"
    charts = color_dims.dimensions_of_one(run.record, arrays)
    return Section(
        "dimensions", "Colour dimensions", HOW_TO_READ, [charts, Text(words, quiet=True)]
    )


def _parameters(run: NamedRun, arrays: TypedArrays) -> Section:
    lead = (
        "How hard each kernel is pushed. A healthy training keeps the ratio of update to weight "
        "within some decades of 10⁻³, the dashed rule of thumb; a line far from the others is a "
        "kernel that learns at another rate."
    )
    charts = None if run.record is None else layer_charts.parameters_of_one(run.record, arrays)
    text = NO_RECORD if run.record is None else NO_PARAMETERS
    return Section("parameters", "Gradients and updates", lead, [charts or Text(text)])


def _diagnosis(found: Diagnosis | None) -> Section:
    lead = (
        "What the record says is wrong, in the order in which to mend it: where, since when, by "
        "which figure, and the smallest change worth trying."
    )
    blocks = [Findings(found) if found else Text(NO_RECORD)]
    return Section("diagnosis", "Diagnosis", lead, blocks)


def _predictions(run: NamedRun) -> Section:
    lead = "What the trained network answers to the test images."
    blocks = predictions.blocks(run.predictions) if run.predictions else [Text(NO_PREDICTIONS)]
    return Section("predictions", "Predictions", lead, blocks)


def _setup(run: NamedRun) -> Section:
    lead = (
        "All that the figures depend on: with the same configuration, versions and device the "
        "training gives them again."
    )
    blocks: list[Block] = [tables.configuration(run.config, "Configuration")]
    if run.environment:
        blocks.append(tables.configuration(run.environment, "Environment"))
    else:
        blocks.append(Text("The versions and the device were not written down."))
    return Section("setup", "Configuration and environment", lead, blocks)
