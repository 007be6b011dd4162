"""`python -m experiments run`: claims put to the test, one after the other."""

import json
import shlex
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from convjax.io.lock import FolderLock, LockedError
from experiments.cli.run_options import check_manner, check_new, results_folder
from experiments.harness import registry
from experiments.harness.claim import Claim
from experiments.harness.observer import Observer
from experiments.terminal import console as view
from experiments.terminal.options import Data, DataDir, Layout, mistakes_reported

if TYPE_CHECKING:
    from experiments.harness.lab import Lab


def run(
    names: Annotated[
        list[str],
        typer.Argument(
            metavar="NAME...", help="Claims, experiments' files, or 'chapter' for all of them."
        ),
    ],
    data: Data = "mnist5k",
    data_dir: DataDir = None,
    seeds: Annotated[int, typer.Option(min=1, help="Number of seeds: 0 to N − 1.")] = 1,
    out: Annotated[
        Path | None,
        typer.Option(
            help="Folder for results, new or empty (see --resume). Default: runs/DATE-TIME."
        ),
    ] = None,
    layout: Layout = "auto",
    quick: Annotated[
        bool,
        typer.Option(
            "--quick", help="Three steps per epoch: passes through all the code, decides nothing."
        ),
    ] = False,
    resume: Annotated[
        bool,
        typer.Option(
            "--resume",
            help="Go on in the folder --out of a run that was stopped, or add to it: claims and "
            "trainings that are finished there are not run again.",
        ),
    ] = False,
    spreadsheet: Annotated[
        Path | None,
        typer.Option(
            exists=True, dir_okay=False, help="The chapter's conv-example.xlsx, for its claim."
        ),
    ] = None,
    dry_run: Annotated[
        bool, typer.Option("--dry-run", help="Check everything, print what would run, and stop.")
    ] = False,
    quiet: Annotated[bool, typer.Option("--quiet", help="Print the folder at the end.")] = False,
    json_line: Annotated[
        bool, typer.Option("--json", help="Print what results.json holds, as one line.")
    ] = False,
) -> None:
    """Measures claims, prints the ledger, and writes results.json, pictures and run folders."""
    from convjax.ops.layout import resolve_layout
    from convjax.plots import new_figure
    from experiments.harness.compilation_cache import use_compilation_cache
    from experiments.harness.lab import Lab
    from experiments.harness.runner import measure_claims, results_to_resume
    from experiments.harness.spreadsheet import Sheet

    use_compilation_cache()
    where = results_folder(out)
    with mistakes_reported("stopped; nothing was written."):
        check_manner(quiet, json_line)
        claims = registry.find(names)
        resolve_layout(layout)
        _check_out(out, resume)
        if spreadsheet and any(claim.id == "spreadsheet" for claim in claims):
            Sheet(spreadsheet)  # not when its turn has come
        shown = view.console()
        silent = quiet or json_line
        observer = Observer() if silent else view.ConsoleObserver(shown)
        lab = Lab(
            data,
            data_dir=data_dir,
            seeds=seeds,
            out=where,
            layout=layout,
            quick=quick,
            resume=resume,
            spreadsheet=spreadsheet,
            observer=observer,
        )
        command = ["python", "-m", "experiments", "run", *names, "--data", lab.data]
        command += ["--seeds", str(seeds), "--layout", layout, *(["--quick"] if quick else [])]
        # No path of this machine.
        command += ["--spreadsheet", spreadsheet.name] if spreadsheet else []
        lab.dataset  # noqa: B018  # a wrong name or a missing file shows before any work
        new_figure(1, 1)  # nor a library without which no picture can be drawn
        if dry_run:
            if resume:
                results_to_resume(lab, {claim.id for claim in claims})
            typer.echo(json.dumps(_plan(claims, lab), indent=2))
            return
    out_again = shlex.quote(str(where))
    with mistakes_reported(
        f"stopped; the same command with --out {out_again} --resume goes on where it was."
    ):
        where.mkdir(parents=True, exist_ok=True)
        try:
            with FolderLock(where):
                _check_out(out, resume)  # another process may have been quicker
                with observer.display():
                    results = measure_claims(claims, lab, command)
        except LockedError:
            raise
        except (ValueError, ImportError):
            if not resume:
                _remove_unless_begun(where)
            raise
    if json_line:
        typer.echo(json.dumps(json.loads((where / "results.json").read_text())))
    elif quiet:
        typer.echo(where)
    else:
        shown.print(view.ledger_table(results, data, seeds))
        shown.print(f"results, pictures and runs: {where}", highlight=False, soft_wrap=True)
    raise typer.Exit(int(any(result.verdict != result.expected for result in results)))


def _plan(claims: list[Claim], lab: "Lab") -> dict[str, Any]:
    """Returns what `run` would do, as plain data."""
    return {
        "out": str(lab.out),
        "data": lab.data,
        "seeds": list(lab.seeds),
        **lab.config,
        "measured": [claim.id for claim in claims if claim.is_measured(lab)],
        "left_out": [claim.id for claim in claims if not claim.is_measured(lab)],
    }


def _check_out(path: Path | None, resume: bool) -> None:
    if resume and not (path and any((path / name).exists() for name in ("results.json", "runs"))):
        raise ValueError(
            f"--resume needs the folder of a run as --out, with its results.json or runs; got "
            f"{path or 'no --out'}."
        )
    if path and not resume:
        check_new(path)


def _remove_unless_begun(out: Path) -> None:
    """Removes the folder of a run that came to no figure: the corrected command may have it."""
    results = out / "results.json"
    if (out / "runs").exists() or not results.exists():
        return
    if json.loads(results.read_text())["claims"]:
        return
    results.unlink()
    for folder in (out / "plots", out):
        if folder.exists() and not any(folder.iterdir()):
            folder.rmdir()
