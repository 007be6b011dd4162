"""`python -m experiments run`: tests claims, one after the other."""

import json
import shlex
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from convjax.cli.results_folder import check_new, check_output, results_folder
from convjax.io.lock import FolderLock, LockedError
from convjax.terminal.command import NOTHING_WRITTEN, mistakes_reported
from convjax.terminal.console import console, print_line
from convjax.terminal.options import (
    Data,
    DataDir,
    DryRun,
    LayoutOption,
    OutFolder,
    Quick,
    Quiet,
)
from experiments.cli import registry
from experiments.harness.claim import Claim
from experiments.harness.planned import Planned, plan

if TYPE_CHECKING:
    from convjax.chapter.observer import Observer
    from experiments.harness.lab import Lab


def run(
    names: Annotated[
        list[str],
        typer.Argument(
            metavar="NAME...",
            help="Claims, experiments' files, 'chapter' for all of its claims, or 'residual' for "
            "those on residual networks.",
        ),
    ],
    data: Data = "mnist5k",
    data_dir: DataDir = None,
    seeds: Annotated[
        int | None,
        typer.Option(
            min=1,
            help="Number of seeds: 0 to N − 1. Default: as many as the rule of each claim needs; "
            "'chapter' then measures the brief form of a claim that takes long, and leaves out "
            "what takes minutes.",
        ),
    ] = None,
    out: OutFolder = None,
    layout: LayoutOption = "auto",
    quick: Quick = False,
    resume: Annotated[
        bool,
        typer.Option(
            "--resume",
            help="Resume or extend the run in the folder --out: finished claims and trainings are "
            "not run again.",
        ),
    ] = False,
    spreadsheet: Annotated[
        Path | None,
        typer.Option(
            exists=True, dir_okay=False, help="The chapter's conv-example.xlsx, for its claim."
        ),
    ] = None,
    target: Annotated[
        list[str] | None,
        typer.Option(
            help="A chip for which the claim layouts also compiles, there or not: a100, h100, "
            "h200, v5e or v6e; several times for several."
        ),
    ] = None,
    full: Annotated[
        bool,
        typer.Option(
            "--full",
            help="Train residual networks at the size of their papers: wide, on whole images, all "
            "of them, 164 times. It takes hours on a GPU.",
        ),
    ] = False,
    dry_run: DryRun = False,
    quiet: Quiet = False,
    json_line: Annotated[
        bool, typer.Option("--json", help="Print the content of results.json as one line.")
    ] = False,
) -> None:
    """Measures claims, prints the ledger, and writes results.json, ledger.html and pictures.

    A quick run trains three steps per epoch, and its verdicts are undecided.
    """
    from convjax.chapter.observer import Observer
    from convjax.chapter.spreadsheet import Sheet
    from convjax.ops.layout import resolve_layout
    from convjax.plots import new_figure
    from convjax.terminal.compilation_cache import use_compilation_cache
    from convjax.terminal.console_observer import ConsoleObserver
    from experiments.cli.ledger import closing_table, remarks
    from experiments.harness.lab import Lab
    from experiments.harness.runner import measure_claims, results_to_resume

    use_compilation_cache()
    where = results_folder(out)
    with mistakes_reported(NOTHING_WRITTEN):
        check_output(quiet, json_line)
        claims = registry.find(names)
        chapter = [claim.id for claim in registry.find(["chapter"])]
        resolve_layout(layout)
        _check_out(out, resume)
        _check_targets(target or (), claims, resume)
        if full and not any(claim in registry.find(["residual"]) for claim in claims):
            raise ValueError(
                "--full is for the claims on residual networks, which were not asked for: python "
                "-m experiments run residual --data cifar10 --full"
            )
        if spreadsheet and any(claim.id == "spreadsheet" for claim in claims):
            Sheet(spreadsheet)  # reads it before any claim is measured
        shown = console()
        silent = quiet or json_line
        observer = Observer() if silent else ConsoleObserver(shown)
        lab = Lab(
            data,
            data_dir=data_dir,
            out=where,
            layout=layout,
            quick=quick,
            resume=resume,
            spreadsheet=spreadsheet,
            full=full,
            targets=target or (),
            observer=observer,
        )
        command = ["python", "-m", "experiments", "run", *names, "--data", lab.data]
        command += ["--seeds", str(seeds)] if seeds else []
        command += ["--layout", layout, *(["--quick"] if quick else [])]
        command += ["--full"] if full else []
        # results.json has no path of this machine.
        command += ["--spreadsheet", spreadsheet.name] if spreadsheet else []
        command += [word for name in target or () for word in ("--target", name)]
        lab.dataset  # noqa: B018  # loads it before any work
        new_figure(1, 1)  # imports the plotting library before any work
        whole = "chapter" in names
        planned = plan(claims, lab.data, seeds, chapter=whole, quick=quick)
        if dry_run:
            if resume:
                results_to_resume(lab, planned)
            typer.echo(json.dumps(_plan(planned, lab), indent=2))
            return
    out_again = shlex.quote(str(where))
    with mistakes_reported(
        f"stopped; the same command with --out {out_again} --resume resumes the run."
    ):
        where.mkdir(parents=True, exist_ok=True)
        try:
            with FolderLock(where) as lock:
                _check_out(out, resume)  # another process may have written there meanwhile
                with observer.display():
                    results = measure_claims(planned, lab, command, chapter, lock.check)
                    page = _write_page(where, observer)
        except LockedError:
            raise
        except (ValueError, ImportError):
            if not resume:
                _remove_if_empty(where)
            raise
    if json_line:
        typer.echo(json.dumps(json.loads((where / "results.json").read_text())))
    elif quiet:
        typer.echo(where)
    else:
        shown.print()
        shown.print(closing_table(results))
        shown.print()
        for line in remarks(results, out_again):
            print_line(shown, line)
        if page:
            print_line(shown, f"every claim with its picture: {page}")
        print_line(shown, f"results, pictures and runs: {where}")
    raise typer.Exit(int(any(result.verdict != result.expected for result in results)))


