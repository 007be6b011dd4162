"""How the objects that people hold show themselves in a notebook: a table, and pictures.

The functions are registered for their types at `convjax._display.html`. Without matplotlib there is the
table alone, and a line that says how to get the pictures.
"""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from convjax._display import html
from convjax.analysis._summary import Summary, field_text, shape_text
from convjax.data.dataset import Dataset, Split
from convjax.diagnosis._diagnose import Diagnosis
from convjax.plots.overview import color_dims, plot_images
from convjax.plots.sweeps import plot_sweep
from convjax.plots.training import plot_loss, plot_lr_find
from convjax.report.notebook_html import paragraph, pictures, table, text, title
from convjax.runs.run import Run
from convjax.stats.record import Record
from convjax.train._sweep import Sweep
from convjax.train.lr_finder import LRFind

# Rows of a table that a reader looks over; the others are counted.
MOST_ROWS = 20

MOST_IMAGES = 12


@html.register
def record_html(record: Record) -> str:
    """Shows a table of the layers as they were last, the loss and the colourful dimensions."""
    return title("Record", inside(record)) + _of_record(record, [])


@html.register
def run_html(run: Run) -> str:
    """Shows the configuration, the last evaluation, and what `record_html` shows."""
    config = table(("configuration", ""), [(name, _plain(run.config[name])) for name in run.config])
    evaluations = f"{len(run.metrics):,} evaluation{'s' * (len(run.metrics) != 1)}"
    about = f"{inside(run.record)}, {evaluations}"
    parts = [title("Run", about), config]
    if run.metrics:
        parts.append(table(("last evaluation", ""), run.metrics[-1].items()))
    else:
        parts.append(paragraph("No evaluation yet."))
    return "".join(parts) + _of_record(run.record, run.metrics)


@html.register
def diagnosis_html(diagnosis: Diagnosis) -> str:
    """Shows the findings with figure, threshold and the way out, and what was not looked for."""
    parts = [title("Diagnosis", inside(diagnosis))]
    if diagnosis.findings:
        headings = ("finding", "where", "from step", "what", "figure", "threshold", "try", "see")
        rows = [
            (
                finding.symptom,
                finding.where,
                finding.step,
                finding.what,
                float(finding.figure),
                ("above " if finding.figure > finding.threshold else "below ")
                + text(float(finding.threshold)),
                finding.change,
                finding.reference,
            )
            for finding in diagnosis.findings
        ]
        parts.append(table(headings, rows))
    if diagnosis.consequences:
        names = dict.fromkeys(finding.symptom for finding in diagnosis.consequences)
        parts.append(paragraph(f"Also seen, as may follow: {', '.join(names)}."))
    if diagnosis.unchecked:
        lacking = [f"{name} ({', '.join(of)})" for name, of in diagnosis.unchecked.items()]
        parts.append(
            paragraph(f"Not looked for, for want of what is in brackets: {', '.join(lacking)}.")
        )
    return "".join(parts)


@html.register
def summary_html(summary: Summary) -> str:
    """Shows the layers with their shapes, parameters, multiplications and receptive fields."""
    unknown = any(row.multiplications is None for row in summary.rows)
    shape = "output shape" + (f" ({summary.layout})" if summary.layout else "")
    headings = ("layer", "kind", shape, "parameters", "multiplications", "receptive field")
    rows: list[Sequence[Any]] = [
        (
            row.name,
            row.kind,
            shape_text(row.output_shape),
            row.parameters,
            row.multiplications,
            field_text(row.receptive_field),
        )
        for row in summary.rows
    ]
    rows.append(("total", "", "", summary.parameters, summary.multiplications, ""))
    parts = [title("Summary", inside(summary)), table(headings, rows)]
    if summary.batch_statistics:
        count = text(summary.batch_statistics)
        parts.append(paragraph(f"Batch statistics, beside the parameters: {count}."))
    if unknown:
        parts.append(paragraph("Multiplications left empty are not known, and not in the total."))
    return "".join(parts)


@html.register
def dataset_html(dataset: Dataset) -> str:
    """Shows how many images each class has in both splits, and a dozen training images."""
    splits = (dataset.train, dataset.test)
    counts = [np.bincount(split.labels, minlength=len(dataset.class_names)) for split in splits]
    rows = list(zip(dataset.class_names, *(count.tolist() for count in counts), strict=True))
    return (
        title("Dataset", inside(dataset))
        + _first(("class", "training images", "test images"), rows, "classes")
        + _examples(dataset.train, dataset.class_names)
    )


