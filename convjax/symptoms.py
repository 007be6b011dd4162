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

# Before so many steps a loss at that of guessing, running statistics that lag behind, or a unit
# that slept says nothing.
PATIENCE = 100
DEAD_STEPS = 50

# A loss that has come down by less than this share of that of guessing has not begun to fall.
STUCK = 0.1


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
    if evidence.nonlinearity == "relu":
        return []
    # tanh(2.5) is 0.99; a sigmoid is as flat at twice the value.
    above = 2.5 if evidence.nonlinearity == "tanh" else 5.0
    signs = []
    for column in evidence.hidden:
        positive = active_share(evidence.record, column, above=0)
        with np.errstate(divide="ignore", invalid="ignore"):
            share = active_share(evidence.record, column, above=above) / positive
        figure = float(np.median(share[evidence.tail]))
        signs.append(Sign(evidence.record.layers[column], evidence.since(share > 0.5), figure))
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


def _vanishing_activations(evidence: Evidence) -> list[Sign]:
    return _worst(_relative_std(evidence), lowest=True)


def _exploding_activations(evidence: Evidence) -> list[Sign]:
    return _worst(_relative_std(evidence))


def _total_gradient(evidence: Evidence) -> Array:
    return np.asarray(
        np.sqrt(np.sum(np.square(evidence.parameters.grad_norm, dtype=float), axis=1))
    )


def _gradient_spikes(evidence: Evidence) -> list[Sign]:
    norm = _total_gradient(evidence)
    norm = norm[np.isfinite(norm)]
    if len(norm) < 10 or not np.median(norm):
        return []
    ratio = norm / np.median(norm)
    return [Sign("", int(evidence.parameters.watched[ratio.argmax()]), float(ratio.max()))]


def _vanishing_gradients(evidence: Evidence) -> list[Sign]:
    """The median gradient of each kernel over that of the largest."""
    rms = np.median(evidence.parameters.grad_rms[:, evidence.kernels], axis=0)
    names = np.array(evidence.parameters.names)[evidence.kernels]
    if not len(rms) or not np.isfinite(rms).all() or not rms.max():
        return []
    signs = [Sign(str(n), 0, float(v)) for n, v in zip(names, rms / rms.max(), strict=True)]
    return _worst(signs, lowest=True)


def _ratios(evidence: Evidence) -> tuple[Array, Array]:
    """Returns the names of the kernels and the median of the update-to-weight ratio of each."""
    ratio = evidence.parameters.update_ratio[:, evidence.kernels]
    names = np.array(evidence.parameters.names)[evidence.kernels]
    return names, np.median(ratio, axis=0) if len(ratio) else np.zeros(0)


def _relative_updates(evidence: Evidence, *, lowest: bool) -> list[Sign]:
    names, ratio = _ratios(evidence)
    if len(ratio) < 2 or not np.isfinite(ratio).all() or not np.median(ratio):
        return []
    signs = [
        Sign(str(n), 0, float(v)) for n, v in zip(names, ratio / np.median(ratio), strict=True)
    ]
    return _worst(signs, lowest=lowest)


def _small_updates(evidence: Evidence) -> list[Sign]:
    return _relative_updates(evidence, lowest=True)


def _large_updates(evidence: Evidence) -> list[Sign]:
    return _relative_updates(evidence, lowest=False)


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


def _collapses(evidence: Evidence) -> list[Sign]:
    signs = []
    for column in evidence.hidden:
        found = crashes(active_share(evidence.record, column))
        if found:
            name = evidence.record.layers[column]
            signs.append(Sign(name, evidence.step(found[0]), float(len(found))))
    return _worst(signs)


def _progress(evidence: Evidence) -> float:
    """The share of the loss of guessing by which the loss has come down, NaN if it is too early."""
    if evidence.classes is None or evidence.record.steps < PATIENCE:
        return np.nan
    return 1 - float(evidence.loss[-1]) / evidence.guess


def _is_stuck(evidence: Evidence) -> bool:
    return _progress(evidence) < STUCK


def _high_rate(evidence: Evidence) -> list[Sign]:
    """The median of the kernels' update-to-weight ratios, of a training whose loss is stuck."""
    ratio = float(np.median(_ratios(evidence)[1]))
    return [Sign("", 0, ratio)] if _is_stuck(evidence) and not np.isnan(ratio) else []


