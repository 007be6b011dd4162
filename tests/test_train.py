from functools import cache
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from flax import nnx

from convjax import chunks
from convjax.capture import capture
from convjax.data import Split
from convjax.layers import BatchNorm, Linear
from convjax.models import ConvNet, LinearNet
from convjax.optim import adam, sgd
from convjax.record import Record
from convjax.schedules import one_cycle
from convjax.stats import ActivationStats
from convjax.step import cross_entropy
from convjax.train import Images, Scores, Trainer
from convjax.watch import Watch
from tests.helpers import assert_trees_close

STEPS, BATCH, EXAMPLES, CLASSES = 9, 5, 23, 3
MEAN, STD = (0.4, 0.6), (0.3, 0.2)  # one per channel


@pytest.fixture(autouse=True, scope="module")
def small_chunks():
    """Chunks of four steps: nine steps are two whole ones and a remainder."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(chunks, "CHUNK", 4)
        yield


def pixels(examples=EXAMPLES, seed=0):
    return np.random.default_rng(seed).integers(0, 256, (examples, 4, 4, 2), np.uint8)


def normalised(images):
    return (images.astype(np.float64) / 255 - MEAN) / STD


def split(examples=EXAMPLES, seed=0):
    labels = np.random.default_rng(seed + 1).integers(0, CLASSES, examples)
    return Images(jnp.asarray(pixels(examples, seed)), jnp.asarray(labels, jnp.int32))


def batches(steps=STEPS, seed=0):
    return np.random.default_rng(seed).integers(0, EXAMPLES, (steps, BATCH))


def conv_net(seed=0, **settings):
    """4×4 pixels, then 2×2, then one per class."""
    return ConvNet((2, 3, CLASSES), norm="batch", rngs=nnx.Rngs(seed), **settings)


def table(steps=STEPS, lr_max=0.05):
    return one_cycle(steps, lr_max).table(steps)


class Counting:
    """A loss that counts how often it is traced."""

    def __init__(self):
        self.traces = 0

    def __call__(self, logits, labels):
        self.traces += 1
        return cross_entropy(logits, labels)


class Run:
    """One training in float32, which many tests look at."""

    def __init__(self):
        self.model = conv_net()
        self.before = jax.tree.map(np.array, nnx.state(self.model))
        self.loss = Counting()
        self.trainer = Trainer(self.model, adam(), mean=MEAN, std=STD, loss=self.loss)
        self.data, self.order, self.table = split(), batches(), table()
        self.arrived = []
        self.state, self.record = self.trainer.run(
            self.trainer.start(self.model),
            self.data,
            self.order,
            self.table,
            on_steps=self.arrived.append,
        )


@pytest.fixture(scope="module")
def run(small_chunks):
    return Run()


# --- against other implementations -------------------------------------------------------------


def test_run_is_a_loop_of_steps(x64):
    model = conv_net(param_dtype=jnp.float64)
    trainer = Trainer(model, adam(), mean=MEAN, std=STD)
    data, order, rates = split(), batches(), table()
    assert STEPS > chunks.CHUNK
    assert STEPS % chunks.CHUNK != 0
    last, record = trainer.run(trainer.start(model), data, order, rates)

    state, step = trainer.start(model), jax.jit(trainer.step)
    rows = []
    for i, batch in enumerate(order):
        images, labels = data.images[batch], data.labels[batch]
        state, measures, stats = step(
            state, images, labels, rates["learning_rate"][i], rates["momentum"][i]
        )
        rows.append((measures, stats))

    # The same float64 operations, which the compiler may fuse otherwise in a loop. Batch norm over
    # five values and Adam's root magnify roundings of 1e-16 a thousandfold, at most, per step.
    assert_trees_close(last, state, rtol=1e-10, atol=1e-12)
    loss = [row.loss for row, _ in rows]
    np.testing.assert_allclose(record.loss, loss, rtol=1e-10)
    assert record.loss.dtype == np.float64
    np.testing.assert_array_equal(record.learning_rate, [row.learning_rate for row, _ in rows])
    np.testing.assert_array_equal(record.momentum, [row.momentum for row, _ in rows])
    for layer in range(4):
        for name in ("mean", "std", "near_zero", "abs_near_zero"):
            # Statistics are computed in float32, of at most 60 values of order 1.
            expected = [getattr(stats[layer], name) for _, stats in rows]
            np.testing.assert_allclose(getattr(record, name)[:, layer], expected, atol=1e-6)
        for name in ("hist", "under", "over"):
            expected = [getattr(stats[layer], name) for _, stats in rows]
            np.testing.assert_array_equal(getattr(record, name)[:, layer], expected)


def test_training_a_linear_model_against_numpy(x64):
    model = LinearNet((32, CLASSES), param_dtype=jnp.float64, rngs=nnx.Rngs(0))
    trainer = Trainer(model, sgd(weight_decay=0.1), mean=MEAN, std=STD)
    data, order, rates = split(), batches(), table()
    kernel, bias = (np.array(v[...]) for v in (model.layers[0].kernel, model.layers[0].bias))
    last, record = trainer.run(trainer.start(model), data, order, rates)

    x = normalised(np.asarray(data.images)).reshape(EXAMPLES, 32)
    labels = np.asarray(data.labels)
    velocity = [np.zeros_like(kernel), np.zeros_like(bias)]
    for i, batch in enumerate(order):
        logits = x[batch] @ kernel + bias
        shares = np.exp(logits) / np.exp(logits).sum(1, keepdims=True)
        losses = -np.log(shares[np.arange(BATCH), labels[batch]])
        # float64, numbers of order 1.
        np.testing.assert_allclose(record.loss[i], losses.mean(), rtol=1e-12)
        np.testing.assert_allclose(record.mean[i, 0], logits.mean(), rtol=0, atol=1e-6)  # float32
        slope = (shares - np.eye(CLASSES)[labels[batch]]) / BATCH
        gradients = x[batch].T @ slope + 0.1 * kernel, slope.sum(0)
        velocity = [rates["momentum"][i] * v + g for v, g in zip(velocity, gradients, strict=True)]
        kernel = kernel - rates["learning_rate"][i] * velocity[0]
        bias = bias - rates["learning_rate"][i] * velocity[1]
    trained = trainer.model(last).layers[0]
    np.testing.assert_allclose(trained.kernel[...], kernel, rtol=0, atol=1e-12)
    np.testing.assert_allclose(trained.bias[...], bias, rtol=0, atol=1e-12)


def test_normalize_by_hand():
    trainer = Trainer(LinearNet((2, 2), rngs=nnx.Rngs(0)), sgd(), mean=(0, 0.5), std=(1, 0.25))
    found = trainer.step.normalize(jnp.array([[[[0, 0], [51, 255]]]], jnp.uint8))
    # 51/255 is 1/5.
    np.testing.assert_allclose(found, [[[[0, -2], [0.2, 2]]]], rtol=1e-6)  # float32
    assert found.dtype == jnp.float32
    assert (
        trainer.step.normalize(jnp.zeros((1, 1, 1, 2), jnp.uint8), jnp.float16).dtype == jnp.float16
    )


def test_cross_entropy_by_hand():
    logits = jnp.log(jnp.array([[0.5, 0.25, 0.25], [0.2, 0.2, 0.6]]))
    losses = cross_entropy(logits, jnp.array([0, 1]))
    assert losses.shape == (2,)
    np.testing.assert_allclose(losses, [np.log(2), np.log(5)], rtol=1e-6)  # float32


# --- what a training records -------------------------------------------------------------------


def test_every_step_is_recorded_once(run):
    assert run.arrived == [4, 4, 1]
    assert run.record.steps == STEPS
    assert run.record.layers == (
        "blocks.0.conv",
        "blocks.0.norm",
        "blocks.1.conv",
        "blocks.1.norm",
    )
    # 5 examples with 3 maps of 2×2, then 3 of 1×1.
    assert run.record.sizes.tolist() == [60, 60, 15, 15]
    assert not run.record.nan().any()
    assert len(np.unique(run.record.loss)) == STEPS
    for name in ("learning_rate", "momentum"):
        np.testing.assert_array_equal(
            getattr(run.record, name), np.asarray(run.table[name], np.float32), strict=True
        )
        assert len(np.unique(run.table[name])) > STEPS // 2  # so that a wrong row would show


def test_statistics_are_those_of_the_layers_outputs(run):
    # The first step sees the initial model in training mode, on the first batch.
    model = conv_net()
    model.train()
    images = normalised(pixels()[run.order[0]]).astype(np.float32)
    _, outputs = capture(model, images)
    assert list(outputs) == list(run.record.layers)
    for layer, output in enumerate(outputs.values()):
        values = np.asarray(output, np.float64).ravel()
        # float32 outputs of order 1, computed in another program.
        assert run.record.mean[0, layer] == pytest.approx(values.mean(), abs=1e-5)
        assert run.record.std[0, layer] == pytest.approx(values.std(ddof=1), abs=1e-5)
        assert run.record.near_zero[0, layer] == pytest.approx((values <= 0.05).mean(), abs=1e-6)
        assert run.record.abs_near_zero[0, layer] == pytest.approx(
            (np.abs(values) <= 0.05).mean(), abs=1e-6
        )
        assert run.record.hist[0, layer].tolist() == np.histogram(values, 40, (0, 10))[0].tolist()
        assert run.record.under[0, layer] == (values < 0).sum() > 0


def test_running_statistics_advance(run):
    # One step from 0 and 1: a tenth of the batch's mean, 0.9 and a tenth of its unbiased variance.
    trainer = run.trainer
    state, record = trainer.run(
        trainer.start(conv_net()),
        run.data,
        run.order[:1],
        {name: column[:1] for name, column in run.table.items()},
    )
    model = conv_net()
    output = capture(model, normalised(pixels()[run.order[0]]).astype(np.float32))[1]
    channels = np.asarray(output["blocks.1.conv"], np.float64)
    channels = np.moveaxis(channels, model.layout.index("C"), 0).reshape(CLASSES, BATCH)
    norm = trainer.model(state).blocks[1].norm
    # float32 of order 1, computed in another program.
    np.testing.assert_allclose(norm.mean[...], 0.1 * channels.mean(1), atol=1e-6)
    np.testing.assert_allclose(norm.var[...], 0.9 + 0.1 * channels.var(1, ddof=1), atol=1e-6)
    # And they go on.
    later = run.trainer.model(run.state).blocks[1].norm
    assert (np.abs(later.mean[...] - norm.mean[...]) > 1e-4).all()
    assert record.loss[0] == run.record.loss[0]


def test_sizes_are_those_of_the_run(run):
    # Other batches than the trainer's last ones, as in a run at its end.
    trainer = Trainer(LinearNet((32, CLASSES), rngs=nnx.Rngs(0)), sgd())
    state = trainer.start(LinearNet((32, CLASSES), rngs=nnx.Rngs(0)))
    for batch in (BATCH, 2, BATCH):
        state, record = trainer.run(state, run.data, batches(2)[:, :batch], table(2))
        assert record.sizes.tolist() == [batch * CLASSES]
        assert not record.nan().any()


def test_training_lowers_the_loss_on_what_it_sees(run):
    before = run.trainer.evaluate(run.trainer.start(conv_net()), run.data)
    state, _ = run.trainer.run(
        run.trainer.start(conv_net()), run.data, batches(60), table(60, lr_max=0.1)
    )
    after = run.trainer.evaluate(state, run.data)
    # 23 images of 32 random pixels each are learnt by heart, more or less.
    assert after.loss < 0.7 * before.loss
    assert after.correct > 15


def test_select_chooses_the_layers():
    model = LinearNet((32, 4, CLASSES), rngs=nnx.Rngs(0))
    trainer = Trainer(model, sgd(), watch=Watch(select=lambda name, module: name == "layers.1"))
    _, record = trainer.run(trainer.start(model), split(), batches(2), table(2))
    assert record.layers == ("layers.1",)
    assert record.sizes.tolist() == [BATCH * CLASSES]
    nothing = Trainer(model, sgd(), watch=Watch(select=lambda name, module: False))
    with pytest.raises(ValueError, match=r"select matches no module of LinearNet.*layers\.0"):
        nothing.run(nothing.start(model), split(), batches(2), table(2))


# --- what is watched, and how the steps are looped over ----------------------------------------


class Normed(nnx.Module):
    """Batch norm and a linear layer in float64: quick to compile, and no gradient is nearly 0."""

    def __init__(self):
        self.norm = BatchNorm(2, param_dtype=jnp.float64)
        self.linear = Linear(32, CLASSES, param_dtype=jnp.float64, rngs=nnx.Rngs(0))

    def __call__(self, x):
        return self.linear(self.norm(x).reshape(len(x), -1))


class Trained(NamedTuple):
    trainer: Trainer
    state: Any
    record: Record
    arrived: list[int]


@cache
def normed_trainer(watch, fixed):
    """One per setting, each with programs of its own; compiled in the first run."""
    del fixed
    return Trainer(Normed(), adam(), mean=MEAN, std=STD, watch=watch)


def trained(watch, steps=STEPS, *, fixed=False):
    """A training in float64, with loops of fixed length as on an accelerator or without."""
    arrived = []
    with jax.enable_x64(True), pytest.MonkeyPatch.context() as patch:
        patch.setattr(chunks, "fixed_loops", lambda: fixed)
        trainer = normed_trainer(watch, fixed)
        state, record = trainer.run(
            trainer.start(Normed()),
            split(),
            batches(12)[:steps],
            {name: column[:steps] for name, column in table(12).items()},
            on_steps=arrived.append,
        )
        return Trained(trainer, jax.tree.map(np.array, state), record, arrived)


def assert_same_training(found, wanted):
    """Compares all but the statistics."""
    # The same float64 operations on numbers of order 1, which the compiler may fuse otherwise:
    # roundings of 1e-16, magnified a thousandfold per step at most.
    assert_trees_close(found.state, wanted.state, rtol=1e-10, atol=1e-12)
    np.testing.assert_allclose(found.record.loss, wanted.record.loss, rtol=1e-10)
    for name in ("learning_rate", "momentum"):
        np.testing.assert_array_equal(getattr(found.record, name), getattr(wanted.record, name))


def assert_same_statistics(found, wanted, rows, names=ActivationStats._fields):
    """Compares statistics with those rows of the wanted record's."""
    assert found.layers == wanted.layers == ("norm", "linear")
    assert found.sizes.tolist() == wanted.sizes.tolist() == [160, 15]
    for name in names:
        # Sums in float32 of at most 160 values of order 1; counts, and shares by them, are exact.
        atol = 1e-6 if name in ("mean", "std") else 0
        actual, expected = getattr(found, name), getattr(wanted, name)[rows]
        np.testing.assert_allclose(actual, expected, rtol=0, atol=atol, err_msg=name, strict=True)


