"""`python -m experiments bench-devices`: one training on several devices and processes.

The ten-digit network with batch norm, all layers watched, trains on CPU devices that JAX simulates:
on one, on eight of one process, and on eight of two and of four processes on this machine. The
deviations from one device are those of rounding, about 1e-15 per step in float64 and 1e-7 in
float32, magnified by the training. A quick run takes three steps on at most two devices.

Command: python -m experiments bench-devices --out devices.json
"""

import os
import socket
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

import jax
import numpy as np
from rich.console import Console

from convjax.runs.environment import environment
from convjax.terminal.command import measure_to_file
from convjax.terminal.tables import TextTable

# (number of processes, devices of each process)
CASES = ((1, 1), (1, 8), (2, 4), (4, 2))
QUICK_CASES = ((1, 1), (1, 2), (2, 1))
DTYPES = ("float64", "float32")
STEPS, BATCH, LR_MAX = 20, 64, 0.06
QUICK_STEPS = 3

# Statistics in units of the activation, or shares; and counts, whose differences are summed.
STATISTICS = ("mean", "std", "near_zero", "abs_near_zero")
COUNTS = ("hist", "under", "over")

_TIMEOUT_SECONDS = 600  # of a case, with compilation


def train(dtype: str, steps: int, quick: bool) -> dict[str, np.ndarray]:
    """Trains on all devices; returns losses, parameters, statistics and scores by name."""
    import jax.numpy as jnp
    from flax import nnx

    from convjax.data import epoch_order, load, normalization
    from convjax.nn.models import ConvNet, digits_net
    from convjax.optim.optimizers import adam
    from convjax.optim.schedules import one_cycle
    from convjax.train.device_data import Images
    from convjax.train.trainer import Trainer

    dataset = load("mnist5k")
    settings: dict[str, Any] = {
        "norm": "batch",
        "param_dtype": jnp.dtype(dtype),
        "rngs": nnx.Rngs(0),
    }
    # 28 → 7 → 2 → 1 pixels: compiles fast.
    network = ConvNet((1, 4, 4, 10), stride=4, **settings) if quick else digits_net(**settings)
    mean, std = normalization(dataset.train.images)
    devices = jax.devices()
    trainer = Trainer(network, adam(), mean=mean, std=std, devices=devices)
    order = epoch_order(len(dataset.train.labels), BATCH, seed=0, epoch=0)[:steps]
    state, record = trainer.run(
        trainer.start(network),
        Images.put(dataset.train, devices),
        order,
        one_cycle(steps, LR_MAX).table(steps),
    )
    scores = trainer.evaluate(state, Images.put(dataset.test, devices))
    leaves = jax.tree_util.tree_leaves_with_path((state.params, state.variables))
    found = {f"parameter {jax.tree_util.keystr(path)}": np.asarray(leaf) for path, leaf in leaves}
    found |= {name: getattr(record, name) for name in ("loss", *STATISTICS, *COUNTS)}
    return found | {"correct": np.array(scores.correct), "examples": np.array(scores.examples)}


def compare(found: dict[str, Any], wanted: dict[str, Any]) -> dict[str, float]:
    """Returns the largest deviations, and the share of values in another bin.

    The deviation of the loss is relative to the loss; that of a parameter, or running statistic, is
    relative to its largest absolute value; that of a statistic is in units of the activation.
    """
    deviations = {name: np.abs(found[name] - wanted[name]) for name in wanted}
    parameters = [name for name in wanted if name.startswith("parameter ")]
    counted = sum(int(deviations[name].sum()) for name in COUNTS)
    return {
        "loss": float((deviations["loss"] / wanted["loss"]).max()),
        "parameters": max(
            float(deviations[name].max() / np.abs(wanted[name]).max()) for name in parameters
        ),
        "statistics": max(float(deviations[name].max()) for name in STATISTICS),
        # A value in another bin lowers one count by one and raises another.
        "moved": counted / 2 / sum(int(wanted[name].sum()) for name in COUNTS),
        "correct": int(found["correct"] - wanted["correct"]),
    }


