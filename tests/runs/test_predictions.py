from types import SimpleNamespace

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx
from hypothesis import given, settings
from hypothesis import strategies as st

from convjax.data import Split
from convjax.nn.layers import Linear
from convjax.optim.optimizers import sgd
from convjax.runs.predictions import Predictions, PredictionsError
from convjax.train.device_data import Images
from convjax.train.trainer import Trainer
from tests import trainings

NAMES = ("nought", "<b>one</b>", "two")


def split(examples=23):
    images = trainings.pixels(examples)
    labels = np.random.default_rng(1).integers(0, trainings.CLASSES, examples).astype(np.int32)
    return Split(images, labels)


@pytest.fixture(scope="module")
def trained():
    """A trainer and its state before the first step."""
    model = trainings.conv_net()
    trainer = Trainer(model, sgd(), mean=trainings.MEAN, std=trainings.STD)
    return trainer, trainer.start(model)


@pytest.fixture(scope="module")
def predictions(trained):
    return Predictions.of(*trained, split(), NAMES, worst=4)


def by_hand(labels, answers, classes=3):
    """Returns predictions without images, for tests of counts."""
    none = np.zeros(0, np.float32)
    return Predictions(
        np.asarray(labels, np.int32),
        np.asarray(answers, np.int32),
        np.zeros(len(labels), np.float32),
        np.zeros(0, np.int32),
        np.zeros((0, 1, 1, 1), np.uint8),
        none,
        none,
        tuple(map(str, range(classes))),
    )


def test_confusion_by_hand():
    found = by_hand([0, 0, 1, 2, 2, 2], [0, 1, 1, 0, 0, 2])
    assert found.confusion.tolist() == [[1, 1, 0], [0, 1, 0], [2, 0, 1]]
    assert found.correct == 3


@given(st.lists(st.tuples(st.integers(0, 3), st.integers(0, 3)), min_size=1))
@settings(deadline=None)
def test_confusion_counts_each_image_once(pairs):
    labels, answers = zip(*pairs, strict=True)
    found = by_hand(labels, answers, classes=4)
    assert found.confusion.sum() == len(pairs)
    assert np.trace(found.confusion) == found.correct
    assert found.confusion.sum(1).tolist() == np.bincount(labels, minlength=4).tolist()
    assert found.confusion.sum(0).tolist() == np.bincount(answers, minlength=4).tolist()


def test_predictions_are_those_of_the_network(trained, predictions):
    trainer, state = trained
    data = split()
    model = trainer.model(state)
    x = jnp.asarray(trainings.normalised(data.images), jnp.float32)
    probabilities = np.asarray(jax.nn.softmax(model(x), axis=-1), np.float64)
    np.testing.assert_array_equal(predictions.answers, probabilities.argmax(1))
    right = probabilities[np.arange(len(data.labels)), data.labels]
    # float32 of one program against float32 of another, and a logarithm.
    np.testing.assert_allclose(predictions.losses, -np.log(right), rtol=1e-4, atol=1e-6)
    wrong = [i for i in range(len(right)) if probabilities[i].argmax() != data.labels[i]]
    worst = sorted(wrong, key=lambda i: right[i])[:4]
    assert predictions.worst.tolist() == worst
    np.testing.assert_array_equal(predictions.images, data.images[worst])
    np.testing.assert_allclose(predictions.label_probabilities, right[worst], rtol=1e-4)
    np.testing.assert_allclose(
        predictions.answer_probabilities, probabilities[worst].max(1), rtol=1e-4
    )
    scores = trainer.evaluate(state, Images.put(data))
    assert predictions.correct == scores.correct
    assert predictions.losses.mean() == pytest.approx(scores.loss, rel=1e-5)


def test_predictions_do_not_depend_on_the_batch_size(trained, predictions):
    in_parts = Predictions.of(*trained, split(), NAMES, worst=4, batch_size=9)
    np.testing.assert_array_equal(in_parts.answers, predictions.answers)
    # Another batch may add up in another order.
    np.testing.assert_allclose(in_parts.losses, predictions.losses, rtol=1e-5, atol=1e-6)
    assert repr(in_parts) == repr(predictions)


class Single(nnx.Module):
    """One logit, x − 1 of the first pixel."""

    def __init__(self):
        self.linear = Linear(32, 1, rngs=nnx.Rngs(0))
        self.linear.kernel[...] = jnp.zeros((32, 1)).at[0].set(1.0)
        self.linear.bias[...] = jnp.full((1,), -1.0)

    def __call__(self, x):
        return self.linear(x.reshape(len(x), -1))


