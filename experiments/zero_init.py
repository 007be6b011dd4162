"""zero-init: blocks of a residual network that begin as their shortcut train faster at first.

Prediction of Goyal et al.: where the scale of each block's last batch norm begins at 0 instead of
1, every block begins as its shortcut alone, which eases the start of the training.

The residual network of 56 layers of `skip-connections`, in the same two forms. Each side has the
best of the same rates, tuned on seeds that are not measured.

Rule, for five seeds or more: the mean training loss over the first quarter of the steps, in which
the rate rises, is lower with 0 than with 1; 95 % interval of the difference. The accuracies at the
end are measured as well.

Command: python -m experiments run zero-init --seeds 5 --data cifar10
"""

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

import numpy as np

from convjax.chapter.training import Outcome
from convjax.plots import new_figure
from experiments.harness.charts import COLORS
from experiments.harness.claim import Claim, Published
from experiments.harness.comparison import larger
from experiments.harness.lab import Lab
from experiments.harness.rules import Measured
from experiments.residual.comparison import compared
from experiments.residual.setting import form_of

if TYPE_CHECKING:
    from matplotlib.figure import Figure

DEPTH = 56
SIDES = {"ones": False, "zeros": True}


def zero_init(lab: Lab) -> Measured:
    """Measures the training loss in the first quarter, and the accuracies at the end."""
    settings = {name: form_of(lab, depth=DEPTH, zero_init=zero) for name, zero in SIDES.items()}
    outcomes, figures = compared(lab, settings, "zero-init")
    lab.picture("zero-init-loss", losses(outcomes))
    early = {f"early_loss_{name}": list(map(early_loss, of)) for name, of in outcomes.items()}
    return {**early, **figures}


def early_loss(outcome: Outcome) -> float:
    """Returns the mean training loss over the first quarter of the steps."""
    return float(np.mean(outcome.loss[: max(len(outcome.loss) // 4, 1)]))


def losses(found: Mapping[str, Sequence[Outcome]]) -> "Figure":
    """Draws the training loss of each side, on average over the seeds.

    Args:
      found: the outcomes by what the scales begin at.
    """
    figure = new_figure(7, 4)
    axes = figure.subplots()
    for (name, of_seeds), color in zip(found.items(), COLORS, strict=False):
        mean = np.mean([outcome.loss for outcome in of_seeds], 0)
        axes.plot(mean, color=color, linewidth=1, label=f"last scales begin at {name}")
    axes.axvline(len(mean) / 4, color="0.5", linestyle="--", linewidth=1)
    axes.set_xlabel("step (line: end of the first quarter)")
    axes.set_ylabel("training loss (mean of the seeds)")
    axes.legend()
    return figure


CLAIMS = (
    Claim(
        id="zero-init",
        statement="last scales of blocks that begin at 0 help the start of the training",
        published=Published(figures={"early_loss": "lower with zeros (Goyal et al.)"}),
        measure=zero_init,
        compares=True,
        rules={
            "cifar10": larger(
                "early_loss_ones", "early_loss_zeros", "early training loss, ones − zeros"
            )
        },
    ),
)

if __name__ == "__main__":
    from experiments.cli.app import script

    script(__file__)
