"""The rules of the claims about trainings, applied to invented figures."""

import math

import pytest

from convjax.chapter.setting import BASELINE
from convjax.chapter.training import Outcome
from experiments.batch_norm_benefits import steps_to
from experiments.cli import registry
from experiments.harness.lab import Lab

FIVE = [0.0, 0.001, -0.001, 0.002, -0.002]  # a spread with the mean 0


def about(mean, spread=1.0):
    return [mean + spread * value for value in FIVE]


def crossed(mean):
    """Returns figures whose differences from `about` have both signs."""
    return [mean + 2 * value for value in reversed(FIVE)]


def super_convergence(rate=0.1, epochs=3, gap=None):
    return {
        "highest_rate_constant": [0.03],
        "highest_rate_one_cycle": [rate],
        "epochs_constant": [8],
        "epochs_one_cycle": [epochs],
        "accuracy_constant": about(0.98),
        "gap_constant": about(0.02),
        "gap_one_cycle": about(0.01) if gap is None else gap,
    }


def parts(**accuracy):
    names = ("one-cycle", "linear", "no-warm-up", "no-annealing", "flat-momentum")
    return {f"accuracy_{name}": accuracy.get(name, about(0.9)) for name in names}


WHOLE = {"one-cycle": about(0.95)}


def norms(**accuracy):
    names = ("batch", "layer", "group", "instance")
    return {f"accuracy_{name}": accuracy.get(name, about(0.95)) for name in names}


def linear_net(linear, convolutional, parameters=6722):
    return {
        "accuracy": linear,
        "accuracy_convolutional": convolutional,
        "parameters": [23_581],
        "parameters_convolutional": [parameters],
    }


def lr_finder(fall=0.5, accuracy=0.95):
    return {
        **{f"fall_{name}": [0.5, fall] for name in ("none", "batch")},
        **{f"valley_{name}": [0.01, 0.02] for name in ("none", "batch")},
        "accuracy_valley_none": [0.95, 0.96],
        "accuracy_valley_batch": [0.95, accuracy],
    }


def batch_size(noise, updates):
    sizes = (32, 128)
    return {
        **{f"noise_{size}": values for size, values in zip(sizes, noise, strict=True)},
        **{f"updates_{size}": [value] for size, value in zip(sizes, updates, strict=True)},
        **{f"accuracy_{size}": [0.9] * 2 for size in sizes},
    }


def picture(crashes, start=0.0):
    return {
        "crashes": crashes,
        "crashes_above_1": [3] * len(crashes),
        "active_at_start": [start] * len(crashes),
        "active_at_peak": [0.6] * len(crashes),
        "active_at_end": [0.1] * len(crashes),
    }


def higher_lr(none, batch):
    return {
        "highest_rate_none": [none],
        "highest_rate_batch": [batch],
        "accuracy_none_at_2": about(0.1),
        "accuracy_batch_at_2": about(0.95),
    }


def steps(none, batch):
    return {"goal": [0.98], "steps_none": none, "steps_batch": batch}


