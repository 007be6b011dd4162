"""The default rules of Amazon SageMaker Debugger, applied to records.

Names and default thresholds are those of the documentation,
https://docs.aws.amazon.com/sagemaker/latest/dg/debugger-built-in-rules.html. Five rules are
omitted: UnchangedTensor, SaturatedActivation and TensorVariance need whole tensors, ClassImbalance
counts labels, and LossNotDecreasing compares steps whose noise exceeds the decrease that it
requires.
"""

import numpy as np

from convjax.diagnosis.evidence import Evidence
from convjax.stats.parameter_forms import LOG_BINS
from convjax.stats.record import Record

SMALLEST_GRADIENT = 1e-7  # mean of |g|
LARGEST_RATIO, SMALLEST_RATIO = 10.0, 1e-8  # of update to weight
ACTIVE_STEPS, INACTIVE_UNITS = 0.01, 0.5
VARIANCES = 10.0  # largest over smallest of the layers' weights

# The symptoms of `convjax.diagnose` that each rule means.
RULE_SYMPTOMS: dict[str, tuple[str, ...]] = {
    "AllZero": ("zero weights", "dead layer"),
    "VanishingGradient": ("vanishing gradients", "zero weights"),
    "ExplodingTensor": ("loss not finite", "exploding activations", "exploding gradients"),
    "DeadRelu": ("dead layer",),
    "WeightUpdateRatio": (
        "update too large",
        "update too small",
        "learning rate too high",
        "learning rate too low",
    ),
    "PoorWeightInitialization": (
        "exploding activations",
        "vanishing gradients",
        "saturation",
        "zero weights",
    ),
}


def fired_rules(record: Record, nonlinearity: str) -> set[str]:
    """Returns the names of the rules that fire at some step of a record.

    A unit is a channel, and it is active in a step if any of its values is above 0, because the
    record counts no finer. The mean of |g| is computed from the histogram, within a factor of 1.5.

    Args:
      record: with parameter statistics.
      nonlinearity: as for `convjax.diagnose`.
    """
    evidence = Evidence(record, 0, nonlinearity)
    parameters = evidence.parameters
    kernels = evidence.kernels
    found = set()
    middles = np.append(0, 1.5 * parameters.hist_edges[:LOG_BINS])
    counts = parameters.grad_hist[:, kernels]
    mean = (counts[..., : LOG_BINS + 1] @ middles) / parameters.sizes[kernels]
    if not (parameters.weight_norm[:, kernels].all() and parameters.grad_norm[:, kernels].all()):
        found.add("AllZero")
    counted = counts.sum(-1) == parameters.sizes[kernels]  # NaNs are in no bin
    if (mean[counted & (counts[..., -1] == 0)] < SMALLEST_GRADIENT).any():
        found.add("VanishingGradient")
    finite = np.isfinite(record.loss).all() and np.isfinite(parameters.grad_norm).all()
    if not finite:
        found.add("ExplodingTensor")
    ratio = parameters.update_ratio[:, kernels]
    if (ratio > LARGEST_RATIO).any() or (ratio < SMALLEST_RATIO).any():
        found.add("WeightUpdateRatio")
    if nonlinearity == "relu" and any(
        np.mean(record.active_channels(i).mean(0) < ACTIVE_STEPS) > INACTIVE_UNITS
        for i in evidence.hidden
    ):
        found.add("DeadRelu")
    variance = parameters.weight_norm[0, kernels] ** 2 / parameters.sizes[kernels]
    if variance.size and variance.max() > VARIANCES * variance.min():
        found.add("PoorWeightInitialization")
    return found
