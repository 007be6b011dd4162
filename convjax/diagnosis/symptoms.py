"""The symptoms of a training that goes wrong, each as a figure and a threshold.

In the order in which they are mended: a cause before what follows from it. The thresholds were set
on trainings with planted faults, see experiments/diagnosis_study/run.py, where they are also measured on
others.
"""

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

from convjax.diagnosis import indicators
from convjax.diagnosis.evidence import Evidence
from convjax.diagnosis.indicators import IndicatorValue


@dataclass(frozen=True)
class Symptom:
    """What can be wrong.

    Attributes:
      name: as in the table of experiments/diagnosis_study/run.py.
      figure: returns the signs in the evidence, the worst first; none where nothing can be said.
      low, high: a sign is a finding where its figure is below the one or above the other.
      what: what the figure is.
      change: the smallest change worth trying.
      reference: where to read on.
      needs: what nothing can be said without: quantities of `convjax.Watch`, "labels",
        "classes", the number of these, and `convjax.diagnosis.indicators.ENOUGH` steps.
      explains: whether what is found after it may follow from it, and is then no cause.
    """

    name: str
    figure: Callable[[Evidence], list[IndicatorValue]]
    what: str
    change: str
    reference: str
    low: float = -np.inf
    high: float = np.inf
    needs: tuple[str, ...] = ()
    explains: bool = False

    def found(self, evidence: Evidence) -> IndicatorValue | None:
        """Returns the worst sign beyond a threshold, if there is one."""
        signs = (s for s in self.figure(evidence) if s.figure < self.low or s.figure > self.high)
        return next(signs, None)


_GLOROT = "Glorot & Bengio 2010, https://proceedings.mlr.press/v9/glorot10a.html"
_HE = "He et al. 2015, https://arxiv.org/abs/1502.01852"
_CHAPTER = (
    "fastai book, chapter 13, https://github.com/fastai/fastbook/blob/master/13_convolutions.ipynb"
)
_RATIO = "https://cs231n.github.io/neural-networks-3/#ratio"
_FINDER = "Smith 2017, https://arxiv.org/abs/1506.01186"

SYMPTOMS: tuple[Symptom, ...] = (
    Symptom(
        "inputs not normalised",
        indicators.input_scale,
        "root mean square of what the network is given",
        "subtract the mean and divide by the standard deviation of the training images",
        "LeCun et al. 1998, https://doi.org/10.1007/978-3-642-35289-8_3",
        low=0.1,
        high=10.0,
        needs=("inputs",),
        explains=True,
    ),
    Symptom(
        "labels constant",
        indicators.label_spread,
        "largest standard deviation of a batch's labels, or range of their means",
        "look at the labels as they enter the loss: all are the same",
        "Karpathy 2019, https://karpathy.github.io/2019/04/25/recipe/",
        low=1e-6,
        needs=("labels",),
        explains=True,
    ),
    Symptom(
        "zero weights",
        indicators.zero_weights,
        "norm of the kernel before the first step",
        "initialise the kernel at random: its gradient is zero, too",
        _GLOROT,
        low=1e-6,
        needs=("gradients", "updates"),
        explains=True,
    ),
    Symptom(
        "saturation",
        indicators.saturation,
        "share of the positive inputs of the non-linearity where it is flat, at the first step",
        "initialise with a smaller scale, or normalise before the non-linearity",
        _GLOROT,
        high=0.5,
        needs=("activations", "histogram"),
        explains=True,
    ),
    Symptom(
        "exploding activations",
        indicators.exploding_activations,
        "standard deviation of the layer over the size of the input, at the first step",
        "initialise with a smaller scale, such as √(2/fan_in)",
        _HE,
        high=20.0,
        needs=("activations",),
        explains=True,
    ),
    Symptom(
        "vanishing gradients",
        indicators.vanishing_gradients,
        "gradient of the kernel over that of the largest, at the first step",
        "initialise with a larger scale, such as √(2/fan_in), use ReLU, or normalise the layers",
        _GLOROT,
        low=0.03,
        needs=("gradients",),
        explains=True,
    ),
    Symptom(
        "update too large",
        indicators.large_updates,
        "update-to-weight ratio of the kernel over the median of the others, at the first step",
        "give the layer the learning rate of the others",
        _RATIO,
        high=20.0,
        needs=("gradients", "updates"),
        explains=True,
    ),
    Symptom(
        "collapse",
        indicators.collapses,
        "share of the loss of guessing that was won and lost, as the active units crashed",
        "divide the learning rate by three, warm it up for longer, or normalise the layers",
        _CHAPTER,
        high=0.25,
        needs=("activations", "histogram", "classes"),
        explains=True,
    ),
    Symptom(
        "learning rate too high",
        indicators.high_rate,
        "largest median of the update-to-weight ratios, of a training whose loss rises or stays",
        "divide the learning rate by ten; convjax.lr_find suggests one",
        _FINDER,
        high=indicators.HIGH_RATIO,
        needs=("updates", "classes"),
        explains=True,
    ),
    Symptom(
        "exploding gradients",
        indicators.gradient_spikes,
        "norm of the gradient over its median before, in a step whose loss is a spike",
        "look at the batch of that step, and clip the norm of the gradient",
        "Pascanu et al. 2013, https://arxiv.org/abs/1211.5063",
        high=indicators.SPIKE_GRADIENT,
        needs=("gradients", "updates"),
        explains=True,
    ),
    Symptom(
        "non-finite",
        indicators.non_finite,
        "steps whose loss is no number",
        "divide the learning rate by ten, and look at the batch of the first such step",
        _FINDER,
        high=0.0,
        explains=True,
    ),
    Symptom(
        "dead layer",
        indicators.dead,
        f"share of the layer's channels that slept for {indicators.DEAD_STEPS} steps, or ten watched",
        "lower the learning rate, and look at the initial bias",
        "Lu et al. 2019, https://arxiv.org/abs/1903.06733",
        high=indicators.DEAD_SHARE,
        needs=("activations", "units"),
        explains=True,
    ),
    Symptom(
        "update too small",
        indicators.small_updates,
        "update-to-weight ratio of the kernel over the median of the others",
        "train the layer as the others: it is frozen, or its rate is too low",
        _RATIO,
        low=0.001,
        needs=("gradients", "updates"),
    ),
    Symptom(
        "learning rate too low",
        indicators.low_rate,
        "median update-to-weight ratio, of a training whose loss falls slowly",
        "multiply the learning rate by ten; convjax.lr_find suggests one",
        _FINDER,
        low=7e-4,
        needs=("updates", "classes", indicators.ENOUGH),
        explains=True,
    ),
    Symptom(
        "batch-norm statistics",
        indicators.statistics_gap,
        "loss in evaluation less that in training on the same batches, in nats",
        "lower the momentum of the running statistics, or evaluate after more steps",
        "Ioffe & Szegedy 2015, https://arxiv.org/abs/1502.03167",
        high=0.2,
        needs=("activations", "evaluation", indicators.ENOUGH),
    ),
    Symptom(
        "loss stuck at guessing",
        indicators.no_progress,
        "share of the loss of guessing by which the loss has come down",
        "look at pairs of image and label as they enter the loss: they may not belong together",
        "Karpathy 2019, https://karpathy.github.io/2019/04/25/recipe/",
        low=indicators.STUCK,
        needs=("classes", indicators.ENOUGH),
    ),
)