@pytest.mark.parametrize(
    ("claim", "measured", "holds"),
    [
        ("baseline-fails", {"failed": [1, 1, 1, 0, 0]}, True),
        ("baseline-fails", {"failed": [1, 1, 0, 0, 0]}, False),
        ("batch-512-fails", {"failed": [0, 0, 0, 0, 1]}, True),
        ("batch-512-fails", {"failed": [0] * 5}, False),
        *(
            ("near-zero-grows", {"near_zero_first": first, "near_zero_penultimate": last}, holds)
            for first, last, holds in (
                ([0.6] * 5, [0.9, 0.9, 0.9, 0.9, 0.3], True),
                ([0.6] * 5, [0.9, 0.9, 0.9, 0.5, 0.3], False),
                ([0.3] * 5, [0.4] * 5, False),  # more than of the first layer, but not most
            )
        ),
        *(
            (
                "near-zero-better",
                {"near_zero_constant": about(0.9), "near_zero_one_cycle": after},
                holds,
            )
            for after, holds in (
                (about(0.8), True),
                (about(0.95), False),
                (about(0.4), False),  # no longer many
                (crossed(0.9), None),
            )
        ),
        ("bad-training-picture", picture([2, 3, 2, 1, 1]), True),
        ("bad-training-picture", picture([2, 2, 1, 1, 1]), False),
        ("bad-training-picture", picture([2] * 5, start=0.1), False),
        ("smooth-picture", {"crashes": [0] * 5}, True),
        ("smooth-picture", {"crashes": [0, 0, 1, 0, 0]}, False),
        ("one-cycle-parts", parts(**WHOLE), True),
        ("one-cycle-parts", parts(**WHOLE, linear=about(0.99)), True),  # not part of the rule
        ("one-cycle-parts", parts(**WHOLE, **{"no-warm-up": about(0.96)}), False),
        ("one-cycle-parts", parts(**WHOLE, **{"no-warm-up": crossed(0.95)}), None),
        (
            "one-cycle-parts",
            parts(**WHOLE, **{"no-warm-up": crossed(0.95), "no-annealing": about(0.96)}),
            False,
        ),
        ("super-convergence", super_convergence(), True),
        ("super-convergence", super_convergence(rate=0.03), False),
        ("super-convergence", super_convergence(epochs=8), False),
        ("super-convergence", super_convergence(epochs=math.inf), False),
        ("super-convergence", super_convergence(gap=about(0.03)), False),
        ("super-convergence", super_convergence(gap=crossed(0.02)), None),
        ("super-convergence", super_convergence(rate=0.03, gap=crossed(0.02)), False),
        ("lr-finder", lr_finder(), True),
        ("lr-finder", lr_finder(fall=0.95), False),
        ("lr-finder", lr_finder(accuracy=0.89), False),
        ("faster", steps([500, 520], [100, 110]), True),
        ("faster", steps([100, 110], [500, 520]), False),
        ("faster", steps([100, 500], [110, 400]), None),
        ("higher-lr", higher_lr(0.1, 2), True),
        ("higher-lr", higher_lr(0.1, 0.1), False),
        ("higher-lr", higher_lr(2, 2), None),
        ("generalises", {"gap_none": about(0.02), "gap_batch": about(0.01)}, True),
        ("generalises", {"gap_none": about(0.01), "gap_batch": about(0.02)}, False),
        ("generalises", {"gap_none": about(0.01), "gap_batch": crossed(0.01)}, None),
        ("norm-layers", norms(), True),
        ("norm-layers", norms(layer=[0.95, 0.89, 0.95, 0.95, 0.95]), False),
        ("norm-order", {"accuracy_before": about(0.9), "accuracy_after": about(0.8)}, True),
        ("first-kernel-size", {"accuracy_5x5": about(0.9), "accuracy_3x3": about(0.95)}, False),
        ("linear-net", linear_net(about(0.982), about(0.99)), True),
        ("linear-net", linear_net(about(0.986), about(0.99)), False),  # more than "a little over"
        ("linear-net", linear_net(about(0.982), about(0.98)), False),
        ("linear-net", linear_net(about(0.982), crossed(0.982)), None),
        ("linear-net", linear_net(about(0.982), about(0.99), parameters=30_000), False),
        ("batch-size", batch_size([[2, 3], [1, 2]], [100, 25]), True),
        ("batch-size", batch_size([[2, 3], [1, 3]], [100, 25]), False),
        ("batch-size", batch_size([[2, 3], [1, 2]], [100, 100]), False),
    ],
)
def test_claim_rule_by_hand(claim, measured, holds):
    (found,) = registry.find([claim])
    assert found.rule("mnist").decide(measured).holds is holds


class FakeLab:
    """Trains nothing: the accuracy is a function of norm and rate, for three seeds."""

    seeds, quick = (0, 1, 2), False

    def __init__(self, accuracy):
        self.accuracy, self.pictures, self.trained = accuracy, [], []

    def picture(self, name, figure):
        self.pictures.append(name)

    def outcomes(self, setting, seeds):
        self.trained += [(setting.norm, setting.lr_max, seed) for seed in seeds]
        accuracy = self.accuracy(setting.norm, setting.lr_max)
        row = {"accuracy": accuracy, "train_accuracy": 1.0, "step": 7}
        return [Outcome(setting, seed, [row]) for seed in seeds]

    def sweep(self, settings):
        return [self.outcomes(setting, self.seeds) for setting in settings]


def limited(**limits):
    """Returns accuracies of networks that train up to a rate."""
    return lambda norm, rate: 0.95 if rate <= limits[norm or "none"] else 0.1


