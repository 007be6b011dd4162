"""Losses and metrics: by hand, against NumPy, and what is said of shapes that do not fit."""

from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from flax import nnx
from hypothesis import given, settings
from hypothesis import strategies as st

from convjax import Images, LinearNet, Trainer, adam, constant, sweep
from convjax.train import (
    accuracy,
    binary_accuracy,
    binary_cross_entropy,
    cross_entropy,
    squared_error,
    top_k_accuracy,
)
from convjax.train.losses import default_metrics, named_metrics, per_example

LOGITS = jnp.array([[0.0, 0.0], [2.0, 0.0]])


# By hand.


def test_cross_entropy_by_hand():
    found = cross_entropy(LOGITS, jnp.array([1, 0]))
    np.testing.assert_allclose(found, [np.log(2), np.log(1 + np.exp(-2))], rtol=1e-6)
    # Probabilities of the classes: a half of each.
    soft = cross_entropy(LOGITS, jnp.full((2, 2), 0.5))
    np.testing.assert_allclose(soft, [np.log(2), 1 + np.log(1 + np.exp(-2))], rtol=1e-6)
    # Classes of pixels.
    pixels = cross_entropy(jnp.zeros((2, 3, 3, 4)), jnp.zeros((2, 3, 3), int))
    np.testing.assert_allclose(pixels, np.full((2, 3, 3), np.log(4)), rtol=1e-6)


def test_binary_cross_entropy_and_squared_error_by_hand():
    one = binary_cross_entropy(jnp.array([[0.0], [2.0]]), jnp.array([1, 0]))
    np.testing.assert_allclose(one, [np.log(2), 2 + np.log(1 + np.exp(-2))], rtol=1e-6)
    assert binary_cross_entropy(jnp.zeros((2, 5)), jnp.ones((2, 5))).shape == (2, 5)
    assert squared_error(jnp.array([1.0, 5.0]), jnp.array([[3], [4]])).tolist() == [[4], [1]]


def test_metrics_by_hand():
    assert accuracy(LOGITS, jnp.array([0, 1])).tolist() == [True, False]
    one_hot = jnp.array([[0.0, 1.0], [1.0, 0.0]])
    assert accuracy(LOGITS, one_hot).tolist() == [False, True]
    one_output = jnp.array([[0.5], [-0.5]])
    assert accuracy(one_output, jnp.array([1, 1])).tolist() == [True, False]
    assert accuracy(one_output[:, 0], jnp.array([0, 0])).tolist() == [False, True]
    assert binary_accuracy(LOGITS - 1, jnp.array([[0, 1], [1, 1]])).tolist() == [[1, 0], [1, 0]]
    three = jnp.array([[0.1, 0.7, 0.2], [0.5, 0.3, 0.2]])
    assert top_k_accuracy(2)(three, jnp.array([2, 2])).tolist() == [True, False]
    assert top_k_accuracy(9)(three, jnp.array([2, 2])).tolist() == [True, True]
    assert per_example(jnp.array([[1.0, 3.0], [5.0, 5.0]])).tolist() == [2, 5]


@settings(deadline=None)  # the first example compiles
@given(classes=st.integers(2, 6), seed=st.integers(0, 99))
def test_cross_entropy_of_one_hot_labels_is_that_of_classes(classes, seed):
    random = np.random.default_rng(seed)
    logits = jnp.asarray(random.normal(size=(4, classes)), jnp.float32)
    labels = jnp.asarray(random.integers(0, classes, 4))
    one_hot = jax.nn.one_hot(labels, classes)
    np.testing.assert_allclose(
        cross_entropy(logits, one_hot), cross_entropy(logits, labels), rtol=1e-5, atol=1e-6
    )
    assert accuracy(logits, one_hot).tolist() == accuracy(logits, labels).tolist()


def test_half_precision_is_widened():
    for loss in (cross_entropy, binary_cross_entropy, squared_error):
        labels = jnp.zeros(2, int) if loss is cross_entropy else jnp.zeros((2, 2))
        assert loss(LOGITS.astype(jnp.bfloat16), labels).dtype == jnp.float32


@pytest.mark.parametrize("loss", [binary_cross_entropy, squared_error, binary_accuracy])
def test_labels_that_would_broadcast(loss):
    with pytest.raises(ValueError, match=r"shape of the outputs, \(4, 2\), got \(4,\)"):
        loss(jnp.zeros((4, 2)), jnp.zeros(4))


# Names.


