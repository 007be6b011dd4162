"""Event files for TensorBoard: scalars, histograms and plots, without TensorFlow.

    with EventWriter("run/tensorboard") as events:
        convjax.fit(trainer, model, train, test, plan, writer=events)

`write_events` writes them from the files of a run, and `tensorboard --logdir RUN/tensorboard` shows
them. They hold the scalars of every row of the record, and its own counts of the bins.

The files and their messages are those of tensorboardX, whose `SummaryWriter` is not used: it sends
every scalar through a queue to a thread. Its `flush` does not wait for the queue, an error of
writing, such as a full disk, is lost in the thread, and the scalars of 500 steps take ten times as
long (2.1 s against 0.2 s, tensorboardX 2.6.5). Here all scalars of a step are one event, and what
was added is on the disk.
"""

import os
import shutil
import struct
import time
from collections.abc import Iterator, Mapping
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import numpy as np

from convjax._checks import check_type
from convjax.io.lock import LOCK, FolderLock
from convjax.runs.config import RunError
from convjax.runs.run import load_run
from convjax.runs.tensorboard_values import histograms, histograms_every
from convjax.stats.record import Record
from convjax.train.metric_writer import evaluation_scalars, record_scalars

# The metrics that must be numbers; of other items of a row only numbers are written.
METRICS = ("train_loss", "valid_loss", "accuracy", "train_accuracy")

_PNG = b"\x89PNG\r\n\x1a\n"
_PREFIX = "events.out.tfevents."