def test_columns_are_in_the_order_of_the_names():
    # norm is called before linear, and has 160 values to its 15.
    assert not trained(Watch()).record.nan().any()


@pytest.mark.parametrize(
    ("every", "arrived"), [(2, [4, 4, 1]), (3, [6, 3]), (5, [5, 4]), (20, [9])]
)
def test_statistics_every_few_steps_are_those_of_every_step(every, arrived):
    found, wanted = trained(Watch(every=every)), trained(Watch())
    assert found.arrived == arrived  # so that watched steps lie in several chunks
    assert wanted.record.watched.tolist() == list(range(STEPS))
    watched = list(range(0, STEPS, every))
    assert found.record.watched.tolist() == watched
    assert len(np.unique(wanted.record.mean[:, 1])) == STEPS  # so that a wrong row would show
    assert_same_statistics(found.record, wanted.record, watched)
    assert_same_training(found, wanted)


def test_without_watch_there_are_no_layers():
    found = trained(None)
    assert_same_training(found, trained(Watch()))
    record = found.record
    assert (record.layers, record.sizes.tolist(), record.watched.tolist()) == ((), [], [])
    assert record.std.shape == record.under.shape == (0, 0)
    assert record.hist.shape == (0, 0, 40)


def test_without_histograms_there_are_the_other_statistics():
    found, wanted = trained(Watch(histogram=False)), trained(Watch())
    assert_same_training(found, wanted)
    names = ("watched", "mean", "std", "near_zero", "abs_near_zero")
    assert_same_statistics(found.record, wanted.record, slice(None), names)
    assert found.record.hist.shape == (0, 2, 40)
    assert found.record.under.shape == found.record.over.shape == (0, 2)
    with pytest.raises(ValueError, match=r"Train with Watch\(histogram=True\)"):
        found.record.nan()


