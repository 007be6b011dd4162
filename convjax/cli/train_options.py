"""The options of `train` on which the figures of a training do not depend."""

import math
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any

import typer

from convjax.terminal.options import DataDir, DryRun, OutFolder, Quiet

WATCH, FOLDER, PROCESSES = "What is watched", "Folder", "Devices and processes"


def option(panel: str, help: str, **settings: Any) -> Any:
    """Returns an option that `--help` shows in a panel."""
    return typer.Option(help=help, rich_help_panel=panel, **settings)


@dataclass(frozen=True)
class TrainCommand:
    """What one call of the command does.

    Attributes:
      json_lines: whether to print one JSON object per line.
    """

    out: OutFolder = None
    resume: Annotated[
        bool, option(FOLDER, "Resume the run in --out from its newest checkpoint, unchanged.")
    ] = False
    config: Annotated[
        Path | None,
        option(FOLDER, "Repeat a run: its folder or config.json. Other options change it."),
    ] = None
    dry_run: DryRun = False
    quiet: Quiet = False
    json_lines: Annotated[bool, typer.Option("--json", help="Print one JSON object per line.")] = (
        False
    )


@dataclass(frozen=True)
class TrainOptions:
    """How a training runs and is saved; repeated by the command that resumes it."""

    data_dir: DataDir = None
    save_seconds: Annotated[
        float, option(FOLDER, "Seconds from one checkpoint to the next.", min=0)
    ] = 30.0
    keep: Annotated[
        int, option(FOLDER, "Number of newest checkpoints to keep, besides the best.", min=1)
    ] = 2
    tensorboard: Annotated[bool, option(FOLDER, "Write TensorBoard's event files.")] = False
    stream: Annotated[
        bool,
        option(PROCESSES, "Keep the training images in host memory and read them ahead."),
    ] = False


@dataclass(frozen=True)
class ProcessOptions:
    """The processes of a training; repeated by the command that resumes it."""

    coordinator: Annotated[
        str | None,
        option(PROCESSES, "Address of process 0, for several processes.", metavar="HOST:PORT"),
    ] = None
    processes: Annotated[int | None, option(PROCESSES, "Number of processes.")] = None
    process_id: Annotated[int | None, option(PROCESSES, "Number of this process, from 0.")] = None
    heartbeat: Annotated[
        float, option(PROCESSES, "Seconds of silence after which a process counts as dead.")
    ] = 20.0
    wait: Annotated[
        float,
        option(
            PROCESSES,
            "Seconds to wait for a process that lives, such as for one that compiles longer.",
        ),
    ] = 600.0
    cluster: Annotated[
        bool,
        option(PROCESSES, "Several processes, as Slurm, MPI, Kubernetes or a TPU pod configure."),
    ] = False

    @property
    def several(self) -> bool:
        """Whether the options ask for several processes."""
        return self.cluster or any(value is not None for value in self._address)

    def connect(self) -> None:
        """Connects to the other processes, if the options name any.

        Raises:
          ValueError: for contradictory options, or as `convjax.parallel.distributed.initialize`.
        """
        for option, seconds in (("--heartbeat", self.heartbeat), ("--wait", self.wait)):
            if not 0 < seconds < math.inf:
                raise ValueError(f"{option} must be a positive number of seconds, got {seconds}.")
        if self.cluster and any(value is not None for value in self._address):
            raise ValueError(
                "--cluster must be given without --coordinator, --processes and --process-id, "
                "which the cluster sets. Leave them out, or leave --cluster out."
            )
        if self.several:
            from convjax import distributed

            distributed.initialize(*self._address, heartbeat=self.heartbeat, wait=self.wait)

    @property
    def _address(self) -> tuple[str | None, int | None, int | None]:
        return self.coordinator, self.processes, self.process_id
