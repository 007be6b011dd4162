"""batch-size: larger batches give steadier gradients and fewer updates per epoch.

Gradient noise is the root mean square distance between the gradients of 20 batches and that of
4,000 images, divided by the length of the latter. It is measured at the initial parameters of each
seed, so that all sizes see the same network. For independent images the noise falls as 1/√batch.
The 4,000 images contribute, too: the expected noise is √(1/batch + 1/4000) on mnist, where they are
drawn from 60,000, and √(1/batch − 1/4000) on mnist5k, where all batches are drawn from them.

The accuracy after one epoch of one-cycle is measured as well; each size has the best of the same
rates, tuned on seeds that are not measured.

Rule, for five seeds or more: from each size to the next larger one, the noise falls in every seed
and the updates per epoch become fewer.

Command: python -m experiments run batch-size --seeds 5
"""

from collections.abc import Sequence
from dataclasses import replace
from itertools import pairwise
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import numpy.typing as npt
from flax import nnx
from jax.flatten_util import ravel_pytree

from convjax.chapter.setting import ONE_CYCLE, Setting
from experiments.harness import charts
from experiments.harness.claim import Claim, Published
from experiments.harness.comparison import at_best
from experiments.harness.intervals import difference
from experiments.harness.lab import Lab
from experiments.harness.rules import Decision, Measured, mean, on_digits, over_seeds

SIZES = (32, 128, 512, 2048)
BATCHES = 20
REFERENCE = 4000  # images whose mean gradient represents that of all images
PART = 128  # images whose gradient is computed at once: larger batches need no program of their own


def gradient_noise(lab: Lab, sizes: Sequence[int]) -> npt.NDArray[np.float64]:
    """Returns the gradient noise at the initial parameters, (seeds, sizes)."""
    trainer, images = lab.trainer(ONE_CYCLE), lab.device_dataset(ONE_CYCLE).train
    graphdef = nnx.graphdef(lab.network(ONE_CYCLE, lab.seeds[0]))  # the same for all seeds

    @jax.jit
    def total_gradient(params: Any, rows: jax.Array) -> jax.Array:
        """Returns the sum of the gradients of the images with these indices, as one vector."""

        def loss(params: Any) -> jax.Array:
            x = trainer.step.normalize(images.images[rows])
            logits = nnx.merge(graphdef, params)(x)
            return jnp.sum(ONE_CYCLE.loss(logits, images.labels[rows]))

        return ravel_pytree(jax.grad(loss)(params))[0]

    def gradient(params: Any, rows: npt.NDArray[np.int64]) -> Any:
        """Returns the mean of the gradients of the images with these indices."""
        parts = np.split(rows, range(PART, len(rows), PART))
        return sum(total_gradient(params, part) for part in parts) / len(rows)

    def draw(rng: np.random.Generator, size: int) -> Any:
        """Returns random indices of images without replacement."""
        return rng.choice(len(images.labels), min(size, len(images.labels)), replace=False)

    noise = np.empty((len(lab.seeds), len(sizes)))
    for row, seed in enumerate(lab.seeds):
        params, rng = nnx.state(lab.network(ONE_CYCLE, seed)), np.random.default_rng(seed)
        wanted = gradient(params, draw(rng, REFERENCE))
        for column, size in enumerate(sizes):
            distances = [
                float(jnp.sum((gradient(params, draw(rng, size)) - wanted) ** 2))
                for _ in range(BATCHES)
            ]
            noise[row, column] = np.sqrt(np.mean(distances)) / jnp.linalg.norm(wanted)
    return noise


def settings_by_size(lab: Lab) -> dict[int, Setting]:
    """Returns the trainings with the batch sizes that the data set has images for."""
    examples = len(lab.device_dataset(ONE_CYCLE).train.labels)
    sizes = [size for size in SIZES if size <= examples][: 2 if lab.quick else None]
    return {size: replace(ONE_CYCLE, batch_size=size) for size in sizes}


def batch_size(lab: Lab) -> Measured:
    """Measures gradient noise, updates per epoch and accuracy for each batch size."""
    settings = {str(size): setting for size, setting in settings_by_size(lab).items()}
    return {**noise_and_updates(lab), **at_best(lab, settings, "batch-size-accuracy")[1]}


def noise_and_updates(lab: Lab) -> Measured:
    """Measures gradient noise and updates per epoch for each batch size, without a training."""
    settings = settings_by_size(lab)
    sizes = tuple(settings)
    noise = gradient_noise(lab, sizes)
    curve = dict(zip(sizes, noise.T.tolist(), strict=True))
    figure = charts.curves(
        {"at the initial parameters": curve},
        xlabel="images per batch",
        ylabel="relative gradient noise",
    )
    lab.picture("batch-size-noise", figure)
    return {
        **{f"noise_{size}": noise[:, i].tolist() for i, size in enumerate(sizes)},
        **{f"updates_{size}": [lab.steps(settings[size], lab.seeds[0])] for size in sizes},
    }


def steadier_and_fewer(measured: Measured) -> Decision:
    """Decides whether noise and updates fall with every larger size."""
    sizes = [size for size in SIZES if f"noise_{size}" in measured]
    noise = np.array([measured[f"noise_{size}"] for size in sizes])
    updates = np.array([measured[f"updates_{size}"][0] for size in sizes])
    shown = []
    for size in sizes:
        shown.append(
            f"batch {size}: noise {mean(measured[f'noise_{size}']):.2f}, "
            f"{measured[f'updates_{size}'][0]:.0f} updates"
        )
        if f"accuracy_{size}" in measured:  # the brief form trains nothing
            shown[-1] += f", accuracy {mean(measured[f'accuracy_{size}']):.4f}"
    shown += [
        f"noise {size} − {larger}: "
        f"{difference(measured[f'noise_{size}'], measured[f'noise_{larger}']).text(2)}"
        for size, larger in pairwise(sizes)
    ]
    return Decision(
        bool((np.diff(noise, axis=0) < 0).all() and (np.diff(updates) < 0).all()),
        "; ".join(shown),
        f"noise {noise[0].mean():.2f} at {sizes[0]} to {noise[-1].mean():.2f} at {sizes[-1]}",
    )


CLAIMS = (
    Claim(
        id="batch-size",
        statement="larger batches: steadier gradients, fewer updates per epoch",
        published=Published(question="gradient noise and accuracy against batch size"),
        measure=batch_size,
        compares=True,
        brief=noise_and_updates,
        rules=on_digits(
            over_seeds(
                "noise falls in every seed and updates become fewer with every larger size",
                steadier_and_fewer,
            )
        ),
    ),
)

if __name__ == "__main__":
    from experiments.cli.app import script

    script(__file__)