def test_named_metrics():
    def of_mine(outputs, labels):
        return labels

    assert list(named_metrics([accuracy, of_mine], cross_entropy)) == ["accuracy", "of_mine"]
    assert list(named_metrics([partial(of_mine)], cross_entropy)) == ["of_mine"]
    assert list(named_metrics({"x": of_mine}, cross_entropy)) == ["x"]
    assert named_metrics(None, of_mine) is None
    assert default_metrics(squared_error) == {}
    with pytest.raises(ValueError, match="names of their own, got 'of_mine'"):
        named_metrics([of_mine, of_mine], cross_entropy)
    with pytest.raises(ValueError, match="names of their own, got 'step'"):
        named_metrics({"step": of_mine}, cross_entropy)
    with pytest.raises(TypeError, match=r"metrics must be functions .*got function"):
        named_metrics(accuracy, cross_entropy)
    with pytest.raises(TypeError, match=r"metrics\['x'\] must be a function"):
        named_metrics({"x": 3}, cross_entropy)


# In a training.


def trained(loss, labels, outputs, **options):
    """Scores after ten steps on ten vectors, and the trainer's outputs for them."""
    x = np.random.default_rng(0).normal(size=(10, 6)).astype(np.float32)
    model = LinearNet((6, outputs), rngs=nnx.Rngs(0))
    trainer = Trainer(model, adam(), loss=loss, mean=0.5, std=2.0, **options)
    data = Images(jnp.asarray(x), jnp.asarray(labels))
    state = trainer.start(model)
    order = np.arange(40).reshape(10, 4) % 10
    state, record = trainer.run(state, data, order, constant(0.1).table(10))
    assert np.isfinite(record.loss).all()
    # The mean and std of vectors are taken as they are.
    expected = trainer.model(state)((x - 0.5) / 2)
    found = trainer.predict(state, x)
    np.testing.assert_allclose(found, expected, rtol=1e-5, atol=1e-5)
    # Three batches, of which the last is not full.
    return trainer.evaluate(state, data, batch_size=4), np.asarray(found, np.float64)


def test_regression():
    values = np.linspace(-1, 1, 10).astype(np.float32)

    def absolute_error(outputs, labels):
        return jnp.abs(outputs[:, 0] - labels)

    scores, found = trained(squared_error, values, 1, metrics=[absolute_error])
    apart = found[:, 0] - values
    assert scores.loss == pytest.approx((apart**2).mean(), rel=1e-5)
    assert scores.metrics["absolute_error"] == pytest.approx(np.abs(apart).mean(), rel=1e-5)
    assert scores.correct is None
    assert np.isnan(scores.accuracy)


def test_many_labels_and_several_metrics():
    labels = (np.arange(30).reshape(10, 3) % 2).astype(np.float32)
    scores, found = trained(binary_cross_entropy, labels, 3)
    assert scores.metrics == {"accuracy": pytest.approx(((found > 0) == labels).mean())}
    assert scores.correct is None
    assert scores.accuracy == scores.metrics["accuracy"]
    classes = np.arange(10) % 3
    scores, found = trained(cross_entropy, classes, 3, metrics=[accuracy, top_k_accuracy(2)])
    assert scores.correct == (found.argmax(1) == classes).sum()
    second = np.sort(found, 1)[:, 1]
    top = found[np.arange(10), classes] >= second
    assert scores.metrics["top_2_accuracy"] == pytest.approx(top.mean())


def test_one_hot_labels():
    classes = np.arange(10) % 3
    one_hot = np.eye(3, dtype=np.float32)[classes]
    scores, found = trained(cross_entropy, one_hot, 3)
    assert scores.correct == (found.argmax(1) == classes).sum()
    same, _ = trained(cross_entropy, classes, 3)
    assert scores.loss == pytest.approx(same.loss, rel=1e-5)
    assert scores.correct == same.correct


def test_a_loss_of_ones_own_has_the_accuracy_of_classes():
    def smoothed(logits, labels):
        soft = optax.smooth_labels(jax.nn.one_hot(labels, 3), 0.1)
        return optax.softmax_cross_entropy(logits, soft)

    scores, found = trained(smoothed, np.arange(10) % 3, 3)
    assert scores.correct == (found.argmax(1) == np.arange(10) % 3).sum()


