"""What nobody can mean is refused by all that takes it, and what is unlikely is said once."""

import re
import warnings
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from flax import nnx
from hypothesis import given, settings
from hypothesis import strategies as st

from convjax import (
    Images,
    Plan,
    Trainer,
    adam,
    constant,
    digits_net,
    fit,
    lr_find,
    sgd,
    sweep,
)
from convjax.data import Split, Stream
from convjax.learner import Learner
from convjax.train import accuracy, binary_cross_entropy, cross_entropy, squared_error

EXAMPLES, CLASSES, STEPS = 40, 3, 4
PIXELS = np.random.default_rng(0).integers(0, 256, (EXAMPLES, 4, 4, 1), np.uint8)
SHARES = (PIXELS / 255).astype(np.float32)
LABELS = (np.arange(EXAMPLES) % CLASSES).astype(np.int32)
ONE_HOT = np.eye(CLASSES, dtype=np.float32)[LABELS]
ORDER = np.arange(20).reshape(STEPS, 5)
TABLE = constant(0.1).table(STEPS)
GOOD = Images(jnp.asarray(PIXELS), jnp.asarray(LABELS))


class Net(nnx.Module):
    """A linear layer and what becomes of its outputs."""

    def __init__(self, after=lambda x: x, outputs=CLASSES):
        self.linear, self.after = nnx.Linear(16, outputs, rngs=nnx.Rngs(0)), after

    def __call__(self, x):
        return self.after(self.linear(x.reshape(len(x), -1)))


def of_optax(outputs, labels):
    """A cross entropy that is not known by its name."""
    return optax.softmax_cross_entropy_with_integer_labels(outputs, labels)


def plan():
    return Plan(1, lambda epoch: ORDER, TABLE)


def run(trainer, model, data):
    return trainer.run(trainer.start(model), data, ORDER, TABLE)[1].loss


def evaluate(trainer, model, data):
    return trainer.evaluate(trainer.start(model), data)


# Everything that takes a split, as a function of trainer, model and split.
TRAINING = {
    "run": run,
    "fit": lambda trainer, model, data: fit(trainer, model, data, data, plan()),
    "sweep": lambda trainer, model, data: sweep(
        trainer, [model], data, [ORDER], [TABLE], test=data
    ),
    "lr_find": lambda trainer, model, data: lr_find(
        trainer, model, data, ORDER, start=0.01, end=0.1
    ),
}
SCORING = {"evaluate": evaluate}
# With a training split that fits, where the mistake is in the data.
TESTED = {
    "test of fit": lambda trainer, model, data: fit(trainer, model, GOOD, data, plan()),
    "test of sweep": lambda trainer, model, data: sweep(
        trainer, [model], GOOD, [ORDER], [TABLE], test=data
    ),
}


class Mistake(NamedTuple):
    """Arguments that do not fit together.

    Attributes:
      says: what the message matches.
      error: its class.
      images, labels: of the split.
      after, options: of the network and of the trainer.
      trains: whether only a training is concerned.
    """

    says: str
    error: type[Exception] = ValueError
    images: Any = PIXELS
    labels: Any = LABELS
    after: Any = lambda x: x
    options: dict[str, Any] = {}  # noqa: RUF012  # never changed
    trains: bool = False

    @property
    def of_data(self):
        """Whether a trainer of the default loss is fine, and the split is not."""
        return not self.options and (self.images is not PIXELS or self.labels is not LABELS)

    @property
    def streams(self):
        """Whether a stream can hold the split."""
        return (
            self.images.dtype == np.uint8
            and self.images.ndim == 4
            and len(self.images) == len(self.labels) > 0
            and self.labels.ndim == 1
            and self.labels.dtype.kind in "iu"
            and self.labels.min() >= 0
        )


def scored(loss, **options):
    return {"loss": loss, **options}


