"""The chapter's pictures of a training, for its run folder."""

from typing import TYPE_CHECKING

import jax
import jax.numpy as jnp
import numpy as np

from convjax import images, plots
from convjax.capture import capture
from convjax.data import Dataset
from convjax.train import Trainer
from experiments.setting import PENULTIMATE
from experiments.training import Training

if TYPE_CHECKING:
    from matplotlib.figure import Figure


def of_training(training: Training, trainer: Trainer, dataset: Dataset) -> dict[str, "Figure"]:
    """Draws what the chapter shows of a run: images, kernels and maps, loss, schedule, layers."""
    record, model, test = training.record, training.model, dataset.test
    # As one program: each operation by itself would be compiled for this one use.
    first_maps = jax.jit(lambda model, x: capture(model, x)[1][record.layers[0]])
    maps = np.asarray(first_maps(model, trainer.step.normalize(jnp.asarray(test.images[:1]))))
    # Files may be ordered by class: the first nine would all be zeros.
    nine = np.linspace(0, len(test.labels) - 1, 9).astype(int)
    return {
        "batch": images.show_batch(test.images[nine], test.labels[nine], dataset.class_names),
        "kernels": images.show_kernels(model.blocks[0].conv.kernel, model.layout),
        "feature-maps": images.show_feature_maps(maps, model.layout),
        "loss": plots.plot_loss(record, training.metrics),
        "schedule": plots.plot_sched(record),
        **{
            f"stats-{name}": plots.plot_layer_stats(record, name)
            for name in (record.layers[0], PENULTIMATE)
        },
        f"color-dim-{PENULTIMATE}": plots.color_dim(record, PENULTIMATE),
    }
