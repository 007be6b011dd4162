"""The chapter's pictures of one training, for its run folder."""

from collections.abc import Iterator
from typing import TYPE_CHECKING

import jax
import jax.numpy as jnp
import numpy as np

from convjax import plots
from convjax.chapter.setting import PENULTIMATE
from convjax.chapter.training import Training
from convjax.data import Dataset
from convjax.nn._capture import capture
from convjax.plots import images
from convjax.stats.watch import INPUT, LABELS
from convjax.train.trainer import Trainer

if TYPE_CHECKING:
    from matplotlib.figure import Figure


def of_training(
    training: Training, trainer: Trainer, dataset: Dataset
) -> Iterator[tuple[str, "Figure"]]:
    """Yields what the chapter shows of a run by its name: images, kernels, maps, loss, layers.

    Kernels and maps are omitted if the network has no convolution, layers if none was watched.

    Args:
      training: to draw.
      trainer: its trainer, which normalises the images.
      dataset: of the training.
    """
    record, model, test = training.record, training.model, dataset.test
    # Files may be ordered by class: the first nine images would all be zeros.
    nine = np.linspace(0, len(test.labels) - 1, 9).astype(int)
    yield "batch", images.show_batch(test.images[nine], test.labels[nine], dataset.class_names)
    if hasattr(model, "blocks"):
        # As one program, because each operation by itself would be compiled for this one use.
        first_maps = jax.jit(lambda model, x: next(iter(capture(model, x)[1].values())))
        maps = np.asarray(first_maps(model, trainer.step.normalize(jnp.asarray(test.images[:1]))))
        yield "kernels", images.show_kernels(model.blocks[0].conv.kernel)
        yield "feature-maps", images.show_feature_maps(maps, model.layout)
    yield "loss", plots.plot_loss(record, training.metrics)
    yield "schedule", plots.plot_sched(record)
    layers = [name for name in record.layers if name not in (INPUT, LABELS)]
    if len(record.watched) and layers:
        shown = PENULTIMATE if PENULTIMATE in layers else layers[-1]
        for name in dict.fromkeys((layers[0], shown)):
            yield f"stats-{name}", plots.plot_layer_stats(record, name)
        yield f"color-dim-{shown}", plots.color_dim(record, shown)