@pytest.mark.parametrize(
    ("every", "steps", "arrived"),
    [(1, 8, [4, 4]), (1, 10, [4, 4, 2]), (3, 12, [6, 6]), (3, 10, [6, 4])],
)
def test_loops_of_fixed_length_train_alike(every, steps, arrived):
    # The last chunk is full, or else has steps past the end, which must leave the state, running
    # statistics and moments included, as it was.
    found, wanted = (trained(Watch(every=every), steps, fixed=fixed) for fixed in (True, False))
    assert found.arrived == arrived
    assert_same_training(found, wanted)
    assert found.record.watched.tolist() == list(range(0, steps, every))
    assert_same_statistics(found.record, wanted.record, slice(None))


@pytest.mark.parametrize(("backend", "fixed"), [("cpu", False), ("gpu", True), ("tpu", True)])
@pytest.mark.parametrize("every", [1, 3])
def test_only_on_cpu_the_length_of_a_loop_is_an_argument(backend, fixed, every, x64, monkeypatch):
    trainer = Trainer(Normed(), adam(), watch=Watch(every=every))
    rates = {name: np.asarray(column, np.float32) for name, column in table(6).items()}
    args = trainer.start(Normed()), split(), batches(6), rates, np.int32(4)
    monkeypatch.setattr(jax, "default_backend", lambda: backend)
    # JAX makes a scan of a loop whose length is known, and a while of any other.
    loops = str(jax.make_jaxpr(trainer._chunk)(*args))
    assert ("while[" in loops, "scan[" in loops) == (not fixed, fixed)