class EventWriter:
    """An event file to which one training adds; what was added is on the disk.

    It is a `convjax.train.MetricWriter` that also takes histograms: the `writer` of
    `convjax.Trainer.run`, `convjax.fit` and `convjax.Learner`. `add_record` and `add_metrics` add
    what was kept. A new file is begun at every start. TensorBoard reads all files of a folder.

    Args:
      folder: the folder of the files, created where it does not exist.
      resume: for a resumed training. TensorBoard then hides what earlier files of the folder have
        from the first step on that is added, with the metrics of an evaluation after exactly that
        number of steps, which `convjax.fit` adds again.

    Raises:
      ImportError: if tensorboardX is not installed.
      ValueError: if another writer is open in the folder (`convjax.io.lock.LockedError`).
      OSError: if the folder cannot be written; the methods that add raise it as well.

    Examples:
      >>> import tempfile
      >>> from pathlib import Path
      >>> from convjax.runs import EventWriter
      >>> with tempfile.TemporaryDirectory() as folder:
      ...     with EventWriter(folder) as events:
      ...         events.add_metrics({"step": 5, "accuracy": 0.5})
      ...     len(list(Path(folder).glob("events*")))
      1
    """

    def __init__(self, folder: str | os.PathLike[str], *, resume: bool = False):
        try:
            from tensorboardX.event_file_writer import EventsWriter
            from tensorboardX.proto import event_pb2, summary_pb2
        except ImportError as error:
            raise ImportError(
                "event files need tensorboardX, which is not installed: "
                'pip install "convjax[tensorboard]"'
            ) from error
        self.folder = Path(folder)
        self.folder.mkdir(parents=True, exist_ok=True)
        with ExitStack() as held:
            held.enter_context(FolderLock(self.folder))
            # Names begin with the second, and TensorBoard reads the files in the order of their
            # names. The number comes next, so that a file of the same second is not overwritten.
            number = len(list(self.folder.glob(f"{_PREFIX}*")))
            self._file: Any = EventsWriter(str(self.folder / "events"), f".{number:06d}")
            self._held = held.pop_all()
        self._events, self._summaries = event_pb2, summary_pb2
        self._row: int | None = None  # step of the last row with statistics
        self._end = 0  # the step after the last that was added
        self._resume = resume
        self._file.flush()

    def write_scalars(self, step: int, scalars: Mapping[str, float], /) -> None:
        """Adds scalars by their tags; `flush` puts them on the disk.

        Raises:
          ValueError: if step is below 0, or the writer is closed.
        """
        self._check_open()
        if step < 0:
            raise ValueError(f"step must be at least 0, got {step}.")
        self._add(step, [{"tag": t, "simple_value": float(x)} for t, x in scalars.items()])

    def flush(self) -> None:
        """Puts what was added on the disk."""
        self._check_open()
        self._file.flush()

    def add_record(self, piece: Record, first_step: int) -> None:
        """Adds the record of a piece of the training, or of all of it so far.

        Rows that begin before the end of what was added are left out. In a loop of your own,
        `add_record(recorder.record(), 0)` therefore adds the steps since the last call, also where
        the record has merged earlier ones.

        Scalars of every row, under its first step, see `convjax.train.metric_writer`, and
        `add_histograms`.

        Args:
          piece: of successive steps, counted from 0 as `Trainer.run` returns it.
          first_step: how many steps the training took before the piece.

        Raises:
          TypeError: if piece is not a Record.
          ValueError: if first_step is below 0, or the writer is closed.
        """
        check_type("piece", piece, Record, "Trainer.run returns one.")
        if first_step < 0:
            raise ValueError(f"first_step must be at least 0, got {first_step}.")
        self._check_open()
        for step, scalars in record_scalars(piece):
            if first_step + step >= self._end:
                self.write_scalars(first_step + step, scalars)
        self.add_histograms(first_step, piece)
        self._file.flush()

    def add_histograms(self, first_step: int, piece: Record) -> None:
        """Adds histograms of some rows of a record, as activations/LAYER/histogram.

        There are 32 between a step and the step of twice its number. The arguments are those of
        `add_record`; `flush` puts them on the disk.
        """
        self._check_open()
        for row in self._with_histograms(piece, first_step):
            protos = [
                {"tag": tag, "histo": self._summaries.HistogramProto(**fields)}
                for tag, fields in histograms(piece, row)
            ]
            self._add(first_step + int(piece.watched[row]), protos)
        self._end = max(self._end, first_step + piece.steps)

    def add_metrics(self, row: Mapping[str, Any]) -> None:
        """Adds an evaluation as evaluation/NAME.

        Args:
          row: "step", the number of steps before the evaluation, and any of train_loss, valid_loss,
            accuracy, train_accuracy and other metrics. What is not a number is ignored, and so are
            epoch, seconds and compile_seconds.

        Raises:
          ValueError: if "step" is missing, a metric is not a number, or the writer is closed.
        """
        self._check_open()
        step = row.get("step")
        if not isinstance(step, int | np.integer) or step < 0:
            raise ValueError(
                f'row must have a "step", the number of steps before the evaluation, got {step!r} '
                f"with the keys {', '.join(map(repr, row)) or 'none'}. Add it."
            )
        for name in METRICS:
            if name in row and not isinstance(row[name], int | float | np.number):
                raise ValueError(f"row[{name!r}] must be a number, got {row[name]!r:.80}.")
        self.write_scalars(int(step), evaluation_scalars(row))
        self._file.flush()

    def add_png(self, name: str, png: bytes, step: int) -> None:
        """Adds a plot as plots/NAME.

        Args:
          name: the tag after "plots/".
          png: the content of a PNG file.
          step: the number of steps before the plot.

        Raises:
          ValueError: if png is not a PNG file, step is below 0, or the writer is closed.
        """
        self._check_open()
        if not png.startswith(_PNG) or len(png) < 24:
            raise ValueError(f"png must be the content of a PNG file, got {png[:12]!r}….")
        if step < 0:
            raise ValueError(f"step must be at least 0, got {step}.")
        width, height = struct.unpack(">II", png[16:24])  # the first chunk begins with them
        image = self._summaries.Summary.Image(
            width=width, height=height, colorspace=4, encoded_image_string=png
        )
        self._add(step, [{"tag": f"plots/{name}", "image": image}])
        self._file.flush()

    def close(self) -> None:
        """Closes the file, after which nothing can be added. A second call does nothing."""
        if self._file is not None:
            with self._held:
                file, self._file = self._file, None
                file.close()

    def __enter__(self) -> "EventWriter":
        return self

    def __exit__(self, *error: object) -> None:
        self.close()

    def _with_histograms(self, piece: Record, first_step: int) -> Iterator[int]:
        """Yields the rows whose histograms are written: the first at or after each step due."""
        watched = (first_step + piece.watched).tolist()
        if not len(piece.hist) or not piece.layers:
            return
        if self._row is None and watched[0] > 0:
            # A resumed training writes the same rows as an uninterrupted one if its rows are evenly
            # spaced.
            spaced = watched[1] - watched[0] if len(watched) > 1 else 1
            self._row = watched[0] - spaced
        for row, step in enumerate(watched):
            if step < self._end:
                continue
            every = histograms_every(step)
            if self._row is None or step // every > self._row // every:
                yield row
            self._row = step

    def _add(self, step: int, values: Any) -> None:
        summary = self._summaries.Summary
        values = [summary.Value(**value) for value in values]
        if values:
            self._write(step, summary=summary(value=values))

    def _write(self, step: int, **what: Any) -> None:
        if self._resume:
            self._resume = False
            start = self._events.SessionLog(status=self._events.SessionLog.START)
            self._write(step, session_log=start)
        self._file.write_event(self._events.Event(wall_time=time.time(), step=step, **what))

    def _check_open(self) -> None:
        if self._file is None:
            raise ValueError(
                f"the event file in {self.folder} is closed. Create another EventWriter."
            )


