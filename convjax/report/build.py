"""The page of a run or a record, or of several runs side by side, in one file without network."""

import os
from collections.abc import Sequence
from pathlib import Path

from convjax._checks import check_type
from convjax.diagnosis._diagnose import Diagnosis
from convjax.io.atomic import atomic_write
from convjax.plots.layer_choice import LayerChoice
from convjax.report import comparison_page, html, run_page
from convjax.report.components import Charts, Section
from convjax.report.named_run import NamedRun, short_names
from convjax.report.typed_arrays import TypedArrays
from convjax.stats.record import Record

NAME = "report.html"


def report(
    run: str | os.PathLike[str] | Record,
    *,
    layers: LayerChoice | None = None,
    diagnosis: Diagnosis | None = None,
) -> str:
    """Returns the HTML page of a run, or of a record.

    The page of a run says which files the folder does not have, or not yet. The page of a record
    leaves out what was not recorded.

    Args:
      run: the run's folder, see `convjax.runs`, or the record of any training.
      layers: those whose statistics, histograms and kernels are drawn, as
        `convjax.plots.layer_choice.choose` takes them: "*" draws all. By default at most 12, evenly
        spaced, and those that a finding names. The tables can be unfolded to all.
      diagnosis: of the record, for example one with the number of classes or another nonlinearity;
        by default that of `convjax.diagnose`.

    Raises:
      convjax.runs.config.RunError: if the folder holds no run, or one of its files is damaged.
      convjax.stats.RecordError: if record.npz is damaged.
      convjax.runs.predictions.PredictionsError: if predictions.npz is damaged.
      ValueError: if the record has no steps or no such layer.
      IndexError: if the record has no layer of an index.
      TypeError: if run is no folder or record, diagnosis no diagnosis, or layers of another type.
      ImportError: if jinja2 or plotly is not installed.

    Examples:
      >>> from convjax import Recorder
      >>> from convjax.report import report
      >>> recorder = Recorder()
      >>> for loss in (2.0, 1.5):
      ...     recorder.add(loss)
      >>> page = report(recorder.record())
      >>> page.startswith("<!doctype html>"), "Training of 2 steps" in page
      (True, True)
    """
    arrays = TypedArrays()
    if diagnosis is not None:
        check_type("diagnosis", diagnosis, Diagnosis, "convjax.diagnose(record) returns one.")
    if isinstance(run, Record):
        if not run.steps:
            raise ValueError("run must be a record with at least one step, got none.")
        named = NamedRun.of(run)
        parts = run_page.sections_of_record(named, arrays, layers, diagnosis)
        return _page(f"Training {named.name}", run_page.RECORD_LEAD, parts, arrays)
    if not isinstance(run, str | os.PathLike):
        raise TypeError(
            f"run must be a folder or a Record, got a {type(run).__name__}. Of a recorder, pass "
            "recorder.record()."
        )
    named = NamedRun.read(run)
    parts = run_page.sections(named, arrays, layers, diagnosis)
    return _page(f"Training {named.name}", run_page.LEAD, parts, arrays)


def write_report(
    run: str | os.PathLike[str] | Record,
    path: str | os.PathLike[str] | None = None,
    *,
    layers: LayerChoice | None = None,
    diagnosis: Diagnosis | None = None,
) -> Path:
    """Writes the page of a run or a record, atomically.

    Args:
      run: the run's folder, see `convjax.runs`, or the record of any training.
      path: the page's file; by default report.html in the run's folder.
      layers: as for `report`.
      diagnosis: as for `report`.

    Returns:
      The path of the page.

    Raises:
      OSError: if the page cannot be written.
      ValueError: if a file of the run is damaged, as `report`, or there is no path for a record.
      IndexError, TypeError: as `report`.
      ImportError: if jinja2 or plotly is not installed.

    Examples:
      >>> import tempfile
      >>> from convjax import Recorder
      >>> from convjax.report import write_report
      >>> recorder = Recorder()
      >>> recorder.add(2.0)
      >>> with tempfile.TemporaryDirectory() as folder:
      ...     write_report(recorder.record(), folder + "/mine.html").name
      'mine.html'
    """
    if path is None:
        if isinstance(run, Record):
            raise ValueError(
                'path must be a file for the page of a record, got None. Pass "report.html".'
            )
        path = Path(run) / NAME
    text = report(run, layers=layers, diagnosis=diagnosis)
    with atomic_write(path) as file:
        file.write(text.encode())
    return Path(path)


def comparison(paths: Sequence[str | os.PathLike[str]]) -> str:
    """Returns the HTML page that compares runs.

    Args:
      paths: the folders of two runs or more.

    Raises:
      TypeError: if paths is the path of one folder.
      ValueError: if there are fewer folders, one is given twice, or a file is damaged, as `report`.
      ImportError: if jinja2 or plotly is not installed.
    """
    if isinstance(paths, str | os.PathLike):
        raise TypeError(
            f"paths must be a sequence of folders, got {paths!r}. Pass two or more in a list; "
            "write_report is for one run."
        )
    folders = [Path(path) for path in paths]
    if len(folders) < 2:
        raise ValueError(
            f"paths must be folders of at least two runs, got {len(folders)}. Use "
            "write_report for one run."
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
