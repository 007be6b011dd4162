"""`python -m experiments train`: one network, trained for as long as it takes, and all of it kept.

The folder that it leaves (`convjax.runs`) can be read while the training goes on, and gone on with
(`--resume`) after a stop, a crash or a kill.
"""

import logging
import shlex
from datetime import datetime
from pathlib import Path
from typing import Annotated

import typer

from experiments.options import Data, DataDir, Layout, mistakes_reported

# Which option stands for which field of `TrainConfig` or `Setting`; the others have their name.
_NOT_CONFIG = {
    *("out", "resume", "config", "data_dir", "stream", "save_seconds", "keep", "tensorboard"),
    *("dry_run", "quiet", "json_lines", "coordinator", "processes", "process_id", "cluster"),
}

EXAMPLES = """
Examples (a run is a folder; every command prints where it is):

python -m experiments train --norm batch --schedule one-cycle --epochs 5
python -m experiments train --resume --out runs/20261126-101500
python -m experiments train --config runs/20261126-101500 --lr-max 0.1

Exit status: 0 done; 2 wrong usage, missing data or a full disk; 3 a loss that is not finite;
4 another process of the training is gone; 130 or 143 stopped by SIGINT or SIGTERM, saved.
"""


def run_train(
    context: typer.Context,
    network: Annotated[
        str,
        typer.Option(help="digits, or for threes and sevens: threes-sevens, linear."),
    ] = "digits",
    norm: Annotated[str, typer.Option(help="none, batch, layer, group or instance.")] = "none",
    first_kernel: Annotated[int, typer.Option(help="Pixels a side of the first kernel.")] = 5,
    batch_size: Annotated[int, typer.Option(help="Images per step.")] = 64,
    epochs: Annotated[int, typer.Option(help="On mnist5k each is 15 passes.")] = 1,
    scores: Annotated[int, typer.Option(help="Evaluations per epoch.")] = 1,
    schedule: Annotated[
        str,
        typer.Option(
            help="constant, one-cycle, or one-cycle without a part: linear, no-warm-up, "
            "no-annealing, flat-momentum."
        ),
    ] = "constant",
    lr_max: Annotated[float, typer.Option(help="The constant, or the highest, rate.")] = 0.06,
    seed: Annotated[int, typer.Option(help="Of the parameters and of the images' order.")] = 0,
    data: Data = "mnist5k",
    data_dir: DataDir = None,
    layout: Layout = "auto",
    watch: Annotated[
        str, typer.Option(help="nothing, activations, or everything (what a diagnosis uses).")
    ] = "everything",
    watch_every: Annotated[
        int, typer.Option(help="Steps from one with statistics to the next.")
    ] = 1,
    non_finite: Annotated[
        str, typer.Option(help="stop or go-on, where the loss is no finite number.")
    ] = "stop",
    quick: Annotated[bool, typer.Option("--quick", help="Three steps per epoch.")] = False,
    config: Annotated[
        Path | None,
        typer.Option(help="Repeat a run: its folder or config.json. Other options change it."),
    ] = None,
    out: Annotated[
        Path | None, typer.Option(help="Folder of the run, new or empty. Default: runs/DATE-TIME.")
    ] = None,
    resume: Annotated[
        bool,
        typer.Option(
            "--resume", help="Go on in --out from its newest checkpoint, as it was set up there."
        ),
    ] = False,
    save_seconds: Annotated[
        float, typer.Option(min=0, help="From one checkpoint to the next.")
    ] = 30.0,
    keep: Annotated[
        int, typer.Option(min=1, help="Newest checkpoints that stay, besides the best.")
    ] = 2,
    stream: Annotated[
        bool,
        typer.Option("--stream", help="Leave the images off the device; read them ahead."),
    ] = False,
    tensorboard: Annotated[
        bool, typer.Option("--tensorboard", help="Write event files as the training goes.")
    ] = False,
    devices: Annotated[
        int,
        typer.Option(
            help="Devices to split each batch over, of all processes. Default: 1, or all of them "
            "with several processes.",
            show_default=False,
        ),
    ] = 0,
    coordinator: Annotated[
        str | None,
        typer.Option(metavar="HOST:PORT", help="Of process 0, with several processes."),
    ] = None,
    processes: Annotated[int | None, typer.Option(help="How many there are.")] = None,
    process_id: Annotated[int | None, typer.Option(help="This one's, from 0.")] = None,
    cluster: Annotated[
        bool,
        typer.Option(
            "--cluster", help="Several processes as Slurm, MPI, Kubernetes or a TPU pod tell."
        ),
    ] = False,
    dry_run: Annotated[
        bool,
        typer.Option("--dry-run", help="Check everything, print the configuration, and stop."),
    ] = False,
    quiet: Annotated[bool, typer.Option("--quiet", help="Print the folder at the end.")] = False,
    json_lines: Annotated[
        bool, typer.Option("--json", help="Print one JSON object per line.")
    ] = False,
) -> None:
    """Trains a network and keeps it: configuration, record, checkpoints, predictions, report."""
    from convjax import distributed
    from experiments.compilation import use_compilation_cache
    from experiments.train_run import Options, Run, several

    use_compilation_cache()

    # Of Orbax: what it has to say is said by the errors that it raises.
    logging.getLogger("absl").setLevel(logging.CRITICAL)
    given = {
        name: context.params[name]
        for name in context.params
        if name not in _NOT_CONFIG and _was_given(context, name)
    }
    if given.get("norm") == "none":
        given["norm"] = None
    where = out or Path("runs") / datetime.now().strftime("%Y%m%d-%H%M%S")
    options = Options(
        where, resume, config, data_dir, save_seconds, keep, stream, tensorboard, quiet, json_lines
    )
    again = _command(context, where)
    with mistakes_reported("stopped; nothing was written.", fields=given):
        if quiet and json_lines:
            raise ValueError("--quiet and --json exclude each other: choose one.")
        if resume and out is None:
            raise ValueError("--resume needs the folder of a run as --out, got none.")
        several(coordinator, processes, process_id, cluster)
    with distributed.peers_watched(f"Start all again: {again}"):
        with mistakes_reported("stopped; nothing was written.", fields=given):
            run = Run(options, given, again)
            if dry_run:
                run.show()
                return
        received = run.train()
    if received is not None:
        raise typer.Exit(128 + received)


def _was_given(context: typer.Context, name: str) -> bool:
    source = context.get_parameter_source(name)
    return source is not None and source.name not in ("DEFAULT", "DEFAULT_MAP")


def _command(context: typer.Context, out: Path) -> str:
    """Returns the command that goes on with this run."""
    words = ["python", "-m", "experiments", "train", "--resume", "--out", str(out)]
    for name in ("data", "data_dir", "save_seconds", "keep", "stream", "tensorboard"):
        if _was_given(context, name):
            value = context.params[name]
            words.append(f"--{name.replace('_', '-')}")
            words += [] if value is True else [str(value)]
    return shlex.join(words)