def test_the_length_of_a_chunk(monkeypatch):
    def lengths(every, *steps):
        return [chunks.chunk_length(count, every) for count in steps]

    # CHUNK is 4. On CPU it depends on nothing but `every`, so that there is one program.
    monkeypatch.setattr(chunks, "fixed_loops", lambda: False)
    assert lengths(1, 1, 4, 5, 100) == [4] * 4
    assert lengths(3, 1, 4, 5, 100) == [6] * 4
    assert lengths(1000, 1, 4, 5) == [4, 4, 5]  # no room for steps that do not come
    # Elsewhere 5 steps are 3 and 2, 9 are 3 and 3 and 3, and then as watched steps need it.
    monkeypatch.setattr(chunks, "fixed_loops", lambda: True)
    assert lengths(1, 1, 4, 5, 9, 100) == [1, 4, 3, 3, 4]
    assert lengths(2, 1, 4, 5, 9, 100) == [1, 4, 4, 4, 4]
    assert lengths(1000, 1, 5, 9) == [1, 5, 9]


def test_a_step_that_is_not_watched_is_that_of_a_training_without_watch(x64):
    data, rate = split(), jnp.float32(0.1)

    def traced(watch, watched):
        trainer = Trainer(Normed(), adam(), watch=watch)
        args = trainer.start(Normed()), data.images[:BATCH], data.labels[:BATCH], rate, rate
        return str(jax.make_jaxpr(lambda *args: trainer.step(*args, watched=watched))(*args))

    # The same operations, not only the same results: it costs nothing more.
    assert traced(Watch(), False) == traced(None, True) == traced(None, False)
    assert traced(Watch(), False) != traced(Watch(), True)


