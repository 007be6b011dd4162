"""HTML displays of objects in a notebook: tables and plots.

Every function is registered for its type at `convjax._display.html`. The fragments need no script
and no style sheet, take the colours of the page around them, and have all text escaped. Without
matplotlib, a line that says how to install it replaces the plots.
"""

from collections.abc import Callable, Mapping, Sequence
from html import escape
from typing import TYPE_CHECKING, Any

import numpy as np

from convjax._display import html
from convjax.analysis._summary import Summary, field_text
from convjax.data.dataset import Dataset, Split
from convjax.diagnosis._diagnose import Diagnosis, diagnose
from convjax.plots.layer_choice import choose
from convjax.plots.overview import color_dims, plot_images
from convjax.plots.sweeps import plot_sweep
from convjax.plots.training import plot_loss, plot_lr_find
from convjax.report import tables
from convjax.report.html import picture
from convjax.report.table import MISSING, Table, format_value, paragraph
from convjax.runs.run import Run
from convjax.stats.record import Record
from convjax.train._sweep import Sweep
from convjax.train.lr_finder import LRFind

if TYPE_CHECKING:
    import matplotlib.figure

MAX_ROWS = 20  # of a table of classes, labels or settings; the others are counted
MAX_IMAGES = 12


@html.register
def record_html(record: Record) -> str:
    """Shows the diagnosis, the last statistics of the layers, the loss and the histograms.

    Of more than 12 layers it shows those that `convjax.plots.layer_choice.choose` chooses. The
    statistics of the others can be unfolded.
    """
    return _title(record) + _record_parts(record, [])


@html.register
def run_html(run: Run) -> str:
    """Shows the configuration, the last evaluation, and what `record_html` shows."""
    evaluations = f"{len(run.metrics):,} evaluation{'s' * (len(run.metrics) != 1)}"
    parts = [
        f"<div><strong>Run</strong>: {escape(_summary(run.record))}, {evaluations}</div>",
        _table(("configuration", "value"), list(run.config.items()), exact=True),
    ]
    if run.metrics:
        parts.append(_table(("last evaluation", "value"), list(run.metrics[-1].items())))
    else:
        parts.append(paragraph("No evaluation yet."))
    return "".join(parts) + _record_parts(run.record, run.metrics)


@html.register
def diagnosis_html(diagnosis: Diagnosis) -> str:
    """Shows each finding with its figure, threshold and fix, and the symptoms not checked."""
    parts = [_title(diagnosis)]
    table = tables.findings(diagnosis)
    parts += [table.html(inline=True)] if table else []
    parts += map(paragraph, tables.notes(diagnosis))
    return "".join(parts)


@html.register
def summary_html(summary: Summary) -> str:
    """Shows the layers with their shapes, parameters, multiplications and receptive fields."""
    head = (
        "layer",
        "kind",
        summary.shape_title,
        "parameters",
        "multiplications",
        "receptive field",
    )
    rows: list[Sequence[Any]] = [
        (
            row.name,
            row.kind,
            summary.shown_shape(row),
            row.parameters,
            MISSING if row.multiplications is None else row.multiplications,
            field_text(row.receptive_field),
        )
        for row in summary.rows
    ]
    rows.append(("total", "", "", summary.parameters, summary.multiplications, ""))
    parts = [_title(summary), _table(head, rows)]
    if summary.batch_statistics:
        count = format_value(summary.batch_statistics)
        parts.append(paragraph(f"Batch statistics, in addition to the parameters: {count}."))
    if any(row.multiplications is None for row in summary.rows):
        parts.append(paragraph(f"Multiplications shown as {MISSING} are unknown and not counted."))
    return "".join(parts)


@html.register
def dataset_html(dataset: Dataset) -> str:
    """Shows the number of images per class in both splits, and a dozen training images."""
    splits = (dataset.train, dataset.test)
    counts = [np.bincount(split.labels, minlength=len(dataset.class_names)) for split in splits]
    rows = list(zip(dataset.class_names, *(count.tolist() for count in counts), strict=True))
    return (
        _title(dataset)
        + _first_rows(("class", "training images", "test images"), rows, "classes")
        + _examples(dataset.train, dataset.class_names)
    )


@html.register
def split_html(split: Split) -> str:
    """Shows the number of images per label, and a dozen images."""
    labels, counts = np.unique(split.labels, return_counts=True)
    # Labels are text here, because they are names and not quantities.
    rows = [(str(label), count) for label, count in zip(labels, counts.tolist(), strict=True)]
    return _title(split) + _first_rows(("label", "images"), rows, "labels") + _examples(split, None)


