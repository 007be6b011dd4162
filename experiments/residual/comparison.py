"""Comparisons of residual networks: each side at its best rate, and what the networks cost."""

from collections.abc import Mapping

import jax
import numpy as np

from convjax.analysis._summary import summary
from convjax.chapter.training import Outcome
from experiments.harness.comparison import TUNING_SEEDS, at_best
from experiments.harness.lab import Lab
from experiments.residual.setting import ResidualSetting

RATES = (0.01, 0.03, 0.1)


def compared(
    lab: Lab, settings: Mapping[str, ResidualSetting], picture: str
) -> tuple[dict[str, list[Outcome]], dict[str, list[float]]]:
    """Trains each side at the best of RATES, found with one seed in the small form.

    Args:
      lab: runs the trainings.
      settings: the sides by name.
      picture: name of the picture of the test accuracies.

    Returns:
      The outcomes by name, and the figures accuracy_NAME, train_accuracy_NAME and rate_NAME of all
      names, with the numbers of training images and steps.
    """
    seeds = TUNING_SEEDS if lab.full else TUNING_SEEDS[:1]
    outcomes, figures = at_best(lab, settings, picture, rates=RATES, tuning_seeds=seeds)
    first = next(iter(settings.values()))
    trained = {
        f"train_accuracy_{name}": [outcome.train_accuracy for outcome in found]
        for name, found in outcomes.items()
    }
    return outcomes, {
        **figures,
        **trained,
        "images": [len(lab.dataset_of(first).train.labels)],
        "steps": [lab.steps(first, lab.seeds[0])],
    }


def cost(setting: ResidualSetting, image: tuple[int, ...], classes: int) -> dict[str, int]:
    """Returns the numbers of a network's parameters, multiplications and last features.

    Args:
      setting: of the network.
      image: (height, width, channels) in the form in which the network takes it.
      classes: number of outputs.

    Returns:
      "parameters", "multiplications" of one image, and "features": numbers in the last maps.
    """
    network = setting.build(image, classes, "NHWC", 0)
    network.eval()
    found = summary(network, (1, *image))
    maps = jax.eval_shape(network.features, jax.ShapeDtypeStruct((1, *image), np.float32))
    return {
        "parameters": found.parameters,
        "multiplications": found.multiplications,
        "features": maps.size,
    }
