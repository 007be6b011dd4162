"""The learner: fastai's words against the pure parts that they stand for."""

import numpy as np
import optax
import pytest
from flax import linen, nnx

import convjax
from convjax import Images, Learner, Plan, Trainer, adam, constant, fit, one_cycle
from convjax.data import Dataset, Split, epoch_order, normalization
from convjax.learner import Prediction, RecordedActivations
from convjax.train import binary_cross_entropy, squared_error
from tests.plots.drawn import draw

RANDOM = np.random.default_rng(0)


def split(examples, classes=3):
    """Bright images of one class, dark ones of another: learnt in a few steps."""
    labels = (np.arange(examples) % classes).astype(np.int32)
    noise = RANDOM.integers(0, 60, (examples, 8, 8, 1))
    return Split((noise + 60 * labels[:, None, None, None]).astype(np.uint8), labels)


DATA = Dataset("shades", split(48), split(12), ("dark", "grey", "bright"))


# Compiles faster than everything.
LIGHT = convjax.Watch(units=False, histogram=False)


def net(seed=0, **settings):
    return convjax.ConvNet((1, 4, 8, 3), stride=3, rngs=nnx.Rngs(seed), **settings)


def learner(**settings):
    settings = {"batch_size": 12, "show": False, "watch": LIGHT} | settings
    return Learner(DATA, net(), **settings)


# The same as the pure parts.


@pytest.mark.parametrize("cycle", [False, True])
def test_fit_equals_the_pure_parts(cycle):
    watch = convjax.Watch.everything() if cycle else LIGHT
    learn = learner(watch=watch)
    if cycle:
        learn.fit_one_cycle(2, 0.05, div=10.0, pct_start=0.4, moms=(0.9, 0.8, 0.9))
        schedule = one_cycle(8, 0.05, div=10.0, pct_start=0.4, momentum=(0.9, 0.8, 0.9))
    else:
        learn.fit(2, 0.01)
        schedule = constant(0.01)
    mean, std = normalization(DATA.train.images)
    trainer = Trainer(net(), adam(), mean=mean, std=std, watch=watch)
    train, test = Images.put(DATA.train), Images.put(DATA.test)
    plan = Plan(2, lambda e: epoch_order(48, 12, seed=0, epoch=e), schedule.table(8))
    wanted = fit(trainer, net(), train, test, plan)
    assert learn.recorder.record.loss.tolist() == wanted.record.loss.tolist()
    for name in ("train_loss", "valid_loss", "accuracy"):
        assert [r[name] for r in learn.recorder.values] == [r[name] for r in wanted.metrics]
    scores = trainer.evaluate(wanted.state, test)
    assert learn.validate() == scores
    assert (
        learn.predict(DATA.test.images) == trainer.predict(wanted.state, DATA.test.images)
    ).all()


def test_trainings_go_on_with_the_model_and_another_order():
    learn = learner()
    learn.fit(1, 0.01)
    first = learn.recorder.record.loss
    learn.fit(1, 0.01)
    assert learn.recorder.record.loss[0] < first[0]
    assert "2 epochs trained" in repr(learn)
    again = learner()
    again.fit(2, 0.01)
    # The same images in the same order; only the optimiser's state is new in the second training.
    assert again.recorder.record.loss[4] == pytest.approx(learn.recorder.record.loss[0], rel=1e-5)


# Layer groups.


def weights_of(learn):
    return [np.asarray(block.conv.kernel[...]) for block in learn.model.blocks]


def test_freezing_trains_the_last_layer_alone():
    learn = learner()
    before = weights_of(learn)
    learn.freeze()
    learn.fit(1, 0.05)
    after = weights_of(learn)
    assert [bool((a == b).all()) for a, b in zip(before, after, strict=True)] == [True, True, False]
    learn.unfreeze()
    learn.fit(1, slice(1e-4, 0.05))
    last = weights_of(learn)
    # All learn, the first two groups of parameters 500 times slower.
    change = [np.abs(a - b).max() for a, b in zip(after, last, strict=True)]
    assert 0 < change[0] < change[2] / 20
    with pytest.raises(ValueError, match="group must be from -2 to 1, got 2"):
        learn.freeze_to(2)