MISTAKES = {
    "uint16": Mistake("images must be uint8", TypeError, images=PIXELS.astype(np.uint16)),
    "int8": Mistake("must be uint8 .*got int8", TypeError, images=PIXELS.astype(np.int8)),
    "truth values": Mistake("images must be uint8 .*got bool", TypeError, images=PIXELS > 99),
    "three axes": Mistake(r"axes \(N, H, W, C\)", images=PIXELS[..., 0]),
    "fewer images": Mistake("as many labels as images", images=PIXELS[:-1]),
    "fewer labels": Mistake("as many labels as images", labels=LABELS[:-1]),
    "no examples": Mistake("at least one example", images=PIXELS[:0], labels=LABELS[:0]),
    "NaN in images": Mistake("images must be finite, got NaN", images=SHARES * np.nan),
    "infinite images": Mistake(
        "images must be finite, got inf", images=np.where(PIXELS > 99, np.inf, SHARES)
    ),
    "another size": Mistake(
        "model must take .*uint8.2, 3, 4, 1. for 2 examples", images=PIXELS[:, :3]
    ),
    "mean of 0 to 255": Mistake(
        "mean and std must be on the scale p/255 .*got 33.3 and 78.6",
        options={"mean": 33.3, "std": 78.6},
    ),
    "std 255": Mistake("mean and std must be on the scale p/255", options={"std": 255}),
    "channels of mean": Mistake(
        r"mean must be one number, or one per channel .*\(3,\)", options={"mean": [0.1, 0.2, 0.3]}
    ),
    "too high a class": Mistake("below the model's 3 logits, got 8", labels=4 * LABELS),
    "negative class": Mistake("labels must be 0 or above, got -1", labels=LABELS - 1),
    "column of classes": Mistake("labels must be one whole number per", labels=LABELS[:, None]),
    "one-hot rows": Mistake("Convert one-hot rows", labels=ONE_HOT.astype(np.int32)),
    "truth values as classes": Mistake("truth values with", TypeError, labels=LABELS > 0),
    "NaN in probabilities": Mistake("must be probabilities that sum to 1", labels=ONE_HOT * np.nan),
    "NaN in values": Mistake(
        "labels must be finite, got NaN",
        labels=ONE_HOT * np.float32(np.nan),
        options=scored(squared_error, metrics={"accuracy": accuracy}),
    ),
    "class out of range of one's own loss": Mistake(
        "labels must be from 0 to 2, .*got 8, for which the loss is nan",
        labels=4 * LABELS,
        options=scored(of_optax),
    ),
    "column of classes and one's own loss": Mistake(
        "loss must take .*They would be broadcast",
        labels=LABELS[:, None],
        options=scored(lambda o, y: cross_entropy(o, y)),
    ),
    "accuracy of a column": Mistake(
        r"metrics\['accuracy'\] must take .*would be broadcast",
        labels=LABELS[:, None],
        options=scored(lambda o, y: of_optax(o, y[:, 0]), metrics=[accuracy]),
    ),
    "accuracy of one-hot rows by hand": Mistake(
        r"metrics\['accuracy'\] must take",
        labels=ONE_HOT,
        options=scored(
            lambda o, y: optax.softmax_cross_entropy(o, y),
            metrics={"accuracy": lambda o, y: o.argmax(-1) == y},
        ),
    ),
    "mean of the losses": Mistake(
        "loss must return one number per example, .*Leave out the mean",
        options=scored(lambda o, y: of_optax(o, y).mean()),
    ),
    "pairs": Mistake(
        "loss must return one number .*broadcast",
        options=scored(lambda o, y: jnp.square(o[:, :1] - y)),
    ),
    "answers as loss": Mistake(
        "loss must return numbers of floating point, got bool",
        TypeError,
        options=scored(lambda o, y: o.argmax(-1) != y),
        trains=True,
    ),
    "share of answers as loss": Mistake(
        "loss must have a gradient",
        options=scored(lambda o, y: jnp.where(o.argmax(-1) == y, 0.0, 1.0)),
        trains=True,
    ),
    "first axis 1": Mistake("model must return one array .*1, 2, 3", after=lambda x: x[None]),
    "dictionary": Mistake("model must return one array .*'logits'", after=lambda x: {"logits": x}),
    "pair": Mistake("model must return one array", after=lambda x: (x, x)),
    "sum": Mistake("model must return one array", after=lambda x: x.sum()),
    "single outputs": Mistake("must return logits .*classes", after=lambda x: x[:, 0]),
    "classes": Mistake(
        "model must return numbers of floating point, got int32",
        TypeError,
        after=lambda x: x.argmax(-1),
    ),
}


