"""norm-layers, norm-order, higher-lr, generalises: batch norm beside its alternatives.

The chapter says that networks with batch norm tend to generalise better and train at learning
rates at which they fail without it, and asks as further research what other normalisation layers
do and whether the activation should come before or after batch norm.

All trainings: ten digits, batch 512, one-cycle. Where two networks are compared at their best, each
has the best of the same rates for seeds that are not measured.

Rules, for five seeds or more:
  norm-layers: layer, group and instance norm train as batch norm does: each reaches 0.9 in every
    seed at its best rate. (The last layer has no norm here: instance norm of its 1×1 maps would
    leave nothing of the image.)
  norm-order: the activation before batch norm gives the higher accuracy, each order at its best
    rate; 95 % interval of the difference.
  higher-lr: the highest rate at which every seed reaches 0.9 is higher with batch norm.
  generalises: after five epochs, each at its best rate, the accuracy on training images exceeds
    that on test images by less with batch norm; 95 % interval of the difference.

Command: python -m experiments run norm-layers norm-order higher-lr generalises --seeds 5
"""

from collections.abc import Sequence
from dataclasses import replace

from experiments import charts
from experiments.comparison import accuracies, at_best, gaps, larger
from experiments.intervals import difference
from experiments.lab import Lab
from experiments.ledger import Claim, Decision, Measured, on_digits, over_seeds
from experiments.setting import BATCH_NORM, ONE_CYCLE

TRAINS = 0.9
LAYERS = ("batch", "layer", "group", "instance")
IN_WORDS = {"none": "without batch norm", "batch": "with batch norm"}
HIGH_RATES = (0.003, 0.01, 0.03, 0.06, 0.1, 0.2, 0.5, 1.0, 2.0)


def norm_layers(lab: Lab) -> Measured:
    networks = {norm: replace(ONE_CYCLE, norm=norm, norm_last=False) for norm in LAYERS}
    return at_best(lab, networks, "norm-layers")[1]


def all_train(measured: Measured) -> Decision:
    lowest = {norm: min(measured[f"accuracy_{norm}"]) for norm in LAYERS}
    batch = measured["accuracy_batch"]
    beside = [
        f"{norm} − batch {difference(measured[f'accuracy_{norm}'], batch)}" for norm in LAYERS[1:]
    ]
    return Decision(min(lowest.values()) >= TRAINS, "; ".join(beside))


def norm_order(lab: Lab) -> Measured:
    orders = {"after": BATCH_NORM, "before": replace(BATCH_NORM, activate_first=True)}
    return at_best(lab, orders, "norm-order")[1]


def highest(rates: Sequence[float], curve: Sequence[Sequence[float]]) -> float:
    """Returns the highest rate at which every seed trains, 0 where there is none."""
    trains = [rate for rate, of_seeds in zip(rates, curve, strict=True) if min(of_seeds) >= TRAINS]
    return max(trains, default=0.0)


def higher_lr(lab: Lab) -> Measured:
    networks = {"none": ONE_CYCLE, "batch": BATCH_NORM}
    rates = HIGH_RATES[:2] if lab.quick else HIGH_RATES
    curves = {
        name: [accuracies(lab.outcomes(replace(setting, lr_max=rate))) for rate in rates]
        for name, setting in networks.items()
    }
    figure = charts.curves(
        {IN_WORDS[name]: dict(zip(rates, curve, strict=True)) for name, curve in curves.items()},
        xlabel="highest learning rate of one-cycle",
        ylabel="test accuracy",
    )
    lab.picture("higher-lr", figure)
    return {
        **{f"highest_rate_{name}": [highest(rates, curve)] for name, curve in curves.items()},
        **{
            f"accuracy_{name}_at_{rate:g}": of_seeds
            for name, curve in curves.items()
            for rate, of_seeds in zip(rates, curve, strict=True)
        },
    }


def trains_higher(measured: Measured) -> Decision:
    none, batch = measured["highest_rate_none"][0], measured["highest_rate_batch"][0]
    return Decision(
        batch > none,
        f"every seed reaches {TRAINS} up to a rate of {none:g} without and of {batch:g} with batch "
        f"norm (tried: {', '.join(f'{rate:g}' for rate in HIGH_RATES)})",
    )


def generalises(lab: Lab) -> Measured:
    networks = {
        "none": replace(ONE_CYCLE, epochs=5),
        "batch": replace(BATCH_NORM, epochs=5),
    }
    outcomes, figures = at_best(lab, networks)
    sides = {IN_WORDS[name]: gaps(found) for name, found in outcomes.items()}
    lab.picture("generalises", charts.sides(sides, "training − test accuracy"))
    return {**{f"gap_{name}": gaps(found) for name, found in outcomes.items()}, **figures}


CLAIMS = (
    Claim(
        id="higher-lr",
        statement="batch norm trains at learning rates at which the plain network fails",
        published={"picture": "accuracy against learning rate"},
        measure=higher_lr,
        compares=True,
        rules=on_digits(
            over_seeds(
                f"the highest rate at which every seed reaches {TRAINS} is higher with batch norm",
                trains_higher,
            )
        ),
    ),
    Claim(
        id="generalises",
        statement="networks with batch norm generalise better",
        published={"gap": "smaller with batch norm"},
        measure=generalises,
        compares=True,
        rules=on_digits(larger("gap_none", "gap_batch", "gap without − with batch norm")),
    ),
    Claim(
        id="norm-layers",
        statement="further research: layer, group and instance norm train as well",
        published={"question": "other normalisation layers"},
        measure=norm_layers,
        compares=True,
        rules=on_digits(over_seeds(f"each of the four reaches {TRAINS} in every seed", all_train)),
    ),
    Claim(
        id="norm-order",
        statement="further research: the activation before batch norm does better than after",
        published={"question": "activation before or after batch norm"},
        measure=norm_order,
        compares=True,
        rules=on_digits(
            larger("accuracy_before", "accuracy_after", "activation before − after the norm")
        ),
    ),
)

if __name__ == "__main__":
    from experiments.cli import script

    script(__file__)
