"""The symptoms of a failing training: for each an indicator, its limits, and a fix.

They are in the order in which to fix them: causes before their consequences.
"""

import numpy as np

from convjax.diagnosis import finiteness, fit, indicators, updates
from convjax.diagnosis import thresholds as limits
from convjax.diagnosis.evidence import NONLINEARITIES
from convjax.diagnosis.symptom import Symptom

# Needed by symptoms for which a short training is too early.
ENOUGH_STEPS = f"{limits.PATIENCE} steps"


_GLOROT = "Glorot & Bengio 2010, https://proceedings.mlr.press/v9/glorot10a.html"
_HE = "He et al. 2015, https://arxiv.org/abs/1502.01852"
_CHAPTER = (
    "fastai book, chapter 13, https://github.com/fastai/fastbook/blob/master/13_convolutions.ipynb"
)
_RATIO = "https://cs231n.github.io/neural-networks-3/#ratio"
_FINDER = "Smith 2017, https://arxiv.org/abs/1506.01186"

_RECIPE = "Karpathy 2019, https://karpathy.github.io/2019/04/25/recipe/"
_LABELS = (
    "https://optax.readthedocs.io/en/latest/api/losses.html"
    "#optax.losses.softmax_cross_entropy_with_integer_labels"
)
_BROADCAST = "https://numpy.org/doc/stable/user/basics.broadcasting.html"
_WHERE = "https://docs.jax.dev/en/latest/faq.html#gradients-contain-nan-where-using-where"
_APPLY = "https://optax.readthedocs.io/en/latest/getting_started.html"
_MASKED = "https://optax.readthedocs.io/en/latest/api/transformations.html#optax.masked"
_BATCH_NORM = "Ioffe & Szegedy 2015, https://arxiv.org/abs/1502.03167"
_DECAY = "Loshchilov & Hutter 2017, https://arxiv.org/abs/1711.05101"
_DROPOUT = "Srivastava et al. 2014, https://jmlr.org/papers/v15/srivastava14a.html"

_DEBUG = 'jax.config.update("jax_debug_nans", True) stops at the operation that makes the first'

_FASTER = "train as long at ten times the rate: if that is no better, look at the labels"
_WITHOUT = "train as long without dropout: a loss that falls no further speaks against it"