def _rise(evidence: Evidence) -> list[Sign]:
    """How far the averaged loss rose above that of guessing."""
    if evidence.classes is None:
        return []
    loss = evidence.record.loss
    figure = float(evidence.loss[:].max()) / evidence.guess
    return [Sign("", int(evidence.record.first[int(np.argmax(loss))]), figure)]


def _low_rate(evidence: Evidence) -> list[Sign]:
    if not _progress(evidence) < 3 * STUCK:
        return []
    return [Sign("", 0, float(np.median(_ratios(evidence)[1])))]


def _no_progress(evidence: Evidence) -> list[Sign]:
    progress = _progress(evidence)
    return [] if np.isnan(progress) else [Sign("", 0, progress)]


_GLOROT = "Glorot & Bengio 2010, https://proceedings.mlr.press/v9/glorot10a.html"
_HE = "He et al. 2015, https://arxiv.org/abs/1502.01852"
_CHAPTER = (
    "fastai book, chapter 13, https://github.com/fastai/fastbook/blob/master/13_convolutions.ipynb"
)
_RATIO = "https://cs231n.github.io/neural-networks-3/#ratio"
_FINDER = "Smith 2017, https://arxiv.org/abs/1506.01186"
_ACTIVATIONS, _PARAMETERS = ("activations",), ("gradients",)

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
        "exploding activations",
        _exploding_activations,
        "standard deviation of the layer over the size of the input, at the first step",
        "initialise with a smaller scale, such as √(2/fan_in)",
        _HE,
        high=10.0,
        needs=("activations",),
        explains=("*",),
    ),
    Symptom(
        "saturation",
        _saturation,
        "share of the positive inputs of the non-linearity where it is flat",
        "initialise with a smaller scale, or normalise before the non-linearity",
        _GLOROT,
        high=0.5,
        needs=("activations", "histogram"),
        explains=("*",),
    ),
    Symptom(
        "vanishing activations",
        _vanishing_activations,
        "standard deviation of the layer over the size of the input, at the first step",
        "initialise with a larger scale, such as √(2/fan_in), or normalise the layers",
        _HE,
        low=1e-3,
        needs=("activations",),
        explains=("*",),
    ),
    Symptom(
        "batch-norm statistics",
        _statistics_gap,
        "loss in evaluation less that in training on the same batches, in nats",
        "lower the momentum of the running statistics, or evaluate after more steps",
        "Ioffe & Szegedy 2015, https://arxiv.org/abs/1502.03167",
        high=0.5,
        needs=("activations", "evaluation"),
    ),
    Symptom(
        "exploding gradients",
        _gradient_spikes,
        "largest norm of the gradient over the median",
        "look at the batch of that step, and clip the norm of the gradient",
        "Pascanu et al. 2013, https://arxiv.org/abs/1211.5063",
        high=100.0,
        needs=("gradients",),
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
        "update too large",
        _large_updates,
        "update-to-weight ratio of the kernel over the median of all kernels",
        "give the layer the learning rate of the others",
        _RATIO,
        high=30.0,
        needs=("updates",),
        explains=("*",),
    ),
    Symptom(
        "update too small",
        _small_updates,
        "update-to-weight ratio of the kernel over the median of all kernels",
        "train the layer as the others: it is frozen, or its rate is too low",
        _RATIO,
        low=1e-3,
        needs=("updates",),
        explains=("vanishing gradients",),
    ),
    Symptom(
        "vanishing gradients",
        _vanishing_gradients,
        "root mean square of the kernel's gradient over that of the largest",
        "use ReLU, normalise the layers, or add shortcuts around them",
        _GLOROT,
        low=1e-3,
        needs=("gradients",),
        explains=("*",),
    ),
    Symptom(
        "learning rate too high",
        _high_rate,
        "median update-to-weight ratio, of a training whose loss is stuck",
        "divide the learning rate by ten; convjax.lr_find suggests one",
        _FINDER,
        high=0.1,
        needs=("updates",),
        explains=("*",),
    ),
    Symptom(
        "collapse",
        _collapses,
        "crashes of the share of active units",
        "divide the learning rate by three, warm it up for longer, or normalise the layers",
        _CHAPTER,
        high=1.0,
        needs=("activations", "histogram"),
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
        "learning rate too low",
        _low_rate,
        "median update-to-weight ratio, of a training whose loss hardly falls",
        "multiply the learning rate by ten; convjax.lr_find suggests one",
        _FINDER,
        low=1e-4,
        needs=("updates",),
        explains=("*",),
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
