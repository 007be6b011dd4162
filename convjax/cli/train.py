"""`convjax train`: trains one network, for any number of epochs, and saves all of it.

The run's folder (`convjax.runs`) can be read during the training. `--resume` continues the training
after a stop, a crash or a kill.
"""

import logging
import shlex
from pathlib import Path

import typer

from convjax.cli.results_folder import check_output, results_folder
from convjax.cli.train_config import TrainConfig
from convjax.cli.train_options import ProcessOptions, TrainCommand, TrainOptions
from convjax.terminal.command import NOTHING_WRITTEN, mistakes_reported
from convjax.terminal.dataclass_options import (
    CommandLine,
    option_names,
    option_words,
    options_from,
)

EXAMPLES = """
Examples (a run is a folder; every command prints its path):

convjax train --norm batch --schedule one-cycle --epochs 5
convjax train --resume --out runs/20261126-101500
convjax train --config runs/20261126-101500 --lr-max 0.1

Exit status: 0 done; 2 wrong usage, missing data or a full disk; 3 a loss that is not finite;
4 another process of the training is gone; 130 or 143 stopped by SIGINT or SIGTERM; 141 stopped
because the reader of its output has ended, as `| head` does. A stopped training is saved.
"""


@options_from(TrainConfig, TrainCommand, TrainOptions, ProcessOptions)
def run_train(line: CommandLine) -> None:
    """Trains a network; saves its configuration, record, checkpoints, predictions and report."""
    from convjax import distributed
    from convjax.cli.train_run import TrainRun
    from convjax.terminal.compilation_cache import use_compilation_cache

    use_compilation_cache()
    # Orbax logs the errors that it also raises, and asyncio those of reads that nobody waits for.
    for name in ("absl", "asyncio"):
        logging.getLogger(name).setLevel(logging.CRITICAL)
    command, options = line.build(TrainCommand), line.build(TrainOptions)
    processes, given = line.build(ProcessOptions), line.given(TrainConfig)
    if given.get("norm") == "none":
        given["norm"] = None
    out = results_folder(command.out)
    resume_command = _resume_command(line, out)
    names = option_names(TrainConfig)
    with mistakes_reported(NOTHING_WRITTEN, fields=names):
        check_output(command.quiet, command.json_lines)
        if command.out is None and (command.resume or processes.several):
            subject = "--resume" if command.resume else "A training with several processes"
            raise ValueError(f"{subject} needs the folder of the run as --out, got none.")
        processes.connect()
    advice = f"Start all processes again, this one with: {resume_command}"
    signal = None
    try:
        with distributed.monitor_peers(advice):
            with mistakes_reported(NOTHING_WRITTEN, fields=names):
                run = TrainRun(out, command, options, given, resume_command)
            if command.dry_run:
                run.show()
            else:
                signal = run.train()
    except distributed.ProcessError as error:  # found after the training has begun
        typer.echo(f"error: {error}", err=True)
        raise typer.Exit(error.exit_code) from None
    if signal is not None:
        raise typer.Exit(128 + signal)


def _resume_command(line: CommandLine, out: Path) -> str:
    """Returns the command that resumes this run; config.json has the options that it omits."""
    given = line.given(TrainOptions) | line.given(ProcessOptions)
    if "data" in line.given(TrainConfig):  # config.json has only the name of a folder
        given["data"] = line.given(TrainConfig)["data"]
    words = ["convjax", "train", "--resume", "--out", str(out)]
    return shlex.join([*words, *option_words(given)])
