"""The symptoms of a failing training: for each an indicator, its limits, and a fix.

They are in the order in which to fix them: causes before their consequences.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field

import numpy as np

from convjax.diagnosis import indicators
from convjax.diagnosis import thresholds as limits
from convjax.diagnosis.evidence import NONLINEARITIES, Evidence
from convjax.diagnosis.indicators import IndicatorValue

# Needed by symptoms for which a short training is too early.
ENOUGH_STEPS = f"{limits.PATIENCE} steps"


@dataclass(frozen=True)
class Symptom:
    """A fault that the diagnosis can find.

    Attributes:
      name: in findings and in the table of the README.
      indicator: returns the values of the indicator, the worst first; none if it does not apply.
      what: the meaning of the value.
      change: the smallest change worth trying.
      reference: further reading.
      low: a value below it is a finding.
      high: a value above it is a finding.
      needs: quantities without which the symptom is not checked: those of `convjax.Watch`,
        "labels", "classes" (their number), and `ENOUGH_STEPS`.
      edges: edges of the histogram's bins that it needs, by the non-linearity.
      explains: whether findings after it may be its consequences.
    """

    name: str
    indicator: Callable[[Evidence], list[IndicatorValue]]
    what: str
    change: str
    reference: str
    low: float = -np.inf
    high: float = np.inf
    needs: tuple[str, ...] = ()
    edges: Mapping[str, tuple[float, ...]] = field(default_factory=dict)
    explains: bool = False

    def found(self, evidence: Evidence) -> IndicatorValue | None:
        """Returns the worst value beyond the limits, or None."""
        values = self.indicator(evidence)
        return next((v for v in values if v.figure < self.low or v.figure > self.high), None)


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
        "root mean square of the network's input",
        "subtract the mean and divide by the standard deviation of the training images",
        "LeCun et al. 1998, https://doi.org/10.1007/978-3-642-35289-8_3",
        low=limits.INPUT_RMS[0],
        high=limits.INPUT_RMS[1],
        needs=("inputs",),
        explains=True,
    ),
    Symptom(
        "labels constant",
        indicators.label_spread,
        "largest standard deviation of a batch's labels, or range of their means",
        "print the labels as they enter the loss: all are the same",
        "Karpathy 2019, https://karpathy.github.io/2019/04/25/recipe/",
        low=limits.LABEL_SPREAD,
        needs=("labels",),
        explains=True,
    ),
    Symptom(
        "zero weights",
        indicators.zero_weights,
        "norm of the kernel before the first step",
        "initialise the kernel at random: its gradient is also zero",
        _GLOROT,
        low=limits.KERNEL_NORM,
        needs=("gradients", "updates"),
        explains=True,
    ),
    Symptom(
        "saturation",
        indicators.saturation,
        "share of the positive inputs of the non-linearity where it is flat, at the first step",
        "initialise with a smaller scale, or normalise before the non-linearity",
        _GLOROT,
        high=limits.FLAT_SHARE,
        needs=("activations", "histogram"),
        edges={name: (0.0, level) for name, level in limits.FLAT_LEVEL.items()},
        explains=True,
    ),
    Symptom(
        "exploding activations",
        indicators.exploding_activations,
        "standard deviation of the layer over the size of the input, at the first step",
        "initialise with a smaller scale, such as √(2/fan_in)",
        _HE,
        high=limits.RELATIVE_STD,
        needs=("activations",),
        explains=True,
    ),
    Symptom(
        "vanishing gradients",
        indicators.vanishing_gradients,
        "gradient of the kernel over that of the largest, at the first step",
        "initialise with a larger scale, such as √(2/fan_in), use ReLU, or normalise the layers",
        _GLOROT,
        low=limits.RELATIVE_GRADIENT,
        needs=("gradients",),
        explains=True,
    ),
    Symptom(
        "update too large",
        indicators.large_updates,
        "update-to-weight ratio of the kernel over the median of the others, at the first step",
        "give the layer the learning rate of the others",
        _RATIO,
        high=limits.RELATIVE_UPDATE[1],
        needs=("gradients", "updates"),
        explains=True,
    ),
    Symptom(
        "collapse",
        indicators.collapses,
        "share of the loss of guessing that was gained and lost again, as active units crashed",
        "divide the learning rate by three, warm it up for longer, or normalise the layers",
        _CHAPTER,
        high=limits.LOST_PROGRESS,
        needs=("activations", "histogram", "classes"),
        edges=dict.fromkeys(NONLINEARITIES, (limits.ACTIVE_LEVEL,)),
        explains=True,
    ),
    Symptom(
        "learning rate too high",
        indicators.high_rate,
        "largest median of the update-to-weight ratios, in a training whose loss does not fall",
        "divide the learning rate by ten; convjax.lr_find suggests one",
        _FINDER,
        high=limits.HIGH_RATIO,
        needs=("updates", "classes"),
        explains=True,
    ),
    Symptom(
        "exploding gradients",
        indicators.gradient_spikes,
        "norm of the gradient over its median before, in a step whose loss is a spike",
        "inspect the batch of that step, and clip the norm of the gradient",
        "Pascanu et al. 2013, https://arxiv.org/abs/1211.5063",
        high=limits.SPIKE_GRADIENT,
        needs=("gradients", "updates"),
        explains=True,
    ),
    Symptom(
        "non-finite",
        indicators.non_finite,
        "steps whose loss is not finite",
        "divide the learning rate by ten, and inspect the batch of the first such step",
        _FINDER,
        high=0.0,
        explains=True,
    ),
    Symptom(
        "dead layer",
        indicators.dead,
        f"share of the layer's channels not active for {limits.DEAD_STEPS} steps, or ten watched",
        "lower the learning rate, and check the initial bias",
        "Lu et al. 2019, https://arxiv.org/abs/1903.06733",
        high=limits.DEAD_SHARE,
        needs=("activations", "units"),
        explains=True,
    ),
    Symptom(
        "update too small",
        indicators.small_updates,
        "update-to-weight ratio of the kernel over the median of the others",
        "train the layer like the others: it is frozen, or its learning rate is too low",
        _RATIO,
        low=limits.RELATIVE_UPDATE[0],
        needs=("gradients", "updates"),
    ),
    Symptom(
        "learning rate too low",
        indicators.low_rate,
        "median update-to-weight ratio, in a training whose loss falls slowly",
        "multiply the learning rate by ten; convjax.lr_find suggests one",
        _FINDER,
        low=limits.LOW_RATIO,
        needs=("updates", "classes", ENOUGH_STEPS),
        explains=True,
    ),
    Symptom(
        "batch-norm statistics",
        indicators.statistics_gap,
        "loss in evaluation mode minus loss in training mode on the same batches, in nats",
        "lower the momentum of the running statistics, or evaluate after more steps",
        "Ioffe & Szegedy 2015, https://arxiv.org/abs/1502.03167",
        high=limits.EVALUATION_GAP,
        needs=("activations", "evaluation", ENOUGH_STEPS),
    ),
    Symptom(
        "loss stuck at guessing",
        indicators.no_progress,
        "share of the loss of guessing by which the loss has fallen",
        "inspect pairs of image and label as they enter the loss: they may not match",
        "Karpathy 2019, https://karpathy.github.io/2019/04/25/recipe/",
        low=limits.STUCK_PROGRESS,
        needs=("classes", ENOUGH_STEPS),
    ),
)
