"""`report.html`: the page of a run, or of several side by side, in one file without network."""

import os
from collections.abc import Sequence
from pathlib import Path

from convjax.io.atomic import atomic_write
from convjax.report import comparison_page, html, run_page
from convjax.report.components import Charts, Section
from convjax.report.named_run import NamedRun, short_names
from convjax.report.typed_arrays import TypedArrays

NAME = "report.html"


def report(path: str | os.PathLike[str]) -> str:
    """Returns the HTML page of a run.

    The page says which files the run does not have, or not yet.

    Args:
      path: the run's folder, see `convjax.runs`.

    Raises:
      convjax.runs.config.RunError: if the folder holds no run, or one of its files is damaged.
      convjax.stats.RecordError: if record.npz is damaged.
      convjax.runs.predictions.PredictionsError: if predictions.npz is damaged.
      ImportError: if jinja2 or plotly is not installed.

    Examples:
      >>> import tempfile
      >>> from convjax.report import report
      >>> from convjax.runs import RunFolder
      >>> with tempfile.TemporaryDirectory() as path:
      ...     with RunFolder(path + "/run", {"lr": 0.06}) as folder:
      ...         folder.write_metrics([{"step": 5, "accuracy": 0.5}])
      ...     page = report(path + "/run")
      >>> page.startswith("<!doctype html>"), "The run in numbers" in page
      (True, True)
    """
    arrays = TypedArrays()
    run = NamedRun.read(path)
    return _page(f"Training {run.name}", run_page.LEAD, run_page.sections(run, arrays), arrays)


def write_report(path: str | os.PathLike[str]) -> Path:
    """Writes the page of a run as report.html into its folder, atomically.

    Args:
      path: the run's folder, see `convjax.runs`.

    Returns:
      The path of the page.

    Raises:
      OSError: if the page cannot be written.
      ValueError: if a file of the run is damaged, as `report`.
      ImportError: if jinja2 or plotly is not installed.

    Examples:
      >>> import tempfile
      >>> from convjax.report import write_report
      >>> from convjax.runs import RunFolder
      >>> with tempfile.TemporaryDirectory() as path:
      ...     with RunFolder(path + "/run", {"lr": 0.06}) as folder:
      ...         folder.write_metrics([{"step": 5, "accuracy": 0.5}])
      ...     write_report(path + "/run").name
      'report.html'
    """
    out = Path(path) / NAME
    text = report(path)
    with atomic_write(out) as file:
        file.write(text.encode())
    return out


def comparison(paths: Sequence[str | os.PathLike[str]]) -> str:
    """Returns the HTML page that compares runs.

    Args:
      paths: the folders of two runs or more.

    Raises:
      ValueError: if there are fewer folders, one is given twice, or a file is damaged, as `report`.
      ImportError: if jinja2 or plotly is not installed.
    """
    folders = [Path(path) for path in paths]
    if len(folders) < 2:
        raise ValueError(
            f"paths must be folders of at least two runs, got {len(folders)}. Use report "
            "for one run."
        )
    names = short_names(folders)
    for folder, name in zip(folders, names, strict=True):
        if names.count(name) > 1:
            raise ValueError(f"paths must differ, got {folder} twice. Leave one of them out.")
    arrays = TypedArrays()
    runs = [NamedRun.read(folder, name) for folder, name in zip(folders, names, strict=True)]
    title = f"{len(runs)} trainings compared"
    return _page(title, comparison_page.LEAD, comparison_page.sections(runs, arrays), arrays)


def _page(title: str, lead: str, sections: Sequence[Section], arrays: TypedArrays) -> str:
    """Returns the page, which contains plotly.js once for all charts."""
    try:
        from plotly.offline import get_plotlyjs
    except ImportError as error:
        raise ImportError(
            'reports need plotly, which is not installed. Run: pip install "convjax[pages]"'
        ) from error
    blocks = (block for section in sections for block in section.blocks)
    charts = (chart for block in blocks if isinstance(block, Charts) for chart in block.charts)
    data = {"charts": {chart.id: chart.variants for chart in charts}, "arrays": arrays.plain()}
    return html.render(
        "convjax.report",
        "report.html",
        title=title,
        lead=lead,
        sections=sections,
        data=data,
        plotly=get_plotlyjs(),
    )
