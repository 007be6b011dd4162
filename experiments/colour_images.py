"""colour-space, first-kernels: what a network makes of colour.

Predictions of the chapter:
  colour-space: for images in colour another encoding, HSV instead of RGB, makes no difference, and
    greyscale loses information.
  first-kernels: the first-layer kernels of a trained network, drawn as images, show edges.

Data in colour are used unchanged. For data in grey (mnist, mnist5k, fashion_mnist) coloured digits
are substituted (`convjax.chapter.tinted_digits`): nine of ten images have the hue of their
class, two classes share each hue, and all hues have the same luma. For these digits the claim on
greyscale holds by construction, as far as a network can use the colour at all; the measurement says
how much the colour is worth.

All encodings have three channels of whole numbers from 0 to 255 (grey: the luma, three times), each
normalised by its own mean and std, so that the network has the same parameters. It is the ten-digit
network with batch norm and one-cycle. Each encoding has the best of the same rates, tuned on seeds
that are not measured. Digits train with batch 512 for one epoch; data in colour are harder and
train with batch 64 for five epochs.

Rules, for five seeds or more:
  colour-space: HSV makes no difference if the 95 % interval of the difference lies within 1 % on
    digits, 2 % on other data, and makes one if the interval lies outside. Greyscale loses
    information if the interval of RGB − grey lies above 0. The claim is reproduced if both hold,
    refuted if one is contradicted, and otherwise undecided.
  first-kernels: the mean share of the kernels' energy that the best edge explains
    (`experiments.features.edge_similarity`) is higher for trained kernels than for untrained ones,
    and higher than for noise that is as smooth and colourful as the trained ones; the 95 %
    intervals of both differences lie above 0. The training is the same in RGB at a fixed rate, with
    a first kernel of 7×7 pixels.

Command: python -m experiments run colour-space first-kernels --seeds 5
Colour: add --data cifar10, and --data-dir FOLDER if its images are in train/CLASS/*.png
"""

from collections.abc import Sequence
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import numpy as np

from convjax.chapter.colour_encodings import ENCODINGS
from convjax.chapter.setting import BATCH_NORM, Setting
from convjax.chapter.training import Training
from convjax.plots.images import show_batch, show_kernels
from experiments.features.edge_similarity import colour_shares, edge_shares, noise_like
from experiments.harness.claim import Claim, Published
from experiments.harness.comparison import at_best
from experiments.harness.intervals import Interval, difference
from experiments.harness.lab import Lab
from experiments.harness.rules import (
    Decision,
    Measured,
    Rule,
    all_hold,
    mean,
    on_digits,
    over_seeds,
)

if TYPE_CHECKING:
    from matplotlib.figure import Figure

# The encoding makes no difference where accuracies differ by at most this much.
MARGIN_OF_DIGITS, MARGIN = 0.01, 0.02

FIRST_KERNEL = 7  # pixels a side: an edge is easier to see in 7×7 pixels than in 5×5
NOISES = 20  # per kernel
TINTED = "coloured digits, whose colour carries part of the class, stand in"


def colour_setting(lab: Lab, encoding: str) -> Setting:
    """Returns this file's training for the lab's data."""
    setting = replace(BATCH_NORM, encoding=encoding)
    if lab.dataset.train.images.shape[-1] == 1:
        return setting
    return replace(setting, batch_size=64, epochs=5, lr_max=0.03)


def colour_space(lab: Lab) -> Measured:
    """Measures the accuracy of the same network in three colour encodings."""
    settings = {encoding: colour_setting(lab, encoding) for encoding in ENCODINGS}
    test = lab.device_dataset(settings["rgb"]).dataset.test
    # Files may be ordered by class.
    shown = np.linspace(0, len(test.labels) - 1, 20).astype(int)
    names = lab.dataset.class_names
    lab.picture(
        "colour-space-images", show_batch(test.images[shown], test.labels[shown], names, 20)
    )
    return {
        "images": [len(lab.dataset.train.labels)],
        "test_images": [len(lab.dataset.test.labels)],
        **at_best(lab, settings, "colour-space")[1],
    }


def within(interval: Interval, margin: float) -> bool | None:
    """Whether an interval lies within ±margin; None if only part of it does, or for NaN."""
    if max(-interval.low, interval.high) <= margin:
        return True
    return False if interval.low > margin or interval.high < -margin else None


def encodings_rule(margin: float, note: str = "") -> Rule:
    """Returns the rule of colour-space.

    Args:
      margin: by how much HSV may differ from RGB.
      note: describes the data in the reason.
    """

    def decide(measured: Measured) -> Decision:
        rgb = measured["accuracy_rgb"]
        hsv = difference(measured["accuracy_hsv"], rgb)
        grey = difference(rgb, measured["accuracy_grey"])
        parts = within(hsv, margin), grey.above_zero
        return Decision(
            all_hold(parts),
            f"{note}HSV − RGB {hsv}, no difference within ±{margin:g}; RGB − grey {grey}",
            f"HSV − RGB {hsv.mean:+.4f}, RGB − grey {grey.mean:+.4f}",
        )

    return over_seeds(
        f"{note}95 % interval of HSV − RGB within ±{margin:g}, that of RGB − grey above 0", decide
    )