def _write_page(out: Path, observer: "Observer") -> Path | None:
    """Writes the page of all results in a run's folder; None without the library for pages."""
    from experiments.cli.ledger_page import write_page
    from experiments.harness.saved_results import read_results

    page = out / "ledger.html"
    try:
        write_page(read_results(out / "results.json")[1], out / "plots", page)
    except ImportError as error:
        observer.message(f"There is no ledger.html: {error}")
        return None
    return page


def _plan(claims: list[Planned], lab: "Lab") -> dict[str, Any]:
    """Returns the plan of a run for `--dry-run`, as plain data."""
    forms = {planned.id: planned.form(lab.with_seeds(planned.seeds)) for planned in claims}
    return {
        "out": str(lab.out),
        "data": lab.data,
        **lab.config,
        "measured": {planned.id: planned.seeds for planned in claims if forms[planned.id]},
        "brief": [
            planned.id
            for planned in claims
            if forms[planned.id] not in (None, planned.claim.measure)
        ],
        "left_out": [planned.id for planned in claims if not forms[planned.id]],
    }


def _check_targets(targets: Sequence[str], claims: Sequence[Claim], resume: bool) -> None:
    """Checks that the claim on layouts can compile for the targets, before any work."""
    from convjax.analysis.chips import CHIPS, is_present, shapes_on

    if targets and (resume or all(claim.id != "layouts" for claim in claims)):
        raise ValueError(
            "--target is for a new run of the claim layouts: python -m experiments run layouts "
            + " ".join(f"--target {name}" for name in targets)
        )
    for name in targets:
        if name not in CHIPS or not is_present(name):
            shapes_on((), name)  # raises for an unknown chip or a missing compiler


def _check_out(path: Path | None, resume: bool) -> None:
    if resume and not (path and any((path / name).exists() for name in ("results.json", "runs"))):
        raise ValueError(
            f"--resume needs the folder of a run as --out, with its results.json or runs; got "
            f"{path or 'no --out'}."
        )
    if path and not resume:
        check_new(path)


def _remove_if_empty(out: Path) -> None:
    """Removes the folder of a run without figures, so that the corrected command can use it."""
    results = out / "results.json"
    if (out / "runs").exists() or not results.exists():
        return
    if json.loads(results.read_text())["claims"]:
        return
    results.unlink()
    for folder in (out / "plots", out):
        if folder.exists() and not any(folder.iterdir()):
            folder.rmdir()