def run_case(processes: int, devices: int, dtype: str, quick: bool) -> list[dict[str, Any]]:
    """Trains with several processes and returns the results of each.

    Args:
      processes: number of processes.
      devices: of each process.
      dtype: of the network's parameters.
      quick: whether to train a smaller network for fewer steps.

    Raises:
      ValueError: if a process fails; the message has the last line of its stderr.
    """
    with socket.socket() as trial:
        trial.bind(("127.0.0.1", 0))
        port = trial.getsockname()[1]
    with tempfile.TemporaryDirectory(prefix="convjax-devices-") as folder:
        numbers = map(str, (processes, devices, port, int(quick)))
        command = [sys.executable, "-m", "experiments.bench.devices", folder, dtype, *numbers]
        workers = [
            subprocess.Popen(
                [*command, str(i)],
                env={**os.environ, "JAX_PLATFORMS": "cpu"},
                cwd=Path(__file__).parents[2],
                stdout=subprocess.DEVNULL,
                stderr=subprocess.PIPE,
                text=True,
            )
            for i in range(processes)
        ]
        try:
            for worker in workers:
                _, errors = worker.communicate(timeout=_TIMEOUT_SECONDS)
                if worker.returncode:
                    last = errors.rstrip().rpartition("\n")[2]
                    raise ValueError(f"a process ended with status {worker.returncode}: {last}")
        finally:
            for worker in workers:
                worker.kill()
        return [dict(np.load(Path(folder) / f"{i}.npz")) for i in range(processes)]


def measure_devices(quick: bool) -> list[dict[str, Any]]:
    """Returns a row for each dtype and case, with the deviations from one device.

    Raises:
      ValueError: if the results of the processes of a training are not bitwise equal.
    """
    rows = []
    for dtype in DTYPES[: 1 if quick else None]:
        cases = QUICK_CASES if quick else CASES
        found = [run_case(*case, dtype, quick) for case in cases]
        for (processes, devices), each in zip(cases, found, strict=True):
            for other in each[1:]:
                same = all((other[name] == each[0][name]).all() for name in other)
                if not same:
                    raise ValueError("the processes of a training must have equal results.")
            deviations = compare(each[0], found[0][0])
            rows.append(
                {
                    "dtype": dtype,
                    "processes": processes,
                    "devices": processes * devices,
                    "steps": len(each[0]["loss"]),
                    **deviations,
                }
            )
    return rows


def markdown_devices(rows: list[dict[str, Any]]) -> str:
    """Returns the table of the largest deviations from one device."""
    headings = (
        *("dtype", "processes", "devices", "loss", "parameters", "statistics"),
        *("values in another bin", "answers"),
    )
    cells = [
        (
            *(str(row[name]) for name in ("dtype", "processes", "devices")),
            *(f"{row[name]:.0e}" for name in ("loss", "parameters", "statistics", "moved")),
            f"{row['correct']:+d}",
        )
        for row in rows
        if row["devices"] > 1
    ]
    return TextTable(headings, cells).markdown()


def run_bench_devices(quick: bool, out: Path) -> None:
    """Compares training on one device with eight, of 1, 2 and 4 processes; writes devices.json."""

    def measure(_: Console) -> dict[str, Any]:
        rows = measure_devices(quick)
        return {"environment": environment(), "quick": quick, "devices": rows}

    measure_to_file(out, measure, lambda report: [markdown_devices(report["devices"])])


def _work(arguments: list[str]) -> None:
    """Runs one process of a case; arguments: FOLDER DTYPE PROCESSES DEVICES PORT QUICK ID."""
    from convjax import distributed

    folder, dtype, *numbers = arguments
    processes, devices, port, quick, process = map(int, numbers)
    jax.config.update("jax_num_cpu_devices", devices)
    jax.config.update("jax_enable_x64", dtype == "float64")
    if processes > 1:
        distributed.initialize(f"127.0.0.1:{port}", processes, process)
    with distributed.monitor_peers():
        found: dict[str, Any] = train(dtype, QUICK_STEPS if quick else STEPS, bool(quick))
        np.savez(Path(folder) / f"{process}.npz", **found)


if __name__ == "__main__":
    _work(sys.argv[1:])