@pytest.mark.parametrize(
    ("loss", "labels", "options", "message"),
    [
        (
            lambda o, y: cross_entropy(o, y).mean(),
            np.arange(10) % 3,
            {},
            "loss must return one .*mean",
        ),
        (lambda o, y: o[:, :1] - y, np.arange(10.0), {}, "loss must return one number .*broadcast"),
        (lambda o, y: o - y, np.arange(10.0), {}, r"loss must take .*float32\[2, 3\].*labels"),
        (
            cross_entropy,
            np.arange(10) % 3,
            {"metrics": {"share": lambda o, y: (o.argmax(-1) == y).mean()}},
            r"metrics\['share'\] must return one number per example",
        ),
        (cross_entropy, np.arange(10), {}, "labels must be below the model's 3 logits, got 9"),
        (cross_entropy, np.arange(10)[:, None] % 3, {}, r"one whole number .*\(10, 1\)"),
        (cross_entropy, np.eye(3, dtype=np.int32)[np.arange(10) % 3], {}, r"argmax\(-1\)"),
    ],
)
def test_what_does_not_fit_is_said_before_the_first_step(loss, labels, options, message):
    with pytest.raises(ValueError, match=message):
        trained(loss, labels, 3, **options)


def test_labels_of_another_kind():
    with pytest.raises(TypeError, match=r"labels must be one whole number per example.*float32"):
        trained(cross_entropy, np.zeros(10, np.float32), 3)


def test_a_model_that_returns_several_outputs():
    class Two(nnx.Module):
        def __init__(self):
            self.scale = nnx.Param(jnp.float32(1))

        def __call__(self, x):
            return x * self.scale, x

    model = Two()
    trainer = Trainer(model, adam(), watch=None)
    data = Images(jnp.ones((4, 3)), jnp.zeros(4, int))
    with pytest.raises(ValueError, match=r"model must return one array .*float32\[2, 3\]"):
        trainer.evaluate(trainer.start(model), data)


def test_whole_values_of_a_loss_of_ones_own_are_no_classes():
    """Ages have no accuracy, though they are whole numbers."""

    def absolute(outputs, ages):
        return jnp.abs(outputs[:, 0] - ages)

    scores, _ = trained(absolute, np.arange(10) + 18, 1)
    assert scores.metrics == {}
    assert np.isnan(scores.accuracy)


@pytest.mark.parametrize("labels", [np.arange(10) + 18, np.arange(10) % 2 * 2 - 1])
def test_labels_of_the_binary_cross_entropy_are_from_0_to_1(labels):
    with pytest.raises(ValueError, match="labels must be from 0 to 1 for the binary cross entropy"):
        trained(binary_cross_entropy, labels.astype(np.float32)[:, None], 1)


def test_cross_entropy_of_one_output_names_the_other_loss():
    class Flat(nnx.Module):
        def __init__(self):
            self.scale = nnx.Param(jnp.float32(1))

        def __call__(self, x):
            return x[:, 0] * self.scale

    model = Flat()
    trainer = Trainer(model, adam(), watch=None)
    with pytest.raises(ValueError, match=r"got the shape \(2,\).*binary_cross_entropy"):
        trainer.evaluate(trainer.start(model), Images(jnp.ones((4, 3)), jnp.zeros(4, int)))


def test_sweep_without_an_accuracy_is_refused_before_the_first_step():
    model = LinearNet((6, 1), rngs=nnx.Rngs(0))
    trainer = Trainer(model, adam(), loss=squared_error, watch=None)
    data = Images(jnp.ones((10, 6)), jnp.ones(10))
    order = np.zeros((1, 4, 5), int)
    with pytest.raises(ValueError, match="must have the metric accuracy for a sweep, got none"):
        sweep(trainer, [model], data, order, [constant(0.1).table(4)], test=data)


@pytest.mark.parametrize(
    ("labels", "error", "message"),
    [
        (np.ones((10, 3), np.float32), ValueError, r"sum to 1 .*up to 2\. .*binary_cross_entropy"),
        (np.zeros(10, np.float32), TypeError, r"astype\(np.int32\); for values"),
        (np.arange(1, 11) % 4, ValueError, r"3 logits, got 3\. Number the classes from 0"),
    ],
)
def test_labels_that_the_cross_entropy_cannot_have(labels, error, message):
    with pytest.raises(error, match=message):
        trained(cross_entropy, labels, 3)


def test_one_logit_needs_another_loss():
    with pytest.raises(ValueError, match=r"For one logit pass loss=convjax.train.binary_cross"):
        trained(cross_entropy, np.arange(10) % 2, 1)
