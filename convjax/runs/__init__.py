"""The folder of a training: configuration, metrics, record, weights, checkpoints, event files."""

from convjax.runs.checkpoints import Checkpoints
from convjax.runs.config import RunError
from convjax.runs.folder import RunFolder
from convjax.runs.interrupts import Interrupts
from convjax.runs.persistence import Keeping
from convjax.runs.predictions import Predictions, PredictionsError
from convjax.runs.run import PartialRun, Run, load_run
from convjax.runs.tensorboard import EventWriter, write_events
from convjax.train.tree_arrays import CheckpointError

__all__ = [
    "CheckpointError",
    "Checkpoints",
    "EventWriter",
    "Interrupts",
    "Keeping",
    "PartialRun",
    "Predictions",
    "PredictionsError",
    "Run",
    "RunError",
    "RunFolder",
    "load_run",
    "write_events",
]