@html.register
def lr_find_html(found: LRFind) -> str:
    """Shows the rate that each rule suggests, and the loss over the rates."""
    if found.can_suggest:
        suggestions = _table(("rule", "learning rate"), list(found.suggestions().items()))
    else:
        suggestions = paragraph(
            "There is no suggestion: too few steps have a finite loss. Start at a lower rate."
        )
    plot = ("loss over the learning rate", lambda: plot_lr_find(found))
    return _title(found) + suggestions + pictures(plot)


@html.register
def sweep_html(found: Sweep) -> str:
    """Shows the test accuracy of each setting over the seeds, as a table and a curve."""
    seeds, settings = found.accuracy.shape
    rows = [
        (
            str(setting),
            accuracy.mean(),
            accuracy.std(ddof=1) if seeds > 1 else MISSING,
            accuracy.min(),
            accuracy.max(),
            int((found.broken_at[:, setting] >= 0).sum()),
        )
        for setting, accuracy in enumerate(np.asarray(found.accuracy, np.float64).T)
    ]
    head = ("setting", "mean accuracy", "std", "lowest", "highest", "seeds with a non-finite loss")
    curve = (
        "test accuracy of the settings",
        lambda: plot_sweep(found, {"setting": range(settings)}),
    )
    return _title(found) + _first_rows(head, rows, "settings") + pictures(*[curve] * (settings > 1))


def pictures(*plots: "tuple[str, Callable[[], matplotlib.figure.Figure]]") -> str:
    """Returns plots one below the other; without matplotlib, how to install it.

    Args:
      plots: pairs of an alternative text and the function that draws the figure.
    """
    try:
        return "".join(_image(alt, draw()) for alt, draw in plots)
    except ImportError as error:
        return paragraph(str(error))


def _image(alt: str, figure: "matplotlib.figure.Figure") -> str:
    # Figures have dark text, and need a white background in a dark notebook.
    return (
        f'<div><img alt="{escape(alt)}" src="{picture(figure, dpi=90)}" '
        'style="max-width:100%;background:white;border-radius:4px;margin:0.3em 0"/></div>'
    )


def _title(value: Any) -> str:
    name = type(value).__name__
    return f"<div><strong>{name}</strong>: {escape(_summary(value))}</div>"


def _summary(value: Any) -> str:
    """Returns the text between the brackets of a one-line `repr`."""
    return repr(value).partition("(")[2].removesuffix(")")


def _table(head: Sequence[str], rows: Sequence[Sequence[Any]], *, exact: bool = False) -> str:
    return Table("", head, rows, exact=exact).html(inline=True)


def _first_rows(head: Sequence[str], rows: Sequence[Sequence[Any]], plural: str) -> str:
    more = len(rows) - MAX_ROWS
    rest = paragraph(f"… and {more:,} more {plural}.") if more > 0 else ""
    return _table(head, rows[:MAX_ROWS]) + rest


def _record_parts(record: Record, metrics: Sequence[Mapping[str, Any]]) -> str:
    parts = []
    found = diagnose(record) if record.steps else Diagnosis((), (), {})
    if found.findings:
        names = [f.symptom + (f" in {f.where}" if f.where else "") for f in found.findings]
        parts.append(paragraph(f"Found by convjax.diagnose(record): {', '.join(names)}."))
    has_layers = bool(record.layers) and len(record.watched) > 0
    if has_layers:
        parts.append(tables.layers(record, None, found).html(inline=True))
    else:
        parts.append(paragraph("No layer was watched."))
    plots = []
    if len(record.first) > 1:  # a curve needs two points
        evaluations = [row for row in metrics if {"step", "valid_loss"} <= row.keys()]
        plots.append(("loss", lambda: plot_loss(record, evaluations)))
    if has_layers and len(record.hist):
        drawn = choose(record, record.layers, None, found)
        plots.append(("histograms of the layers' outputs", lambda: color_dims(record, drawn)))
    return "".join(parts) + pictures(*plots)


def _examples(split: Split, names: Sequence[str] | None) -> str:
    # The images are spread over the split, because some data sets are sorted by class.
    count = min(MAX_IMAGES, len(split.labels))
    chosen = np.linspace(0, len(split.labels) - 1, count).round().astype(int)
    labels = split.labels[chosen].tolist()
    titles = [str(label) if names is None else names[label] for label in labels]
    return pictures(
        (f"images of {', '.join(titles)}", lambda: plot_images(split.images[chosen], titles))
    )
