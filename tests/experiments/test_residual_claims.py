"""The claims about residual networks: their rules on invented figures, and a small run of each."""

import json
import math
from dataclasses import replace

import numpy as np
import pytest
from PIL import Image
from typer.testing import CliRunner

from convjax.chapter.training import Outcome
from convjax.data.catalog import CLASS_NAMES
from experiments.cli import registry
from experiments.cli.app import app
from experiments.harness.claim import judge
from experiments.harness.lab import Lab
from experiments.residual.comparison import RATES
from experiments.residual.setting import SMALL, ResidualSetting
from experiments.skip_connections import WATCH, along_the_depth, relative_gradients, start_of
from experiments.zero_init import early_loss, losses
from tests.experiments.test_training_claims import about, crossed

CLAIMS = {claim.id: claim for claim in registry.find(["residual"])}


def skip(plain=(0.4, 0.1), residual=(0.45, 0.4)):
    """Returns figures whose training accuracies with 20 and 56 layers have these means."""

    def values(mean):
        return mean if isinstance(mean, list) else about(mean)

    names = ("plain-20", "plain-56", "residual-20", "residual-56")
    trained = dict(zip(names, map(values, (*plain, *residual)), strict=True))
    return {
        **{f"train_accuracy_{name}": found for name, found in trained.items()},
        **{f"accuracy_{name}": about(0.3) for name in names},
        **{f"gradient_ratio_{name}": about(2.0) for name in names},
    }


def doubling(doubled, kept=0.3, wide=0.3):
    return {
        "accuracy_doubled": doubled,
        "accuracy_kept": about(kept),
        "accuracy_kept-wide": about(wide),
        **{
            f"{figure}_{name}": [1e6]
            for figure in ("multiplications", "features")
            for name in ("doubled", "kept", "kept-wide")
        },
    }


def noise(accuracy=0.4, gap=0.1, eight=0.3):
    def values(mean):
        return mean if isinstance(mean, list) else about(mean)

    return {
        "accuracy_whole": about(0.35),
        "gap_whole": about(0.2),
        "accuracy_groups-32": values(accuracy),
        "gap_groups-32": values(gap),
        "accuracy_groups-8": about(eight),
        "gap_groups-8": about(0.3),
    }


def zeros(ones, zeros):
    return {"early_loss_ones": ones, "early_loss_zeros": zeros}


@pytest.mark.parametrize(
    ("claim", "measured", "holds"),
    [
        ("skip-connections", skip(), True),
        ("skip-connections", skip(plain=(0.4, 0.42)), False),  # depth helps the plain network
        ("skip-connections", skip(plain=(0.4, 0.1), residual=(0.45, 0.05)), False),
        ("skip-connections", skip(plain=(0.4, 0.3), residual=(0.6, 0.35)), False),  # loses more
        ("skip-connections", skip(plain=(0.4, crossed(0.4)), residual=(0.45, 0.5)), None),
        ("skip-connections", skip(residual=(math.nan, 0.4)), None),
        ("zero-init", zeros(about(2.0), about(1.9)), True),
        ("zero-init", zeros(about(1.9), about(2.0)), False),
        ("zero-init", zeros(about(2.0), crossed(2.0)), None),
        ("channel-doubling", doubling(about(0.35)), True),
        ("channel-doubling", doubling(about(0.35), wide=0.4), True),  # not part of the rule
        ("channel-doubling", doubling(about(0.25)), False),
        ("channel-doubling", doubling(crossed(0.3)), None),
        ("statistics-noise", noise(), True),
        ("statistics-noise", noise(eight=0.9), True),  # not part of the rule
        ("statistics-noise", noise(accuracy=0.3), False),
        ("statistics-noise", noise(gap=0.3), False),
        ("statistics-noise", noise(accuracy=crossed(0.35)), None),
        ("statistics-noise", noise(accuracy=crossed(0.35), gap=0.3), False),
    ],
)
def test_claim_rule_by_hand(claim, measured, holds):
    assert CLAIMS[claim].rule("cifar10").decide(measured).holds is holds


def test_rules_are_for_images_in_colour():
    assert set(CLAIMS) == {"skip-connections", "zero-init", "channel-doubling", "statistics-noise"}
    assert SMALL.lr_max in RATES  # that of the paper
    for claim in CLAIMS.values():
        assert claim.rule("cifar10").min_seeds == 5
        assert claim.rule("mnist") is None
        assert claim not in registry.find(["chapter"])


def test_early_loss_is_the_mean_over_the_first_quarter():
    def outcome(values):
        return Outcome(SMALL, 0, [], loss=np.array(values, float))

    assert early_loss(outcome([4, 2, 1, 1, 1, 1, 1, 1])) == 3
    assert early_loss(outcome([4, 2, 1])) == 4  # a quick run has three steps
    figure = losses({"ones": [outcome([4, 2]), outcome([2, 2])], "zeros": [outcome([1, 1])] * 2})
    first, second = figure.axes[0].lines[:2]
    np.testing.assert_array_equal(first.get_ydata(), [3, 2])
    np.testing.assert_array_equal(second.get_ydata(), [1, 1])


