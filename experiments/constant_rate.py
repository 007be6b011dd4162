"""baseline-fails, near-zero-grows, batch-512-fails: ten digits at a constant rate of 0.06.

The chapter's network 1→8 (5×5)→16→32→64→10 without batch norm, constant learning rate 0.06, one
epoch. Published (train loss / valid loss / accuracy): batch 64: 2.3071 / 2.3059 / 0.1135; batch
512: 2.3094 / 2.3027 / 0.1135. An accuracy of 0.1135 is that of always answering "1".
The activations: most are near zero, more so at the penultimate layer than at the first.

Trainings are of two kinds: they train or they fail. One fails where it ends below 0.2 accuracy;
always answering one class gives at most 0.1135.

Rules, for five seeds or more:
  baseline-fails: at least half of the seeds fail, so that failing is what one sees.
  batch-512-fails: the published figure could be one of ours: at least one seed fails.
  near-zero-grows: over the last quarter of the steps, in at least four of five seeds more than half
  of the penultimate layer's activations are near zero (x ≤ 0.05), and more than of the first's.

Command: python -m experiments run baseline-fails near-zero-grows batch-512-fails --seeds 5
"""

import math

import numpy as np

from convjax import plots
from experiments.harness.claim import Claim, Published
from experiments.harness.lab import Lab
from experiments.harness.rules import Decision, Measured, Rule, on_digits, over_seeds
from experiments.harness.setting import BASELINE, BATCH_512, PENULTIMATE, Setting
from experiments.harness.training import Training

FAILED = 0.2


def outcome(lab: Lab, setting: Setting) -> Measured:
    scores = lab.scores(setting)
    return {**scores, "failed": [float(accuracy < FAILED) for accuracy in scores["accuracy"]]}


def baseline(lab: Lab) -> Measured:
    record = lab.train(BASELINE)[0].record
    lab.picture("baseline-fails", plots.color_dim(record, PENULTIMATE))
    return outcome(lab, BASELINE)


def some_fail(at_least: float) -> Rule:
    """A rule: that share of the seeds fails, and one of them in any case."""

    def decide(measured: Measured) -> Decision:
        failing, seeds = sum(measured["failed"]), len(measured["failed"])
        wanted = max(math.ceil(at_least * seeds), 1)
        return Decision(failing >= wanted, f"{failing:.0f} of {seeds} seeds fail")

    share = f"at least {at_least:.0%} of the seeds" if at_least else "at least one seed"
    return over_seeds(f"{share} end below {FAILED}", decide)


def late_near_zero(training: Training, layer: int | str) -> float:
    """Returns the share of x ≤ 0.05 over the last quarter of the steps."""
    record = training.record
    column = record.near_zero[:, record.layer(layer)]
    return float(column[-max(len(column) // 4, 1) :].mean())


def near_zero_grows(lab: Lab) -> Measured:
    trainings = lab.train(BASELINE)
    record = trainings[0].record
    lab.picture("near-zero-first-layer", plots.plot_layer_stats(record, 0))
    lab.picture("near-zero-penultimate-layer", plots.plot_layer_stats(record, PENULTIMATE))
    return {
        "near_zero_first": [late_near_zero(training, 0) for training in trainings],
        "near_zero_penultimate": [late_near_zero(training, PENULTIMATE) for training in trainings],
    }


def penultimate_is_worse(measured: Measured) -> Decision:
    first = np.array(measured["near_zero_first"])
    last = np.array(measured["near_zero_penultimate"])
    hits = (last > 0.5) & (last > first)
    return Decision(
        bool(hits.mean() >= 0.8),
        f"{hits.sum()} of {len(hits)} seeds; near zero {first.mean():.2f} at the first layer, "
        f"{last.mean():.2f} at the penultimate",
    )


CLAIMS = (
    Claim(
        id="baseline-fails",
        statement="ten digits, constant lr 0.06, batch 64: the training fails",
        published=Published(
            figures={"train_loss": 2.3071, "valid_loss": 2.3059, "accuracy": 0.1135}
        ),
        measure=baseline,
        # Most trainings of one draw of parameters failed (4 of 5 seeds), fewer of another (2 of 5).
        rules=on_digits(some_fail(0.5), mnist="refuted"),
    ),
    Claim(
        id="near-zero-grows",
        statement="most activations are near zero, worse at the penultimate layer than at the "
        "first",
        published=Published(picture="plot_layer_stats(0), plot_layer_stats(-2)"),
        measure=near_zero_grows,
        rules=on_digits(
            over_seeds(
                "in 4 of 5 seeds more than half of the penultimate layer is near zero in the last "
                "quarter, and more than of the first layer",
                penultimate_is_worse,
            )
        ),
    ),
    Claim(
        id="batch-512-fails",
        statement="the same with batch 512: steadier, fewer updates, still fails",
        published=Published(
            figures={"train_loss": 2.3094, "valid_loss": 2.3027, "accuracy": 0.1135}
        ),
        measure=lambda lab: outcome(lab, BATCH_512),
        rules=on_digits(some_fail(0)),
    ),
)

if __name__ == "__main__":
    from experiments.cli.app import script

    script(__file__)
