"""Helpers of several test modules: layouts by letters, processes, recorded cases, records."""

import os
import socket
import subprocess
import time
from collections.abc import Callable
from dataclasses import replace
from functools import cache
from pathlib import Path
from typing import Any, NamedTuple

import jax
import numpy as np

from convjax.stats.parameter_record import ParameterRecord
from convjax.stats.record import Record
from convjax.stats.record_builder import from_steps

GOLDEN = Path(__file__).parent / "golden"

# Data that are not part of the project; tests that need them are skipped where they are missing.
EXTRA_DATA = Path(
    os.environ.get("CONVJAX_TEST_DATA", Path(__file__).parents[2] / "shared" / "data")
)
SPREADSHEET = EXTRA_DATA / "conv-example.xlsx"  # the chapter's file

# Repeated and not imported, so that a wrong entry in the library fails a test.
KERNELS = {"NHWC": "HWIO", "NCHW": "OIHW", "CHWN": "IHWO"}
LAYOUTS = tuple(KERNELS)
METHODS = ("lax", "matmul")


def on_accelerator(*args: Any, default: Callable[..., Any], **by_platform: Any) -> Any:
    """Stands for `jax.lax.platform_dependent` where no platform has a form of its own."""
    return default(*args)


def command_app(name: str) -> tuple[str, Any]:
    """Returns the program that has a command, and its app."""
    from convjax.cli.app import COMMANDS
    from convjax.cli.app import app as of_library
    from experiments.cli.app import app as of_experiments

    if name in COMMANDS:
        return "convjax", of_library
    return "python -m experiments", of_experiments


def free_port() -> int:
    """Returns a free port of this computer."""
    with socket.socket() as trial:
        trial.bind(("127.0.0.1", 0))
        return trial.getsockname()[1]


def wait_for(
    condition: Callable[[], object], process: subprocess.Popen[Any], seconds: float = 120
) -> None:
    """Waits until a condition holds; fails if the process ends or the time is over before."""
    end = time.monotonic() + seconds
    while not condition():
        assert process.poll() is None, process.communicate()
        assert time.monotonic() < end
        time.sleep(0.01)


def reorder(array: Any, source: str, target: str) -> np.ndarray:
    """Transposes by naming the axes: reorder(x, "NCHW", "NHWC")."""
    return np.einsum(f"{source}->{target}".lower(), array)


class ConvCase(NamedTuple):
    """One recorded convolution with its gradients; x, y, cotangent, dx NCHW, w and dw OIHW."""

    settings: dict[str, Any]
    x: np.ndarray
    w: np.ndarray
    b: np.ndarray | None
    y: np.ndarray
    cotangent: np.ndarray
    dx: np.ndarray
    dw: np.ndarray
    db: np.ndarray | None

    def in_layout(self, layout: str) -> "ConvCase":
        images = {name: reorder(getattr(self, name), "NCHW", layout) for name in _IMAGES}
        kernels = {name: reorder(getattr(self, name), "OIHW", KERNELS[layout]) for name in _WEIGHTS}
        return self._replace(**images, **kernels)


_IMAGES = ("x", "y", "cotangent", "dx")
_WEIGHTS = ("w", "dw")


@cache
def conv_cases() -> tuple[ConvCase, ...]:
    """The 60 recorded convolutions, float64."""
    with np.load(GOLDEN / "conv2d_cases.npz") as file:
        arrays = {name: file[name] for name in file.files}
    cases = []
    for i, row in enumerate(arrays["settings"].tolist()):
        settings = {
            "stride": tuple(row[0:2]),
            "padding": tuple(row[2:4]),
            "dilation": tuple(row[4:6]),
            "groups": row[6],
        }
        fields = [arrays.get(f"{i}/{name}") for name in ConvCase._fields[1:]]
        cases.append(ConvCase(settings, *fields))
    assert len(cases) == 60
    return tuple(cases)


def assert_trees_close(actual: Any, expected: Any, *, rtol: float = 0, atol: float = 0) -> None:
    """Compares two trees leaf by leaf, with the path of the first leaf that differs."""
    assert jax.tree.structure(actual) == jax.tree.structure(expected)
    leaves = zip(
        jax.tree_util.tree_leaves_with_path(actual), jax.tree.leaves(expected), strict=True
    )
    for (path, left), right in leaves:
        np.testing.assert_allclose(
            np.asarray(left),
            np.asarray(right),
            rtol=rtol,
            atol=atol,
            err_msg=jax.tree_util.keystr(path),
        )


CHANNELS = 3  # of each layer of `make_record`


def make_record(*, steps: int, layers: int, size: int = 1000, every: int = 1) -> Record:
    """Returns a record with different statistics in each row; counts add up to `size`."""
    step, watched = np.arange(steps, dtype=np.float32), np.arange(0, steps, every)
    columns = watched[:, None].astype(np.float32) + np.arange(layers, dtype=np.float32) / 10
    hist = np.zeros((len(watched), layers, 40), np.int32)
    hist[..., 0], hist[..., 4] = size // 2, size // 4
    share = np.clip(columns / 100, 0, 1)
    # In each layer the first channel is never active, the second always, the third sometimes.
    active = np.tile(np.stack([watched < 0, watched >= 0, watched % 3 == 1], axis=1), layers)
    return Record(
        layers=tuple(f"blocks.{i}.conv" for i in range(layers)),
        sizes=np.full(layers, size),
        steps=steps,
        first=np.arange(steps),
        loss=2.3 - step / 100,
        learning_rate=step / 1000,
        momentum=0.95 - step / 1000,
        watched=watched,
        watched_count=np.ones(len(watched), int),
        mean=columns,
        std=columns + 1,
        near_zero=share,
        abs_near_zero=share / 2,
        hist=hist,
        under=np.full((len(watched), layers), size // 8, np.int32),
        over=np.full((len(watched), layers), size // 8, np.int32),
        channels=np.full(layers, CHANNELS),
        active=np.packbits(active, axis=1),
        eval_loss=2.5 - watched.astype(np.float32) / 100,
        parameters=make_parameters(watched),
    )


def make_parameters(watched: np.ndarray) -> ParameterRecord:
    """Returns a record of two parameters with shrinking gradients and different counts per row."""
    norms = np.stack([8 / (1 + watched), 4 / (1 + watched)], axis=1).astype(np.float32)
    hist = np.zeros((len(watched), 2, 42), np.int32)
    hist[:, 0, 30], hist[:, 1, 31] = watched, 10 + watched
    return ParameterRecord(
        names=("conv.bias", "conv.kernel"),
        sizes=np.array([4, 36]),
        ndims=np.array([1, 4]),
        watched=watched,
        watched_count=np.ones(len(watched), int),
        weight_norm=np.ones_like(norms),
        grad_norm=norms,
        update_norm=norms / 1000,
        grad_hist=hist,
        update_hist=hist[:, ::-1],
    )


def without_histograms(record: Record) -> Record:
    """Returns the record as with Watch(histogram=False)."""
    empty = {name: getattr(record, name)[:0] for name in ("hist", "under", "over")}
    return replace(record, **empty)


def without_layers(record: Record) -> Record:
    """Returns the record as with watch=None."""
    columns = record.loss, record.learning_rate, record.momentum
    return from_steps((), (), *columns, record.watched[:0], ())
