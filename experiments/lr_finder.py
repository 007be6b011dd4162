"""lr-finder: the rate that a short training at a growing rate suggests.

Prediction of the chapter: one-cycle goes back to Smith's learning-rate finder. It trains for some
batches at a rate that grows by a constant factor, and takes a rate from before the loss diverges.

The ten-digit network trains without and with batch norm, batch 512, for 100 batches at rates from
1e-7 to 10. fastai's four rules suggest rates (`convjax.train.lr_finder`, equal to fastai's own
functions on the same curves).

Rule, for five seeds or more: in every seed and with both networks the smoothed loss falls by a
tenth or more, and one epoch of one-cycle reaches 0.9 if its highest rate is the suggestion of
"valley", fastai's default. (The figures of the other three rules are shown as well.)

Command: python -m experiments run lr-finder --seeds 5
"""

from collections.abc import Iterable, Sequence
from dataclasses import replace

import numpy as np

from convjax import plots
from convjax.chapter.setting import ONE_CYCLE, Setting
from convjax.train.lr_finder import RULES, LRFind, lr_find
from experiments.batch_norm_benefits import both
from experiments.harness.claim import Claim, Published
from experiments.harness.comparison import TRAINS
from experiments.harness.lab import Lab
from experiments.harness.rules import (
    Decision,
    Measured,
    NotMeasuredError,
    mean,
    on_digits,
    over_seeds,
)

STEPS = 100
FALLS = 0.9  # the lowest smoothed loss over the first


def find(lab: Lab, setting: Setting, seed: int) -> LRFind:
    """Returns the learning-rate sweep over the first batches of a seed."""
    first = lab.batches(setting, seed, epoch=0)
    epochs = -(-STEPS // len(first))  # an epoch of a small folder has fewer batches
    later = (lab.batches(setting, seed, epoch) for epoch in range(1, epochs))
    order = np.concatenate([first, *later])[:STEPS]
    train = lab.device_dataset(setting).train
    return lr_find(lab.trainer(setting), lab.network(setting, seed), train, order)


def lr_finder(
    lab: Lab, rules: Iterable[str] = RULES, seeds: Sequence[int] | None = None
) -> Measured:
    """Measures the suggested rates, and the accuracy of one-cycle at each of them.

    Args:
      lab: runs the trainings.
      rules: which suggest rates.
      seeds: those of the lab by default.
    """
    seeds = lab.seeds if seeds is None else seeds
    measured: dict[str, list[float]] = {}
    for name, setting in both(ONE_CYCLE).items():
        found = [find(lab, setting, seed) for seed in seeds]
        if seeds[0] == lab.seeds[0]:
            lab.picture(f"lr-finder-{name}", plots.plot_lr_find(found[0]))
        measured[f"fall_{name}"] = [
            np.nanmin(sweep.smoothed) / sweep.smoothed[0] for sweep in found
        ]
        try:
            suggested = [sweep.suggestions() for sweep in found]
        except ValueError as error:
            raise NotMeasuredError(str(error)) from None
        for rule in rules:
            # Two digits keep the name of the run folder short.
            rates = [float(f"{rates[rule]:.2g}") for rates in suggested]
            measured[f"{rule}_{name}"] = rates
            measured[f"accuracy_{rule}_{name}"] = [
                lab.outcomes(replace(setting, lr_max=rate), [seed])[0].accuracy
                for rate, seed in zip(rates, seeds, strict=True)
            ]
    return measured


def lr_finder_in_brief(lab: Lab) -> Measured:
    """Measures the rule of the claim, up to the first seed that contradicts it."""
    measured: dict[str, list[float]] = {}
    for seed in lab.seeds:
        for name, values in lr_finder(lab, ("valley",), [seed]).items():
            measured.setdefault(name, []).extend(values)
        if not falls_and_trains(measured).holds:
            break
    return measured


def falls_and_trains(measured: Measured) -> Decision:
    """Decides whether the loss falls and the networks train at the suggested rate."""
    names = ("none", "batch")
    lows = [low for name in names for low in measured[f"fall_{name}"]]
    falls = sum(low <= FALLS for low in lows)
    lowest = {name: min(measured[f"accuracy_valley_{name}"]) for name in names}
    shown = "; ".join(
        f"{'without' if name == 'none' else 'with'} batch norm valley suggests "
        f"{mean(measured[f'valley_{name}']):.1e} on average, and the lowest accuracy is "
        f"{lowest[name]:.4f}"
        for name in names
    )
    return Decision(
        falls == len(lows) and min(lowest.values()) >= TRAINS,
        f"{shown}; the loss falls by a tenth in {falls} of {len(lows)} sweeps",
        f"lowest accuracy with valley {min(lowest.values()):.4f}",
    )


CLAIMS = (
    Claim(
        id="lr-finder",
        statement="a short training at a growing rate shows a rate to train with",
        published=Published(picture="loss against learning rate"),
        measure=lr_finder,
        compares=True,
        brief=lr_finder_in_brief,
        rules=on_digits(
            over_seeds(
                "in every seed, without and with batch norm: the loss falls by a tenth, and "
                f"one-cycle at the suggested rate reaches {TRAINS}",
                falls_and_trains,
            ),
            mnist="refuted",
            mnist5k="refuted",
        ),
    ),
)

if __name__ == "__main__":
    from experiments.cli.app import script

    script(__file__)
