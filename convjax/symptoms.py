"""The symptoms of a training that goes wrong, each as a figure and a threshold.

In the order in which they are mended: a cause before what follows from it. The thresholds were set
on trainings with planted faults, see experiments/diagnosis.py, where they are also measured on
others.
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np

from convjax.crashes import active_share, crashes
from convjax.evidence import Evidence
from convjax.record import Array
from convjax.watch import INPUT, LABELS

# Before so many steps a loss at that of guessing, or running statistics that lag behind, say
# nothing; a unit that slept for so many is dead.
PATIENCE = 100
DEAD_STEPS = 50

# A loss that has come down by less than this share of that of guessing has not begun to fall; one
# that has come down by less than the other does not train well.
STUCK, SLOW = 0.1, 0.6

# The loss of a batch that counts as a spike, in units of that of guessing, if the gradient is so
# many times that of the steps before.
SPIKE_LOSS, SPIKE_GRADIENT, SPIKE_WINDOW = 3.0, 20.0, 20

# An update of half the weights, by which a spike is the learning rate's and not the data's.
HIGH_RATIO = 0.5

# A loss this far above that of guessing is worse than no training.
RISEN = 1.25

# A training has begun to learn where its loss is below this share of that of guessing.
LEARNED = 0.7


class Sign(NamedTuple):
    """A figure of a record, for one layer or parameter or ("") for the training."""

    where: str
    step: int  # the first at which it shows
    figure: float


@dataclass(frozen=True)
class Symptom:
    """What can be wrong.

    Attributes:
      name: as in the table of experiments/diagnosis.py.
      figure: returns the signs in the evidence, the worst first; none where nothing can be said.
      low, high: a sign is a finding where its figure is below the one or above the other.
      what: what the figure is.
      change: the smallest change worth trying.
      reference: where to read on.
      needs: quantities of `convjax.Watch` without which nothing can be said.
      explains: symptoms that follow from this one and are no causes then.
    """

    name: str
    figure: Callable[[Evidence], list[Sign]]
    what: str
    change: str
    reference: str
    low: float = -np.inf
    high: float = np.inf
    needs: tuple[str, ...] = ()
    explains: tuple[str, ...] = ()

    def found(self, evidence: Evidence) -> Sign | None:
        """Returns the worst sign beyond a threshold, if there is one."""
        signs = (s for s in self.figure(evidence) if s.figure < self.low or s.figure > self.high)
        return next(signs, None)


def _worst(signs: list[Sign], *, lowest: bool = False) -> list[Sign]:
    """Returns the signs that are numbers, the worst first."""
    known = [sign for sign in signs if not np.isnan(sign.figure)]
    return sorted(known, key=lambda sign: sign.figure if lowest else -sign.figure)


def _non_finite(evidence: Evidence) -> list[Sign]:
    bad = ~np.isfinite(evidence.record.loss)
    if not bad.any():
        return []
    return [Sign("", int(evidence.record.first[bad.argmax()]), float(bad.sum()))]


def _input_scale(evidence: Evidence) -> list[Sign]:
    record = evidence.record
    column = record.layers.index(INPUT)
    size = np.hypot(record.mean[:, column], record.std[:, column])
    return [Sign(INPUT, 0, float(np.median(size)))]


def _label_spread(evidence: Evidence) -> list[Sign]:
    if LABELS not in evidence.record.layers or len(evidence.record.watched) < 2:
        return []
    spread = evidence.record.std[:, evidence.record.layers.index(LABELS)]
    return [Sign(LABELS, 0, float(spread.max()))]


def _statistics_gap(evidence: Evidence) -> list[Sign]:
    record = evidence.record
    if record.steps < PATIENCE or not evidence.has_norms:
        return []
    row_of = np.searchsorted(record.first, record.watched, side="right") - 1
    gap = record.eval_loss - record.loss[row_of]
    figure = float(np.median(gap[evidence.tail]))
    return [Sign("", evidence.since(gap > figure / 2), figure)]


def _saturation(evidence: Evidence) -> list[Sign]:
    """The share of the positive inputs of a non-linearity, at the first step, where it is flat."""
    if evidence.nonlinearity == "relu":
        return []
    # tanh(2.5) is 0.99; a sigmoid is as flat at twice the value.
    above = 2.5 if evidence.nonlinearity == "tanh" else 5.0
    signs = []
    for column in evidence.hidden:
        positive = active_share(evidence.record, column, above=0)[0]
        if positive:
            share = active_share(evidence.record, column, above=above)[0] / positive
            signs.append(Sign(evidence.record.layers[column], evidence.step(0), float(share)))
    return _worst(signs)


def _dead(evidence: Evidence) -> list[Sign]:
    if evidence.nonlinearity != "relu":
        return []
    signs = []
    for column in evidence.hidden:
        share = evidence.record.dead(column, steps=DEAD_STEPS)
        known = np.nan_to_num(share)
        signs.append(
            Sign(evidence.record.layers[column], evidence.since(known > 0.5), float(share[-1]))
        )
    return _worst(signs)


def _relative_std(evidence: Evidence) -> list[Sign]:
    """The std of each hidden layer over the size of the input, in the first watched step."""
    record = evidence.record
    given = record.layers.index(INPUT) if INPUT in record.layers else None
    size = 1.0
    if given is not None:
        size = float(np.hypot(record.mean[0, given], record.std[0, given])) or 1.0
    return [
        Sign(record.layers[i], evidence.step(0), float(record.std[0, i]) / size)
        for i in evidence.network
    ]


def _exploding_activations(evidence: Evidence) -> list[Sign]:
    return _worst(_relative_std(evidence))


def _vanishing_gradients(evidence: Evidence) -> list[Sign]:
    """The gradient of each kernel at the first step over that of the largest.

    Zeros do not count: they are dead layers' and constant labels'.
    """
    rms, names = evidence.parameters.grad_rms[0, evidence.kernels], evidence.kernel_names
    if not np.isfinite(rms).all() or not rms.max():
        return []
    shares = zip(names, rms / rms.max(), strict=True)
    first = int(evidence.parameters.watched[0])
    return _worst([Sign(n, first, float(v)) for n, v in shares if v], lowest=True)


def _relative_updates(evidence: Evidence, ratio: Array) -> list[Sign]:
    """Update-to-weight ratios over their median, of the kernels whose gradient is not zero."""
    gradients = evidence.parameters.grad_norm[0, evidence.kernels]
    learning = (gradients > 0) & np.isfinite(ratio)
    if learning.sum() < 2 or not np.median(ratio[learning]):
        return []
    first = int(evidence.parameters.watched[0])
    names = np.array(evidence.kernel_names)[learning]
    shares = zip(names, ratio[learning] / np.median(ratio[learning]), strict=True)
    return [Sign(str(name), first, float(value)) for name, value in shares]


def _large_updates(evidence: Evidence) -> list[Sign]:
    # At the first step: later the weights have grown to the size of the updates.
    return _worst(_relative_updates(evidence, evidence.ratios[0]))


def _small_updates(evidence: Evidence) -> list[Sign]:
    median = np.median(evidence.ratios, axis=0)
    return _worst(_relative_updates(evidence, median), lowest=True)


def _zero_weights(evidence: Evidence) -> list[Sign]:
    norm = evidence.parameters.weight_norm[0]
    return _worst(
        [
            Sign(name, evidence.step(0), float(n))
            for name, n, kernel in zip(
                evidence.parameters.names, norm, evidence.kernels, strict=True
            )
            if kernel
        ],
        lowest=True,
    )


def _spike(evidence: Evidence) -> tuple[int, float] | None:
    """Returns the row of the first spike of loss and gradient, and the gradient's size in it."""
    norm = evidence.gradient
    loss = evidence.record.loss[evidence.rows]
    reference = evidence.guess or float(np.median(loss[:10]))
    for row in np.flatnonzero(loss > SPIKE_LOSS * reference):
        around = norm[max(row - SPIKE_WINDOW, 0) : row]
        if not row:  # nothing before: what comes after
            around = norm[1 : 1 + SPIKE_WINDOW]
        usual = float(np.median(around)) if len(around) else np.nan
        if norm[row] > SPIKE_GRADIENT * usual:
            return int(row), float(norm[row] / usual)
    return None