def first_kernels(lab: Lab) -> Measured:
    """Measures how much of each first kernel is an edge, before and after training."""
    setting = first_kernels_setting(lab)
    return edge_figures(lab, setting, lab.train(setting))


def first_kernels_in_brief(lab: Lab) -> Measured:
    """Measures the same after trainings without a record of the layers, which write no folder."""
    setting = first_kernels_setting(lab)
    trainings = [lab.fit(setting, seed, watch=None) for seed in lab.seeds]
    return edge_figures(lab, setting, trainings)


def first_kernels_setting(lab: Lab) -> Setting:
    """Returns the training whose first kernels are measured."""
    return replace(colour_setting(lab, "rgb"), first_kernel=FIRST_KERNEL)


def edge_figures(lab: Lab, setting: Setting, trainings: Sequence[Training]) -> Measured:
    """Measures how much of each first kernel is an edge, before and after these trainings."""
    before = [kernels_of(lab.network(setting, seed)) for seed in lab.seeds]
    after = [kernels_of(training.model) for training in trainings]
    lab.picture("first-kernels", before_and_after(before[0], after[0], lab.seeds[0]))
    noise = [
        [noise_like(kernels, NOISES * seed + i) for i in range(NOISES)]
        for seed, kernels in zip(lab.seeds, after, strict=True)
    ]
    return {
        "edge_share_trained": [edge_shares(kernels).mean() for kernels in after],
        "edge_share_untrained": [edge_shares(kernels).mean() for kernels in before],
        "edge_share_noise": [np.mean([edge_shares(n) for n in of_seed]) for of_seed in noise],
        "colour_share_trained": [colour_shares(kernels).mean() for kernels in after],
        "colour_share_untrained": [colour_shares(kernels).mean() for kernels in before],
        "opponent_trained": [sees_colour(kernels) for kernels in after],
        "opponent_untrained": [sees_colour(kernels) for kernels in before],
        "accuracy": [training.metrics[-1]["accuracy"] for training in trainings],
    }


def kernels_of(network: Any) -> np.ndarray:
    """Returns the first layer's kernels, (H, W, C, N)."""
    return np.asarray(network.blocks[0].conv.kernel)


def sees_colour(kernels: np.ndarray) -> int:
    """Counts the kernels that respond to differences between channels more than to brightness."""
    return int((colour_shares(kernels) > 0.5).sum())


def before_and_after(before: np.ndarray, after: np.ndarray, seed: int) -> "Figure":
    """Draws each kernel before and after training side by side.

    Each panel has its own scale, because training increases the weights of kernels unequally.

    Args:
      before: kernels (H, W, C, N) before training.
      after: the same kernels after training.
      seed: for the title.
    """
    pairs = np.stack([before, after], -1)
    strongest = np.abs(pairs).max((0, 1, 2))  # (N, 2)
    scaled = pairs / np.where(strongest > 0, strongest, 1)
    figure = show_kernels(scaled.reshape(*before.shape[:3], -1), "NHWC")
    for i, axes in enumerate(figure.axes):
        kernel, side = divmod(i, 2)
        name, full = ("untrained", "trained")[side], strongest[kernel, side]
        axes.set_title(f"{kernel} {name}, ±{full:.2g}", fontsize="x-small")
    figure.suptitle(f"First kernels, seed {seed}\nRGB, mid-grey = 0, full = ± as named")
    return figure


def show_edges(measured: Measured) -> Decision:
    """Decides whether trained kernels are more edge-like than untrained ones and noise."""
    trained = measured["edge_share_trained"]
    others: dict[str, Sequence[Any]] = {
        name: measured[f"edge_share_{name}"] for name in ("untrained", "noise")
    }
    more = {name: difference(trained, of_seeds) for name, of_seeds in others.items()}
    signs = [found.above_zero for found in more.values()]
    listed = "; ".join(f"trained − {name} {found.text(3)}" for name, found in more.items())
    return Decision(
        all_hold(signs),
        f"an edge explains {mean(trained):.2f} of a trained kernel, "
        f"{mean(others['untrained']):.2f} of an untrained one, {mean(others['noise']):.2f} of such "
        f"noise: {listed}",
    )


DIGITS_RULE = encodings_rule(MARGIN_OF_DIGITS, f"{TINTED}: ")

CLAIMS = (
    Claim(
        id="colour-space",
        statement="HSV instead of RGB makes no difference, greyscale loses information",
        published=Published(question="accuracies of one network, three encodings"),
        measure=colour_space,
        compares=True,
        rules={
            **on_digits(DIGITS_RULE, mnist5k="undecided"),
            # Seen on 10,000 images of cifar10.
            "any": replace(encodings_rule(MARGIN), expected="undecided"),
        },
    ),
    Claim(
        id="first-kernels",
        statement="trained first-layer kernels of a colour network, drawn as images, show edges",
        published=Published(picture="kernels of the first layer"),
        measure=first_kernels,
        brief=first_kernels_in_brief,
        rules={
            "any": over_seeds(
                "an edge explains more of a trained kernel than of an untrained one and of noise "
                "as smooth and colourful: 95 % intervals above 0",
                show_edges,
            )
        },
    ),
)

if __name__ == "__main__":
    from experiments.cli.app import script

    script(__file__)
