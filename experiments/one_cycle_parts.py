"""one-cycle-parts: what warm-up, annealing and moving momentum contribute to one-cycle.

Prediction of the chapter: warm-up avoids divergence at the start, annealing lets the training find
the minimum, and the momentum moves against the rate.

All trainings: the ten-digit network without norm, batch 512, one epoch. Each variant of the
schedule has the best of the same rates, tuned on seeds that are not measured.

Rule, for five seeds or more: the accuracy is higher with all parts than without warm-up, without
annealing and with a constant momentum; 95 % interval of each of the three differences. The claim is
refuted if one interval lies below 0, and otherwise undecided if one contains 0. (The difference
from the linear schedule is shown as well.)

Command: python -m experiments run one-cycle-parts --seeds 5
"""

from dataclasses import replace

from convjax.chapter.setting import CYCLES, ONE_CYCLE
from experiments.harness.claim import Claim, Published
from experiments.harness.comparison import at_best
from experiments.harness.intervals import difference
from experiments.harness.lab import Lab
from experiments.harness.rules import Decision, Measured, all_hold, on_digits, over_seeds

PARTS = ("no-warm-up", "no-annealing", "flat-momentum")


def one_cycle_parts(lab: Lab) -> Measured:
    """Measures the accuracy of one-cycle and of its variants."""
    schedules = {name: replace(ONE_CYCLE, schedule=name) for name in CYCLES}
    return at_best(lab, schedules, "one-cycle-parts")[1]


def every_part_helps(measured: Measured) -> Decision:
    """Decides whether each part raises the accuracy."""
    whole = measured["accuracy_one-cycle"]
    without = {name: difference(whole, measured[f"accuracy_{name}"]) for name in (*PARTS, "linear")}
    signs = [without[part].above_zero for part in PARTS]
    return Decision(
        all_hold(signs),
        "; ".join(f"one-cycle − {name}: {found}" for name, found in without.items()),
        "better by " + ", ".join(f"{without[part].mean:+.4f}" for part in PARTS),
    )


CLAIMS = (
    Claim(
        id="one-cycle-parts",
        statement="warm-up avoids divergence, annealing finds the minimum, momentum moves against "
        "the rate: each part helps",
        published=Published(question="the network with each part taken away"),
        measure=one_cycle_parts,
        compares=True,
        rules=on_digits(
            over_seeds(
                "95 % intervals of one-cycle's accuracy less that without warm-up, without "
                "annealing and with constant momentum lie above 0",
                every_part_helps,
            ),
            mnist="undecided",
            mnist5k="undecided",
        ),
    ),
)

if __name__ == "__main__":
    from experiments.cli.app import script

    script(__file__)