@pytest.fixture
def pictures(tmp_path):
    """A folder of images with the classes of CIFAR-10; its path must not appear in results."""
    random = np.random.default_rng(0)
    for split, number in (("train", 13), ("test", 1)):
        for name in CLASS_NAMES["cifar10"]:
            folder = tmp_path / "secret" / split / name
            folder.mkdir(parents=True)
            for i in range(number):
                pixels = random.integers(0, 256, (32, 32, 3), np.uint8)
                Image.fromarray(pixels).save(folder / f"{i}.png")
    return tmp_path / "secret"


def test_relative_gradients_follow_the_depth(pictures, tmp_path):
    lab = Lab("cifar10", data_dir=pictures, out=tmp_path / "out", quick=True)
    setting = start_of(replace(SMALL, depth=8, widths=(2, 2, 2), batch_size=8))
    assert (setting.images, setting.epochs, setting.passes) == (128, 1, 1)
    training = lab.fit(setting, 0, watch=WATCH)
    found = relative_gradients(training.record)
    assert len(found) == 7
    assert np.isfinite(found).all()
    assert (found > 0).all()
    parameters = training.record.parameters
    for layer, name in ((0, "stem.conv.kernel"), (6, "stages.2.0.layers.1.conv.kernel")):
        column = parameters.names.index(name)
        wanted = parameters.grad_norm[:, column] / parameters.weight_norm[:, column]
        assert found[layer] == pytest.approx(wanted.mean())
    (line,) = along_the_depth({"plain": [found, found]}).axes[0].lines
    np.testing.assert_allclose(line.get_ydata(), found, rtol=1e-5)
    with pytest.raises(ValueError, match=r"record must have gradients\. Watch\(gradients=True\)"):
        relative_gradients(replace(training.record, parameters=None))


@pytest.fixture
def narrow(monkeypatch):
    """Networks of eight layers and few channels, whatever a claim asks for."""
    build = ResidualSetting.build

    def shallow(setting, *arguments):
        return build(replace(setting, depth=8, widths=(2, 2, 2)), *arguments)

    monkeypatch.setattr(ResidualSetting, "build", shallow)


@pytest.mark.usefixtures("narrow")
@pytest.mark.parametrize(
    ("claim", "figures", "pictures_of"),
    [
        pytest.param(
            "skip-connections",
            {"train_accuracy_plain-56", "gradient_ratio_residual-20", "accuracy_residual-56"},
            {"skip-connections", "skip-connections-gradients"},
            marks=pytest.mark.slow,  # compiles eight programs
        ),
        ("zero-init", {"early_loss_ones", "early_loss_zeros"}, {"zero-init", "zero-init-loss"}),
        (
            "channel-doubling",
            {"accuracy_kept-wide", "multiplications_doubled", "features_kept"},
            {"channel-doubling"},
        ),
        pytest.param(
            "statistics-noise",
            {"gap_whole", "gap_groups-8"},
            {"statistics-noise"},
            marks=pytest.mark.slow,
        ),
    ],
)
@pytest.mark.parametrize("full", [False, pytest.param(True, marks=pytest.mark.slow)])
def test_quick_run_measures_and_decides_nothing(
    claim, figures, pictures_of, full, pictures, tmp_path
):
    lab = Lab("cifar10", data_dir=pictures, out=tmp_path / "out", quick=True, full=full)
    result = judge(CLAIMS[claim], lab)
    assert (result.verdict, result.reason) == ("undecided", "a quick run decides nothing")
    assert figures <= result.measured.keys()
    assert result.measured["images"] == [130]
    assert {p.stem for p in (tmp_path / "out" / "plots").glob("*.png")} == pictures_of
    # It measures what the rule asks for.
    twice = {name: values * 2 for name, values in result.measured.items()}
    assert CLAIMS[claim].rule("cifar10").decide(twice).reason


@pytest.mark.slow
def test_run_command_measures_a_folder_of_cifar10(pictures, tmp_path, narrow):
    words = ["run", "residual", "--quick", "--data", "cifar10", "--data-dir", pictures]
    out = tmp_path / "out"
    result = CliRunner().invoke(app, [str(word) for word in (*words, "--out", out)])
    assert result.exit_code == 0, result.output
    found = json.loads((out / "results.json").read_text())
    assert [claim["id"] for claim in found["claims"]] == list(CLAIMS)
    assert "--full" not in found["command"]
    for file in out.rglob("*.json"):
        assert "secret" not in file.read_text(), file
