"""A run's folder: what was configured, what each epoch scored, what every step did, pictures.

  config.json      how the run was set up, and with which versions and device
  metrics.jsonl    one JSON object per evaluation, of which an epoch has one as a rule
  record.npz       the record of all steps so far (`convjax.stats.record.Record`)
  checkpoints/     what the run goes on from (`convjax.runs.checkpoints.Checkpoints`)
  model.npz        the trained network's weights, at the end (`convjax.weights`)
  predictions.npz  what it answers to the test images (`convjax.runs.predictions.Predictions`)
  plots/*.png      pictures
  report.html      all of it on a page (`convjax.report.build`)

Every file is replaced whole, so that the folder can be read while the run goes on.
"""

import json
import math
import os
import platform
from collections.abc import Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from importlib import metadata
from pathlib import Path
from typing import TYPE_CHECKING, Any

import jax
from flax import nnx

from convjax.io.atomic import partials, replacing, save_figure
from convjax.io.lock import LockedError, locked
from convjax.io.json_files import PlainError, read_object, read_objects
from convjax.stats.record import Record
from convjax.nn.weights import save_weights

if TYPE_CHECKING:
    from matplotlib.figure import Figure

    from convjax.runs.predictions import Predictions


class RunError(ValueError):
    """A folder does not hold a run, or cannot take one."""


@dataclass(frozen=True, repr=False)
class Run:
    """What a run's folder holds.

    Attributes:
      config: how the run was set up.
      metrics: one mapping per evaluation, in order.
      record: what every step did.
    """

    config: dict[str, Any]
    metrics: list[dict[str, Any]]
    record: Record

    def __repr__(self) -> str:
        return f"Run({len(self.metrics):,} evaluations, {self.record!r})"

    def _repr_html_(self) -> str:
        from convjax.report.notebook import run_html

        return run_html(self)


class RunFolder:
    """A folder that one training writes into.

    A context manager: until its end, or `close`, no other process may write there (see
    `convjax.io.lock`).

    Args:
      path: made if need be; it must not hold a run already, unless this is to go on with it.
      config: everything that repeats the run, written at once.
      resume: go on in the folder of a run that was set up like this.

    Attributes:
      resumed: whether it held a run that goes on.
      moved: where versions and devices are not those with which the run began, in words.

    Raises:
      RunError: if the folder already holds a run, or with `resume` none or one that was set up
        otherwise; and if it cannot be written.
    """

    def __init__(
        self, path: str | os.PathLike[str], config: Mapping[str, Any], *, resume: bool = False
    ):
        self.path = Path(path)
        self.resumed, self.moved = resume, list[str]()
        self._check_taken(resume)  # before anything is made
        with ExitStack() as held:
            try:
                self.path.mkdir(parents=True, exist_ok=True)
                held.enter_context(locked(self.path))
                self._check_taken(resume)  # another process may have been quicker
                # Of a process that was killed: none writes here now.
                for left in (*partials(self.path), *partials(self.path / "plots")):
                    left.unlink(missing_ok=True)
                if resume:
                    found = check_config(self.path, config, same_environment=False)
                    self.moved = differences(found.get("environment", {}), environment())
                else:
                    write_json(self.path / "config.json", {**config, "environment": environment()})
            except LockedError as error:
                raise RunError(str(error)) from error
            except OSError as error:
                raise RunError(f"the run folder {self.path} cannot be written: {error}.") from error
            self._held = held.pop_all()

    def _check_taken(self, resume: bool) -> None:
        exists = (self.path / "config.json").exists()
        if exists and not resume:
            raise RunError(f"{self.path} already holds a run. Choose another folder, or remove it.")
        if resume and not exists:
            raise RunError(f"{self.path} holds no run to go on with: config.json is missing.")

    def __enter__(self) -> "RunFolder":
        return self

    def __exit__(self, *error: object) -> None:
        self.close()

    def close(self) -> None:
        """Lets other processes write into the folder."""
        self._held.close()

    def write_metrics(self, rows: Sequence[Mapping[str, Any]]) -> None:
        """Replaces the metrics of all evaluations."""
        with replacing(self.path / "metrics.jsonl") as file:
            file.write("".join(_json(row) + "\n" for row in rows).encode())

    def write_record(self, record: Record) -> None:
        """Replaces the record."""
        record.save(self.path / "record.npz")

    def write_model(self, model: nnx.Module) -> None:
        """Writes the weights of the trained network."""
        save_weights(self.path / "model.npz", model)

    def write_predictions(self, predictions: "Predictions") -> None:
        """Writes what the trained network answers to the test images."""
        predictions.save(self.path / "predictions.npz")

    def add_plot(self, name: str, figure: "Figure") -> None:
        """Saves a picture as plots/NAME.png."""
        save_figure(figure, self.path / "plots" / f"{name}.png")


