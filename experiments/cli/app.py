"""The commands of `python -m experiments`: list, run, parity, table, gallery, and the measurements
bench, bench-…, diagnosis, fields and speedrun. `convjax` has those for one training.

Exit status of `run`: 0 if every verdict is the expected one, 1 if one differs, 2 for wrong usage or
unavailable data. Of `parity`: 0 if all figures hold, 1 if one does not, 2 for a file that is not a
trajectory.

A command imports what needs JAX when it runs, so that help appears at once.
"""

import inspect
import json
from functools import wraps
from pathlib import Path
from typing import Annotated, Any, NoReturn

import typer

from convjax.terminal.command import NOTHING_WRITTEN, mistakes_reported, prepare_file
from convjax.terminal.console import console
from convjax.terminal.one_line_errors import OneLineCommand, OneLineGroup
from convjax.terminal.options import DataDir, LayoutOption
from experiments.cli import measurements, registry
from experiments.cli.gallery import run_gallery
from experiments.cli.run import run

app = typer.Typer(
    cls=OneLineGroup,
    add_completion=False,
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    help="Tests the claims of the chapter on convolutional networks.",
)


@app.command("list")
def list_claims() -> None:
    """Lists the claims, the file that tests each, and what is claimed."""
    from experiments.cli.ledger import claims_table

    console().print(claims_table(registry.all_claims()))


@app.command()
def parity(
    files: Annotated[
        list[Path], typer.Argument(metavar="FILE...", help="Recorded trajectories (.npz).")
    ],
    data_dir: DataDir = None,
    layout: LayoutOption = "auto",
) -> None:
    """Replays trajectories of fastai in float64 and prints the largest deviations as JSON."""
    from convjax.io.json_files import nonfinite_to_null
    from convjax.ops.layout import resolve_layout
    from convjax.terminal.compilation_cache import use_compilation_cache
    from experiments.fastai_parity.replay import replay

    use_compilation_cache()
    holds = True
    for file in files:
        try:
            resolve_layout(layout)
            report = replay(file, data_dir=data_dir, layout=layout)
        except ValueError as error:  # DataError and TrajectoryError are ValueErrors
            _fail(error)
        typer.echo(json.dumps(nonfinite_to_null(report), allow_nan=False))
        holds &= report["holds"]
    raise typer.Exit(0 if holds else 1)


@app.command()
def table(
    file: Annotated[
        Path,
        typer.Argument(
            metavar="FILE",
            help="Results of `run`, `diagnosis`, `fields` or a `bench…`; or a layouts.json.",
        ),
    ],
    short: Annotated[
        bool, typer.Option("--short", help="Of a results.json of `run`, one line per claim.")
    ] = False,
    out: Annotated[
        Path | None,
        typer.Option(
            help="Of a results.json of `run`: new file for a page of all claims (HTML), with the "
            "pictures in the folder plots beside FILE."
        ),
    ] = None,
) -> None:
    """Prints a file of results in Markdown, as in the documentation."""
    from experiments.cli.ledger import short_table
    from experiments.cli.ledger_page import write_page
    from experiments.cli.result_tables import TABLES
    from experiments.harness.claim import Result

    try:
        found = json.loads(file.read_text())
        if short or out:
            results = list(map(Result.from_json, found["claims"]))
            if short:
                typer.echo(short_table(results).markdown())
            if out:
                with mistakes_reported(NOTHING_WRITTEN):
                    prepare_file(out)
                    write_page(results, file.parent / "plots", out)
            return
        (kind,) = TABLES.keys() & found.keys()
        typer.echo(TABLES[kind](found))
    except OSError as error:
        _fail(ValueError(f"FILE {file} cannot be read: {error.strerror}."))
    except (ValueError, LookupError, TypeError, AttributeError, RecursionError):
        _fail(
            ValueError(
                f"FILE {file} is not a results.json or layouts.json of `run`, or results of "
                "`diagnosis`, `fields` or a `bench…`."
            )
        )


app.command()(run)
app.command("gallery")(run_gallery)
for _measurement in (
    measurements.bench,
    measurements.bench_record,
    measurements.bench_watch,
    measurements.diagnosis,
    measurements.diagnosis_sets,
    measurements.bench_devices,
    measurements.bench_stream,
    measurements.bench_sweep,
    measurements.fields,
    measurements.speedrun,
):
    app.command()(_measurement)


def script(file: str) -> NoReturn:
    """Runs an experiment's file as a script: `run`, with its options, for the file's claims."""
    stem = Path(file).stem

    @wraps(run)
    def run_this(**options: Any) -> None:
        run([stem], **options)

    # Typer reads the options from the signature. NAME is left out here.
    signature = inspect.signature(run)
    options = [option for name, option in signature.parameters.items() if name != "names"]
    setattr(run_this, "__signature__", signature.replace(parameters=options))  # noqa: B010
    alone = typer.Typer(add_completion=False, pretty_exceptions_enable=False)
    alone.command(cls=OneLineCommand)(run_this)
    alone(prog_name=f"python experiments/{stem}.py")
    raise AssertionError("a Typer app always exits")


def _fail(error: Exception) -> NoReturn:
    typer.echo(f"error: {error}", err=True)
    raise typer.Exit(2) from None