@html.register
def split_html(split: Split) -> str:
    """Shows how many images each label has, and a dozen images."""
    labels, counts = np.unique(split.labels, return_counts=True)
    # A label is a name here and no quantity.
    rows = [(str(label), count) for label, count in zip(labels, counts.tolist(), strict=True)]
    return (
        title("Split", inside(split))
        + _first(("label", "images"), rows, "labels")
        + _examples(split, None)
    )


@html.register
def lr_find_html(found: LRFind) -> str:
    """Shows the rate that each rule suggests, and the loss over the rates."""
    if found.can_suggest:
        words = table(("rule", "learning rate"), found.suggestions().items())
    else:
        words = paragraph("Too few steps with a finite loss for a suggestion: start lower.")
    picture = ("loss over the learning rate", lambda: plot_lr_find(found))
    return title("LRFind", inside(found)) + words + pictures(picture)


@html.register
def sweep_html(found: Sweep) -> str:
    """Shows the test accuracy of each setting over the seeds, as a table and a curve."""
    seeds, settings = found.accuracy.shape
    several = seeds > 1
    rows = [
        (
            str(setting),
            accuracy.mean(),
            accuracy.std(ddof=1) if several else None,
            accuracy.min(),
            accuracy.max(),
            int((found.broken_at[:, setting] >= 0).sum()),
        )
        for setting, accuracy in enumerate(np.asarray(found.accuracy, np.float64).T)
    ]
    headings = (
        "setting",
        "mean accuracy",
        "std",
        "lowest",
        "highest",
        "seeds with a loss not finite",
    )
    curve = (
        "test accuracy of the settings",
        lambda: plot_sweep(found, {"setting": range(settings)}),
    )
    return (
        title("Sweep", inside(found))
        + _first(headings, rows, "settings")
        + pictures(*[curve] * (settings > 1))
    )


def inside(value: Any) -> str:
    """Returns what a one-line `repr` has between its brackets."""
    return repr(value).partition("(")[2].removesuffix(")")


def _of_record(record: Record, metrics: Sequence[Mapping[str, Any]]) -> str:
    parts = []
    if record.layers and len(record.watched):
        headings = ("layer", "values a step", "last mean", "std", "share x ≤ 0.05", "|x| ≤ 0.05")
        columns = (record.mean, record.std, record.near_zero, record.abs_near_zero)
        last = np.stack([column[-1] for column in columns], 1).astype(np.float64)
        rows = [
            (layer, size, *row)
            for layer, size, row in zip(
                record.layers, record.sizes.tolist(), last.tolist(), strict=True
            )
        ]
        parts.append(table(headings, rows))
    else:
        parts.append(paragraph("No layer was watched."))
    drawn = []
    if len(record.first) > 1:  # a curve has two points
        scored = [row for row in metrics if {"step", "valid_loss"} <= row.keys()]
        drawn.append(("loss", lambda: plot_loss(record, scored)))
    if record.layers and len(record.watched) and len(record.hist):
        drawn.append(("histograms of the layers' outputs", lambda: color_dims(record)))
    return "".join(parts) + pictures(*drawn)


def _first(headings: Sequence[str], rows: Sequence[Sequence[Any]], what: str) -> str:
    more = len(rows) - MOST_ROWS
    rest = paragraph(f"… and {more:,} more {what}.") if more > 0 else ""
    return table(headings, rows[:MOST_ROWS]) + rest


def _examples(split: Split, names: Sequence[str] | None) -> str:
    # Spread, because folders and some data sets are in the order of their classes.
    count = min(MOST_IMAGES, len(split.labels))
    chosen = np.linspace(0, len(split.labels) - 1, count).round().astype(int)
    labels = split.labels[chosen].tolist()
    titles = [str(label) if names is None else names[label] for label in labels]
    return pictures(
        (f"images of {', '.join(titles)}", lambda: plot_images(split.images[chosen], titles))
    )


def _plain(value: Any) -> str:
    if isinstance(value, Mapping):
        return ", ".join(f"{name} {_plain(item)}" for name, item in value.items())
    if isinstance(value, list | tuple):
        return ", ".join(map(_plain, value))
    return text(value) if isinstance(value, float) else str(value)
