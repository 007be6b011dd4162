"""skip-connections: a deep network trains with skip connections, and degrades without.

Prediction of He et al.: a plain network of 56 layers trains worse than one of 20, although it could
compute the same; with skip connections the deep network trains, and is better than the shallow one.

The network of the paper for small images, without and with skip connections, with 20 and 56 layers,
trained by SGD. Neither shortcut has parameters, so that two networks of one depth have the same. In
the small form it has half as many channels and trains for 4 passes over 2,048 images of 16×16
pixels, with batches of 32; with --full it is the paper's, with 164 passes over all images.

Each side has the best of the same rates, tuned on seeds that are not measured. The first 16 steps
are repeated at that rate with all convolutions watched. The gradient ratio is that of gradient to
weights, by their norms, at the first convolution of the first block over that at the last one.

Rule, for five seeds or more: of the training accuracies at the end, that of the plain network is
higher with 20 layers than with 56, that of 56 layers is higher with skip connections than without,
and depth costs the residual network less than the plain one; 95 % intervals of the three above 0.

Command: python -m experiments run skip-connections --seeds 5 --data cifar10
"""

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import TYPE_CHECKING

import numpy as np

from convjax.plots import new_figure
from convjax.stats.record import Record
from convjax.stats.watch import Watch
from experiments.harness.charts import COLORS, MARKERS
from experiments.harness.claim import Claim, Published
from experiments.harness.intervals import difference
from experiments.harness.lab import Lab
from experiments.harness.rules import Decision, Measured, all_hold, mean, over_seeds
from experiments.residual.comparison import compared
from experiments.residual.setting import ResidualSetting, form_of

if TYPE_CHECKING:
    from matplotlib.figure import Figure

DEPTHS = (20, 56)
SHORTCUTS = {"plain": None, "residual": "padding"}

WATCHED_STEPS = 16
WATCH = Watch("*conv", histogram=False, gradients=True)


def sides(lab: Lab) -> dict[str, ResidualSetting]:
    """Returns the settings of the plain and the residual networks."""
    return {
        f"{name}-{depth}": form_of(lab, depth=depth, shortcut=shortcut)
        for name, shortcut in SHORTCUTS.items()
        for depth in DEPTHS
    }


def skip_connections(lab: Lab) -> Measured:
    """Measures accuracies, and gradients along the depth, without and with skip connections."""
    settings = sides(lab)
    figures = compared(lab, settings, "skip-connections")[1]
    starts = {
        name: start_of(replace(setting, lr_max=figures[f"rate_{name}"][0]))
        for name, setting in settings.items()
    }
    gradients = {
        name: [relative_gradients(lab.fit(start, seed, watch=WATCH).record) for seed in lab.seeds]
        for name, start in starts.items()
    }
    lab.picture("skip-connections-gradients", along_the_depth(gradients))
    ratios = {
        f"gradient_ratio_{name}": [of_seed[1] / of_seed[-1] for of_seed in found]
        for name, found in gradients.items()
    }
    return {**figures, **ratios}


def start_of(setting: ResidualSetting) -> ResidualSetting:
    """Returns a training of a few steps at the setting's rate, without a schedule."""
    images = WATCHED_STEPS * setting.batch_size
    return replace(setting, epochs=1, passes=1, images=images, schedule="constant")


def relative_gradients(record: Record) -> np.ndarray:
    """Returns gradient over weights of each convolution by depth: their norms' mean over steps."""
    parameters = record.parameters
    if parameters is None:
        raise ValueError("record must have gradients. Watch(gradients=True) records them.")
    # The layers are in the order of their calls, the parameters in that of their names.
    columns = [parameters.names.index(f"{layer}.kernel") for layer in record.layers]
    found = parameters.grad_norm[:, columns] / parameters.weight_norm[:, columns]
    return np.asarray(found.mean(0))


def along_the_depth(found: Mapping[str, Sequence[np.ndarray]]) -> "Figure":
    """Draws gradient over weights of each convolution, on average over the seeds.

    Args:
      found: by name, for each seed the ratios by depth.
    """
    figure = new_figure(7, 4)
    axes = figure.subplots()
    for (name, of_seeds), color, marker in zip(found.items(), COLORS, MARKERS, strict=False):
        ratios = np.exp(np.log(np.stack(of_seeds)).mean(0))
        layers = range(1, len(ratios) + 1)
        axes.plot(layers, ratios, color=color, marker=marker, markersize=3, label=name)
    axes.set_yscale("log")
    axes.set_xlabel("convolution")
    axes.set_ylabel(f"norm of gradient / norm of weights, {WATCHED_STEPS} steps")
    axes.legend()
    return figure


def trains_deep(measured: Measured) -> Decision:
    """Decides whether depth harms the plain network, and the residual one less or not at all."""
    trained = {
        name: np.asarray(measured[f"train_accuracy_{name}"])
        for name in (f"{kind}-{depth}" for kind in SHORTCUTS for depth in DEPTHS)
    }
    lost = {kind: trained[f"{kind}-20"] - trained[f"{kind}-56"] for kind in SHORTCUTS}
    none = np.zeros(len(lost["plain"]))
    parts = {
        "plain, 20 − 56 layers": difference(lost["plain"].tolist(), none.tolist()),
        "56 layers, residual − plain": difference(
            measured["train_accuracy_residual-56"], measured["train_accuracy_plain-56"]
        ),
        "lost by depth, plain − residual": difference(
            lost["plain"].tolist(), lost["residual"].tolist()
        ),
    }
    test = difference(measured["accuracy_residual-56"], measured["accuracy_residual-20"])
    shown = "; ".join(f"{name} {found.text(3)}" for name, found in parts.items())
    ratios = {name: mean(measured[f"gradient_ratio_{name}-56"]) for name in SHORTCUTS}
    return Decision(
        all_hold([found.above_zero for found in parts.values()]),
        f"training accuracy: {shown}. Test accuracy, residual, 56 − 20 layers {test.text(3)}. With "
        f"56 layers the relative gradient at the first block is {ratios['plain']:.3g} times that "
        f"at the last convolution without and {ratios['residual']:.3g} times with skip connections",
    )


CLAIMS = (
    Claim(
        id="skip-connections",
        statement="with skip connections a network of 56 layers trains, without it degrades",
        published=Published(
            figures={
                "accuracy_residual-20": 0.9125,
                "accuracy_residual-56": 0.9303,
                "train_accuracy_plain-56": "lower than with 20 layers",
            }
        ),
        measure=skip_connections,
        compares=True,
        rules={
            "cifar10": over_seeds(
                "95 % intervals of training accuracies lie above 0: plain, 20 − 56 layers; 56 "
                "layers, residual − plain; lost by depth, plain − residual",
                trains_deep,
            )
        },
    ),
)

if __name__ == "__main__":
    from experiments.cli.app import script

    script(__file__)