# --- one program -------------------------------------------------------------------------------


def test_one_program_for_all_lengths_rates_and_schedules(run):
    traces = run.loss.traces
    trainer = run.trainer
    flat = {"learning_rate": [0.1] * 3, "momentum": np.full(3, 0.8)}
    for steps, rates in ((3, flat), (4, table(4, lr_max=1.0)), (11, table(11)), (1, table(1))):
        state, record = trainer.run(trainer.start(conv_net(1)), split(), batches(steps, 7), rates)
        assert record.steps == steps
        # And from a state that a training returned.
        trainer.run(state, split(), batches(steps, 8), rates)
    assert run.loss.traces == traces
    assert trainer._run_chunk.programs == 1


def test_one_program_also_for_steps_between_the_watched(x64):
    trainer = trained(Watch(every=3)).trainer
    seconds = trainer.compile_seconds
    assert seconds > 0
    for steps, seed in ((1, 5), (3, 6), (7, 7), (12, 8)):
        state = trainer.start(Normed())
        for _ in range(2):  # from the start, and from a state that a training returned
            rates = table(steps, lr_max=seed / 100)
            state, record = trainer.run(state, split(seed=seed), batches(steps, seed), rates)
            # Each run is watched from its own first step.
            assert record.watched.tolist() == list(range(0, steps, 3))
    assert trainer._run_chunk.programs == 1
    assert trainer.compile_seconds == seconds