def _high_row(evidence: Evidence) -> int | None:
    """Returns the first row in which half of the kernels are updated by a large part of them."""
    high = np.flatnonzero(np.median(evidence.ratios, axis=1) > HIGH_RATIO)
    return int(high[0]) if len(high) else None


def _gradient_spikes(evidence: Evidence) -> list[Sign]:
    """The gradient in a spike that no large update came before."""
    spike, high = _spike(evidence), _high_row(evidence)
    if spike is None or (high is not None and high < spike[0]):
        return []
    row, size = spike
    return [Sign("", int(evidence.parameters.watched[row]), size)]


def _progress(evidence: Evidence) -> float:
    """The share of the loss of guessing by which the loss has come down, NaN if it is too early."""
    if evidence.classes is None or evidence.record.steps < PATIENCE:
        return np.nan
    return 1 - float(evidence.loss[-1]) / evidence.guess


def _high_rate(evidence: Evidence) -> list[Sign]:
    """The largest update of half the kernels, where the loss is bad after it."""
    row, spike = _high_row(evidence), _spike(evidence)
    if row is None or evidence.classes is None or (spike is not None and spike[0] <= row):
        return []
    loss = evidence.loss
    with np.errstate(invalid="ignore"):
        bad = not np.isfinite(loss).all() or loss.max() > RISEN * evidence.guess
    if not (bad or _progress(evidence) < SLOW):
        return []
    ratio = np.median(evidence.ratios, axis=1)
    ratio = ratio[np.isfinite(ratio)]
    return [Sign("", int(evidence.parameters.watched[row]), float(ratio.max()))]