def load_run(path: str | os.PathLike[str]) -> Run:
    """Reads a run's folder; nothing in it is executed.

    Raises:
      RunError: if a file is missing or is not what `RunFolder` wrote.
      convjax.stats.record.RecordError: if the record is damaged.
    """
    folder = Path(path)
    try:
        config = read_object(folder / "config.json")
        metrics = [not_null(row) for row in read_objects(folder / "metrics.jsonl")]
        record = Record.load(folder / "record.npz")
    except FileNotFoundError as error:
        raise RunError(
            f"{folder} holds no complete epoch of a run: {Path(error.filename).name} is missing."
        ) from error
    except PlainError as error:
        raise RunError(
            f"a file of the run {folder} is damaged or cannot be read: {error}."
        ) from error
    return Run(config, metrics, record)


def check_config(
    path: str | os.PathLike[str], config: Mapping[str, Any], *, same_environment: bool = True
) -> dict[str, Any]:
    """Checks that the run in a folder was set up like this, and returns how it was.

    Args:
      same_environment: and with the versions and device of now.

    Raises:
      RunError: if not; the message names what differs.
    """
    file = Path(path) / "config.json"
    try:
        found = read_object(file)
        own = found if same_environment else {**found, "environment": None}
        now = environment() if same_environment else None
        differing = differences(own, {**config, "environment": now})
    except (OSError, PlainError) as error:
        raise RunError(
            f"the run {path} cannot be read: {error}. Remove the folder to run it again."
        ) from error
    if differing:
        raise RunError(
            f"{path} holds a run with {'; '.join(differing)}. Choose another folder, or set it up "
            "as it was."
        )
    return found


def differences(found: Mapping[str, Any], wanted: Mapping[str, Any]) -> list[str]:
    """Returns in words where plain data of two runs differ, such as "seed 0, not 1"."""
    first, second = flat(found), flat(json.loads(_json(wanted)))
    return [
        f"{name} {first.get(name)!r}, not {second.get(name)!r}"
        for name in sorted(first.keys() | second.keys())
        if first.get(name) != second.get(name)
    ]


def flat(config: Mapping[str, Any], prefix: str = "") -> dict[str, Any]:
    """Returns nested plain data as one level, such as "setting.lr_max"."""
    found: dict[str, Any] = {}
    for name, value in config.items():
        inner = isinstance(value, Mapping)
        found |= flat(value, f"{prefix}{name}.") if inner else {f"{prefix}{name}": value}
    return found


def write_json(path: str | os.PathLike[str], value: Any) -> None:
    """Writes JSON that a person can read, atomically."""
    with replacing(path) as file:
        file.write((_json(value, indent=2) + "\n").encode())


def _json(value: Any, **options: Any) -> str:
    return json.dumps(finite(value), ensure_ascii=False, allow_nan=False, **options)


def finite(value: Any) -> Any:
    """Returns plain data with null for NaN and infinity, which JSON does not have."""
    if isinstance(value, float) and not math.isfinite(value):
        return None
    if isinstance(value, Mapping):
        return {key: finite(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [finite(item) for item in value]
    return value


def not_null(value: Any) -> Any:
    """Returns what JSON held for numbers, with NaN for null: what `finite` took away."""
    if value is None:
        return math.nan
    if isinstance(value, Mapping):
        return {key: not_null(item) for key, item in value.items()}
    return [not_null(item) for item in value] if isinstance(value, list) else value


def environment() -> dict[str, Any]:
    """Returns what a figure depends on: versions, device and processor."""
    packages = ("convjax", "jax", "jaxlib", "flax", "optax", "numpy")
    return {
        "python": platform.python_version(),
        **{name: _version(name) for name in packages},
        "backend": jax.default_backend(),
        "devices": [device.device_kind for device in jax.devices()],
        "cpu_count": os.cpu_count(),
        "platform": f"{platform.system()} {platform.machine()}",
    }


def _version(package: str) -> str | None:
    try:
        return metadata.version(package)
    except metadata.PackageNotFoundError:
        return None  # convjax imported from a source tree that is not installed
