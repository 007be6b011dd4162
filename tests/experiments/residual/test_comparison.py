import pytest

from experiments.channel_doubling import sides
from experiments.residual.comparison import cost
from experiments.residual.setting import FULL, SMALL


class FakeLab:
    def __init__(self, full=False):
        self.full, self.quick = full, False


def products(widths, side, classes=10, blocks=3):
    """Returns the multiplications of one image: 3×3 kernels at every position of each map.

    Each norm has one more per channel, of its scale by 1/√(variance + ε).
    """
    found, inputs = 9 * 3 * widths[0] * side**2 + widths[0], widths[0]
    for stage, width in enumerate(widths):
        pixels = side**2 // 4**stage
        found += 9 * (inputs * width + (2 * blocks - 1) * width**2) * pixels + 2 * blocks * width
        inputs = width
    return found + classes * inputs


@pytest.mark.parametrize(
    ("name", "widths", "multiplications", "features"),
    [
        ("doubled", (8, 16, 32), 2_562_712, 4 * 4 * 32),
        ("kept", (8, 8, 8), 1_216_744, 4 * 4 * 8),
        ("kept-wide", (12, 12, 12), 2_696_028, 4 * 4 * 12),
    ],
)
def test_cost_of_doubled_and_kept_channels_by_hand(name, widths, multiplications, features):
    setting = sides(FakeLab())[name]
    found = cost(setting, (16, 16, 3), 10)
    assert setting.widths == widths
    assert found["multiplications"] == multiplications == products(widths, 16)
    assert found["features"] == features


def test_cost_counts_parameters_by_hand():
    # 232 of the stem, 3,552, 12,864 and 51,072 of the stages, 330 of the last layer.
    assert cost(SMALL, (16, 16, 3), 10)["parameters"] == 68_050
    assert cost(FULL, (32, 32, 3), 10) == {
        "parameters": 269_722,  # 0.27 M in the paper
        "multiplications": 40_551_728,
        "features": 8 * 8 * 64,
    }


def test_kept_channels_of_equal_cost_in_both_forms():
    for lab, side in ((FakeLab(), 16), (FakeLab(full=True), 32)):
        found = {name: products(s.widths, side) for name, s in sides(lab).items()}
        assert found["kept-wide"] / found["doubled"] == pytest.approx(1.05, abs=0.005)
        assert found["kept"] < found["doubled"] / 2