def _low_rate(evidence: Evidence) -> list[Sign]:
    if not _progress(evidence) < SLOW or not evidence.ratios.size:
        return []
    return [Sign("", 0, float(np.median(evidence.ratios)))]


def _no_progress(evidence: Evidence) -> list[Sign]:
    progress = _progress(evidence)
    return [] if np.isnan(progress) else [Sign("", 0, progress)]


def _collapses(evidence: Evidence) -> list[Sign]:
    """How much of the loss of guessing was won and lost again, where a layer's units crashed."""
    if evidence.classes is None:
        return []
    crashed = {
        evidence.record.layers[column]: crashes(active_share(evidence.record, column))
        for column in evidence.hidden
    }
    where = max(crashed, key=lambda name: len(crashed[name]), default="")
    if not where or not crashed[where]:
        return []
    loss = evidence.loss / evidence.guess
    lowest = np.fmin.accumulate(loss)
    lost = np.where(lowest < LEARNED, loss - lowest, 0)
    return [Sign(where, evidence.step(crashed[where][0]), float(np.nanmax(lost)))]


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
        _input_scale,
        "root mean square of what the network is given",
        "subtract the mean and divide by the standard deviation of the training images",
        "LeCun et al. 1998, https://doi.org/10.1007/978-3-642-35289-8_3",
        low=0.1,
        high=10.0,
        needs=("inputs",),
        explains=("*",),
    ),
    Symptom(
        "labels constant",
        _label_spread,
        "largest standard deviation of a batch's labels",
        "look at the labels as they enter the loss: all are the same",
        "Karpathy 2019, https://karpathy.github.io/2019/04/25/recipe/",
        low=1e-6,
        needs=("inputs",),
        explains=("*",),
    ),
    Symptom(
        "zero weights",
        _zero_weights,
        "norm of the kernel before the first step",
        "initialise the kernel at random: equal units stay equal",
        _GLOROT,
        low=1e-6,
        needs=("gradients", "updates"),
        explains=("*",),
    ),
    Symptom(
        "saturation",
        _saturation,
        "share of the positive inputs of the non-linearity where it is flat, at the first step",
        "initialise with a smaller scale, or normalise before the non-linearity",
        _GLOROT,
        high=0.5,
        needs=("activations", "histogram"),
        explains=("*",),
    ),
    Symptom(
        "exploding activations",
        _exploding_activations,
        "standard deviation of the layer over the size of the input, at the first step",
        "initialise with a smaller scale, such as √(2/fan_in)",
        _HE,
        high=20.0,
        needs=("activations",),
        explains=("*",),
    ),
    Symptom(
        "vanishing gradients",
        _vanishing_gradients,
        "gradient of the kernel over that of the largest, at the first step",
        "initialise with a larger scale, such as √(2/fan_in), use ReLU, or normalise the layers",
        _GLOROT,
        low=0.03,
        needs=("gradients",),
        explains=("*",),
    ),
    Symptom(
        "update too large",
        _large_updates,
        "update-to-weight ratio of the kernel over the median of all, at the first step",
        "give the layer the learning rate of the others",
        _RATIO,
        high=20.0,
        needs=("gradients", "updates"),
        explains=("*",),
    ),
    Symptom(
        "collapse",
        _collapses,
        "share of the loss of guessing that was won and lost, as the active units crashed",
        "divide the learning rate by three, warm it up for longer, or normalise the layers",
        _CHAPTER,
        high=0.25,
        needs=("activations", "histogram"),
        explains=("*",),
    ),
    Symptom(
        "learning rate too high",
        _high_rate,
        "largest median of the update-to-weight ratios, of a training whose loss rises or stays",
        "divide the learning rate by ten; convjax.lr_find suggests one",
        _FINDER,
        high=HIGH_RATIO,
        needs=("updates",),
        explains=("*",),
    ),
    Symptom(
        "exploding gradients",
        _gradient_spikes,
        "norm of the gradient over its median before, in a step whose loss is a spike",
        "look at the batch of that step, and clip the norm of the gradient",
        "Pascanu et al. 2013, https://arxiv.org/abs/1211.5063",
        high=SPIKE_GRADIENT,
        needs=("gradients", "updates"),
        explains=("*",),
    ),
    Symptom(
        "non-finite",
        _non_finite,
        "steps whose loss is no number",
        "divide the learning rate by ten, and look at the batch of the first such step",
        _FINDER,
        high=0.0,
        explains=("*",),
    ),
    Symptom(
        "dead layer",
        _dead,
        f"share of the layer's channels that no step of the last {DEAD_STEPS} had active",
        "lower the learning rate, and look at the initial bias",
        "Lu et al. 2019, https://arxiv.org/abs/1903.06733",
        high=0.9,
        needs=("activations", "units"),
        explains=("*",),
    ),
    Symptom(
        "update too small",
        _small_updates,
        "update-to-weight ratio of the kernel over the median of all",
        "train the layer as the others: it is frozen, or its rate is too low",
        _RATIO,
        low=0.001,
        needs=("gradients", "updates"),
    ),
    Symptom(
        "learning rate too low",
        _low_rate,
        "median update-to-weight ratio, of a training whose loss falls slowly",
        "multiply the learning rate by ten; convjax.lr_find suggests one",
        _FINDER,
        low=7e-4,
        needs=("updates",),
        explains=("*",),
    ),
    Symptom(
        "batch-norm statistics",
        _statistics_gap,
        "loss in evaluation less that in training on the same batches, in nats",
        "lower the momentum of the running statistics, or evaluate after more steps",
        "Ioffe & Szegedy 2015, https://arxiv.org/abs/1502.03167",
        high=0.2,
        needs=("activations", "evaluation"),
    ),
    Symptom(
        "loss stuck at guessing",
        _no_progress,
        "share of the loss of guessing by which the loss has come down",
        "look at pairs of image and label as they enter the loss: they may not belong together",
        "Karpathy 2019, https://karpathy.github.io/2019/04/25/recipe/",
        low=STUCK,
    ),
)