def test_predictions_of_a_single_logit():
    model = Single()
    loss = lambda logits, labels: jnp.where(  # noqa: E731
        labels == 1, 1 - jax.nn.sigmoid(logits[:, 0]), jax.nn.sigmoid(logits[:, 0])
    )
    trainer = Trainer(model, sgd(), loss=loss, std=1 / 255)  # pixels as they are
    images = np.zeros((4, 4, 4, 2), np.uint8)
    images[:, 0, 0, 0] = [0, 1, 2, 3]  # logits −1, 0, 1, 2
    data = Split(images, np.array([1, 1, 0, 1], np.int32))
    found = Predictions.of(trainer, trainer.start(model), data, ("three", "seven"))
    assert found.answers.tolist() == [0, 0, 1, 1]  # a logit of 0 is not positive
    sigmoid = 1 / (1 + np.exp(-np.array([-1.0, 0, 1, 2])))
    np.testing.assert_allclose(
        found.losses, [1 - sigmoid[0], 0.5, sigmoid[2], 1 - sigmoid[3]], rtol=1e-6
    )
    assert found.worst.tolist() == [0, 2, 1]  # equal losses in the order of the images
    np.testing.assert_allclose(found.answer_probabilities, [sigmoid[2], sigmoid[2], 0.5], rtol=1e-6)
    np.testing.assert_allclose(found.label_probabilities, [sigmoid[0], sigmoid[0], 0.5], rtol=1e-6)


def test_predictions_of_nan(trained):
    trainer, state = trained
    broken = state._replace(params=jax.tree.map(lambda x: x * jnp.nan, state.params))
    found = Predictions.of(trainer, broken, split(), NAMES, worst=100)
    assert np.isnan(found.losses).all()
    assert found.correct + len(found.worst) == 23


def test_predictions_save_and_load(predictions, tmp_path):
    predictions.save(tmp_path / "predictions.npz")
    found = Predictions.load(tmp_path / "predictions.npz")
    for name, value in vars(predictions).items():
        np.testing.assert_array_equal(getattr(found, name), value)
        if isinstance(value, np.ndarray):
            assert getattr(found, name).dtype == value.dtype
    assert found.class_names == NAMES
    assert [path.name for path in tmp_path.iterdir()] == ["predictions.npz"]


@pytest.mark.parametrize(
    ("changed", "message"),
    [
        ({"format": np.int64(9)}, "format 9, this version reads 1"),
        ({"answers": None}, "answers is missing"),
        ({"answers": np.zeros(22, np.int32)}, r"answers is int32 of the shape \(22,\)"),
        ({"labels": np.full(23, 3, np.int32)}, r"labels must lie in 0\.\.2, but has 3 to 3"),
        ({"labels": np.zeros(23)}, "labels is float64"),
        ({"worst": np.full(4, 23)}, r"worst must lie in 0\.\.22"),
        ({"images": np.zeros((4, 2, 2), np.uint8)}, "images are uint8 of the shape"),
        ({"class_names": np.zeros(3)}, "class_names is float64"),
    ],
)
def test_predictions_load_rejects_other_files(predictions, tmp_path, changed, message):
    path = tmp_path / "predictions.npz"
    predictions.save(path)
    with np.load(path) as file:
        arrays = {name: file[name] for name in file.files} | changed
    np.savez(path, **{name: array for name, array in arrays.items() if array is not None})
    with pytest.raises(PredictionsError, match=message):
        Predictions.load(path)


def test_predictions_load_rejects_damaged_files(predictions, tmp_path):
    path = tmp_path / "predictions.npz"
    with pytest.raises(FileNotFoundError):
        Predictions.load(path)
    path.write_bytes(b"PK not a zip")
    with pytest.raises(PredictionsError, match="is not a complete predictions file"):
        Predictions.load(path)
    np.savez(path, labels=np.array([object()], dtype=object))
    with pytest.raises(PredictionsError, match="is not a complete predictions file"):
        Predictions.load(path)


def test_predictions_reject_invalid_arguments(trained):
    trainer, state = trained
    with pytest.raises(TypeError, match="trainer must be Trainer, got SimpleNamespace"):
        Predictions.of(SimpleNamespace(), state, split(), NAMES)
    with pytest.raises(TypeError, match="split must be Split"):
        Predictions.of(trainer, state, Images.put(split()), NAMES)
    with pytest.raises(ValueError, match="worst must be at least 0, got -1"):
        Predictions.of(trainer, state, split(), NAMES, worst=-1)
    with pytest.raises(ValueError, match="batch_size must be at least 1, got 0"):
        Predictions.of(trainer, state, split(), NAMES, batch_size=0)
    with pytest.raises(ValueError, match="class_names must name every class, got 2 for 3 logits"):
        Predictions.of(trainer, state, split(), NAMES[:2])
