"""`python -m experiments train`: one network, trained for as long as it takes, and all of it kept.

The folder that it leaves (`convjax.runs`) can be read while the training goes on, and gone on with
(`--resume`) after a stop, a crash or a kill.
"""

import logging
import shlex
from pathlib import Path
from typing import Annotated, Any

import typer

from experiments.cli.run_options import check_manner, results_folder
from experiments.terminal.options import Data, DataDir, Layout, mistakes_reported

EXAMPLES = """
Examples (a run is a folder; every command prints where it is):

python -m experiments train --norm batch --schedule one-cycle --epochs 5
python -m experiments train --resume --out runs/20261126-101500
python -m experiments train --config runs/20261126-101500 --lr-max 0.1

Exit status: 0 done; 2 wrong usage, missing data or a full disk; 3 a loss that is not finite;
4 another process of the training is gone; 130 or 143 stopped by SIGINT or SIGTERM.
"""


def option(panel: str, help: str, **settings: Any) -> Any:
    """Returns an option that the help shows among those of its kind."""
    flags = settings.pop("flags", ())
    return typer.Option(*flags, help=help, rich_help_panel=panel, **settings)


NETWORK, WATCH = "Network and schedule", "What is watched"
FOLDER, SEVERAL, MANNER = "Folder", "Devices and processes", "This command"


