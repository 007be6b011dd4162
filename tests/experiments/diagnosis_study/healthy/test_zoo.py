"""Tests of the zoo of healthy trainings."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx

from experiments.diagnosis_study.healthy import task_data, tasks
from experiments.diagnosis_study.healthy.architectures import ARCHITECTURES, MAP, TOKENS, VECTOR
from experiments.diagnosis_study.healthy.initial_values import lecun_normal, orthogonal
from experiments.diagnosis_study.healthy.layer_maker import Style, depthwise_conv
from experiments.diagnosis_study.healthy.optimisers import OPTIMISERS
from experiments.diagnosis_study.healthy.tasks import TASKS
from experiments.diagnosis_study.healthy.zoo import HEALTHY, pairs, run

NAMES = [architecture.name for architecture in ARCHITECTURES]


def first_position(name):
    return next(
        i for i, each in enumerate(HEALTHY) if each.architecture.partition(" with ")[0] == name
    )


def test_zoo_has_enough_trainings_of_enough_kinds():
    assert len(HEALTHY) >= 300
    assert len({each.name for each in HEALTHY}) == len(HEALTHY)
    assert len({each.architecture.partition(" with ")[0] for each in HEALTHY}) >= 15
    assert len({each.task for each in HEALTHY}) >= 8
    assert len({each.optimizer for each in HEALTHY}) >= 6


def test_zoo_has_everything_in_both_parts():
    for part in (HEALTHY[::2], HEALTHY[1::2]):
        assert {each.architecture.partition(" with ")[0] for each in part} == set(NAMES)
        assert {each.task for each in part} == {task.name for task in TASKS}
        assert {each.optimizer for each in part} == {each.name for each in OPTIMISERS}


def test_pairs_differ_in_the_optimiser_alone():
    for even, odd in zip(HEALTHY[::2], HEALTHY[1::2], strict=True):
        assert (even.architecture, even.task) == (odd.architecture, odd.task)
        assert even.optimizer != odd.optimizer


def test_bars_are_above_guessing():
    for task in TASKS:
        # At least a quarter of the way from guessing to perfect.
        assert task.healthy - task.goal.guessing >= 0.25 * (1 - task.goal.guessing)


def test_styles_are_in_the_zoo():
    found = {style.name for *_, style in pairs()}
    assert found == {"", "zero head", "momentum 0.99", "dropout 0.5", "bfloat16"}


@pytest.mark.parametrize("name", NAMES)
def test_architectures_have_an_output_for_each_target(name):
    architecture = ARCHITECTURES[NAMES.index(name)]
    x = np.zeros((2, 28, 28, 1), np.float32)
    if architecture.kind == MAP:
        x = np.zeros((2, 16, 16, 1), np.float32)
    if architecture.kind == TOKENS:
        x = np.zeros((2, 16), np.int32)
    task = next(task for task in TASKS if task.kind == architecture.kind)
    if architecture.library == "nnx":
        model = architecture.build(task.outputs, Style(), 0)
        shape = nnx.eval_shape(lambda model, x: model(x), model, x).shape
    else:
        model = architecture.build(task.outputs, Style(), 0)
        shape = jax.eval_shape(lambda: model.predict(model.init(), x)).shape
    wanted = {VECTOR: (2,), MAP: (2, 16, 16), TOKENS: (2, 16)}
    assert shape == (*wanted[architecture.kind], task.outputs)


@pytest.mark.parametrize(("size", "stride", "side"), [(7, 1, 7), (3, 2, 7), (3, 2, 8), (3, 1, 4)])
def test_depthwise_conv_is_that_of_lax(size, stride, side):
    rng = np.random.default_rng(0)
    x = rng.standard_normal((2, side, side, 5), np.float32)
    kernel = rng.standard_normal((size, size, 1, 5), np.float32)
    wanted = jax.lax.conv_general_dilated(
        x,
        kernel,
        (stride, stride),
        "SAME",
        dimension_numbers=("NHWC", "HWIO", "NHWC"),
        feature_group_count=5,
    )
    found = depthwise_conv(jnp.asarray(x), jnp.asarray(kernel), (stride, stride), "SAME")
    # The sums of 49 products differ by their order.
    np.testing.assert_allclose(found, wanted, atol=1e-5)


def test_orthogonal_has_orthonormal_columns():
    matrix = np.asarray(orthogonal(jax.random.key(0), (8, 8)))
    np.testing.assert_allclose(matrix.T @ matrix, np.eye(8), atol=1e-6)


def test_lecun_normal_keeps_the_variance():
    kernel = np.asarray(lecun_normal(jax.random.key(0), (3, 3, 16, 64)))
    np.testing.assert_allclose(kernel.std(), (9 * 16) ** -0.5, rtol=0.02)  # of 9,216 values


def test_balanced_accuracy_by_hand():
    outputs, truth = np.array([1.0, 1.0, -1.0, 1.0]), np.array([1, 1, 1, 0])
    assert tasks.balanced_accuracy(outputs[:, None], truth) == pytest.approx((2 / 3 + 0) / 2)
    # Guessing the more frequent class is no more than half.
    assert tasks.balanced_accuracy(np.ones((4, 1)), truth) == 0.5


def test_explained_is_zero_for_the_mean_and_one_for_the_truth():
    truth = np.array([[1.0, 2.0], [3.0, 6.0]])
    assert tasks.explained(truth[..., None], truth) == 1
    assert tasks.explained(np.broadcast_to(truth.mean(0), truth.shape), truth) == 0


def test_overlap_by_hand():
    outputs, truth = np.array([[1.0, 1.0, -1.0]]), np.array([[1.0, 0.0, 1.0]])
    assert tasks.overlap(outputs[..., None], truth) == pytest.approx(1 / 3)


def test_moments_by_hand():
    pixels = np.zeros((2, 28, 28, 1), np.float32)
    pixels[0, [4, 8], [4, 8]] = 1.0  # two pixels on the diagonal: ±2 from their centre
    pixels[1, [4, 8], [8, 4]] = 1.0
    np.testing.assert_allclose(task_data.moments(pixels), [[2, 2, 1], [2, 2, -1]], rtol=1e-5)


def test_targets_of_regression_are_scaled():
    targets = task_data.moment_targets(several=True).train.y
    np.testing.assert_allclose(targets.mean(0), 0, atol=1e-4)
    np.testing.assert_allclose(targets.std(0), 1, rtol=1e-4)


def test_language_continues_its_texts():
    split = task_data.language(3, length=16)
    np.testing.assert_array_equal(split.train.x[:, 1:], split.train.y[:, :-1])
    assert split.train.x.shape == (2000, 16)
    again = task_data.language(3, length=16)
    np.testing.assert_array_equal(split.test.y, again.test.y)
    assert not np.array_equal(split.test.y, task_data.language(4, length=16).test.y)


def test_mixed_batches_stay_probabilities():
    y = np.eye(10, dtype=np.float32)[np.arange(40) % 10]
    arrays = (np.arange(40, dtype=np.float32)[:, None], y)
    for x, labels in tasks.mixed_batches(arrays, size=8, steps=6, seed=0):
        assert x.shape == (8, 1)
        np.testing.assert_allclose(labels.sum(-1), 1, rtol=1e-5)


# A few of them: `python -m experiments diagnosis-sets` runs all.
@pytest.mark.slow
@pytest.mark.parametrize("name", NAMES[::6])
def test_run_reaches_the_bar(name):
    position = first_position(name)
    trained = run(position)
    assert trained.reached >= HEALTHY[position].healthy
    assert trained.record.steps >= 100
    jax.clear_caches()
