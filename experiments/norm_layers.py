"""norm-layers, norm-order: other normalisation layers, and the activation before or after the norm.

The chapter asks both as further research.

All trainings: ten digits, batch 512, one epoch of one-cycle. Each network has the best of the same
rates, tuned on seeds that are not measured.

Rules:
  norm-layers: batch, layer, group and instance norm all train: each reaches 0.9 in every seed. (The
    last layer has no norm here: instance norm would remove all information from its 1×1 maps.)
  norm-order, for five seeds or more: the activation before batch norm gives the higher accuracy;
    95 % interval of the difference.

Command: python -m experiments run norm-layers norm-order --seeds 5
"""

import math
from dataclasses import replace

from convjax.chapter.setting import BATCH_NORM, ONE_CYCLE
from convjax.nn.models import NORMS
from experiments.harness import charts
from experiments.harness.claim import Claim, Published
from experiments.harness.comparison import (
    RATES,
    TRAINS,
    at_best,
    first_training_rate,
    larger,
)
from experiments.harness.intervals import difference
from experiments.harness.lab import Lab
from experiments.harness.rules import Decision, Measured, Rule, on_digits


def norm_layers(lab: Lab) -> Measured:
    """Measures the accuracy with each normalisation layer."""
    networks = {norm: replace(ONE_CYCLE, norm=norm, norm_last=False) for norm in NORMS}
    return at_best(lab, networks, "norm-layers")[1]


def norm_layers_in_brief(lab: Lab) -> Measured:
    """Finds for each one of the same rates at which it trains, which need not be its best."""
    middle_first = sorted(RATES, key=lambda rate: abs(math.log(rate / RATES[len(RATES) // 2])))
    measured: dict[str, list[float]] = {}
    for norm in NORMS:
        setting = replace(ONE_CYCLE, norm=norm, norm_last=False)
        rate, tried = first_training_rate(lab, setting, middle_first)
        measured[f"accuracy_{norm}"] = tried[rate] if rate else max(tried.values(), key=min)
        measured[f"trains_at_{norm}"] = [rate]
    sides = {norm: measured[f"accuracy_{norm}"] for norm in NORMS}
    lab.picture("norm-layers", charts.sides(sides, "test accuracy"))
    return measured


def all_train(measured: Measured) -> Decision:
    """Decides whether all four normalisation layers train."""
    found = {norm: measured[f"accuracy_{norm}"] for norm in NORMS}
    lowest = ", ".join(f"{norm} {min(of_seeds):.4f}" for norm, of_seeds in found.items())
    reason = f"lowest accuracies: {lowest} (at least {TRAINS} wanted)"
    # The brief form has no best rates, so that no side can be compared.
    if "rate_batch" in measured and len(found["batch"]) > 1:
        for norm in NORMS[1:]:
            reason += f"; {norm} − batch {difference(found[norm], found['batch'])}"
    least = min(map(min, found.values()))
    return Decision(least >= TRAINS, reason, f"lowest accuracy of the four {least:.4f}")


def norm_order(lab: Lab) -> Measured:
    """Measures the accuracy with the activation after and before the norm."""
    orders = {"after": BATCH_NORM, "before": replace(BATCH_NORM, activate_first=True)}
    return at_best(lab, orders, "norm-order")[1]


CLAIMS = (
    Claim(
        id="norm-layers",
        statement="further research: layer, group and instance norm train, too",
        published=Published(question="other normalisation layers"),
        measure=norm_layers,
        compares=True,
        brief=norm_layers_in_brief,
        rules=on_digits(Rule(f"each of the four reaches {TRAINS} in every seed", all_train)),
    ),
    Claim(
        id="norm-order",
        statement="further research: the activation before batch norm does better than after",
        published=Published(question="activation before or after batch norm"),
        measure=norm_order,
        compares=True,
        rules=on_digits(
            larger("accuracy_before", "accuracy_after", "activation before − after the norm"),
            mnist="undecided",
            mnist5k="undecided",
        ),
    ),
)

if __name__ == "__main__":
    from experiments.cli.app import script

    script(__file__)
