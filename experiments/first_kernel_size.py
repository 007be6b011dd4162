"""first-kernel-size: a first kernel of 3×3 or of 5×5 pixels for eight filters.

Prediction of the chapter: 8 filters on 3×3 pixels turn 9 numbers into 8 and so learn little; the
first layer of the ten-digit network therefore takes 5×5, 25 numbers.

Both networks train with one-cycle, batch 512 and one epoch, without norm and with batch norm; each
has the best of the same rates, tuned on seeds that are not measured.

Rule, for five seeds or more: the accuracy is higher with 5×5; 95 % interval of the difference,
without norm as in that part of the chapter. (The figures with batch norm are shown as well.)

Command: python -m experiments run first-kernel-size --seeds 5
"""

from dataclasses import replace

from convjax.chapter.setting import BATCH_NORM, ONE_CYCLE
from experiments.harness.claim import Claim, Published
from experiments.harness.comparison import at_best, larger
from experiments.harness.lab import Lab
from experiments.harness.rules import Measured, on_digits


def first_kernel_size(lab: Lab) -> Measured:
    """Measures the accuracy with first kernels of 3×3 and 5×5 pixels."""
    settings = {
        f"{size}x{size}{norm}": replace(setting, first_kernel=size)
        for norm, setting in (("", ONE_CYCLE), ("_batch_norm", BATCH_NORM))
        for size in (3, 5)
    }
    return at_best(lab, settings, "first-kernel-size")[1]


CLAIMS = (
    Claim(
        id="first-kernel-size",
        statement="eight filters learn more from 5×5 pixels than from 3×3",
        published=Published(question="accuracies of both"),
        measure=first_kernel_size,
        compares=True,
        rules=on_digits(
            larger("accuracy_5x5", "accuracy_3x3", "5×5 − 3×3"),
            mnist="undecided",
            mnist5k="undecided",
        ),
    ),
)

if __name__ == "__main__":
    from experiments.cli.app import script

    script(__file__)
