"""one-cycle-parts, super-convergence: what the parts of one-cycle do, and what the whole allows.

The chapter says that warm-up avoids divergence at the start, that annealing lets the training find
the minimum, and that the momentum moves against the rate; and, after Smith and Topin, that
one-cycle allows much higher rates, so that a training is shorter and overfits less.

All trainings: the ten-digit network without norm, batch 512. Every side is tuned over the same
rates with seeds that are not measured.

Rules, for five seeds or more:
  one-cycle-parts: without warm-up, without annealing and with a constant momentum the accuracy
    after one epoch is lower than with all parts; 95 % interval of each difference. Undecided where
    one of the three intervals holds 0. (Linear instead of cosine is shown beside.)
  super-convergence: (a) the highest rate at which every seed reaches 0.9 is higher with one-cycle
    than with a constant rate; (b) one-cycle needs fewer epochs than a constant rate to the accuracy
    that the constant rate has after its eight; (c) at that accuracy the training accuracy of the
    one-cycle network exceeds its test accuracy by less; 95 % interval of the difference. Refuted
    where one of the three is not so, undecided where the interval holds 0 and (a) and (b) are so.

Command: python -m experiments run one-cycle-parts super-convergence --seeds 5
"""

from dataclasses import replace

from experiments import charts
from experiments.comparison import RATES, accuracies, at_best, gaps, tuned
from experiments.intervals import difference
from experiments.lab import Lab
from experiments.ledger import Claim, Decision, Measured, mean, on_digits, over_seeds
from experiments.norms import TRAINS, highest
from experiments.setting import BATCH_512, CYCLES, ONE_CYCLE

PARTS = ("no-warm-up", "no-annealing", "flat-momentum")
LENGTHS = (1, 2, 3, 5)
CONSTANT_EPOCHS = 8


def one_cycle_parts(lab: Lab) -> Measured:
    schedules = {name: replace(ONE_CYCLE, schedule=name) for name in CYCLES}
    return at_best(lab, schedules, "one-cycle-parts")[1]


def every_part_helps(measured: Measured) -> Decision:
    whole = measured["accuracy_one-cycle"]
    without = {part: difference(whole, measured[f"accuracy_{part}"]) for part in (*PARTS, "linear")}
    reason = "; ".join(f"one-cycle − {part}: {found}" for part, found in without.items())
    if any(without[part].high < 0 for part in PARTS):
        return Decision(False, reason)
    return Decision(True if all(without[part].low > 0 for part in PARTS) else None, reason)


def super_convergence(lab: Lab) -> Measured:
    constant = tuned(lab, replace(BATCH_512, epochs=CONSTANT_EPOCHS))
    slow = lab.outcomes(constant)
    fast = {
        epochs: lab.outcomes(tuned(lab, replace(ONE_CYCLE, epochs=epochs))) for epochs in LENGTHS
    }
    goal = mean(accuracies(slow))
    figure = charts.curves(
        {
            "one-cycle, a training for each number of epochs": {
                epochs: accuracies(found) for epochs, found in fast.items()
            },
            "constant rate, along one training": {
                epoch + 1: [outcome.metrics[epoch]["accuracy"] for outcome in slow]
                for epoch in range(CONSTANT_EPOCHS)
            },
        },
        xlabel="epochs",
        ylabel="test accuracy",
    )
    lab.picture("super-convergence", figure)
    enough = [epochs for epochs, found in fast.items() if mean(accuracies(found)) >= goal]
    needed = min(enough, default=CONSTANT_EPOCHS)
    at_goal = fast.get(needed, fast[LENGTHS[-1]])
    curves = {
        name: [accuracies(lab.outcomes(replace(setting, lr_max=rate))) for rate in RATES]
        for name, setting in (("constant", BATCH_512), ("one_cycle", ONE_CYCLE))
    }
    return {
        **{f"highest_rate_{name}": [highest(RATES, curve)] for name, curve in curves.items()},
        "accuracy_constant": accuracies(slow),
        "epochs_constant": [CONSTANT_EPOCHS],
        "epochs_one_cycle": [needed],
        **{f"accuracy_one_cycle_{n}": accuracies(found) for n, found in fast.items()},
        "gap_constant": gaps(slow),
        "gap_one_cycle": gaps(at_goal),
    }


def faster_higher_and_flatter(measured: Measured) -> Decision:
    rates = [measured[f"highest_rate_{name}"][0] for name in ("constant", "one_cycle")]
    epochs = [measured[f"epochs_{name}"][0] for name in ("constant", "one_cycle")]
    gap = difference(measured["gap_constant"], measured["gap_one_cycle"])
    allows = rates[1] > rates[0] and epochs[1] < epochs[0]
    return Decision(
        gap.above_zero if allows else False,
        f"rates up to {rates[0]:g} constant and {rates[1]:g} with one-cycle; {epochs[0]:g} epochs "
        f"constant, {epochs[1]:g} with one-cycle to {mean(measured['accuracy_constant']):.4f}; gap "
        f"between train and test, constant − one-cycle: {gap}",
    )


CLAIMS = (
    Claim(
        id="one-cycle-parts",
        statement="warm-up avoids divergence, annealing finds the minimum, momentum moves against "
        "the rate: each part helps",
        published={"question": "the network with each part taken away"},
        measure=one_cycle_parts,
        compares=True,
        rules=on_digits(
            over_seeds(
                "95 % intervals of one-cycle's accuracy less that without warm-up, without "
                "annealing and with constant momentum lie above 0",
                every_part_helps,
            )
        ),
    ),
    Claim(
        id="super-convergence",
        statement="one-cycle allows much higher rates, so training is shorter and overfits less",
        published={"question": "epochs to the same accuracy, and the gap between train and test"},
        measure=super_convergence,
        compares=True,
        rules=on_digits(
            over_seeds(
                f"with one-cycle the highest rate at which every seed reaches {TRAINS} is higher, "
                "the epochs to the same accuracy fewer, and the gap there smaller (95 % interval)",
                faster_higher_and_flatter,
            )
        ),
    ),
)

if __name__ == "__main__":
    from experiments.cli import script

    script(__file__)
