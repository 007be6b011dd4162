"""Mistakes in run folders: damaged, missing and changed files."""

from collections.abc import Callable
from functools import cache
from pathlib import Path

import numpy as np
from flax import nnx

from convjax.nn.weights import WeightsError, load_weights, save_weights
from convjax.runs.config import RunError
from convjax.runs.folder import RunFolder
from convjax.runs.run import Run, load_run
from convjax.stats.record_file import RecordError
from tests.helpers import make_record
from tests.mistakes import Mistake


@cache
def network(outputs: int = 3) -> nnx.Module:
    """Returns the network whose weights are in the run."""
    return nnx.Linear(2, outputs, rngs=nnx.Rngs(0))


def make_run(path: Path) -> None:
    """Makes a complete run of five steps."""
    with RunFolder(path, {"data": "mnist5k", "seed": 0}) as folder:
        folder.write_metrics([{"epoch": 1, "step": 5, "valid_loss": 0.5}])
        folder.write_record(make_record(steps=5, layers=2))
    save_weights(path / "model.npz", network())


def load(path: Path) -> tuple[Run, nnx.Module]:
    """Returns all of a run."""
    run = load_run(path)
    return run, load_weights(path / "model.npz", network())


def written(name: str, content: str | bytes) -> Callable[[Path], None]:
    """Returns a function that replaces the content of a file."""
    new = content.encode() if isinstance(content, str) else content
    return lambda run: (run / name).write_bytes(new) and None


def missing(name: str) -> Callable[[Path], None]:
    """Returns a function that removes a file."""
    return lambda run: (run / name).unlink()


def replaced(name: str, before: str, after: str) -> Callable[[Path], None]:
    """Returns a function that changes a text in a file."""

    def damage(run: Path) -> None:
        content = (run / name).read_text()
        assert before in content
        (run / name).write_text(content.replace(before, after))

    return damage


def cut(name: str, length: int) -> Callable[[Path], None]:
    """Returns a function that keeps only the first bytes of a file."""
    return lambda run: (run / name).write_bytes((run / name).read_bytes()[:length]) and None


def flipped(name: str, at: int) -> Callable[[Path], None]:
    """Returns a function that changes one byte of a file."""

    def damage(run: Path) -> None:
        content = bytearray((run / name).read_bytes())
        content[at] ^= 0xFF
        (run / name).write_bytes(content)

    return damage


def arrays(name: str, **changed: np.ndarray | None) -> Callable[[Path], None]:
    """Returns a function that changes arrays of an .npz file; None removes one."""

    def damage(run: Path) -> None:
        with np.load(run / name) as file:
            found = dict(file) | changed
        np.savez(run / name, **{key: value for key, value in found.items() if value is not None})

    return damage


def folder_instead(name: str) -> Callable[[Path], None]:
    """Returns a function that replaces a file by a folder."""

    def damage(run: Path) -> None:
        (run / name).unlink()
        (run / name).mkdir()

    return damage


def other_weights(run: Path) -> None:
    """Replaces the weights by those of another network."""
    save_weights(run / "model.npz", network(outputs=4))


R, C, W = RunError, RecordError, WeightsError
_CASES: list[tuple[str, Callable[[Path], None], type[Exception], tuple[str, ...]]] = [
    ("config.json is missing", missing("config.json"), R, ("holds no run", "config.json")),
    ("metrics.jsonl is missing", missing("metrics.jsonl"), R, ("no complete", "metrics.jsonl")),
    ("record.npz is missing", missing("record.npz"), R, ("no complete epoch", "record.npz")),
    ("model.npz is missing", missing("model.npz"), FileNotFoundError, ("model.npz",)),
    (
        "config.json is empty",
        written("config.json", ""),
        R,
        ("config.json is not JSON", "line 1, column 1"),
    ),
    ("config.json is cut off", cut("config.json", 30), R, ("run", "damaged")),
    (
        "config.json has another seed",
        replaced("config.json", '"seed": 0', '"seed": 1'),
        R,
        ("config.json was changed after it was written: seed is now 1", "another copy"),
    ),
    (
        "metrics.jsonl has another loss",
        replaced("metrics.jsonl", "0.5", "0.4"),
        R,
        ("line 1 of metrics.jsonl was changed after it was written", "another copy"),
    ),
    (
        "config.json is not text",
        written("config.json", b"\xff\xfe\0"),
        R,
        ("config.json is not UTF-8 text",),
    ),
    (
        "config.json is a folder",
        folder_instead("config.json"),
        R,
        ("config.json is not a regular file",),
    ),
    (
        "metrics.jsonl has half a line",
        cut("metrics.jsonl", 20),
        R,
        ("line 1 of metrics.jsonl is not JSON",),
    ),
    ("record.npz is empty", written("record.npz", ""), C, ("not a complete record", "train again")),
    ("record.npz is cut off", cut("record.npz", 3000), C, ("not a complete record", "BadZipFile")),
    ("record.npz has one byte changed", flipped("record.npz", 80), C, ("not a complete record",)),
    ("record.npz is a folder", folder_instead("record.npz"), C, ("it is a folder",)),
    (
        "record.npz is of another format",
        arrays("record.npz", format=np.int64(9)),
        C,
        ("record format 9, this version reads 4", "train again"),
    ),
    ("record.npz lacks the losses", arrays("record.npz", loss=None), C, ("loss is missing",)),
    (
        "record.npz has a loss too few",
        arrays("record.npz", loss=np.ones(4, np.float32)),
        C,
        ("loss has the shape (4,), its axes are (rows 5)",),
    ),
    (
        "record.npz has text for losses",
        arrays("record.npz", loss=np.array(["2.3"] * 5)),
        C,
        ("loss is of the type <U3",),
    ),
    (
        "record.npz holds objects, which would have to be unpickled",
        arrays("record.npz", loss=np.array([{}] * 5, object)),
        C,
        ("'loss' must be plain numbers or text, got the type object",),
    ),
    (
        "record.npz has steps that go back",
        arrays("record.npz", first=np.array([0, 2, 1, 3, 4])),
        C,
        ("first must hold increasing steps below 5, got 0, 2, 1",),
    ),
    (
        "record.npz is of a negative number of steps",
        arrays("record.npz", steps=np.int64(-5)),
        C,
        ("step 0 of -5",),
    ),
    ("model.npz is cut off", cut("model.npz", 100), W, ("not a complete weights file", "again")),
    (
        "model.npz is of another network",
        other_weights,
        W,
        ("of shape (4,), but the network's has the shape (3,)",),
    ),
    (
        "model.npz lacks a bias",
        arrays("model.npz", bias=None),
        W,
        ("contains the weights of another network: without bias",),
    ),
    (
        "model.npz has text for a bias",
        arrays("model.npz", bias=np.array(["a", "b", "c"])),
        W,
        ("contains bias of <U1, which are not real numbers",),
    ),
]
ROWS = [Mistake(what, kind, holds) for what, _, kind, holds in _CASES]
DAMAGES = {what: damage for what, damage, _, _ in _CASES}
