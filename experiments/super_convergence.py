"""super-convergence: what one-cycle allows and a constant rate does not.

Prediction of the chapter, after Smith and Topin: one-cycle allows much higher rates, so that a
training is shorter and overfits less.

All trainings: the ten-digit network without norm, batch 512. The constant rate trains for eight
epochs, one-cycle for 1, 2, 3 and 5; each has the best of the same rates, tuned on seeds that are
not measured.

Rule, for five seeds or more:
  (a) the highest of the tried rates at which every seed reaches 0.9 after one epoch is higher with
    one-cycle than with a constant rate;
  (b) one-cycle needs fewer epochs to the accuracy that the constant rate has after its eight;
  (c) there, training accuracy − test accuracy is smaller with one-cycle; 95 % interval of the
    difference.
The claim is refuted if one of the three is contradicted, and undecided if only the interval
contains 0.

Command: python -m experiments run super-convergence --seeds 5
"""

import math
from dataclasses import replace

from convjax.chapter.setting import BATCH_512, ONE_CYCLE
from experiments.harness import charts
from experiments.harness.claim import Claim, Published
from experiments.harness.comparison import (
    TRAINS,
    accuracies,
    accuracy_by_rate,
    gaps,
    higher,
    highest_rate,
    tuned,
)
from experiments.harness.intervals import difference
from experiments.harness.lab import Lab
from experiments.harness.rules import Decision, Measured, all_hold, mean, on_digits, over_seeds

LENGTHS = (1, 2, 3, 5)
CONSTANT = replace(BATCH_512, epochs=8)


def super_convergence(lab: Lab) -> Measured:
    """Measures epochs, highest rates and gaps of a constant rate and of one-cycle."""
    slow = lab.outcomes(tuned(lab, CONSTANT))
    fast = {
        epochs: lab.outcomes(tuned(lab, replace(ONE_CYCLE, epochs=epochs))) for epochs in LENGTHS
    }
    along = {
        epoch + 1: [outcome.metrics[epoch]["accuracy"] for outcome in slow]
        for epoch in range(CONSTANT.epochs)
    }
    curves = {
        "one-cycle, a training for each number of epochs": {
            epochs: accuracies(found) for epochs, found in fast.items()
        },
        "constant rate, along one training": along,
    }
    figure = charts.curves(curves, xlabel="epochs", ylabel="test accuracy")
    lab.picture("super-convergence", figure)
    goal = mean(accuracies(slow))
    enough = [epochs for epochs, found in fast.items() if mean(accuracies(found)) >= goal]
    return {
        "epochs_constant": [CONSTANT.epochs],
        "epochs_one_cycle": [min(enough, default=math.inf)],
        "highest_rate_constant": [highest_rate(accuracy_by_rate(lab, BATCH_512))],
        "highest_rate_one_cycle": [highest_rate(accuracy_by_rate(lab, ONE_CYCLE))],
        "gap_constant": gaps(slow),
        "gap_one_cycle": gaps(fast[min(enough, default=LENGTHS[-1])]),
        "accuracy_constant": accuracies(slow),
        **{f"accuracy_one_cycle_{n}": accuracies(found) for n, found in fast.items()},
    }


def faster_higher_and_flatter(measured: Measured) -> Decision:
    """Decides whether rate, epochs and gap are all better with one-cycle."""
    rate, rate_one_cycle = (
        measured[f"highest_rate_{name}"][0] for name in ("constant", "one_cycle")
    )
    epochs, needed = (measured[f"epochs_{name}"][0] for name in ("constant", "one_cycle"))
    gap = difference(measured["gap_constant"], measured["gap_one_cycle"])
    signs = (higher(rate_one_cycle, than=rate), needed < epochs, gap.above_zero)
    # If no number of epochs is enough, the file has null.
    reached = f"{needed:g}" if math.isfinite(needed) else f"more than {LENGTHS[-1]}"
    return Decision(
        all_hold(signs),
        f"every seed trains at {rate:g} with a constant rate and at {rate_one_cycle:g} with "
        f"one-cycle; {epochs:g} epochs constant, {reached} with one-cycle to "
        f"{mean(measured['accuracy_constant']):.4f}; gap between train and test, constant − "
        f"one-cycle: {gap}",
        f"epochs {epochs:g} to {reached}, gap smaller by {gap.mean:+.4f}",
    )


CLAIMS = (
    Claim(
        id="super-convergence",
        statement="one-cycle allows much higher rates, so training is shorter and overfits less",
        published=Published(
            question="epochs to the same accuracy, and the gap between train and test"
        ),
        measure=super_convergence,
        compares=True,
        rules=on_digits(
            over_seeds(
                f"with one-cycle the highest rate at which every seed reaches {TRAINS} is higher, "
                "the epochs to the same accuracy fewer, and the gap there smaller (95 % interval)",
                faster_higher_and_flatter,
            ),
            mnist="undecided",
            mnist5k="undecided",
        ),
    ),
)

if __name__ == "__main__":
    from experiments.cli.app import script

    script(__file__)
