from dataclasses import replace

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx

from convjax.chapter.setting import (
    BASELINE,
    BATCH_NORM,
    CYCLES,
    LINEAR,
    LONGER,
    ONE_CYCLE,
    THREE_OR_SEVEN,
    Setting,
    wrong_probability,
)
from convjax.nn.models import ConvNet, LinearNet
from convjax.train.losses import cross_entropy


def test_setting_slug_is_unique():
    variants = [
        *(BASELINE, LINEAR, THREE_OR_SEVEN, ONE_CYCLE, BATCH_NORM, LONGER),
        *(replace(ONE_CYCLE, schedule=name) for name in CYCLES if name != "one-cycle"),
        *(replace(BATCH_NORM, norm=norm) for norm in ("layer", "group", "instance")),
        replace(BATCH_NORM, norm_last=False),
        replace(BATCH_NORM, activate_first=True),
        replace(BATCH_NORM, first_kernel=3),
        replace(BATCH_NORM, scores=20),
        *(replace(BATCH_NORM, encoding=encoding) for encoding in ("rgb", "hsv")),
    ]
    slugs = [setting.slug for setting in variants]
    assert len(set(slugs)) == len(slugs)
    assert LONGER.slug == "digits-batchnorm-one-cycle-bs512-lr0.1-5epochs"
    assert replace(BATCH_NORM, first_kernel=3).slug == (
        "digits-batchnorm-first-kernel-3-one-cycle-bs512-lr0.06"
    )


def test_setting_structure_ignores_rates_and_length():
    assert LONGER.structure == BATCH_NORM.structure == Setting(norm="batch")
    assert replace(BATCH_NORM, first_kernel=3).structure != BATCH_NORM.structure
    assert LINEAR.structure != BASELINE.structure
    assert (
        replace(LONGER, encoding="hsv").structure == replace(BATCH_NORM, encoding="hsv").structure
    )
    assert replace(LONGER, encoding="hsv").structure != BATCH_NORM.structure


@pytest.mark.parametrize(
    "setting",
    [BATCH_NORM, replace(BATCH_NORM, encoding="grey"), replace(BATCH_NORM, dtype="bfloat16")],
)
def test_setting_config_restores_the_setting(setting):
    assert Setting(**setting.config) == setting
    # Runs of earlier versions have no encoding.
    assert ("encoding" in setting.config) == (setting.encoding is not None)
    assert ("dtype" in setting.config) == (setting.dtype != "float32")


@pytest.mark.parametrize(
    ("name", "rates", "momenta"),
    [
        # At the start, at the turn and after the last step.
        ("one-cycle", (1 / 25, 1, 1e-5), (0.95, 0.85, 0.95)),
        ("linear", (1 / 25, 1, 1e-5), (0.95, 0.85, 0.95)),
        ("no-warm-up", (1, 1, 1e-5), (0.85, 0.85, 0.95)),
        ("no-annealing", (1 / 25, 1, 1), (0.95, 0.85, 0.85)),
        ("flat-momentum", (1 / 25, 1, 1e-5), (0.9, 0.9, 0.9)),
    ],
)
def test_setting_table_of_each_cycle(name, rates, momenta):
    steps = 1000
    table = replace(ONE_CYCLE, schedule=name, lr_max=2.0).table(steps)
    at = [0, 250, 999]
    # The last step is one thousandth before the end, which is at most 2e-3 of the change.
    np.testing.assert_allclose(table["learning_rate"][np.array(at)] / 2, rates, atol=3e-3)
    np.testing.assert_allclose(table["momentum"][np.array(at)], momenta, atol=3e-3)
    halfway = float(table["learning_rate"][625]) / 2
    wanted = {"linear": 0.5, "no-annealing": 1}.get(name, 0.5)
    assert halfway == pytest.approx(wanted, abs=1e-3)
    eighth = float(table["learning_rate"][500]) / 2  # a third of the way down: cos(60°)
    wanted = {"linear": 2 / 3, "no-annealing": 1}.get(name, 0.75)
    assert eighth == pytest.approx(wanted, abs=1e-3)


def test_setting_table_of_a_constant_rate():
    for setting, momentum in ((BASELINE, 0.9), (LINEAR, 0.0)):
        table = setting.table(3)
        np.testing.assert_allclose(table["learning_rate"], setting.lr_max)
        np.testing.assert_allclose(table["momentum"], momentum)


def test_setting_build_makes_the_network():
    def built(setting, image=(28, 28, 1), classes=10):
        return nnx.eval_shape(lambda: setting.build(image, classes, "NCHW", 0))

    digits = built(replace(BATCH_NORM, first_kernel=3, activate_first=True, norm_last=False))
    assert isinstance(digits, ConvNet)
    assert digits.blocks[0].conv.kernel.shape == (3, 3, 1, 8)
    assert digits.blocks[0].activate_first
    assert digits.blocks[-1].norm is None
    assert built(THREE_OR_SEVEN, classes=2).blocks[0].conv.kernel.shape == (3, 3, 1, 4)
    linear = built(LINEAR, image=(8, 8, 3), classes=2)
    assert isinstance(linear, LinearNet)
    assert linear.layers[0].kernel.shape == (192, 30)
    assert linear.layers[-1].kernel.shape == (30, 1)


def test_wrong_probability_by_hand():
    # σ(0) = 1/2; σ(ln 3) = 3/4, right for label 1 and wrong for label 0.
    logits = jnp.array([[0.0], [jnp.log(3.0)], [jnp.log(3.0)]])
    loss = wrong_probability(logits, jnp.array([1, 1, 0]))
    np.testing.assert_allclose(loss, [0.5, 0.25, 0.75], rtol=1e-6)
    assert LINEAR.loss is wrong_probability
    assert BASELINE.loss is cross_entropy
    assert jax.tree.leaves(LINEAR.optimizer.transform.init(jnp.zeros(3)))
