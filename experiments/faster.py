"""faster: batch norm reaches an accuracy in fewer steps.

The chapter quotes the paper: batch norm reached Inception's accuracy in a fifth of the steps and
better. Here the ten-digit network, batch 512, five epochs at a constant rate, scored every 1/20 of
an epoch; each network at the best of the same rates for seeds that are not measured.

Measured per seed: the first step at which the test accuracy reaches that which the plain network
has at its end, on average over the seeds that are not measured; a training that never reaches it
counts all its steps.

Rule, for five seeds or more: batch norm takes fewer steps; 95 % interval of the difference. The
ratio of the means is shown beside the paper's five.

Command: python -m experiments run faster --seeds 5
"""

from dataclasses import replace

from experiments import charts
from experiments.comparison import TUNING_SEEDS, accuracies, tuned
from experiments.intervals import difference
from experiments.lab import Lab
from experiments.ledger import Claim, Decision, Measured, mean, on_digits, over_seeds
from experiments.norms import IN_WORDS
from experiments.setting import BATCH_512
from experiments.training import Outcome

PLAIN = replace(BATCH_512, epochs=5)
SCORES = 20


def steps_to(goal: float, outcome: Outcome) -> float:
    """Returns the first scored step with that accuracy, or the last step of all."""
    reached = [row["step"] for row in outcome.metrics if row["accuracy"] >= goal]
    return float(min(reached, default=outcome.metrics[-1]["step"]))


def faster(lab: Lab) -> Measured:
    networks = {"none": PLAIN, "batch": replace(PLAIN, norm="batch")}
    best = {name: tuned(lab, setting) for name, setting in networks.items()}
    goal = mean(accuracies(lab.outcomes(best["none"], TUNING_SEEDS[: 1 if lab.quick else None])))
    outcomes = {
        name: lab.outcomes(replace(setting, scores=SCORES)) for name, setting in best.items()
    }
    lines = {
        IN_WORDS[name]: [[(row["step"], row["accuracy"]) for row in o.metrics] for o in of]
        for name, of in outcomes.items()
    }
    lab.picture("faster", charts.progress(lines, goal, xlabel="steps", ylabel="test accuracy"))
    return {
        "goal": [goal],
        **{f"steps_{name}": [steps_to(goal, o) for o in of] for name, of in outcomes.items()},
        **{f"accuracy_{name}": accuracies(of) for name, of in outcomes.items()},
        **{f"rate_{name}": [setting.lr_max] for name, setting in best.items()},
    }


def fewer_steps(measured: Measured) -> Decision:
    none, batch = measured["steps_none"], measured["steps_batch"]
    found = difference(none, batch)
    return Decision(
        found.above_zero,
        f"to an accuracy of {measured['goal'][0]:.4f} {mean(none):.0f} steps without and "
        f"{mean(batch):.0f} with batch norm, {mean(none) / mean(batch):.1f} times fewer; "
        f"difference {found.mean:.0f} (95 % from {found.low:.0f} to {found.high:.0f})",
    )


CLAIMS = (
    Claim(
        id="faster",
        statement="batch norm reaches an accuracy in fewer steps",
        published={"ratio": "a fifth of the steps and better (Inception)"},
        measure=faster,
        compares=True,
        rules=on_digits(
            over_seeds("95 % interval of steps without − with batch norm lies above 0", fewer_steps)
        ),
    ),
)

if __name__ == "__main__":
    from experiments.cli import script

    script(__file__)