def test_fine_tune_trains_the_head_first():
    learn = learner()
    learn.fine_tune(1, 0.05)
    assert learn.recorder.record.steps == 4
    assert "2 epochs trained" in repr(learn)
    rates = one_cycle(4, 0.025, div=5.0, pct_start=0.3).table(4)["learning_rate"]
    np.testing.assert_allclose(learn.recorder.lrs, rates, rtol=1e-6)


def test_groups_of_ones_own():
    learn = learner(group_of=lambda name: min(int(name.split(".")[1]), 1))
    before = weights_of(learn)
    learn.freeze()
    learn.fit(1, 0.05)
    same = [bool((a == b).all()) for a, b in zip(before, weights_of(learn), strict=True)]
    assert same == [True, False, False]
    learn.fit(1, [1e-3, 1e-2])


# What people see.


def test_table_is_printed_by_default(capsys):
    learn = learner(show=True)
    learn.fit(2, 0.01)
    lines = capsys.readouterr().out.splitlines()
    assert lines[0].split() == ["epoch", "train_loss", "valid_loss", "accuracy", "time"]
    assert [line.split()[0] for line in lines[1:]] == ["0", "1"]
    assert float(lines[2].split()[3]) == pytest.approx(learn.validate().accuracy, abs=1e-6)


def test_pictures():
    learn = learner(watch=convjax.Watch(units=False))
    learn.fit(1, 0.01)
    batch = learn.show_batch(4, figsize=(3, 2))
    assert batch.get_size_inches().tolist() == [3, 2]
    titles = [axes.get_title() for axes in batch.axes]
    images, labels = learn.one_batch()
    assert titles == [DATA.class_names[label] for label in labels[:4]]
    assert images.shape == (12, 8, 8, 1)
    results = learn.show_results(2)
    assert all(len(axes.get_title().split("\n")) == 2 for axes in results.axes)
    for figure in (
        batch,
        results,
        learn.recorder.plot_sched(),
        learn.recorder.plot_loss(skip_start=1),
        learn.activation_stats.plot_layer_stats(-2),
        learn.activation_stats.color_dim(-2),
    ):
        draw(figure)


def test_augmented_images_are_shown_and_trained_on():
    def black(key, image):
        return image * 0

    learn = learner(augment=[black])
    panel = learn.show_batch(1).axes[0]
    assert panel.images[0].get_array().max() == 0
    learn.fit(2, 0.05)
    # Black images of three classes say nothing: the training loss stays at that of guessing.
    assert learn.recorder.record.loss.min() > 0.9


def test_activation_stats_number_the_layers_as_fastai():
    learn = learner()
    with pytest.raises(ValueError, match="nothing is recorded before a training"):
        learn.activation_stats  # noqa: B018
    learn.fit(1, 0.01)
    stats = learn.activation_stats
    assert isinstance(stats, RecordedActivations)
    assert [stats.name(i) for i in (0, -2, -1)] == [f"blocks.{i}.conv" for i in (0, 1, 2)]
    assert len(stats) == 3
    column = learn.recorder.record.layer("blocks.1.conv")
    assert stats.layer_stats(-2)["std"].tolist() == learn.recorder.record.std[:, column].tolist()
    with pytest.raises(IndexError, match="layer must be from -3 to 2, got 3"):
        stats.layer_stats(3)


def test_shapes_are_shown_in_the_order_that_is_asked_for():
    for axes, first in (("NHWC", (5, 3, 3, 4)), ("NCHW", (5, 4, 3, 3))):
        learn = learner(axes=axes)
        found = learn.outputs(DATA.test.images[:5])
        assert found["blocks.0.conv"].shape == first
        assert f"output shape ({axes})" in str(learn.summary())
    assert learn.kernels(0).shape == (4, 1, 3, 3)
    assert learner().kernels(-1).shape == (3, 3, 8, 3)
    with pytest.raises(IndexError, match="layer must be from 0 to 2, got 7"):
        learn.kernels(7)


def test_predict_one_image_and_several():
    learn = learner()
    learn.fit_one_cycle(5, 0.05)
    answer = learn.predict(DATA.test.images[2])
    assert isinstance(answer, Prediction)
    assert answer.name == DATA.class_names[answer.label] == "bright"
    assert answer.probabilities.sum() == pytest.approx(1, abs=1e-6)
    assert learn.predict(DATA.test.images[:4]).shape == (4, 3)
    assert repr(learn.diagnose()).startswith("Diagnosis(")