def test_compile_seconds_grow_with_each_program_alone():
    model = LinearNet((32, CLASSES), rngs=nnx.Rngs(0))
    trainer, data = Trainer(model, sgd(), watch=None), split()
    before, state = trainer.compile_seconds, None
    assert before == 0
    for call in (
        lambda state: trainer.start(model),
        lambda state: trainer.run(state, data, batches(2), table(2))[0],
        lambda state: (state, trainer.evaluate(state, data))[0],
    ):
        state = call(state)
        first = trainer.compile_seconds
        state = call(state)
        assert before < first == trainer.compile_seconds
        before = first


def test_a_training_goes_on_where_another_ended(run):
    # The same program on the same numbers: bit for bit.
    state = run.trainer.start(conv_net())
    losses = []
    for rows in (slice(0, 2), slice(2, 7), slice(7, 9)):
        rates = {name: column[rows] for name, column in run.table.items()}
        state, record = run.trainer.run(state, run.data, run.order[rows], rates)
        losses.extend(record.loss)
    np.testing.assert_array_equal(losses, run.record.loss)
    assert_trees_close(state, run.state)


# --- models stay what they are -----------------------------------------------------------------


def test_the_callers_model_does_not_change(run):
    after = nnx.state(run.model)
    assert_trees_close(jax.tree.map(np.array, after), run.before)
    assert not run.model.blocks[0].norm.use_running_average
    # Its arrays were not given up with the training's buffers, and training did change its own.
    moved = run.trainer.model(run.state).blocks[0].conv.kernel[...] - after.blocks[0].conv.kernel
    assert np.abs(moved).min() > 0


def test_the_mode_of_the_callers_model_does_not_matter(run):
    model = conv_net()
    model.eval()
    trainer = Trainer(model, adam(), mean=MEAN, std=STD)
    state = trainer.start(model)
    _, record = trainer.run(state, run.data, run.order, run.table)
    # Batch statistics and not the running ones: the same training.
    np.testing.assert_allclose(record.loss, run.record.loss, rtol=1e-5)
    assert model.blocks[0].norm.use_running_average


