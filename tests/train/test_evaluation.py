import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx

from convjax.nn.models import LinearNet
from convjax.optim.optimizers import sgd
from convjax.train import binary_cross_entropy
from convjax.train.device_data import Images
from convjax.train.evaluation import Scores
from convjax.train.trainer import Trainer
from tests.helpers import assert_trees_close
from tests.trainings import CLASSES, EXAMPLES, normalised, pixels, split

pytestmark = pytest.mark.usefixtures("small_chunks")


@pytest.mark.parametrize("batch_size", [1, 5, 22, 23, 1000])
def test_scoring_order_has_every_example_exactly_once(batch_size):
    # The loss of example i is 2ⁱ, and the sum over all 23 is exact in float32: one that is left
    # out or counted twice changes it.
    model = LinearNet((32, EXAMPLES), rngs=nnx.Rngs(0))  # an output for each label
    powers = 2 ** np.arange(EXAMPLES, dtype=np.float32)
    trainer = Trainer(model, sgd(), loss=lambda logits, labels: jnp.asarray(powers)[labels])
    data = Images(jnp.asarray(pixels()), jnp.arange(EXAMPLES, dtype=jnp.int32))
    scores = trainer.evaluate(trainer.start(model), data, batch_size=batch_size)
    assert scores.loss * EXAMPLES == pytest.approx(2**EXAMPLES - 1, rel=1e-12)
    assert scores.examples == EXAMPLES


def test_evaluate_sums_in_float32_whatever_the_parameters_are():
    # 50 copies of the same examples have the mean of one, also where a sum in bfloat16 would stop
    # to grow.
    model = LinearNet((32, CLASSES), param_dtype=jnp.bfloat16, rngs=nnx.Rngs(0))
    trainer = Trainer(model, sgd())
    state, images, labels = trainer.start(model), pixels(), split().labels
    once = trainer.evaluate(state, Images(jnp.asarray(images), labels))
    copies = Images(jnp.tile(jnp.asarray(images), (50, 1, 1, 1)), jnp.tile(labels, 50))
    often = trainer.evaluate(state, copies, batch_size=100)
    # 1,150 float32 losses of order 1.
    assert often.loss == pytest.approx(once.loss, rel=1e-6)
    assert often.correct == 50 * once.correct


def test_losses_are_float32_whatever_the_model_computes_in():
    model = LinearNet((32, CLASSES), param_dtype=jnp.bfloat16, rngs=nnx.Rngs(0))
    trainer = Trainer(model, sgd())
    state = trainer.start(model)
    logits = trainer.predict(state, pixels())
    assert logits.dtype == jnp.bfloat16
    losses, _ = trainer.step.scores(state, jnp.asarray(pixels()), split().labels)
    # The same logits in float64: only the logarithm of a float32 sum differs.
    wide = np.asarray(logits, np.float64)
    wanted = np.log(np.exp(wide).sum(1)) - wide[np.arange(EXAMPLES), np.asarray(split().labels)]
    assert losses.dtype == jnp.float32
    np.testing.assert_allclose(losses, wanted, rtol=1e-6)
    # In bfloat16, of 8 bits, they would be this far apart.
    assert np.abs(losses - losses.astype(jnp.bfloat16)).max() > 1e-3


@pytest.mark.parametrize("batch_size", [5, 1000])
def test_evaluate_equals_numpy(run, batch_size):
    data = split(seed=9)
    scores = run.trainer.evaluate(run.state, data, batch_size=batch_size)
    images = normalised(pixels(seed=9)).astype(np.float32)
    logits = np.asarray(run.trainer.model(run.state)(images), np.float64)
    labels = np.asarray(data.labels)
    shares = np.exp(logits) / np.exp(logits).sum(1, keepdims=True)
    losses = -np.log(shares[np.arange(EXAMPLES), labels])
    # float32 logits of order 1, computed in another program.
    assert scores.loss == pytest.approx(losses.mean(), rel=1e-5)
    correct = int((logits.argmax(1) == labels).sum())
    assert 0 < correct < EXAMPLES
    assert scores == Scores(scores.loss, correct, EXAMPLES, {"accuracy": correct / EXAMPLES})
    assert scores.accuracy == correct / EXAMPLES


def test_evaluate_does_not_change_the_state(run):
    before = jax.tree.map(np.array, run.state)
    first = run.trainer.evaluate(run.state, run.data)
    assert run.trainer.evaluate(run.state, run.data) == first
    assert_trees_close(jax.tree.map(np.array, run.state), before)


def test_evaluate_rejects_wrong_arguments(run):
    with pytest.raises(ValueError, match="batch_size must be at least 1, got 0"):
        run.trainer.evaluate(run.state, run.data, batch_size=0)
    with pytest.raises(TypeError, match=r"batch_size must be a whole number, got float: 2\.5"):
        run.trainer.evaluate(run.state, run.data, batch_size=2.5)
    strange = run.data._replace(labels=run.data.labels + 1)
    trainer = Trainer(run.model, sgd())  # with cross entropy itself
    with pytest.raises(ValueError, match="labels must be below the model's 3 logits, got 3"):
        trainer.evaluate(run.state, strange)
    empty = Images(run.data.images[:0], run.data.labels[:0])
    with pytest.raises(ValueError, match="data must hold at least one example, got none"):
        run.trainer.evaluate(run.state, empty)


def test_evaluate_takes_a_positive_single_logit_as_class_1():
    # The weights are 0: the logit is the bias, so that all answers are 1 or all are 0.
    model = LinearNet((32, 1), rngs=nnx.Rngs(0))
    model.layers[0].kernel.set_value(jnp.zeros((32, 1)))
    data = split()._replace(labels=jnp.arange(EXAMPLES) % 2)
    for bias, correct in ((0.5, 11), (-0.5, 12)):
        model.layers[0].bias.set_value(jnp.array([bias]))
        trainer = Trainer(model, sgd(), loss=binary_cross_entropy)
        found = trainer.evaluate(trainer.start(model), data)
        assert found.correct == correct


def test_predict_equals_evaluate(run):
    images, labels = pixels(), np.asarray(run.data.labels)
    logits = run.trainer.predict(run.state, images)
    model = run.trainer.model(run.state)
    # One program and its parts one by one: float32 roundings of numbers of order 1.
    wanted = model(jnp.asarray(normalised(images), jnp.float32))
    np.testing.assert_allclose(logits, wanted, rtol=1e-4, atol=1e-5)
    found = run.trainer.evaluate(run.state, run.data)
    assert found.correct == (np.argmax(logits, -1) == labels).sum()


@pytest.mark.parametrize(
    ("images", "error", "message"),
    [
        (
            pixels().astype(int),
            TypeError,
            "images must be uint8 from 0 to 255 or of floating point",
        ),
        (pixels()[0], ValueError, r"images of uint8 must have the axes \(N, H, W, C\), got"),
    ],
)
def test_predict_rejects_wrong_images(run, images, error, message):
    with pytest.raises(error, match=message):
        run.trainer.predict(run.state, images)


def test_predict_takes_pixels_on_the_scale_of_the_mean(run):
    """mean and std are on the scale p/255: floats are not divided again."""
    found = run.trainer.predict(run.state, (pixels() / 255).astype(np.float32))
    # One division on the host and one on the device: a rounding of float32.
    np.testing.assert_allclose(
        found, run.trainer.predict(run.state, pixels()), rtol=1e-4, atol=1e-5
    )