def made(mistake, data=None):
    model = Net(mistake.after)
    trainer = Trainer(model, adam(), watch=None, **mistake.options)
    return trainer, model, data or Images(jnp.asarray(mistake.images), jnp.asarray(mistake.labels))


@pytest.mark.parametrize(
    ("name", "entry"),
    [
        *((name, entry) for name in MISTAKES for entry in [*TRAINING, *SCORING]),
        *((name, entry) for name, m in MISTAKES.items() if m.of_data for entry in TESTED),
    ],
)
def test_all_refuse_the_same_before_the_first_step(name, entry):
    mistake = MISTAKES[name]
    if entry in SCORING and mistake.trains:
        assert np.isfinite(evaluate(*made(mistake)).loss)
        return
    with pytest.raises(mistake.error, match=mistake.says) as caught:
        (TRAINING | SCORING | TESTED)[entry](*made(mistake))
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("entry", ["run", "evaluate"])
@pytest.mark.parametrize("name", [n for n, m in MISTAKES.items() if m.streams and not m.trains])
def test_a_stream_is_refused_as_resident_images(name, entry):
    mistake = MISTAKES[name]
    stream = Stream(mistake.images, mistake.labels)
    with pytest.raises(mistake.error, match=mistake.says):
        (TRAINING | SCORING)[entry](*made(mistake, stream))


@pytest.mark.parametrize(
    "name",
    [
        *("uint16", "int8", "truth values", "three axes", "NaN in images", "infinite images"),
        *("another size", "mean of 0 to 255", "std 255", "channels of mean"),
        *("first axis 1", "dictionary", "pair", "sum", "classes"),
    ],
)
def test_predict_refuses_what_concerns_images_and_outputs(name):
    trainer, model, _ = made(MISTAKES[name], GOOD)
    with pytest.raises(MISTAKES[name].error, match=MISTAKES[name].says):
        trainer.predict(trainer.start(model), MISTAKES[name].images)


@pytest.mark.parametrize(
    ("name", "entry"),
    [
        (name, entry)
        for name, mistake in MISTAKES.items()
        # A learner normalises by itself, and its splits check their arrays.
        if mistake.images is PIXELS and mistake.labels is LABELS and "std" not in mistake.options
        if "mean" not in mistake.options
        for entry in ("fit", "validate")
        if entry == "fit" or not mistake.trains
    ],
)
def test_a_learner_refuses_the_same(name, entry):
    mistake, split = MISTAKES[name], Split(PIXELS, LABELS)

    def train():
        options = {"loss": cross_entropy, **mistake.options}
        learner = Learner((split, split), Net(mistake.after), batch_size=8, show=False, **options)
        getattr(learner, entry)(*[1] * (entry == "fit"))

    with pytest.raises(mistake.error, match=mistake.says):
        train()


@pytest.mark.parametrize("std", [0, -1, np.nan, np.inf, 1e300, 1e-60])
def test_a_std_that_divides_by_nothing_or_everything(std):
    with pytest.raises(ValueError, match="std positive and finite in float32, got"):
        Trainer(Net(), adam(), std=std)


@pytest.mark.parametrize("entry", ["run", "fit", "sweep"])
@pytest.mark.parametrize(
    ("column", "value"),
    [
        *(("learning_rate", value) for value in (np.nan, np.inf, -0.1)),
        *(("momentum", value) for value in (np.nan, 1.0, -0.5)),
    ],
)
def test_rates_that_nobody_can_mean(entry, column, value):
    table = dict(TABLE) | {column: np.array([0.1, 0.1, value, 0.1])}
    trainer, model, _ = made(MISTAKES["sum"]._replace(after=lambda x: x), GOOD)
    calls = {
        "run": lambda: trainer.run(trainer.start(model), GOOD, ORDER, table),
        "fit": lambda: fit(trainer, model, GOOD, GOOD, Plan(1, lambda epoch: ORDER, table)),
        "sweep": lambda: sweep(trainer, [model], GOOD, [ORDER], [TABLE, table], test=GOOD),
    }
    with pytest.raises(ValueError, match=rf"table\['{column}'\] must be .* at step 2\."):
        calls[entry]()