def test_the_trained_model_is_in_evaluation_mode(run):
    model = run.trainer.model(run.state)
    assert all(block.norm.use_running_average for block in model.blocks)
    images = normalised(pixels()).astype(np.float32)
    # An example's logits do not depend on the others.
    np.testing.assert_allclose(model(images)[:2], model(images[:2]), rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize(
    "make",
    [
        lambda rngs: ConvNet((2, 3, 3, CLASSES), norm="batch", rngs=rngs),
        lambda rngs: ConvNet((2, 3, CLASSES), rngs=rngs),
        lambda rngs: ConvNet((2, 3, CLASSES), norm="batch", stride=1, rngs=rngs),
        lambda rngs: ConvNet((2, 3, CLASSES), norm="batch", layout="NCHW", rngs=rngs),
        lambda rngs: LinearNet((32, CLASSES), rngs=rngs),
    ],
    ids=["layers", "norm", "stride", "layout", "class"],
)
def test_start_rejects_another_structure(run, make):
    with pytest.raises(ValueError, match="model must have the structure of the model that the"):
        run.trainer.start(make(nnx.Rngs(0)))


# --- evaluation --------------------------------------------------------------------------------


@pytest.mark.parametrize("batch_size", [1, 5, 22, 23, 1000])
def test_every_example_is_scored_exactly_once(batch_size):
    # The loss of example i is 2ⁱ, and the sum over all of 23 is exact in float32: any that is
    # left out or counted twice shows.
    model = LinearNet((32, CLASSES), rngs=nnx.Rngs(0))
    powers = 2 ** np.arange(EXAMPLES, dtype=np.float32)
    trainer = Trainer(model, sgd(), loss=lambda logits, labels: jnp.asarray(powers)[labels])
    data = Images(jnp.asarray(pixels()), jnp.arange(EXAMPLES, dtype=jnp.int32))
    scores = trainer.evaluate(trainer.start(model), data, batch_size=batch_size)
    assert scores.loss * EXAMPLES == pytest.approx(2**EXAMPLES - 1, rel=1e-12)
    assert scores.examples == EXAMPLES


@pytest.mark.parametrize("batch_size", [5, 1000])
def test_scores_against_numpy(run, batch_size):
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
    assert scores == Scores(scores.loss, correct, EXAMPLES)
    assert scores.accuracy == correct / EXAMPLES


def test_evaluation_changes_nothing(run):
    before = jax.tree.map(np.array, run.state)
    first = run.trainer.evaluate(run.state, run.data)
    assert run.trainer.evaluate(run.state, run.data) == first
    assert_trees_close(jax.tree.map(np.array, run.state), before)


# --- errors ------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("order", "message"),
    [
        (np.zeros((0, 5), int), r"order must have the shape \(steps, batch\), got \(0, 5\)"),
        (np.zeros((9, 0), int), r"order must have the shape \(steps, batch\), got \(9, 0\)"),
        (np.zeros(9, int), r"order must have the shape \(steps, batch\), got \(9,\)"),
        (np.full((9, 5), EXAMPLES), "order must hold indices from 0 to 22, got 23 to 23"),
        (batches() - EXAMPLES, "order must hold indices from 0 to 22, got -"),
    ],
)
def test_run_rejects_the_order(run, order, message):
    state = run.trainer.start(conv_net())
    with pytest.raises(ValueError, match=message):
        run.trainer.run(state, run.data, order, run.table)


def test_run_rejects_the_table(run):
    state = run.trainer.start(conv_net())
    message = r"table\['momentum'\] must have one number per step \(9\), got the shape \(8,\)"
    with pytest.raises(ValueError, match=message):
        run.trainer.run(
            state, run.data, run.order, run.table | {"momentum": run.table["momentum"][:8]}
        )
    message = r"table\['learning_rate'\] must have one number per step \(9\), got the shape \(\)"
    with pytest.raises(ValueError, match=message):
        run.trainer.run(state, run.data, run.order, run.table | {"learning_rate": 0.1})
    message = r"table must hold learning_rate and momentum, got learning_rate, lr"
    rates = run.table["learning_rate"]
    with pytest.raises(ValueError, match=message):
        run.trainer.run(state, run.data, run.order, {"lr": rates, "learning_rate": rates})


def test_run_rejects_labels_without_a_logit(run):
    model = LinearNet((32, CLASSES), rngs=nnx.Rngs(0))
    trainer = Trainer(model, sgd())
    data = run.data._replace(labels=run.data.labels + 1)
    for _ in range(2):  # the second time after a run that was in order
        with pytest.raises(ValueError, match="labels must be below the model's 3 logits, got 3"):
            trainer.run(trainer.start(model), data, run.order, run.table)
        trainer.run(trainer.start(model), run.data, run.order, run.table)


