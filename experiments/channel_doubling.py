"""channel-doubling: why the channels double where a stride of 2 halves height and width.

Prediction of the chapter: a stride of 2 leaves a quarter of the activations. With twice as many
channels it is half of them, so that the capacity of a layer does not fall by too much at a time.

The residual network of 20 layers of `skip-connections`, in the same two forms: with channels that
double at each stride of 2, with the first stage's channels kept, and with half as many again kept,
which costs 5 % more multiplications. Each side has the best of the same rates, tuned on
seeds that are not measured.

Rule, for five seeds or more: the test accuracy is higher with doubled than with kept channels; 95 %
interval of the difference. The difference from the network of equal cost is shown as well.

Command: python -m experiments run channel-doubling --seeds 5 --data cifar10
"""

from experiments.harness.claim import Claim, Published
from experiments.harness.intervals import difference
from experiments.harness.lab import Lab
from experiments.harness.rules import Decision, Measured, over_seeds
from experiments.residual.comparison import compared, cost
from experiments.residual.setting import ResidualSetting, form_of

# The channels of the three stages, in units of those of the first.
SIDES = {"doubled": (1, 2, 4), "kept": (1, 1, 1), "kept-wide": (1.5, 1.5, 1.5)}


def sides(lab: Lab) -> dict[str, ResidualSetting]:
    """Returns the settings of the three networks."""
    first = form_of(lab).widths[0]
    return {
        name: form_of(lab, widths=tuple(int(first * factor) for factor in factors))
        for name, factors in SIDES.items()
    }


def channel_doubling(lab: Lab) -> Measured:
    """Measures the accuracies and counts parameters, multiplications and features."""
    settings = sides(lab)
    figures = compared(lab, settings, "channel-doubling")[1]
    costs: dict[str, list[float]] = {}
    for name, setting in settings.items():
        dataset = lab.dataset_of(setting)
        found = cost(setting, dataset.train.images.shape[1:], len(dataset.class_names))
        costs |= {f"{figure}_{name}": [float(number)] for figure, number in found.items()}
    return {**figures, **costs}


def doubling_helps(measured: Measured) -> Decision:
    """Decides whether the accuracy is higher with doubled channels."""
    doubled = measured["accuracy_doubled"]
    more = {name: difference(doubled, measured[f"accuracy_{name}"]) for name in SIDES}
    products = {name: measured[f"multiplications_{name}"][0] / 1e6 for name in SIDES}
    features = {name: measured[f"features_{name}"][0] for name in SIDES}
    others = "; ".join(
        f"doubled − {name} {more[name].text(3)} ({products[name]:.2f} million multiplications, "
        f"{features[name]:,.0f} last features)"
        for name in ("kept", "kept-wide")
    )
    return Decision(
        more["kept"].above_zero,
        f"with {products['doubled']:.2f} million multiplications and {features['doubled']:,.0f} "
        f"last features: {others}",
    )


CLAIMS = (
    Claim(
        id="channel-doubling",
        statement="channels that double at a stride of 2 keep the capacity of the layers",
        published=Published(question="the network with its channels kept"),
        measure=channel_doubling,
        compares=True,
        rules={
            "cifar10": over_seeds(
                "95 % interval of the accuracy with doubled − with kept channels lies above 0",
                doubling_helps,
            )
        },
    ),
)

if __name__ == "__main__":
    from experiments.cli.app import script

    script(__file__)