def test_weights_go_to_a_file_and_back(tmp_path):
    learn = learner()
    learn.fit(1, 0.05)
    learn.save(tmp_path / "weights.npz")
    other = learner().load(tmp_path / "weights.npz")
    assert (other.predict(DATA.test.images) == learn.predict(DATA.test.images)).all()


def test_lr_find_leaves_the_model():
    learn = learner()
    before = weights_of(learn)
    found = learn.lr_find(steps=20)
    assert found.steps == 20
    assert all((a == b).all() for a, b in zip(before, weights_of(learn), strict=True))


# Other networks, data and optimisers.


class Net(linen.Module):
    @linen.compact
    def __call__(self, x, train: bool):
        x = linen.Dense(16)(x.reshape(len(x), -1))
        x = linen.BatchNorm(use_running_average=not train)(x)
        return linen.Dense(3)(linen.relu(x))


def test_linen_and_optax():
    learn = Learner(DATA, Net(), optimizer=optax.lion, batch_size=12, show=False, watch=LIGHT)
    learn.fit_one_cycle(6, 3e-3)
    assert learn.validate().accuracy > 0.8
    with pytest.raises(ValueError, match="lr must be one number, and no group frozen"):
        learn.fit(1, slice(1e-4, 1e-3))
    with pytest.raises(ValueError, match="wd must be None for an optimiser of Optax"):
        Learner(DATA, Net(), optimizer=optax.lion, wd=0.1, show=False).fit(1)


def test_regression_of_vectors():
    x = RANDOM.normal(size=(40, 5)).astype(np.float32)
    y = (x[:, :1] * 3 + 1).astype(np.float32)
    data = Split(x, y), Split(x[:10], y[:10])
    with pytest.raises(ValueError, match=r"loss must be given .*squared_error for values"):
        Learner(data, convjax.LinearNet((5, 1), rngs=nnx.Rngs(0)))
    learn = Learner(
        data, convjax.LinearNet((5, 1), rngs=nnx.Rngs(0)), loss=squared_error, batch_size=10,
        show=False, watch=LIGHT,
    )  # fmt: skip
    learn.fit(30, 0.1)
    assert learn.validate().loss < 0.05
    assert "accuracy" not in learn.recorder.values[-1]
    assert learn.predict(x[0]).shape == (1,)


def test_many_labels():
    labels = (RANDOM.random((48, 2)) < 0.5).astype(np.float32)
    data = Split(DATA.train.images, labels), Split(DATA.test.images, labels[:12])
    learn = Learner(
        data,
        convjax.LinearNet((64, 2), rngs=nnx.Rngs(0)),
        loss=binary_cross_entropy,
        show=False,
        watch=LIGHT,
    )
    learn.fit(1)
    assert 0 <= learn.recorder.values[-1]["accuracy"] <= 1
    with pytest.raises(ValueError, match="labels that are not classes cannot be shown"):
        learn.show_batch()


# What is said.


@pytest.mark.parametrize(
    ("arguments", "error", "message"),
    [
        ((3, net()), TypeError, "data must be a Dataset or a pair of splits, got int: 3"),
        ((DATA, len), TypeError, "model must be Module, got builtin.*such as net"),
        ((DATA, net(), 0.1), TypeError, "positional"),
    ],
)
def test_arguments(arguments, error, message):
    with pytest.raises(error, match=message):
        Learner(*arguments)


def test_names_of_fastai_are_answered_with_ours():
    learn = learner()
    with pytest.raises(AttributeError, match=r"no attribute 'dls': learn.data has the splits"):
        learn.dls  # noqa: B018
    with pytest.raises(AttributeError, match=r"no attribute 'rubbish'\.$"):
        learn.rubbish  # noqa: B018
    assert not hasattr(learn, "_rubbish")