def run_train(
    context: typer.Context,
    network: Annotated[
        str, option(NETWORK, "digits, or for threes and sevens: threes-sevens, linear.")
    ] = "digits",
    norm: Annotated[str, option(NETWORK, "none, batch, layer, group or instance.")] = "none",
    first_kernel: Annotated[int, option(NETWORK, "Pixels a side of the first kernel.")] = 5,
    batch_size: Annotated[int, option(NETWORK, "Images per step.")] = 64,
    epochs: Annotated[int, option(NETWORK, "On mnist5k each is 15 passes.")] = 1,
    scores: Annotated[int, option(NETWORK, "Evaluations per epoch.")] = 1,
    schedule: Annotated[
        str,
        option(
            NETWORK,
            "constant, one-cycle, or one-cycle without a part: linear, no-warm-up, no-annealing, "
            "flat-momentum.",
        ),
    ] = "constant",
    lr_max: Annotated[float, option(NETWORK, "The constant, or the highest, rate.")] = 0.06,
    seed: Annotated[int, option(NETWORK, "Of the parameters and of the images' order.")] = 0,
    data: Data = "mnist5k",
    data_dir: DataDir = None,
    layout: Layout = "auto",
    watch: Annotated[
        str, option(WATCH, "nothing, activations, or everything (what a diagnosis uses).")
    ] = "everything",
    watch_every: Annotated[int, option(WATCH, "Steps from one with statistics to the next.")] = 1,
    non_finite: Annotated[
        str, option(WATCH, "stop or go-on, where the loss is no finite number.")
    ] = "stop",
    out: Annotated[
        Path | None, option(FOLDER, "Folder of the run, new or empty. Default: runs/DATE-TIME.")
    ] = None,
    resume: Annotated[
        bool,
        option(
            FOLDER,
            "Go on in --out from its newest checkpoint, as it was set up there.",
            flags=["--resume"],
        ),
    ] = False,
    config: Annotated[
        Path | None,
        option(FOLDER, "Repeat a run: its folder or config.json. Other options change it."),
    ] = None,
    save_seconds: Annotated[
        float, option(FOLDER, "From one checkpoint to the next.", min=0)
    ] = 30.0,
    keep: Annotated[
        int, option(FOLDER, "Newest checkpoints that stay, besides the best.", min=1)
    ] = 2,
    tensorboard: Annotated[
        bool,
        option(FOLDER, "Write event files as the training goes.", flags=["--tensorboard"]),
    ] = False,
    devices: Annotated[
        int | None,
        option(
            SEVERAL,
            "Devices to split each batch over, those of all processes. Default: 1, or all with "
            "several processes.",
        ),
    ] = None,
    stream: Annotated[
        bool,
        option(
            SEVERAL,
            "Leave the training images off the device, and read them ahead.",
            flags=["--stream"],
        ),
    ] = False,
    coordinator: Annotated[
        str | None,
        option(SEVERAL, "Of process 0, with several processes.", metavar="HOST:PORT"),
    ] = None,
    processes: Annotated[int | None, option(SEVERAL, "How many there are.")] = None,
    process_id: Annotated[int | None, option(SEVERAL, "This one's, from 0.")] = None,
    heartbeat: Annotated[
        float, option(SEVERAL, "Seconds of silence after which a process counts as gone.")
    ] = 20.0,
    cluster: Annotated[
        bool,
        option(
            SEVERAL,
            "Several processes, as Slurm, MPI, Kubernetes or a TPU pod tell.",
            flags=["--cluster"],
        ),
    ] = False,
    piece: Annotated[
        int, option(FOLDER, "Steps after which it can be stopped and saved; fewer for large ones.")
    ] = 512,
    quick: Annotated[bool, option(MANNER, "Three steps per epoch.", flags=["--quick"])] = False,
    dry_run: Annotated[
        bool,
        option(MANNER, "Check everything, print the configuration, and stop.", flags=["--dry-run"]),
    ] = False,
    quiet: Annotated[
        bool, option(MANNER, "Print the folder at the end.", flags=["--quiet"])
    ] = False,
    json_lines: Annotated[
        bool, option(MANNER, "Print one JSON object per line.", flags=["--json"])
    ] = False,
) -> None:
    """Trains a network and keeps it: configuration, record, checkpoints, predictions, report."""
    from convjax import distributed
    from experiments.cli.train_config import FIELDS
    from experiments.cli.train_run import TrainOptions, TrainRun, several
    from experiments.harness.compilation_cache import use_compilation_cache

    use_compilation_cache()
    # Of Orbax: what it has to say is said by the errors that it raises.
    logging.getLogger("absl").setLevel(logging.CRITICAL)
    given = {name: context.params[name] for name in FIELDS if _was_given(context, name)}
    if given.get("norm") == "none":
        given["norm"] = None
    where = results_folder(out)
    again = _command(context, where)
    options = TrainOptions(
        out=where,
        resume=resume,
        config=config,
        data_dir=data_dir,
        save_seconds=save_seconds,
        keep=keep,
        stream=stream,
        tensorboard=tensorboard,
        quiet=quiet,
        json_lines=json_lines,
        again=again,
    )
    with mistakes_reported("stopped; nothing was written.", fields=FIELDS):
        check_manner(quiet, json_lines)
        if out is None and (resume or cluster or processes is not None):
            wants = "--resume needs the folder of a run" if resume else "Several processes need one"
            raise ValueError(f"{wants} as --out, got none.")
        several(coordinator, processes, process_id, cluster, heartbeat)
    with distributed.peers_watched(f"Start all processes again, this one with: {again}"):
        with mistakes_reported("stopped; nothing was written.", fields=FIELDS):
            run = TrainRun(options, given)
        if dry_run:
            run.show()
            return
        received = run.train()
    if received is not None:
        raise typer.Exit(128 + received)


def _was_given(context: typer.Context, name: str) -> bool:
    source = context.get_parameter_source(name)
    return source is not None and source.name not in ("DEFAULT", "DEFAULT_MAP")


# What a command that goes on says again; the rest stands in the folder.
_AGAIN = (
    *("data", "data_dir", "save_seconds", "keep", "tensorboard", "stream"),
    *("coordinator", "processes", "process_id", "cluster", "heartbeat"),
)


def _command(context: typer.Context, out: Path) -> str:
    """Returns the command that goes on with this run."""
    words = ["python", "-m", "experiments", "train", "--resume", "--out", str(out)]
    for name in _AGAIN:
        if _was_given(context, name):
            value = context.params[name]
            words.append(f"--{name.replace('_', '-')}")
            words += [] if value is True else [str(value)]
    return shlex.join(words)