def test_evaluate_rejects(run):
    with pytest.raises(ValueError, match="batch_size must be at least 1, got 0"):
        run.trainer.evaluate(run.state, run.data, batch_size=0)
    strange = run.data._replace(labels=run.data.labels + 1)
    trainer = Trainer(run.model, sgd())  # with cross entropy itself
    with pytest.raises(ValueError, match="labels must be below the model's 3 logits, got 3"):
        trainer.evaluate(run.state, strange)
    empty = Images(run.data.images[:0], run.data.labels[:0])
    with pytest.raises(ValueError, match="data must hold at least one example, got none"):
        run.trainer.evaluate(run.state, empty)


@pytest.mark.parametrize(
    ("mean", "std", "message"),
    [
        (0.1, 0.0, r"mean must be finite and std positive, got 0\.1 and 0\.0"),
        (0.0, -1.0, r"got 0\.0 and -1\.0"),
        ((0.1, np.nan), 1.0, r"got \(0\.1, nan\) and 1\.0"),
        (0.0, np.nan, r"got 0\.0 and nan"),
    ],
)
def test_trainer_rejects(mean, std, message):
    with pytest.raises(ValueError, match=message):
        Trainer(LinearNet((2, 2), rngs=nnx.Rngs(0)), sgd(), mean=mean, std=std)


def test_a_state_is_used_once(run):
    state = run.trainer.start(conv_net())
    run.trainer.run(state, run.data, run.order, run.table)
    for use in (
        lambda: run.trainer.run(state, run.data, run.order, run.table),
        lambda: run.trainer.evaluate(state, run.data),
        lambda: run.trainer.predict(state, pixels()),
    ):
        with pytest.raises(ValueError, match="state was given to an earlier run"):
            use()


@pytest.mark.parametrize(
    ("use", "message"),
    [
        (
            lambda run: Trainer(run.model, optax.adam(1e-3)),
            "optimizer must be Optimizer, got Grad.*convjax.adam",
        ),
        (lambda run: Trainer(run.model, adam), "optimizer must be Optimizer, got function"),
        (
            lambda run: run.trainer.evaluate(run.state, Split(pixels(), np.zeros(23, np.int32))),
            r"data must be Images, got Split.*Images.put\(split\)",
        ),
        (
            lambda run: run.trainer.run(run.state, pixels(), run.order, run.table),
            "data must be Images, got ndarray",
        ),
        (
            lambda run: run.trainer.run(run.state, run.data, run.order, one_cycle(9, 0.1)),
            r"table must be Mapping, got Schedules.*\.table\(steps\)",
        ),
        (lambda run: Watch(select="conv"), "select must be a function .*got 'conv'"),
    ],
)
def test_arguments_of_another_kind(run, use, message):
    with pytest.raises(TypeError, match=message):
        use(run)


def test_a_single_logit_answers_1_where_it_is_positive():
    # Weights 0: the logit is the bias, so that every answer is 1 or every answer is 0.
    model = LinearNet((32, 1), rngs=nnx.Rngs(0))
    model.layers[0].kernel.set_value(jnp.zeros((32, 1)))
    data = split()._replace(labels=jnp.arange(EXAMPLES) % 2)
    for bias, correct in ((0.5, 11), (-0.5, 12)):
        model.layers[0].bias.set_value(jnp.array([bias]))
        trainer = Trainer(model, sgd(), loss=lambda logits, labels: logits[:, 0])
        found = trainer.evaluate(trainer.start(model), data)
        assert found.correct == correct


# --- prediction --------------------------------------------------------------------------------


def test_predictions_are_those_of_the_evaluation(run):
    images, labels = pixels(), np.asarray(run.data.labels)
    logits = run.trainer.predict(run.state, images)
    model = run.trainer.model(run.state)
    # One program and its parts one by one: float32 roundings of numbers of order 1.
    wanted = model(jnp.asarray(normalised(images), jnp.float32))
    np.testing.assert_allclose(logits, wanted, rtol=1e-4, atol=1e-5)
    found = run.trainer.evaluate(run.state, run.data)
    assert found.correct == (np.argmax(logits, -1) == labels).sum()


@pytest.mark.parametrize("images", [pixels() / 255, pixels()[0]])
def test_predict_rejects(run, images):
    with pytest.raises(ValueError, match=r"images must be uint8 of the shape \(N, H, W, C\), got"):
        run.trainer.predict(run.state, images)
