"""`python -m experiments bench-devices`: one training over several devices and processes.

The ten-digit network with batch norm, all layers watched, on the CPU devices that JAX simulates: on
one, on eight of one process, and on eight of two and of four processes that find each other on this
machine. The deviations from one device are those of rounding: in float64 some 1e-15 at each step,
in float32 some 1e-7, which training magnifies.

Command: python -m experiments bench-devices --out devices.json
"""

import os
import socket
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Annotated, Any

import jax
import numpy as np
import typer

from experiments.terminal.options import OutFile, mistakes_reported, prepare_file

# Processes, and devices of each.
CASES = ((1, 1), (1, 8), (2, 4), (4, 2))
QUICK_CASES = ((1, 1), (1, 2), (2, 1))
DTYPES = ("float64", "float32")
STEPS, BATCH, LR_MAX = 20, 64, 0.06
QUICK_STEPS = 3

# Statistics in units of the activation, or shares; of counts the differences are added up.
STATISTICS = ("mean", "std", "near_zero", "abs_near_zero")
COUNTS = ("hist", "under", "over")

_SECONDS = 600  # for a case, compilation included


def train(dtype: str, steps: int, quick: bool) -> dict[str, np.ndarray]:
    """Trains on all devices and returns losses, parameters, statistics and scores by name."""
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
    # 28 → 7 → 2 → 1 pixels: quick to compile.
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
    """Returns the largest deviations, and in how many values the counts differ.

    Of the loss relative to the loss, of a parameter (or running statistic) relative to its largest
    absolute value, of statistics in units of the activation.
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
        # A value that changes its bin is one less in one count and one more in another.
        "moved": counted / 2 / sum(int(wanted[name].sum()) for name in COUNTS),
        "correct": int(found["correct"] - wanted["correct"]),
    }


def run_case(processes: int, devices: int, dtype: str, quick: bool) -> list[dict[str, Any]]:
    """Returns what every process of a training found.

    Raises:
      ValueError: if one ends with an error, with the last line it told.
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
                _, told = worker.communicate(timeout=_SECONDS)
                if worker.returncode:
                    last = told.rstrip().rpartition("\n")[2]
                    raise ValueError(f"a process ended with status {worker.returncode}: {last}")
        finally:
            for worker in workers:
                worker.kill()
        return [dict(np.load(Path(folder) / f"{i}.npz")) for i in range(processes)]


def measure_devices(quick: bool) -> list[dict[str, Any]]:
    """Returns a row for each dtype and case: deviations from one device, largest of all processes.

    Raises:
      ValueError: if the processes of a training differ in a bit.
    """
    rows = []
    for dtype in DTYPES[: 1 if quick else None]:
        cases = QUICK_CASES if quick else CASES
        found = [run_case(*case, dtype, quick) for case in cases]
        for (processes, devices), each in zip(cases, found, strict=True):
            for other in each[1:]:
                same = all((other[name] == each[0][name]).all() for name in other)
                if not same:
                    raise ValueError("the processes of one training came to different results.")
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
    lines = [
        "| dtype | processes | devices | loss | parameters | statistics | values in another bin | "
        "answers |",
        "|---|---|---|---|---|---|---|---|",
    ]
    lines += [
        f"| {row['dtype']} | {row['processes']} | {row['devices']} | {row['loss']:.0e} | "
        f"{row['parameters']:.0e} | {row['statistics']:.0e} | {row['moved']:.0e} | "
        f"{row['correct']:+d} |"
        for row in rows
        if row["devices"] > 1
    ]
    return "\n".join(lines)


def run_bench_devices(
    quick: Annotated[
        bool, typer.Option("--quick", help="Three steps on two devices: decides nothing.")
    ] = False,
    out: OutFile = Path("devices.json"),
) -> None:
    """Compares eight devices, of one, two and four processes, with one, and writes devices.json."""
    from convjax.runs.folder import environment, write_json
    from experiments.terminal.console import console

    shown = console()
    with mistakes_reported("stopped; nothing was written."):
        prepare_file(out)
        rows = measure_devices(quick)
        write_json(out, {"environment": environment(), "quick": quick, "devices": rows})
    shown.print(markdown_devices(rows), highlight=False, markup=False)
    shown.print(f"all figures: {out}", highlight=False, soft_wrap=True)


def _work(arguments: list[str]) -> None:
    """Is one process of a case: FOLDER DTYPE PROCESSES DEVICES PORT QUICK ID."""
    from convjax import distributed

    folder, dtype, *numbers = arguments
    processes, devices, port, quick, process = map(int, numbers)
    jax.config.update("jax_num_cpu_devices", devices)
    jax.config.update("jax_enable_x64", dtype == "float64")
    if processes > 1:
        distributed.initialize(f"127.0.0.1:{port}", processes, process)
    with distributed.peers_watched():
        found: dict[str, Any] = train(dtype, QUICK_STEPS if quick else STEPS, bool(quick))
        np.savez(Path(folder) / f"{process}.npz", **found)


if __name__ == "__main__":
    _work(sys.argv[1:])
