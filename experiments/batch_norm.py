"""batch-norm, smooth-picture, longer: batch norm after each convolution, batch 512, one-cycle.

Predictions of the chapter (train loss / valid loss / accuracy):
  batch-norm: 0.1300 / 0.0550 / 0.9864 after one epoch at lr_max 0.06.
  smooth-picture: the activations develop smoothly.
  longer: 0.0176 / 0.0254 / 0.9912 and 0.0151 / 0.0251 / 0.9921 after five epochs at lr_max 0.1, in
    two runs.

Rules:
  batch-norm, longer: on mnist each accuracy is plausible as that of another seed, for five seeds or
    more; on mnist5k (4,000 images) every seed reaches 0.95 after one epoch and 0.96 after five.
  smooth-picture: the share of active values at the last 3×3 convolution before the classes never
    collapses in any seed (`convjax.diagnosis.collapse.collapse_steps`; thresholds were set on seeds
    100 to 102).

Command: python -m experiments run batch-norm smooth-picture longer
"""

from convjax import plots
from convjax.chapter.setting import BASELINE, BATCH_NORM, LONGER, ONE_CYCLE, PENULTIMATE
from convjax.diagnosis.collapse import collapse_steps
from experiments.harness.claim import Claim, Published
from experiments.harness.lab import Lab
from experiments.harness.rules import Measured, every, on_digits, within_spread


def batch_norm(lab: Lab) -> Measured:
    """Trains one epoch with batch norm."""
    first = lab.train(BATCH_NORM)[0]
    lab.picture("batch-norm", plots.plot_loss(first.record, first.metrics))
    return lab.scores(BATCH_NORM)


def smooth_picture(lab: Lab) -> Measured:
    """Counts the collapses of the active share with batch norm."""
    records = [training.record for training in lab.train(BATCH_NORM)]
    side_by_side = {
        "constant rate, batch 64": lab.train(BASELINE)[0].record,
        "one-cycle, batch 512": lab.train(ONE_CYCLE)[0].record,
        "one-cycle and batch norm, batch 512": records[0],
    }
    figure = plots.color_dim(list(side_by_side.values()), PENULTIMATE, list(side_by_side))
    lab.picture("smooth-picture", figure)
    return {
        "crashes": [len(collapse_steps(record.active_share(PENULTIMATE))) for record in records]
    }


def longer(lab: Lab) -> Measured:
    """Trains five epochs with batch norm."""
    first = lab.train(LONGER)[0]
    lab.picture("longer", plots.plot_loss(first.record, first.metrics))
    per_epoch = {
        f"accuracy_{epoch + 1}": lab.metric(LONGER, "accuracy", evaluation=epoch)
        for epoch in range(LONGER.epochs - 1)
    }
    return {**lab.scores(LONGER), **per_epoch}


CLAIMS = (
    Claim(
        id="batch-norm",
        statement="with batch norm after each convolution one epoch does better",
        published=Published(
            figures={"train_loss": 0.1300, "valid_loss": 0.0550, "accuracy": 0.9864}
        ),
        measure=batch_norm,
        rules={
            "mnist": within_spread([("accuracy", 0.9864)], test_size=10_000),
            "mnist5k": every("accuracy", 0.95),
        },
    ),
    Claim(
        id="smooth-picture",
        statement="with batch norm the activations develop smoothly, without crashes",
        published=Published(picture="color_dim(-4)"),
        measure=smooth_picture,
        rules=on_digits(every("crashes", 0, 0)),
    ),
    Claim(
        id="longer",
        statement="five epochs at lr_max 0.1 with batch norm",
        published=Published(
            figures={
                "accuracy": "0.9912 and 0.9921",
                "train_loss": "0.0176 and 0.0151",
                "valid_loss": "0.0254 and 0.0251",
                "per_epoch": "0.9609 0.9818 0.9871 0.9902 0.9912 and "
                "0.9758 0.9788 0.9813 0.9907 0.9921",
            }
        ),
        measure=longer,
        rules={
            "mnist": within_spread([("accuracy", 0.9912), ("accuracy", 0.9921)], test_size=10_000),
            "mnist5k": every("accuracy", 0.96),
        },
    ),
)

if __name__ == "__main__":
    from experiments.cli.app import script

    script(__file__)