def write_events(
    run_folder: str | os.PathLike[str], out: str | os.PathLike[str] | None = None
) -> Path:
    """Writes the event files of a run, finished or not, from its saved files.

    Args:
      run_folder: the run's folder, which has config.json, record.npz and, where they exist,
        metrics.jsonl and `plots/*.png`.
      out: a new folder, or one of event files, which is replaced as a whole once the new files are
        complete; by default run_folder/tensorboard.

    Returns:
      The folder, for `tensorboard --logdir`.

    Raises:
      RunError: if the folder holds no run with a record, or metrics or plots are damaged.
      convjax.stats.RecordError: if record.npz is damaged.
      convjax.runs.predictions.PredictionsError: if predictions.npz is damaged.
      ValueError: if `out` holds other files, too, or a training is writing event files there, which
        are then up to date.
      ImportError: if tensorboardX is not installed.
    """
    folder = Path(run_folder)
    run = load_run(folder, partial=True)
    if run.record is None:
        raise RunError(
            f"{folder} holds no steps yet: record.npz is missing. Try again after the first "
            "evaluation."
        )
    target = folder / "tensorboard" if out is None else Path(out)
    _check_replaceable(target)
    partial = target.with_name(f".{target.name}.{os.getpid()}.partial")
    old = target.with_name(f".{target.name}.{os.getpid()}.old")
    try:
        if target.exists():
            with FolderLock(target):  # raises while a training is writing there
                pass
        with EventWriter(partial) as events:
            events.add_record(run.record, 0)
            try:
                for row in run.metrics:
                    events.add_metrics(row)
            except ValueError as error:
                raise RunError(
                    f"{folder / 'metrics.jsonl'} is not that of a run: {error}"
                ) from error
            for file in sorted((folder / "plots").glob("*.png")):
                try:
                    events.add_png(file.stem, file.read_bytes(), run.record.steps)
                except ValueError as error:
                    raise RunError(f"{file} is damaged: {error} Remove it.") from error
        if target.exists():
            target.rename(old)
        partial.rename(target)
    finally:
        shutil.rmtree(partial, ignore_errors=True)
        shutil.rmtree(old, ignore_errors=True)
    return target


def _check_replaceable(target: Path) -> None:
    if target.is_dir():
        ours = (_PREFIX, LOCK)
        others = [file.name for file in target.iterdir() if not file.name.startswith(ours)]
        what = f"holds {others[0]!r}, which is not an event file" if others else ""
    else:
        what = "is not a folder" if target.exists() else ""
    if what:
        raise ValueError(
            f"out must be a new folder or one of event files, which are replaced, got {target}, "
            f"which {what}. Move it away, or write into another folder."
        )
