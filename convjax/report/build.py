"""`report.html`: a run, or several side by side, on one page that needs no other file and no
network, made from saved files alone."""

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
    """Returns the page of a run, HTML.

    What the run did not keep, or has not come to yet, is said in its place.

    Args:
      path: a run's folder, see `convjax.runs`.

    Raises:
      convjax.runs.config.RunError: if the folder holds no run, or a file of it is damaged.
      convjax.stats.record.RecordError, convjax.runs.predictions.PredictionsError: if those files are.
      ImportError: if jinja2 or plotly are not installed.
    """
    arrays = TypedArrays()
    run = NamedRun.read(path)
    return _page(f"Training {run.name}", run_page.LEAD, run_page.sections(run, arrays), arrays)


def write_report(path: str | os.PathLike[str]) -> Path:
    """Writes the page of a run as report.html into its folder, atomically, and returns its path.

    Raises:
      OSError: if it cannot be written.
      Others: as `report`.
    """
    out = Path(path) / NAME
    text = report(path)
    with atomic_write(out) as file:
        file.write(text.encode())
    return out


def comparison(paths: Sequence[str | os.PathLike[str]]) -> str:
    """Returns the page that compares runs, HTML.

    Args:
      paths: folders of at least two runs.

    Raises:
      ValueError: if there are fewer, or one is given twice.
      Others: as `report`.
    """
    folders = [Path(path) for path in paths]
    if len(folders) < 2:
        raise ValueError(f"paths must be folders of at least two runs, got {len(folders)}.")
    names = short_names(folders)
    for folder, name in zip(folders, names, strict=True):
        if names.count(name) > 1:
            raise ValueError(f"paths must differ, got {folder} twice. Leave one of them out.")
    arrays = TypedArrays()
    runs = [NamedRun.read(folder, name) for folder, name in zip(folders, names, strict=True)]
    title = f"{len(runs)} trainings compared"
    return _page(title, comparison_page.LEAD, comparison_page.sections(runs, arrays), arrays)


def _page(title: str, lead: str, sections: Sequence[Section], arrays: TypedArrays) -> str:
    """Returns the page; plotly.js stands in it once, whatever the number of charts."""
    try:
        from plotly.offline import get_plotlyjs
    except ImportError as error:
        raise ImportError(
            'reports need plotly, which is not installed: pip install "convjax[pages]"'
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
