"""baseline-fails, near-zero-grows, batch-512-fails: ten digits at a constant rate of 0.06.

The chapter's network 1→8 (5×5)→16→32→64→10 without batch norm, constant learning rate 0.06, one
epoch. Published (train loss / valid loss / accuracy): batch 64: 2.3071 / 2.3059 / 0.1135; batch
512: 2.3094 / 2.3027 / 0.1135. An accuracy of 0.1135 is that of always answering "1".
The activations: most are near zero, more so at the penultimate layer than at the first.

Outcomes are of two kinds. A training fails where it ends below 0.2 accuracy; guessing one class
gives at most 0.1135.

Rules, for five seeds or more:
  baseline-fails: at least half of the seeds fail, so that failing is what one sees.
  batch-512-fails: the published figure could be one of ours: at least one seed fails.
  near-zero-grows: over the last quarter of the steps, in at least four of five seeds more than half
  of the penultimate layer's activations are near zero (x ≤ 0.05), and more than of the first's.

Command: python -m experiments run baseline-fails near-zero-grows batch-512-fails --seeds 5
"""

from collections.abc import Callable

import numpy as np

from convjax import plots
from experiments.lab import Lab
from experiments.ledger import Claim, Decision, Measured, Rule, on_digits, over_seeds
from experiments.setting import BASELINE, BATCH_512, Setting
from experiments.training import Training

FAILED = 0.2
PENULTIMATE = "blocks.3.conv"


def late_near_zero(training: Training, layer: str) -> float:
    """Returns the share of x ≤ 0.05 over the last quarter of the steps."""
    record = training.record
    column = record.near_zero[:, record.layer(layer)]
    return float(column[-max(len(column) // 4, 1) :].mean())


def outcome(lab: Lab, setting: Setting) -> Measured:
    accuracy = lab.metric(setting, "accuracy")
    return {
        "accuracy": accuracy,
        "valid_loss": lab.metric(setting, "valid_loss"),
        "train_loss": lab.metric(setting, "train_loss"),
        "failed": [float(value < FAILED) for value in accuracy],
    }


def baseline(lab: Lab) -> Measured:
    record = lab.train(BASELINE)[0].record
    lab.picture("baseline-fails", plots.color_dim(record, PENULTIMATE))
    return outcome(lab, BASELINE)


def near_zero_grows(lab: Lab) -> Measured:
    trainings = lab.train(BASELINE)
    record = trainings[0].record
    lab.picture("near-zero-first-layer", plots.plot_layer_stats(record, 0))
    lab.picture("near-zero-penultimate-layer", plots.plot_layer_stats(record, -2))
    first, penultimate = record.layers[0], record.layers[-2]
    return {
        "near_zero_first": [late_near_zero(t, first) for t in trainings],
        "near_zero_penultimate": [late_near_zero(t, penultimate) for t in trainings],
    }


def share_failing(at_least: float, text: str) -> Rule:
    def decide(measured: Measured) -> Decision:
        failed = measured["failed"]
        return Decision(
            sum(failed) >= max(at_least * len(failed), 1),
            f"{sum(failed):.0f} of {len(failed)} seeds fail",
        )

    return over_seeds(text, decide)


def penultimate_is_worse(measured: Measured) -> Decision:
    first = np.array(measured["near_zero_first"])
    last = np.array(measured["near_zero_penultimate"])
    hits = (last > 0.5) & (last > first)
    return Decision(
        bool(hits.mean() >= 0.8),
        f"{hits.sum()} of {len(hits)} seeds; near zero {first.mean():.2f} at the first layer, "
        f"{last.mean():.2f} at the penultimate",
    )


def claim_of_failure(
    id: str,
    statement: str,
    losses: tuple[float, float],
    measure: Callable[[Lab], Measured],
    rules: dict[str, Rule],
) -> Claim:
    published = {"train_loss": losses[0], "valid_loss": losses[1], "accuracy": 0.1135}
    return Claim(id, statement, published, measure, rules)


CLAIMS = (
    claim_of_failure(
        "baseline-fails",
        "ten digits, constant lr 0.06, batch 64: the training fails",
        (2.3071, 2.3059),
        baseline,
        # Most trainings of one draw of parameters failed (4 of 5 seeds), fewer of another (2 of 5).
        on_digits(
            share_failing(0.5, f"at least half of the seeds end below {FAILED}"), mnist="refuted"
        ),
    ),
    Claim(
        id="near-zero-grows",
        statement="most activations are near zero, worse at the penultimate layer than at the "
        "first",
        published={"picture": "plot_layer_stats(0), plot_layer_stats(-2)"},
        measure=near_zero_grows,
        rules=on_digits(
            over_seeds(
                "in 4 of 5 seeds more than half of the penultimate layer is near zero in the last "
                "quarter, and more than of the first layer",
                penultimate_is_worse,
            )
        ),
    ),
    claim_of_failure(
        "batch-512-fails",
        "the same with batch 512: steadier, fewer updates, still fails",
        (2.3094, 2.3027),
        lambda lab: outcome(lab, BATCH_512),
        on_digits(share_failing(0.0, f"at least one seed ends below {FAILED}")),
    ),
)

if __name__ == "__main__":
    from experiments.cli import script

    script(__file__)
