"""statistics-noise: whether the randomness of batch statistics regularises.

Explanation of the chapter: batch norm generalises better because each batch has other statistics,
which adds randomness to the training.

The residual network of 20 layers of `skip-connections`, in the same two forms, but with batches of
128 images and, in the small form, twice as many passes. Batch norm takes the statistics of the
whole batch, which vary little, or of groups of 32 or 8 images in it (ghost batch norm). Batches,
updates and running statistics are the same, so that only the randomness differs. Each side has the
best of the same rates, tuned on seeds that are not measured.

Rule, for five seeds or more: with groups of 32 the test accuracy is higher than with whole batches,
and training accuracy − test accuracy smaller; 95 % intervals of both differences above 0. The claim
is refuted if one lies below 0, and otherwise undecided. Groups of 8 are shown as well.

Command: python -m experiments run statistics-noise --seeds 5 --data cifar10
"""

from experiments.harness.claim import Claim, Published
from experiments.harness.comparison import gaps
from experiments.harness.intervals import difference
from experiments.harness.lab import Lab
from experiments.harness.rules import Decision, Measured, all_hold, over_seeds
from experiments.residual.comparison import compared
from experiments.residual.setting import form_of

# In the small form; half as many steps as in the other claims, and twice as many passes.
SMALL_CHANGES = {"batch_size": 128, "passes": 8}
SIDES = {"whole": None, "groups-32": 32, "groups-8": 8}


def statistics_noise(lab: Lab) -> Measured:
    """Measures test accuracies and gaps with statistics of whole batches and of groups."""
    changes = {} if lab.full else SMALL_CHANGES
    settings = {name: form_of(lab, group=group, **changes) for name, group in SIDES.items()}
    outcomes, figures = compared(lab, settings, "statistics-noise")
    return {**{f"gap_{name}": gaps(found) for name, found in outcomes.items()}, **figures}


def noise_regularises(measured: Measured) -> Decision:
    """Decides whether noisier statistics raise the test accuracy and shrink the gap."""
    whole, gap = measured["accuracy_whole"], measured["gap_whole"]
    found = {
        name: (
            difference(measured[f"accuracy_{name}"], whole),
            difference(gap, measured[f"gap_{name}"]),
        )
        for name in SIDES
        if name != "whole"
    }
    return Decision(
        all_hold([part.above_zero for part in found["groups-32"]]),
        "; ".join(
            f"{name}: accuracy higher by {more.text(3)}, gap smaller by {smaller.text(3)}"
            for name, (more, smaller) in found.items()
        ),
    )


CLAIMS = (
    Claim(
        id="statistics-noise",
        statement="batch norm generalises better because the statistics of batches are random",
        published=Published(question="batch norm with less random statistics"),
        measure=statistics_noise,
        compares=True,
        rules={
            "cifar10": over_seeds(
                "95 % intervals of the accuracy with groups of 32 − with whole batches, and of the "
                "gap with whole batches − with groups, lie above 0",
                noise_regularises,
                expected="undecided",
            )
        },
    ),
)

if __name__ == "__main__":
    from experiments.cli.app import script

    script(__file__)