SYMPTOMS: tuple[Symptom, ...] = (
    Symptom(
        "inputs not finite",
        fit.inputs_not_finite,
        "watched steps whose input is not finite",
        "look for NaN in the data, and for a division by a standard deviation of 0",
        _RECIPE,
        high=0.0,
        needs=("inputs",),
    ),
    Symptom(
        "labels out of range",
        fit.labels_out_of_range,
        "label furthest outside of 0 to the number of outputs less 1",
        "count classes from 0, and give the network an output for each",
        _LABELS,
        low=0.0,
        high=0.0,
        needs=("labels",),
    ),
    Symptom(
        "labels do not fit the loss",
        fit.labels_do_not_fit,
        "label that this loss cannot have",
        "give cross entropy whole numbers and one output per class, binary cross entropy labels "
        "of 0 and 1, and a hinge loss -1 and 1: do not scale labels like pixels",
        _LABELS,
        low=np.inf,
        needs=("labels",),
    ),
    Symptom(
        "labels constant",
        fit.label_spread,
        "largest standard deviation of a batch's labels, or range of their means",
        "print the labels as they enter the loss: all are the same",
        _RECIPE,
        low=limits.LABEL_SPREAD,
        needs=("labels",),
        hinders=False,
    ),
    Symptom(
        "batches of one class",
        fit.classes_per_batch,
        "entropy of the classes in a batch over that in all batches",
        "shuffle the examples before they are cut into batches",
        _RECIPE,
        low=limits.CLASSES_OF_BATCH,
        needs=(
            "labels",
            "histogram",
        ),
    ),
    Symptom(
        "shapes of output and target differ",
        fit.shapes_differ,
        "mean error of all pairs of output and target over that of the right pairs",
        "remove the axis of one: outputs of (N, 1) and targets of (N,) broadcast to (N, N)",
        _BROADCAST,
        high=0.0,
        needs=("labels",),
    ),
    Symptom(
        "softmax applied twice",
        fit.softmax_twice,
        "highest output, where the loss takes probabilities for logits",
        "return the logits from the network: the loss has the softmax or sigmoid in it",
        _RECIPE,
        high=0.0,
        needs=("labels",),
    ),
    Symptom(
        "non-linearity at the output",
        fit.output_cut_off,
        "share of the steps at which the outputs end at the bound of a non-linearity",
        "remove the non-linearity after the last layer",
        _RECIPE,
        high=limits.MOST_ROWS,
        needs=("labels",),
    ),
    Symptom(
        "target not scaled",
        fit.target_size,
        "root mean square of the targets",
        "divide the targets by their standard deviation, after subtracting the mean",
        _RECIPE,
        high=limits.TARGET_RMS,
        needs=("labels",),
    ),
    Symptom(
        "gradients not finite",
        finiteness.gradients_not_finite,
        "steps whose loss is not finite after gradients were not, or else gradients",
        "look for a logarithm, square root or norm at 0 in loss or network, a division in a "
        "branch of jnp.where, and float16 without a scale of the loss",
        _WHERE,
        high=0.0,
        needs=("gradients",),
        decides=_DEBUG,
    ),
    Symptom(
        "loss not finite",
        finiteness.loss_not_finite,
        "steps whose loss is not finite though the outputs are",
        "look for a logarithm of 0 or a division by 0 in the loss: add a small number, "
        "or use a loss of logits",
        _WHERE,
        high=0.0,
        decides=_DEBUG,
    ),
    Symptom(
        "inputs not normalised",
        indicators.input_scale,
        "root mean square of the network's input",
        "subtract the mean and divide by the standard deviation of the training images",
        "LeCun et al. 1998, https://doi.org/10.1007/978-3-642-35289-8_3",
        low=limits.INPUT_RMS[0],
        high=limits.INPUT_RMS[1],
        needs=("inputs",),
    ),
    Symptom(
        "loss independent of the parameters",
        updates.gradients_zero,
        "share of the steps in which every gradient is exactly zero",
        "compute the loss from the parameters that are differentiated: look for "
        "stop_gradient, rounding, argmax or another model",
        _RECIPE,
        high=limits.MOST_ROWS,
        needs=("gradients",),
    ),
    Symptom(
        "update not applied",
        updates.weights_unchanged,
        "share of the steps after which all weights are the same",
        "keep what optax.apply_updates returns, and check that the learning rate is not 0",
        _APPLY,
        high=limits.MOST_ROWS,
        needs=("gradients",),
    ),
    Symptom(
        "zero weights",
        indicators.zero_weights,
        "norm of the kernel before the first step",
        "initialise the kernel at random: its gradient is also zero",
        _GLOROT,
        low=limits.KERNEL_NORM,
        needs=("gradients", "updates"),
    ),
    Symptom(
        "running statistics used in training",
        updates.unnormalised,
        "factor by which the output of batch norm is not of standard deviation 1 at the first step",
        "train with use_running_average=False, or model.train()",
        _BATCH_NORM,
        high=limits.NORMALISED,
        needs=("activations",),
    ),
    Symptom(
        "running statistics used in training",
        updates.evaluation_mode,
        "share of the later steps whose loss is that of evaluation mode",
        "call model.train() after each validation: training is in evaluation mode",
        _BATCH_NORM,
        high=limits.MOST_ROWS,
        needs=("activations", "evaluation"),
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
    ),
    Symptom(
        "exploding activations",
        indicators.exploding_activations,
        "standard deviation of the layer over the size of the input, at the first step",
        "initialise with a smaller scale, such as √(2/fan_in)",
        _HE,
        high=limits.RELATIVE_STD,
        needs=("activations",),
    ),
    Symptom(
        "vanishing gradients",
        indicators.vanishing_signal,
        "standard deviation of the layer over the size of the input, at the first step",
        "initialise with a larger scale, such as √(2/fan_in), or normalise the layers",
        _HE,
        low=limits.SIGNAL,
        needs=("activations", ENOUGH_STEPS),
    ),
    Symptom(
        "loss summed over the batch",
        fit.summed_loss,
        "loss of the batch over the mean loss of an example",
        "take the mean over the batch, or divide the learning rate by the batch size",
        _RECIPE,
        high=1.0,
        needs=("labels",),
    ),
    Symptom(
        "weight decay too strong",
        updates.weights_fall,
        "median norm of the kernels at the end over that at the start",
        "divide the weight decay by ten",
        _DECAY,
        low=limits.WEIGHTS_LEFT,
        needs=(
            "gradients",
            "updates",
            "classes",
        ),
        decides="train as long without decay: a loss that falls no further speaks against it",
    ),
    Symptom(
        "gradients accumulate",
        updates.accumulating,
        "share of the first steps at which the gradient grows, by as much at each",
        "start each step from new gradients instead of adding to those of the step before",
        _RECIPE,
        high=limits.ACCUMULATES,
        needs=("gradients",),
        decides="take the gradient of one batch twice: without accumulation, both are the same",
    ),
    Symptom(
        "update too large",
        updates.raw_gradients,
        "share of the steps in which the update of the kernel is its gradient, unlike others'",
        "optax.masked passes on the gradients that it leaves out: use optax.partition with "
        "optax.set_to_zero for them",
        _MASKED,
        high=limits.MOST_ROWS,
        needs=("gradients", "updates"),
    ),
    Symptom(
        "vanishing gradients",
        indicators.vanishing_gradients,
        "gradient of the kernel over that of the largest, in the first steps",
        "initialise with a larger scale, such as √(2/fan_in), use ReLU, or normalise the layers",
        _GLOROT,
        low=limits.RELATIVE_GRADIENT,
        needs=("gradients",),
        decides="start with the scale of He: if the loss falls no faster, it is not the weights",
    ),
    Symptom(
        "update too large",
        indicators.large_updates,
        "update-to-weight ratio of the kernel over the median of the others, at the first step",
        "give the layer the learning rate of the others",
        _RATIO,
        high=limits.RELATIVE_UPDATE[1],
        needs=("gradients", "updates"),
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
    ),
    Symptom(
        "learning rate too high",
        indicators.high_rate,
        "largest median of the update-to-weight ratios, in a training whose loss does not fall",
        "divide the learning rate by ten; convjax.lr_find suggests one",
        _FINDER,
        high=limits.HIGH_RATIO,
        needs=("updates", "classes"),
        decides="train as long at a tenth of the rate: if the loss rises, too, look at the data",
    ),
    Symptom(
        "exploding gradients",
        indicators.gradient_spikes,
        "norm of the gradient over its median before, in a step whose loss is a spike",
        "inspect the batch of that step, and clip the norm of the gradient",
        "Pascanu et al. 2013, https://arxiv.org/abs/1211.5063",
        high=limits.SPIKE_GRADIENT,
        needs=("gradients", "updates"),
        decides="train without the batch of that step: if the spike comes later, it is the rate",
    ),
    Symptom(
        "parameters not finite",
        finiteness.parameters_not_finite,
        "steps whose loss is not finite, after parameters were not",
        "look for what changes the parameters outside of the update: a checkpoint, an "
        "initialiser, a division",
        _RECIPE,
        high=0.0,
        needs=("gradients",),
    ),
    Symptom(
        "non-finite",
        finiteness.non_finite,
        "steps whose loss is not finite",
        "divide the learning rate by ten, and inspect the batch of the first such step",
        _FINDER,
        high=0.0,
    ),
    Symptom(
        "dead layer",
        indicators.dead,
        f"share of the layer's channels not active for {limits.DEAD_STEPS} steps, or ten watched",
        "lower the learning rate, and check the initial bias",
        "Lu et al. 2019, https://arxiv.org/abs/1903.06733",
        high=limits.DEAD_SHARE,
        needs=("activations", "units"),
    ),
    Symptom(
        "dead layer",
        updates.dead_kernels,
        "share of the steps in which biases alone have a gradient that is not exactly zero",
        "lower the learning rate, and check the initial weights and bias",
        "Lu et al. 2019, https://arxiv.org/abs/1903.06733",
        high=limits.MOST_ROWS,
        needs=("gradients",),
    ),
    Symptom(
        "parameters frozen",
        updates.frozen,
        "share of the steps in which the kernel has no gradient, or no update",
        "train the kernel, too: look for stop_gradient, a mask of the optimiser, and a "
        "part that is not among the parameters",
        _APPLY,
        high=limits.MOST_ROWS,
        needs=(
            "updates",
            "classes",
        ),
        decides="print the labels of the optimiser's mask, and the gradient of the part",
    ),
    Symptom(
        "parameters frozen",
        updates.unknown_layers,
        "share of the layers with parameters that the optimiser has none of",
        "train these layers, too: look for parameters that are filtered, not registered, or not "
        "among those that gradients are taken of",
        _APPLY,
        high=0.0,
        needs=(
            "activations",
            "gradients",
            "classes",
        ),
        decides="compare the names of the layers with those of the parameters",
    ),
    Symptom(
        "update too small",
        indicators.small_updates,
        "update-to-weight ratio of the kernel over the median of the others",
        "train the layer like the others: it is frozen, or its learning rate is too low",
        _RATIO,
        low=limits.RELATIVE_UPDATE[0],
        needs=("gradients", "updates"),
        explains=False,
    ),
    Symptom(
        "learning rate too low",
        indicators.low_rate,
        "median update-to-weight ratio, in a training whose loss falls slowly",
        "multiply the learning rate by ten; convjax.lr_find suggests one",
        _FINDER,
        low=limits.LOW_RATIO,
        needs=("updates", "classes", ENOUGH_STEPS),
        decides=_FASTER,
    ),
    Symptom(
        "dropout too strong",
        updates.dropout_gap,
        "loss in training less that in evaluation, over that of guessing",
        "lower the rate of dropout: the network cannot fit its own training data",
        _DROPOUT,
        high=limits.DROPOUT_GAP,
        needs=(
            "evaluation",
            "classes",
            ENOUGH_STEPS,
        ),
        decides=_WITHOUT,
    ),
    Symptom(
        "dropout too strong",
        updates.dropout_noise,
        "variance that the masks of dropout add to a signal of 1, in a training that is stuck",
        "lower the rate of dropout: r/(1 - r) is its noise, summed over the layers",
        _DROPOUT,
        high=limits.DROPOUT_NOISE,
        needs=("classes", ENOUGH_STEPS),
        decides=_WITHOUT,
    ),
    Symptom(
        "evaluation of other parameters",
        updates.stale_evaluation,
        "change of the loss in evaluation over the fall of that in training",
        "evaluate with the parameters of the last step: those of the first are in use",
        _APPLY,
        low=limits.STALE_CHANGE,
        needs=(
            "evaluation",
            ENOUGH_STEPS,
        ),
        hinders=False,
        decides="compare the loss of a batch with the parameters that the step returns",
    ),
    Symptom(
        "batch-norm statistics",
        updates.statistics_gap,
        "loss in evaluation mode minus loss in training mode on the same batches, in nats",
        "keep the new statistics of every step; else lower their momentum, or train for longer",
        "Ioffe & Szegedy 2015, https://arxiv.org/abs/1502.03167",
        high=limits.EVALUATION_GAP,
        needs=("activations", "evaluation", ENOUGH_STEPS),
        explains=False,
        hinders=False,
        decides="evaluate with the statistics of the batch: a loss as high speaks against it",
    ),
    Symptom(
        "learning rate too low",
        indicators.late_fall,
        "share of the loss's fall that came in the second half, in a slow training",
        "multiply the learning rate by ten; convjax.lr_find suggests one",
        _FINDER,
        high=limits.LATE_FALL,
        needs=("classes", ENOUGH_STEPS),
        decides=_FASTER,
    ),
    Symptom(
        "learning rate too high",
        indicators.lost_again,
        "share of the loss of guessing that was gained and lost again",
        "divide the learning rate by ten; convjax.lr_find suggests one",
        _FINDER,
        high=limits.LOST_AGAIN,
        needs=("classes", ENOUGH_STEPS),
    ),
    Symptom(
        "inputs and labels do not match",
        indicators.no_progress,
        "share of the loss of guessing by which the loss has fallen",
        "inspect pairs of image and label as they enter the loss: they may not match",
        _RECIPE,
        low=limits.STUCK_PROGRESS,
        needs=("classes", ENOUGH_STEPS),
        explains=False,
        decides="train on one batch for 200 steps: if its loss falls to zero, look at the labels, "
        "and else at the network and the rate",
    ),
)