@pytest.mark.parametrize(
    ("value", "error"), [("0.1", TypeError), (np.nan, ValueError), (-1, ValueError)]
)
def test_scalars_of_a_sweep_are_checked_as_those_of_an_optimizer(value, error):
    model = Net()
    trainer = Trainer(model, adam(), watch=None)
    with pytest.raises(error, match=r"scalars\['weight_decay'\]\[0\] must be"):
        sweep(
            trainer, [model], GOOD, [ORDER], [TABLE], test=GOOD, scalars={"weight_decay": [value]}
        )


def test_a_sweep_checks_every_model_before_the_first_run():
    model = Net()
    trainer, runs = Trainer(model, adam(), watch=None), []
    with pytest.raises(ValueError, match="model must have the structure"):
        sweep(
            trainer,
            [model, Net(outputs=4)],
            GOOD,
            [ORDER] * 2,
            [TABLE],
            test=GOOD,
            at_once=1,
            on_run=runs.append,
        )
    assert not runs


def test_states_of_another_model_or_optimizer():
    model = Net()
    trainer = Trainer(model, adam(), watch=None)
    with pytest.raises(
        ValueError, match="state must be that of a model of the trainer's structure"
    ):
        Trainer(Net(outputs=4), adam(), watch=None).predict(trainer.start(model), PIXELS)
    other = Trainer(model, sgd(), watch=None)
    with pytest.raises(ValueError, match="state must be that of the trainer's optimiser"):
        other.run(trainer.start(model), GOOD, ORDER, TABLE)
    assert other.evaluate(trainer.start(model), GOOD) == evaluate(trainer, model, GOOD)


# What is said once.

UNLIKELY = {
    "softmax": Mistake("model ends in a softmax, and the loss takes logits", after=jax.nn.softmax),
    "softmax by hand": Mistake(
        "model ends in a softmax",
        after=lambda x: jnp.exp(x) / jnp.exp(x).sum(-1, keepdims=True),
        options=scored(of_optax),
    ),
    "sigmoid": Mistake(
        "model ends in a sigmoid",
        labels=ONE_HOT,
        after=jax.nn.sigmoid,
        options=scored(binary_cross_entropy),
    ),
    "floats of 0 to 255": Mistake("root mean square 1.. after", images=PIXELS.astype(np.float32)),
    "divided twice": Mistake("differ by at most 0.0039 after", images=SHARES / 255),
    "shares with mean of 0 to 255": Mistake(
        "differ by at most 0.013 after", images=SHARES, options={"mean": 33.3, "std": 78.6}
    ),
    "shares as uint8": Mistake("differ by at most", images=(PIXELS > 99).astype(np.uint8)),
    "ignored class of one's own loss": Mistake(
        "labels are from -1 to 1, and the model has the outputs 0 to 2",
        labels=LABELS - 1,
        options=scored(of_optax),
    ),
    "column of classes in Optax": Mistake(
        r"labels have the shape \(N, 1\)",
        labels=LABELS[:, None],
        options=scored(
            lambda o, y: optax.softmax_cross_entropy(o, y),
            metrics={"accuracy": lambda o, y: o.argmax(-1) == y[:, 0]},
        ),
    ),
}


@pytest.mark.parametrize("entry", ["run", "sweep", "evaluate"])
@pytest.mark.parametrize("name", UNLIKELY)
def test_what_is_unlikely_is_said_once(name, entry):
    trainer, model, data = made(UNLIKELY[name])
    call = (TRAINING | SCORING)[entry]
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        call(trainer, model, data)
        call(trainer, model, data)
    (said,) = map(str, (warning.message for warning in caught))
    assert re.search(UNLIKELY[name].says, said)
    assert {warning.filename for warning in caught} == {__file__}


