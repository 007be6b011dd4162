import json
import math
from types import SimpleNamespace

import numpy as np
import pytest
from PIL import Image
from typer.testing import CliRunner

from convjax.chapter.setting import BATCH_NORM
from experiments.cli.app import app
from experiments.colour_images import CLAIMS, before_and_after, colour_setting, kernels_of, within
from experiments.harness.intervals import Interval
from experiments.harness.lab import Lab
from tests.experiments.test_training_claims import about, crossed

COLOUR_SPACE, FIRST_KERNELS = CLAIMS


def accuracies(hsv, grey, rgb=None):
    rgb = about(0.95) if rgb is None else rgb
    return {"accuracy_rgb": rgb, "accuracy_hsv": hsv, "accuracy_grey": grey}


@pytest.mark.parametrize(
    ("data", "measured", "holds"),
    [
        ("mnist", accuracies(about(0.955), about(0.9)), True),
        ("mnist", accuracies(about(0.965), about(0.9)), False),  # HSV better by more than 1 %
        ("mnist", accuracies(about(0.935), about(0.9)), False),
        ("cifar10", accuracies(about(0.965), about(0.9)), True),  # but by less than 2 %
        ("cifar10", accuracies(about(0.975), about(0.9)), False),
        (
            "mnist5k",
            accuracies(about(0.96, 2), about(0.9)),
            None,
        ),  # the interval contains the margin
        ("mnist5k", accuracies(about(0.955), about(0.96)), False),  # grey better
        ("mnist5k", accuracies(about(0.955), crossed(0.95)), None),
        ("mnist5k", accuracies(about(0.96, 2), about(0.96)), False),  # one refuted, one undecided
        ("pictures/", accuracies(about(0.94), about(0.9)), True),
        ("mnist", accuracies([math.nan] * 5, about(0.9)), None),
    ],
)
def test_encodings_rule_by_hand(data, measured, holds):
    decision = COLOUR_SPACE.rule(data).decide(measured)
    assert decision.holds is holds
    assert ("stand in" in decision.reason) == data.startswith("mnist")


@pytest.mark.parametrize(
    ("low", "high", "holds"),
    [
        (-0.01, 0.01, True),
        (-0.011, 0.01, None),
        (-0.02, 0.02, None),
        (-0.02, 0.005, None),
        (-0.005, 0.02, None),
        (0.011, 0.02, False),
        (-0.02, -0.011, False),
        (math.nan, math.nan, None),
    ],
)
def test_within_by_hand(low, high, holds):
    assert within(Interval((low + high) / 2, low, high), 0.01) is holds


@pytest.mark.parametrize(
    ("untrained", "noise", "holds"),
    [
        (about(0.1), about(0.2), True),
        (about(0.1), crossed(0.4), None),
        (about(0.1), about(0.5), False),  # no more than smooth noise
        (about(0.5), about(0.2), False),
        (crossed(0.4), about(0.5), False),
    ],
)
def test_show_edges_by_hand(untrained, noise, holds):
    measured = {
        "edge_share_trained": about(0.4),
        "edge_share_untrained": untrained,
        "edge_share_noise": noise,
    }
    assert FIRST_KERNELS.rule("cifar10").decide(measured).holds is holds


def test_colour_setting_trains_data_in_colour_longer():
    def setting(channels):
        train = SimpleNamespace(images=np.zeros((1, 4, 4, channels), np.uint8))
        return colour_setting(SimpleNamespace(dataset=SimpleNamespace(train=train)), "hsv")

    assert setting(1).encoding == setting(3).encoding == "hsv"
    assert (setting(1).batch_size, setting(1).epochs) == (BATCH_NORM.batch_size, 1)
    assert (setting(3).batch_size, setting(3).epochs) == (64, 5)


def test_kernels_of_is_the_same_in_any_layout(tmp_path):
    found = []
    for layout in ("NHWC", "NCHW", "CHWN"):
        lab = Lab(out=tmp_path, layout=layout)
        network = lab.network(colour_setting(lab, "rgb"), 0)
        found.append(kernels_of(network))
        assert found[-1].shape == (5, 5, 3, 8)
        np.testing.assert_array_equal(found[-1], found[0])


def test_before_and_after_draws_kernels_in_pairs():
    kernels = np.random.default_rng(0).uniform(-0.5, 0.5, (5, 5, 3, 4))
    kernels[0, 0, 0] = 1, -2, 3, 4  # the strongest of each
    figure = before_and_after(kernels[..., :2], kernels[..., 2:], 7)
    titles = [axes.get_title() for axes in figure.axes]
    assert titles == ["0 untrained, ±1", "0 trained, ±3", "1 untrained, ±2", "1 trained, ±4"]
    for axes, kernel in zip(figure.axes, (0, 2, 1, 3), strict=True):
        weights = kernels[..., kernel]
        # show_kernels draws in float32.
        np.testing.assert_allclose(
            axes.images[0].get_array(), 0.5 + weights / (2 * np.abs(weights).max()), atol=1e-6
        )
    assert "seed 7" in figure.get_suptitle()


@pytest.fixture
def pictures(tmp_path):
    """A folder of images in colour; its path must not appear in results."""
    rng = np.random.default_rng(0)
    for split in ("train", "test"):
        for name in ("a", "b"):
            folder = tmp_path / "secret" / "pictures" / split / name
            folder.mkdir(parents=True)
            for i in range(2):
                pixels = rng.integers(0, 256, (32, 32, 3), np.uint8)
                Image.fromarray(pixels).save(folder / f"{i}.png")
    return tmp_path / "secret" / "pictures"


@pytest.mark.slow
def test_run_command_measures_a_folder_in_colour(pictures, tmp_path):
    arguments = ["run", "colour-space", "first-kernels", "--quick", "--data", pictures]
    out = tmp_path / "out"
    result = CliRunner().invoke(app, [str(a) for a in (*arguments, "--out", out)])
    assert result.exit_code == 0, result.output
    claims = json.loads((out / "results.json").read_text())["claims"]
    assert [claim["data"] for claim in claims] == ["pictures/", "pictures/"]
    assert {f"accuracy_{name}" for name in ("rgb", "hsv", "grey")} <= claims[0]["measured"].keys()
    assert claims[0]["measured"]["images"]["values"] == [4]
    assert len(claims[1]["measured"]["edge_share_trained"]["values"]) == 1
    plots = {path.stem for path in (out / "plots").glob("*.png")}
    assert plots == {"colour-space", "colour-space-images", "first-kernels"}
    for file in out.rglob("*.json"):
        assert "secret" not in file.read_text(), file
