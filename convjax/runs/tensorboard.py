"""Event files, which TensorBoard shows: scalars, histograms and pictures, without TensorFlow.

    with EventWriter("run/tensorboard") as events:
        events.add_record(record, first_step=0)
        events.add_metrics({"step": 500, "valid_loss": 0.1, "accuracy": 0.97})

`write_events` makes them of the files of a run, and `tensorboard --logdir RUN/tensorboard` shows
them. What is written is the record's own: scalars of every row, and counts of the bins as they are.
"""

import os
import shutil
import struct
import time
from collections.abc import Iterator, Mapping
from contextlib import ExitStack
from io import BytesIO
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from convjax._checks import check_type
from convjax.io.lock import LOCK, FolderLock
from convjax.runs.config import RunError
from convjax.runs.run import load_run
from convjax.runs.tensorboard_values import histograms, histograms_every, scalars
from convjax.stats.record import Record

if TYPE_CHECKING:
    from matplotlib.figure import Figure

# Of an evaluation; what else a row holds, such as seconds, is no figure of the training.
METRICS = ("train_loss", "valid_loss", "accuracy", "train_accuracy")

_PNG = b"\x89PNG\r\n\x1a\n"
_PREFIX = "events.out.tfevents."


class EventWriter:
    """An event file that one training adds to; what was added is on the disk.

    A file of its own is begun at every start, as TensorBoard reads all that a folder has.

    Args:
      folder: made if need be.
      purge_step: of a training that goes on, the first step that it takes: TensorBoard then hides
        what earlier files of the folder hold from that step on, also the metrics of an evaluation
        after exactly so many steps, which are to be added again.

    Raises:
      ImportError: if tensorboardX is not installed.
      ValueError: if purge_step is below 0, or another writer is open in the folder
        (`convjax.io.lock.LockedError`).
      OSError: if the folder cannot be written; so do all that add.
    """

    def __init__(self, folder: str | os.PathLike[str], *, purge_step: int | None = None):
        if purge_step is not None and purge_step < 0:
            raise ValueError(f"purge_step must be a step, at least 0, got {purge_step}.")
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
            # Names begin with the second, and TensorBoard reads in the order of names: the number
            # keeps a file of the same second from being overwritten, and comes after it.
            number = len(list(self.folder.glob(f"{_PREFIX}*")))
            # Not the library's SummaryWriter, which sends every scalar as an event of its own
            # through a queue of processes: all scalars of a step in one take less room and time.
            self._file: Any = EventsWriter(str(self.folder / "events"), f".{number:06d}")
            self._held = held.pop_all()
        self._events, self._summaries = event_pb2, summary_pb2
        self._row: int | None = None  # step of the last row with statistics
        if purge_step is not None:
            start = event_pb2.SessionLog(status=event_pb2.SessionLog.START)
            self._write(purge_step, session_log=start)
        self._flush()

    def add_record(self, piece: Record, first_step: int) -> None:
        """Adds what a piece of the training recorded.

        Scalars of every row, under its first step: training/loss, training/learning_rate,
        training/momentum, training/evaluation_mode_loss, activations/LAYER/mean (std, near_zero,
        abs_near_zero), gradients/PARAMETER/norm, updates/PARAMETER/norm. Histograms of some rows,
        as activations/LAYER/histogram: 32 between one step and that of twice its number.

        Args:
          piece: of successive steps, counted from 0 as `Trainer.run` returns it.
          first_step: how many steps of the training came before the piece.

        Raises:
          TypeError: if piece is no Record.
          ValueError: if first_step is below 0, or the writer is closed.
        """
        check_type("piece", piece, Record, "Trainer.run returns one.")
        if first_step < 0:
            raise ValueError(f"first_step must be at least 0, got {first_step}.")
        self._check_open()
        for steps, tags, table in scalars(piece):
            for step, row in zip(steps.tolist(), table.tolist(), strict=True):
                values = zip(tags, row, strict=True)
                self._add(first_step + step, [{"tag": t, "simple_value": x} for t, x in values])
        for row in self._with_histograms(piece, first_step):
            protos = [
                {"tag": tag, "histo": self._summaries.HistogramProto(**fields)}
                for tag, fields in histograms(piece, row)
            ]
            self._add(first_step + int(piece.watched[row]), protos)
        self._flush()

    def add_metrics(self, row: Mapping[str, Any]) -> None:
        """Adds an evaluation: those of train_loss, valid_loss, accuracy and train_accuracy that the
        row has, as evaluation/NAME, under its "step".

        Raises:
          ValueError: if "step" is missing or one of these is no number, or the writer is closed.
        """
        self._check_open()
        step = row.get("step")
        if not isinstance(step, int | np.integer) or step < 0:
            raise ValueError(
                f'row must have a "step", the number of steps before the evaluation, got {step!r} '
                f"among {', '.join(map(repr, row)) or 'nothing'}."
            )
        values = []
        for name in METRICS:
            if name in row:
                if not isinstance(row[name], int | float | np.number):
                    raise ValueError(f"row[{name!r}] must be a number, got {row[name]!r:.80}.")
                values.append({"tag": f"evaluation/{name}", "simple_value": float(row[name])})
        self._add(int(step), values)
        self._flush()

    def add_figure(self, name: str, figure: "Figure", step: int) -> None:
        """Adds a picture of a matplotlib figure as plots/NAME."""
        buffer = BytesIO()
        figure.savefig(buffer, format="png")
        self.add_png(name, buffer.getvalue(), step)

    def add_png(self, name: str, png: bytes, step: int) -> None:
        """Adds the content of a PNG file as plots/NAME.

        Raises:
          ValueError: if it is no PNG file, step is below 0, or the writer is closed.
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
        self._flush()

    def close(self) -> None:
        """Closes the file; nothing can be added any more. A second call does nothing."""
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
            # A training that goes on writes what it would have written without the break, if its
            # rows are evenly spaced.
            spaced = watched[1] - watched[0] if len(watched) > 1 else 1
            self._row = watched[0] - spaced
        for row, step in enumerate(watched):
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
        self._file.write_event(self._events.Event(wall_time=time.time(), step=step, **what))

    def _flush(self) -> None:
        self._file.flush()

    def _check_open(self) -> None:
        if self._file is None:
            raise ValueError(
                f"the event file in {self.folder} is closed: make another EventWriter."
            )


def write_events(
    run_folder: str | os.PathLike[str], out: str | os.PathLike[str] | None = None
) -> Path:
    """Writes the event files of a run, finished or not, from what it has saved.

    Args:
      run_folder: with config.json and record.npz, and what else there is of metrics.jsonl and
        plots/*.png.
      out: a new folder, or one of event files, which is replaced as a whole when the new ones are
        there; by default run_folder/tensorboard.

    Returns:
      That folder, for `tensorboard --logdir`.

    Raises:
      RunError, convjax.stats.record.RecordError, convjax.runs.predictions.PredictionsError: if the folder
        holds no run with a record, or one of its files is damaged.
      ValueError: if `out` holds other files, too, or is being written (a training that writes event
        files itself has them up to date; others go elsewhere).
      ImportError: if tensorboardX is not installed.
    """
    folder = Path(run_folder)
    run = load_run(folder, partial=True)
    if run.record is None:
        raise RunError(f"{folder} holds no steps yet: record.npz is missing. Ask again later.")
    target = folder / "tensorboard" if out is None else Path(out)
    _check_replaceable(target)
    partial = target.with_name(f".{target.name}.{os.getpid()}.partial")
    old = target.with_name(f".{target.name}.{os.getpid()}.old")
    try:
        if target.exists():
            with FolderLock(
                target
            ):  # a training that is writing there would go on where none looks
                pass
        with EventWriter(partial) as events:
            events.add_record(run.record, 0)
            try:
                for row in run.metrics:
                    events.add_metrics(row)
            except ValueError as error:
                raise RunError(
                    f"{folder / 'metrics.jsonl'} is not one of a run: {error}"
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
        what = f"holds {others[0]!r}, which is no event file" if others else ""
    else:
        what = "is no folder" if target.exists() else ""
    if what:
        raise ValueError(
            f"event files take the place of a whole folder, and {target} {what}. Move it away, or "
            "have them in another folder."
        )