@pytest.mark.parametrize(("none", "batch"), [(0.1, 2.0), (0.1, 0.1), (2.0, 2.0), (0.5, 0.2)])
def test_higher_lr_in_brief_decides_as_the_whole_form(none, batch):
    (claim,) = registry.find(["higher-lr"])
    whole, brief = (FakeLab(limited(none=none, batch=batch)) for _ in range(2))
    decide = claim.rule("mnist5k").decide
    found, wanted = decide(claim.brief(brief)), decide(claim.measure(whole))
    assert (found.holds, found.short) == (wanted.holds, wanted.short)
    assert wanted.reason.startswith(found.reason)
    assert set(brief.trained) < set(whole.trained)
    assert brief.pictures == ["higher-lr"]


def test_norm_layers_in_brief_tries_other_rates_only_where_one_fails():
    (claim,) = registry.find(["norm-layers"])
    lab = FakeLab(limited(batch=1, layer=0.02, group=1, instance=1))
    measured = claim.brief(lab)
    assert {name: measured[f"trains_at_{name}"] for name in ("batch", "layer")} == {
        "batch": [0.03],
        "layer": [0.01],
    }
    assert len(lab.trained) == 3 * 4 + 1  # layer norm fails at 0.03 with the first seed
    decision = claim.rule("mnist5k").decide(measured)
    assert decision.holds is True
    assert "layer − batch" not in decision.reason  # not at their best rates
    never = claim.brief(FakeLab(limited(batch=1, layer=0, group=1, instance=1)))
    assert claim.rule("mnist5k").decide(never).holds is False


def test_batch_size_decides_without_accuracies():
    whole = batch_size([[2, 3], [1, 2]], [100, 25])
    brief = {name: of for name, of in whole.items() if not name.startswith("accuracy")}
    (claim,) = registry.find(["batch-size"])
    decisions = [claim.rule("mnist5k").decide(measured) for measured in (whole, brief)]
    assert [decision.holds for decision in decisions] == [True, True]
    assert ["accuracy" in decision.reason for decision in decisions] == [True, False]


@pytest.mark.parametrize(("bad", "measured"), [(None, 3), (0, 1), (1, 2)])
def test_lr_finder_in_brief_stops_at_the_first_seed_that_fails(monkeypatch, bad, measured):
    (claim,) = registry.find(["lr-finder"])

    def of_seeds(lab, rules, seeds):
        assert rules == ("valley",)  # the other rules decide nothing
        accuracy = 0.86 if bad in seeds else 0.95
        return {name: values[:1] for name, values in lr_finder(accuracy=accuracy).items()} | {
            "accuracy_valley_batch": [accuracy]
        }

    monkeypatch.setattr("experiments.lr_finder.lr_finder", of_seeds)
    found = claim.brief(FakeLab(None))
    assert {len(values) for values in found.values()} == {measured}
    decision = claim.rule("mnist5k").decide(found)
    assert decision.holds is (bad is None)
    lowest = "0.9500" if bad is None else "0.8600"
    assert decision.short == f"lowest accuracy with valley {lowest}"


def test_generalises_and_faster_in_brief_take_one_epoch_at_one_rate():
    generalises, faster = registry.find(["generalises", "faster"])
    lab = FakeLab(lambda norm, rate: 0.95 if norm else 0.9)
    gaps = generalises.brief(lab)
    assert {(norm, rate) for norm, rate, _ in lab.trained} == {(None, 0.06), ("batch", 0.06)}
    assert gaps["gap_none"] == pytest.approx([0.1] * 3)
    assert gaps["gap_batch"] == pytest.approx([0.05] * 3)
    lab = FakeLab(lambda norm, rate: 0.95 if norm else 0.9)
    steps = faster.brief(lab)
    assert {(norm, rate) for norm, rate, _ in lab.trained} == {(None, 0.01), ("batch", 0.01)}
    tuning = {seed for norm, _, seed in lab.trained if seed >= 100}
    assert tuning == {100, 101, 102}  # of the goal
    assert steps["goal"] == pytest.approx([0.9])
    assert steps["steps_none"] == steps["steps_batch"] == [7] * 3


def test_first_kernels_in_brief_has_the_figures_of_the_whole_form(tmp_path):
    (claim,) = registry.find(["first-kernels"])
    lab = Lab(out=tmp_path, quick=True)
    assert claim.brief(lab) == claim.measure(lab)


def test_steps_to_by_hand():
    rows = [{"step": step, "accuracy": accuracy} for step, accuracy in ((5, 0.5), (10, 0.9))]
    outcome = Outcome(BASELINE, 0, rows)
    assert steps_to(0.5, outcome) == 5
    assert steps_to(0.6, outcome) == 10
    assert steps_to(0.99, outcome) == 10  # never: all its steps
