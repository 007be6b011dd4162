"""`python -m experiments bench-watch`: what `Recorder.watch` costs in a loop of one's own.

The same training step is compiled by `nnx.jit` and by `Recorder.watch`, with all statistics. The
first call of each is one trace and compilation, in a process of its own and without JAX's cache.
Steps are then measured in turns: one round takes eight steps of each program, and the ratio is the
median of those of the rounds. A quick run has one small network and one round.
"""

import json
import statistics
import subprocess
import sys
import warnings
from collections.abc import Callable
from pathlib import Path
from time import perf_counter
from typing import Any

import jax
import optax
from flax import nnx

import convjax
from convjax.runs.environment import environment
from convjax.terminal.command import measure_to_file
from convjax.terminal.tables import TextTable
from experiments.bench.networks import NETWORKS, batch

ROUNDS, STEPS = 7, 8


def train_step(model: nnx.Module, optimizer: nnx.Optimizer, x: Any, y: Any) -> jax.Array:
    """Takes a step of Adam, as a loop of one's own does."""

    def loss_fn(model: Any) -> jax.Array:
        return optax.softmax_cross_entropy_with_integer_labels(model(x), y).mean()

    loss, grads = nnx.value_and_grad(loss_fn)(model)
    optimizer.update(model, grads)
    return loss


def programs(every: tuple[int, ...]) -> dict[str, Callable[..., Any]]:
    """Returns the step compiled alone, and watched at every n-th step."""
    found: dict[str, Callable[..., Any]] = {"alone": nnx.jit(train_step)}
    for n in every:
        watch = convjax.Watch.everything(every=n)
        found[f"every {n}"] = convjax.Recorder().watch(train_step, jit=nnx.jit, watch=watch)
    return found


def start(name: str, quick: bool) -> tuple[Any, ...]:
    """Returns the model, optimiser, inputs and labels of a network."""
    model, shape = NETWORKS[name](quick)
    return model, nnx.Optimizer(model, optax.adam(1e-3), wrt=nnx.Param), *batch(shape)


def first_call(name: str, program: str, quick: bool) -> float:
    """Returns the seconds of the first call of a program, in this process."""
    jax.config.update("jax_enable_compilation_cache", False)
    arguments = start(name, quick)
    call = programs((1,))[program]
    began = perf_counter()
    jax.block_until_ready(call(*arguments))
    return perf_counter() - began


def measure_first_calls(name: str, quick: bool) -> dict[str, Any]:
    """Returns the seconds of the first calls of a network's step, alone and watched, in turns."""
    seconds: dict[str, list[float]] = {"alone": [], "every 1": []}
    for _ in range(1 if quick else 3):
        for program in seconds:
            command = [sys.executable, "-m", __spec__.name, name, program, str(int(quick))]
            done = subprocess.run(command, capture_output=True, text=True, check=True)
            seconds[program].append(json.loads(done.stdout.splitlines()[-1]))
    medians = {program: statistics.median(values) for program, values in seconds.items()}
    return {"seconds": seconds, "factor": medians["every 1"] / medians["alone"]}


def measure_steps(name: str, quick: bool) -> dict[str, Any]:
    """Returns the ratios of the steps' times, watched at every step and at every eighth."""
    compiled = programs((1, 8))
    arguments = {program: start(name, quick) for program in compiled}
    rounds: list[dict[str, float]] = []
    for _ in range(1 + (1 if quick else ROUNDS)):  # the first round compiles
        taken = {}
        for program, call in compiled.items():
            began = perf_counter()
            for _ in range(STEPS):
                loss = call(*arguments[program])
            jax.block_until_ready(loss)
            taken[program] = (perf_counter() - began) / STEPS
        rounds.append(taken)
    ratios = {
        program: [taken[program] / taken["alone"] for taken in rounds[1:]]
        for program in compiled
        if program != "alone"
    }
    return {"seconds": rounds[1:], "ratios": ratios}


def run_bench_watch(quick: bool, out: Path) -> None:
    """Measures what the statistics cost in a loop of one's own, and writes watch.json."""

    def measure(_: Any) -> dict[str, Any]:
        rows = []
        for name in list(NETWORKS)[: 1 if quick else None]:
            with warnings.catch_warnings():
                warnings.simplefilter("error")  # nothing may be left out
                steps = measure_steps(name, quick)
            rows.append({"network": name, "first": measure_first_calls(name, quick), **steps})
        return {"environment": environment(), "watched_loops": rows}

    measure_to_file(out, measure, lambda report: [markdown_watched(report["watched_loops"])])


def markdown_watched(rows: list[dict[str, Any]]) -> str:
    """Returns the table of the factors of the first call and of a step."""
    cells = []
    for row in rows:
        ratios = [statistics.median(row["ratios"][f"every {n}"]) for n in (1, 8)]
        cells.append((row["network"], *(f"{x:.2f}" for x in (row["first"]["factor"], *ratios))))
    titles = ("network", "first call", "step, all watched", "step, every 8th watched")
    return TextTable(titles, cells).markdown()


if __name__ == "__main__":
    network, chosen, small = sys.argv[1:]
    print(json.dumps(first_call(network, chosen, small == "1")))