def test_names_of_fastai_in_the_module():
    with pytest.raises(AttributeError, match=r"fastai's untar_data is here: convjax.data.load"):
        convjax.untar_data  # noqa: B018
    with pytest.raises(AttributeError) as raised:
        convjax.rubbish  # noqa: B018
    assert "fastai" not in str(raised.value)
    for name in ("Flatten", "ReLU", "show_image", "subplots"):
        with pytest.raises(AttributeError, match="is here"):
            getattr(convjax, name)


def test_one_logit_answers_by_names():
    data = Dataset("two", split(24, 2), split(8, 2), ("dark", "bright"))
    one = convjax.ConvNet((1, 4, 4, 1), stride=3, rngs=nnx.Rngs(0))
    learn = Learner(data, one, loss=binary_cross_entropy, batch_size=12, show=False, watch=LIGHT)
    learn.fit(30, 0.03)
    assert learn.validate().accuracy == 1
    for image, label in zip(data.test.images, data.test.labels, strict=True):
        answer = learn.predict(image)
        assert (answer.label, answer.name) == (label, data.class_names[label])
        assert answer.probabilities.sum() == pytest.approx(1)
    titles = [axes.get_title().split("\n") for axes in learn.show_results(8).axes]
    assert all(label == answer for label, answer in titles)


def test_images_of_another_scale_are_refused():
    learn = learner()
    with pytest.raises(TypeError, match="images must be uint8 as those of the data, got float32"):
        learn.predict(DATA.test.images.astype(np.float32))
    with pytest.raises(TypeError, match="images must be uint8"):
        learn.outputs(DATA.test.images / 255)


def test_an_optimiser_that_is_made():
    with pytest.raises(TypeError, match=r"optimizer must be a function .* Leave out the parenth"):
        learner(optimizer=convjax.sgd())


def test_the_head_is_the_last_layer_with_its_norm():
    model = convjax.sequential(
        convjax.conv(1, 4, norm="batch"), convjax.conv(4, 3, act=False, norm="batch"),
        lambda x: x.mean((1, 2)),
    )  # fmt: skip
    learn = Learner(DATA, model, batch_size=12, show=False, watch=LIGHT)
    learn.freeze()
    before = [np.asarray(layer.conv.kernel[...]) for layer in list(learn.model.layers)[:2]]
    learn.fit(1, 0.05)
    after = [np.asarray(layer.conv.kernel[...]) for layer in list(learn.model.layers)[:2]]
    assert [bool((a == b).all()) for a, b in zip(before, after, strict=True)] == [True, False]


def test_vectors_are_normalised_by_feature():
    x = (RANDOM.normal(size=(40, 3)) * [1, 1000, 0.001] + 5).astype(np.float32)
    data = Split(x, split(40).labels), Split(x, split(40).labels)
    learn = Learner(data, convjax.LinearNet((3, 3), rngs=nnx.Rngs(0)), show=False, watch=LIGHT)
    layer = next(iter(learn.outputs(x, select=lambda name, module: True)))
    assert learn.outputs(x, select=layer)[layer].shape == (40, 3)
    seen = np.asarray(learn._any_trainer.step.normalize(x))
    # float32 of numbers around 5 with a spread of 0.001 has three digits of the spread.
    np.testing.assert_allclose(seen.std(0), 1, atol=2e-2)
    np.testing.assert_allclose(seen.mean(0), 0, atol=2e-1)


class Attention(nnx.Module):
    """Flax's attention asks for its mode where none is set."""

    def __init__(self, rngs):
        self.attention = nnx.MultiHeadAttention(2, 8, dropout_rate=0.1, decode=False, rngs=rngs)
        self.head = nnx.Linear(64, 3, rngs=rngs)

    def __call__(self, x):
        x = x[..., 0]
        return self.head((x + self.attention(x)).reshape(len(x), -1))


def test_the_mode_of_modules_is_set():
    learn = Learner(DATA, Attention(nnx.Rngs(0)), batch_size=12, show=False, watch=LIGHT)
    learn.fit(1, 0.01)
    assert np.isfinite(learn.validate().loss)


def test_outputs_that_are_not_one_per_class():
    """A network of strides on images that are too large for it: 2 x 2 pixels of 3 channels."""
    with pytest.raises(ValueError, match=r"one output for each of the 3 classes, got .* \(2, 12\)"):
        Learner(DATA, convjax.ConvNet((1, 4, 3), rngs=nnx.Rngs(0)), show=False)
