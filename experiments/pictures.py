"""The chapter's pictures of a training, for its run folder."""

import jax
import jax.numpy as jnp
import numpy as np

from convjax import images, plots
from convjax.capture import capture
from convjax.data import Dataset
from convjax.runs import RunFolder
from convjax.train import Trainer
from experiments.training import Training


def draw(training: Training, trainer: Trainer, dataset: Dataset, folder: RunFolder) -> None:
    """Draws what the chapter shows of a run: images, loss, schedule, layers, kernels and maps."""
    record, model, test = training.record, training.model, dataset.test
    penultimate = [name for name in record.layers if name.endswith("conv")][-2]
    # As one program: each operation by itself would be compiled for this one use.
    first_maps = jax.jit(lambda model, x: capture(model, x)[1][record.layers[0]])
    maps = np.asarray(first_maps(model, trainer.step.normalize(jnp.asarray(test.images[:1]))))
    pictures = {
        "batch": images.show_batch(test.images[:9], test.labels[:9], dataset.class_names),
        "kernels": images.show_kernels(model.blocks[0].conv.kernel, model.layout),
        "feature-maps": images.show_feature_maps(maps, model.layout),
        "loss": plots.plot_loss(record, training.metrics),
        "schedule": plots.plot_sched(record),
        **{
            f"stats-{name}": plots.plot_layer_stats(record, name)
            for name in (record.layers[0], penultimate)
        },
        f"color-dim-{penultimate}": plots.color_dim(record, penultimate),
    }
    for name, figure in pictures.items():
        figure.savefig(folder.plot_path(name))