@pytest.mark.parametrize(
    ("after", "options"),
    [
        (jax.nn.log_softmax, {}),  # the cross entropy of log-probabilities is that of logits
        (jax.nn.softmax, scored(lambda o, y: -jnp.log(o[jnp.arange(len(y)), y]))),
        (jax.nn.softmax, scored(lambda o, y: jnp.square(o - jax.nn.one_hot(y, CLASSES)))),
        (lambda x: 2 * jax.nn.sigmoid(x), {}),
    ],
)
def test_nothing_is_said_of_outputs_that_the_loss_can_take(after, options):
    model = Net(after)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        found = evaluate(Trainer(model, adam(), watch=None, **options), model, GOOD)
    if after is jax.nn.log_softmax:
        same = evaluate(Trainer(Net(), adam(), watch=None), Net(), GOOD)
        assert found.loss == pytest.approx(same.loss, rel=1e-6)
        assert found.correct == same.correct


def test_more_outputs_than_classes():
    """4·(10 classes) outputs are those of maps of 2×2 pixels; others are only unlikely."""
    model = digits_net(rngs=nnx.Rngs(0))
    pixels = np.random.default_rng(0).integers(0, 256, (200, 64, 64, 1), np.uint8)
    data = Images(jnp.asarray(pixels), jnp.arange(200) % 10)
    trainer = Trainer(model, adam(), watch=None)
    with pytest.raises(ValueError, match=r"model has 40 outputs: it flattens maps .*\(10, 2, 2\)"):
        trainer.check(trainer.start(model), data)
    with pytest.warns(UserWarning, match="the model has 40 outputs: it flattens maps"):
        trainer.check(trainer.start(model), data, training=False)
    many = Images(jnp.tile(GOOD.images, (2, 1, 1, 1)), jnp.tile(GOOD.labels, 2))
    for outputs, said in ((12, True), (11, False)):
        model = Net(outputs=outputs)
        trainer = Trainer(model, adam(), watch=None)
        with warnings.catch_warnings(record=True) as caught:
            warnings.simplefilter("always")
            trainer.check(trainer.start(model), many)
            trainer.check(trainer.start(model), GOOD, training=False)
        assert [str(w.message)[:41] for w in caught] == said * [
            "labels are at most 2 in 80 examples, and "
        ]


# All agree.


@settings(deadline=None, max_examples=12)
@given(
    scale=st.sampled_from([1.0, 0.5, 40.0]),
    labels=st.sampled_from([LABELS, LABELS + 1, LABELS[:, None], ONE_HOT]),
    loss=st.sampled_from([cross_entropy, of_optax, squared_error]),
    rate=st.sampled_from([0.1, np.nan]),
)
def test_all_accept_the_same_and_take_the_same_steps(scale, labels, loss, rate):
    model, table = Net(), {"learning_rate": np.full(STEPS, rate), "momentum": np.full(STEPS, 0.9)}
    options = {"std": scale, "loss": loss, "metrics": {"accuracy": lambda o, y: o[:, 0] > 0}}
    trainer = Trainer(model, adam(), watch=None, **options)

    def resident():
        return Images(jnp.asarray(PIXELS), jnp.asarray(labels))

    def run_with(data):
        return trainer.run(trainer.start(model), data, ORDER, table)[1].loss

    calls = {
        "run": lambda: run_with(resident()),
        "fit": lambda: (
            fit(
                trainer, model, resident(), resident(), Plan(1, lambda epoch: ORDER, table)
            ).record.loss
        ),
        "sweep": lambda: sweep(
            trainer, [model], resident(), [ORDER], [table], test=resident()
        ).loss[0, 0],
    }
    if labels.ndim == 1:
        calls["stream"] = lambda: run_with(Stream(PIXELS, labels))
    found = {}
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        for name, call in calls.items():
            try:
                found[name] = call()
            except (TypeError, ValueError) as error:
                found[name] = str(error)  # a plan checks its rates first
    first = found.pop("run")
    for name, other in found.items():
        assert isinstance(other, str) == isinstance(first, str), (name, first, other)
        if not isinstance(first, str):  # one program and another: the same up to rounding
            np.testing.assert_allclose(other, first, rtol=1e-5, err_msg=name)
