"""batch-norm-modes: what batch norm learns, and which moments its two modes use.

Prediction of the chapter: γ and β are learned; in training a layer normalises with the moments of
its batch, in validation with running statistics.

Rule, on a network trained with batch norm, for the outputs of its first layer on test images:
  In training mode the outputs are (x − mean)/√(var + ε)·γ + β with the moments of the batch, and
  the running statistics move by a tenth towards those of the batch.
  In evaluation mode the same holds with the running statistics, which do not change.
  γ and β have left 1 and 0.
NumPy computes the formula in float64; the layer computes in float32 and may deviate by 1e-4.

Command: python -m experiments run batch-norm-modes
"""

import numpy as np
from flax import nnx

from convjax.chapter.setting import BATCH_NORM
from convjax.nn import capture
from experiments.harness.claim import Claim, Published
from experiments.harness.lab import Lab
from experiments.harness.rules import Decision, Measured, Rule

IMAGES = 500


def batch_norm_modes(lab: Lab) -> Measured:
    """Compares a layer of a trained network with the formula in both modes."""
    model = lab.train(BATCH_NORM)[0].model
    images = lab.dataset.test.images[:IMAGES].astype(np.float32) / 255
    x = capture(model, images)[1]["blocks.0.conv"]
    layer = nnx.clone(model.blocks[0].norm)
    values = np.moveaxis(np.asarray(x, np.float64), layer.axis, -1).reshape(-1, layer.scale.size)
    batch = values.mean(0), values.var(0)
    count = len(values)

    def running() -> tuple[np.ndarray, np.ndarray]:
        """Returns mean and variance of the running statistics."""
        return np.array(layer.mean[...], np.float64), np.array(layer.var[...], np.float64)

    def deviation(moments: tuple[np.ndarray, np.ndarray]) -> float:
        """Calls the layer and returns its largest deviation from the formula with these moments."""
        found = np.moveaxis(np.asarray(layer(x)), layer.axis, -1).reshape(values.shape)
        normal = (values - moments[0]) / np.sqrt(moments[1] + layer.epsilon)
        wanted = normal * np.asarray(layer.scale[...]) + np.asarray(layer.bias[...])
        return float(np.abs(found - wanted).max())

    before = running()
    layer.eval()
    in_evaluation, kept = deviation(before), running()
    layer.train()
    in_training, after = deviation(batch), running()
    unbiased = batch[0], batch[1] * count / (count - 1)
    moved = [
        np.abs(new - (0.9 * old + 0.1 * seen)).max()
        for new, old, seen in zip(after, before, unbiased, strict=True)
    ]
    norms = [block.norm for block in model.blocks]
    return {
        "deviation_in_training": [in_training],
        "deviation_in_evaluation": [in_evaluation],
        "deviation_of_running_statistics": [max(moved)],
        "change_in_evaluation": [
            max(np.abs(a - b).max() for a, b in zip(before, kept, strict=True))
        ],
        "mean_change_of_scale": [np.mean([abs(norm.scale[...] - 1).mean() for norm in norms])],
        "mean_change_of_bias": [np.mean([abs(norm.bias[...]).mean() for norm in norms])],
    }


def two_modes(measured: Measured) -> Decision:
    """Decides whether both modes follow the formula and γ and β are learned."""
    worst = max(values[0] for name, values in measured.items() if name.startswith("deviation"))
    scale, bias = measured["mean_change_of_scale"][0], measured["mean_change_of_bias"][0]
    return Decision(
        worst <= 1e-4 and measured["change_in_evaluation"][0] == 0 and min(scale, bias) > 0,
        f"both modes within {worst:.0e} of the formula; γ moved by {scale:.2f} and β by {bias:.2f} "
        "on average",
    )


CLAIMS = (
    Claim(
        id="batch-norm-modes",
        statement="γ and β are learned; training normalises with the batch, validation with "
        "running statistics",
        published=Published(picture="equalities"),
        measure=batch_norm_modes,
        rules={"any": Rule("both modes follow their formula; γ and β change", two_modes)},
    ),
)

if __name__ == "__main__":
    from experiments.cli.app import script

    script(__file__)
