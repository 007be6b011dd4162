"""loop-cost: the cost of visiting one place of the grid at a time.

Predictions of the chapter: one kernel operation at a time is "hundreds" of times slower than all in
parallel on a GPU; the hand-written Python loop can be slower "even millions" of times.

Measured on this device, per map of one image and one kernel, medians of five: all places of 64
images and 4 kernels by one call of `conv2d`; one compiled call per place; one NumPy product per
place, as `convjax.reference` does it; and nested loops of plain Python over places and weights.

Rule: on a GPU, one call per place takes at least 100 times, and Python's loops at least 1,000,000
times, as long as all in parallel. On any other device the claim, which is about GPUs, stays
undecided, and the ratios are shown.

Command: python -m experiments run loop-cost
"""

from collections.abc import Callable
from statistics import median
from time import perf_counter
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from convjax import conv2d
from convjax.chapter.chapter_data import KERNELS
from convjax.ops import reference
from experiments.harness.claim import Claim, Published
from experiments.harness.lab import Lab
from experiments.harness.rules import Decision, Measured, NotMeasuredError, Rule

REPEATS = 5
IMAGES = 64
CALLS = 10  # of conv2d per measurement, so that the clock's resolution does not matter


def seconds(work: Callable[[], Any]) -> float:
    """Returns the median time of a function, without its first call."""
    times = []
    for _ in range(REPEATS + 1):
        began = perf_counter()
        work()
        times.append(perf_counter() - began)
    return median(times[1:])


def python_map(image: list[list[float]], kernel: list[list[float]]) -> list[list[float]]:
    """Returns the map of one image and one kernel by loops of plain Python.

    Args:
      image: rows of pixels.
      kernel: rows of weights.
    """
    height, width = len(image) - len(kernel) + 1, len(image[0]) - len(kernel[0]) + 1
    found = []
    for i in range(height):
        row = []
        for j in range(width):
            total = 0.0
            for a, weights in enumerate(kernel):
                for b, weight in enumerate(weights):
                    total += image[i + a][j + b] * weight
            row.append(total)
        found.append(row)
    return found


def loop_cost(lab: Lab) -> Measured:
    """Measures how much longer each kind of loop takes than one call."""
    batch = lab.dataset.train.images[:IMAGES, :, :, :1].astype(np.float32)
    image, kernel = batch[0, :, :, 0], KERNELS[0].astype(np.float32)
    height, width = (size - 2 for size in image.shape)
    kernels = jnp.asarray(KERNELS.transpose(1, 2, 0)[:, :, None], jnp.float32)  # HWIO
    parallel = jax.jit(lambda x: conv2d(x, kernels))
    on_device, kernel_there = jnp.asarray(batch), jnp.asarray(kernel)
    image_there = on_device[0, :, :, 0]

    @jax.jit
    def place(image: jax.Array, kernel: jax.Array, i: jax.Array, j: jax.Array) -> jax.Array:
        """Returns the result of the kernel at one place."""
        return jnp.sum(jax.lax.dynamic_slice(image, (i, j), kernel.shape) * kernel)

    def all_in_parallel() -> None:
        """Computes all maps by one call."""
        jax.block_until_ready([parallel(on_device) for _ in range(CALLS)][-1])

    def one_at_a_time() -> None:
        """Computes one map by one call per place."""
        jax.block_until_ready(
            [place(image_there, kernel_there, i, j) for i in range(height) for j in range(width)]
        )

    lists = image.tolist(), kernel.tolist()
    together = seconds(all_in_parallel) / CALLS / len(batch) / len(KERNELS)
    return {
        "gpu": [jax.default_backend() == "gpu"],
        "one_call_per_place": [seconds(one_at_a_time) / together],
        "numpy_per_place": [seconds(lambda: reference.kernel_map(image, kernel)) / together],
        "python_loops": [seconds(lambda: python_map(*lists)) / together],
    }


def hundreds_and_millions(measured: Measured) -> Decision:
    """Decides whether single calls and Python's loops are that much slower."""
    calls, loops = measured["one_call_per_place"][0], measured["python_loops"][0]
    text = f"one call per place {calls:,.0f} times, Python's loops {loops:,.0f} times as long"
    if not measured["gpu"][0]:
        raise NotMeasuredError(f"{text}; the claim is about a GPU and this device is none")
    return Decision(calls >= 100 and loops >= 1e6, text)


CLAIMS = (
    Claim(
        id="loop-cost",
        statement="one kernel operation at a time is hundreds of times slower than all in parallel "
        "on a GPU, a Python loop even millions",
        published=Published(
            figures={"one_call_per_place": "hundreds", "python_loops": "even millions"}
        ),
        measure=loop_cost,
        rules={
            "any": Rule(
                "on a GPU: one call per place at least 100 times, Python's loops at least "
                "1,000,000 times as long as all in parallel",
                hundreds_and_millions,
            )
        },
    ),
)

if __name__ == "__main__":
    from experiments.cli.app import script

    script(__file__)
