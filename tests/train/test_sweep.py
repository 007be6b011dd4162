"""Sweeps against single runs, by hand, and what must not matter to them."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx

from convjax.nn.models import LinearNet
from convjax.optim.optimizers import adam, sgd
from convjax.optim.schedules import constant
from convjax.stats.watch import Watch
from convjax.train import _sweep
from convjax.train._sweep import ON_CPU, Sweep, bytes_per_run, groups, runs_at_once, sweep
from convjax.train.device_data import Images
from convjax.train.trainer import Trainer
from tests.trainings import (
    BATCH,
    CLASSES,
    EXAMPLES,
    MEAN,
    STD,
    STEPS,
    Normed,
    batches,
    conv_net,
    split,
    table,
)

pytestmark = pytest.mark.usefixtures("small_chunks")

SEEDS, RATES = 2, (0.002, 0.005, 0.01)


class Networks:
    """Two seeds of a convolutional network, three rates, and a trainer for them."""

    def __init__(self):
        self.models = [conv_net(seed) for seed in range(SEEDS)]
        self.trainer = Trainer(self.models[0], adam(), mean=MEAN, std=STD, watch=None)
        self.orders = np.stack([batches(seed=seed) for seed in range(SEEDS)])
        self.tables = [table(lr_max=rate) for rate in RATES]
        self.data, self.test = split(), split(11, seed=5)

    def sweep(self, **changes):
        given = {name: getattr(self, name) for name in ("models", "data", "orders", "tables")}
        return sweep(self.trainer, **{**given, "test": self.test, **changes})


@pytest.fixture(scope="module")
def networks(small_chunks):
    return Networks()


@pytest.fixture(scope="module")
def singles(networks):
    """(loss, scores on the test images, on the training images) of single runs."""
    found = {}
    for seed, model in enumerate(networks.models):
        for setting, rates in enumerate(networks.tables):
            trainer = networks.trainer
            state, record = trainer.run(
                trainer.start(model), networks.data, networks.orders[seed], rates
            )
            scores = [trainer.evaluate(state, part) for part in (networks.test, networks.data)]
            found[seed, setting] = record.loss, *scores
    return found


@pytest.mark.parametrize("at_once", [None, 1, 4, 6])
def test_every_run_is_the_single_one(networks, singles, at_once):
    before = jax.tree.map(np.array, [nnx.state(model) for model in networks.models])
    found = networks.sweep(at_once=at_once, score_training=True)
    assert found.loss.shape == (SEEDS, len(RATES), STEPS)
    # One at a time it is the same program; with others, float32 sums run in another order, which
    # nine steps of Adam magnify.
    close = {"rtol": 0 if at_once in (None, 1) else 1e-3}
    for (seed, setting), (loss, test, train) in singles.items():
        np.testing.assert_allclose(found.loss[seed, setting], loss, **close)
        np.testing.assert_allclose(found.test_loss[seed, setting], test.loss, **close)
        assert found.accuracy[seed, setting] == test.accuracy
        assert found.train_accuracy[seed, setting] == train.accuracy
    jax.tree.map(
        np.testing.assert_array_equal, [nnx.state(model) for model in networks.models], before
    )


def test_in_float64_every_run_is_the_single_one_to_the_last_digits(x64):
    model = Normed()
    trainer = Trainer(model, adam(), mean=MEAN, std=STD, watch=None)
    rates, data = [table(lr_max=rate) for rate in RATES], split()
    order = batches()
    found = sweep(trainer, [model], data, order[None], rates, test=data, at_once=3)
    for setting, columns in enumerate(rates):
        _, record = trainer.run(trainer.start(model), data, order, columns)
        # Rounding of 1e-16 in another order of sums, which nine steps magnify a little.
        np.testing.assert_allclose(found.loss[0, setting], record.loss, rtol=1e-12)


def test_two_steps_by_hand():
    """A bias alone learns: images of zeros, so that logits are the bias."""
    model = LinearNet((32, CLASSES), rngs=nnx.Rngs(0))
    model.layers[0].bias[...] = jnp.zeros(CLASSES)
    trainer = Trainer(model, sgd(), watch=None)
    black = Images(jnp.zeros((2, 4, 4, 2), jnp.uint8), jnp.zeros(2, jnp.int32))
    found = sweep(
        trainer,
        [model],
        black,
        np.zeros((1, 2, 1), int),
        [constant(rate, momentum=0).table(2) for rate in (0.3, 3)],
        test=black,
    )
    # At bias 0 the three classes have 1/3 each: loss log 3, gradient (1/3 − 1, 1/3, 1/3).
    for setting, rate in enumerate((0.3, 3)):
        bias = rate * np.array([2 / 3, -1 / 3, -1 / 3])
        second = np.log(np.exp(bias).sum()) - bias[0]
        np.testing.assert_allclose(found.loss[0, setting], [np.log(3), second], rtol=1e-6)
    assert found.accuracy.tolist() == [[1, 1]]
    assert found.train_accuracy is None


def test_the_order_of_settings_and_seeds_orders_the_results_alone(networks):
    plain = networks.sweep(at_once=3)
    settings, seeds = [2, 0, 1], [1, 0]
    found = networks.sweep(
        tables=[networks.tables[i] for i in settings],
        models=[networks.models[i] for i in seeds],
        orders=networks.orders[seeds],
        at_once=3,
    )
    for name in ("loss", "test_loss", "accuracy"):
        wanted = getattr(plain, name)[seeds][:, settings]
        # Rows of one program; only their place in it differs.
        np.testing.assert_allclose(getattr(found, name), wanted, rtol=1e-5, err_msg=name)


def test_a_run_that_diverges_leaves_its_neighbours_alone():
    model = LinearNet((32, CLASSES), rngs=nnx.Rngs(0))
    trainer, data = Trainer(model, sgd(), watch=None), split()
    rates = [constant(rate).table(STEPS) for rate in (0.01, 1e38, 0.02)]
    tame = [rates[0], rates[0], rates[2]]
    orders = batches()[None]
    wild = sweep(trainer, [model], data, orders, rates, test=data, at_once=3)
    calm = sweep(trainer, [model], data, orders, tame, test=data, at_once=3)
    assert wild.broken_at[0, 1] > 0
    assert not np.isfinite(wild.loss[0, 1, wild.broken_at[0, 1]])
    np.testing.assert_array_equal(wild.loss[:, [0, 2]], calm.loss[:, [0, 2]])
    np.testing.assert_array_equal(wild.accuracy[:, [0, 2]], calm.accuracy[:, [0, 2]])
    assert calm.broken_at.tolist() == [[-1, -1, -1]]
    assert wild.trained(0).tolist() == [[True, False, True]]


def test_what_trains_has_a_finite_loss_and_the_accuracy():
    loss = np.ones((2, 2, 3))
    loss[0, 1, 2], loss[1, 1, 0] = np.nan, np.inf
    found = Sweep(loss, loss[..., 0], np.array([[0.9, 0.95], [0.89, 0.99]]))
    assert found.broken_at.tolist() == [[-1, 2], [-1, 0]]
    assert found.trained(0.9).tolist() == [[True, False], [False, False]]


@pytest.mark.parametrize("make", [sgd, adam])
def test_weight_decay_is_swept_in_one_program(make):
    model, data, decays = LinearNet((32, CLASSES), rngs=nnx.Rngs(0)), split(), (0.0, 0.3)
    trainer = Trainer(model, make(), watch=None)
    rates = constant(0.05).table(STEPS)
    found = sweep(
        trainer,
        [model],
        data,
        batches()[None],
        [rates, rates],
        test=data,
        scalars={"weight_decay": decays},
        at_once=2,
    )
    for setting, decay in enumerate(decays):
        alone = Trainer(model, make(weight_decay=decay), watch=None)
        _, record = alone.run(alone.start(model), data, batches(), rates)
        # float32, another order of sums.
        np.testing.assert_allclose(found.loss[0, setting], record.loss, rtol=1e-4)
    assert abs(found.loss[0, 0, -1] - found.loss[0, 1, -1]) > 1e-3


def test_a_second_sweep_compiles_nothing(networks):
    networks.sweep(at_once=6)
    before = networks.trainer.compile_seconds
    networks.sweep(at_once=6, tables=[table(lr_max=rate) for rate in (0.3, 0.4, 0.5)])
    assert networks.trainer.compile_seconds == before > 0


@pytest.mark.parametrize(
    ("runs", "at_once", "wanted"),
    [
        (4, 2, [([0, 1], 2), ([2, 3], 2)]),
        (5, 4, [([0, 1, 2], 3), ([3, 4, 4], 2)]),
        (2, 9, [([0, 1], 2)]),
        (2, 1, [([0], 1), ([1], 1)]),
    ],
)
def test_groups_have_one_size(runs, at_once, wanted):
    assert list(groups(runs, at_once)) == wanted


class Elsewhere:
    """A device with so much memory."""

    platform = "gpu"

    def __init__(self, told):
        self.memory_stats = lambda: told


def test_values_of_every_branch_count():
    def branches(x):
        return jax.lax.cond(x[0] > 0, lambda x: jnp.exp(x) + 1, lambda x: jnp.sin(x), x)

    kinds = list(_sweep._values(jax.make_jaxpr(branches)(jnp.ones(1000)).jaxpr))
    # exp, +1 and sin, and what the whole returns.
    assert sum(kind.size == 1000 for kind in kinds) == 4


def test_how_many_at_once_is_what_fits(networks, monkeypatch):
    step, state = networks.trainer.step, networks.trainer.start(networks.models[0])
    assert runs_at_once(step, state, networks.data, BATCH) == ON_CPU == 1
    one = bytes_per_run(step, state, networks.data, BATCH)
    # Twice the state, the uint8 batch as float32, and the gradients at least.
    held = sum(leaf.nbytes for leaf in jax.tree.leaves(state))
    assert one > 2 * held + 4 * BATCH * 32
    assert bytes_per_run(step, state, networks.data, 2 * BATCH) > one
    for told, wanted in (
        ({"bytes_limit": 8 * one + 3, "bytes_in_use": 3}, 4),
        ({"bytes_limit": one}, 1),
        (None, (2 << 30) // one),
    ):
        leaf = type("Leaf", (), {"devices": lambda self, told=told: {Elsewhere(told)}})
        monkeypatch.setattr("convjax.train._sweep.bytes_per_run", lambda *args: one)
        assert runs_at_once(step, [leaf()], networks.data, BATCH) == wanted


@pytest.mark.parametrize(
    ("changes", "error", "message"),
    [
        ({"models": []}, ValueError, "got 0 models, 2 orders and 3 tables"),
        ({"tables": []}, ValueError, "got 2 models, 2 orders and 0 tables"),
        ({"orders": batches()[None]}, ValueError, "got 2 models, 1 orders"),
        ({"orders": [batches(3), batches(4)]}, ValueError, r"got the shapes \(3, 5\), \(4, 5\)"),
        ({"orders": [[[EXAMPLES]]] * 2}, ValueError, f"got {EXAMPLES} to {EXAMPLES}"),
        ({"tables": [table(STEPS + 1)]}, ValueError, r"one number per step \(9\)"),
        ({"at_once": 0}, ValueError, "at_once must be at least 1, got 0"),
        ({"scalars": {"weight_decay": [0.1]}}, ValueError, r"one number per table \(3\)"),
        ({"scalars": {"b2": [0.1] * 3}}, ValueError, "among eps, weight_decay.*got b2"),
        ({"scalars": {"learning_rate": [0.1] * 3}}, ValueError, "Rate and momentum go into"),
        ({"scalars": [0.1]}, TypeError, "scalars must be Mapping, got list"),
        ({"test": None}, TypeError, r"test must be Images.*Images\.put"),
        ({"test": Images(split().images[:0], split().labels[:0])}, ValueError, "test must hold"),
        (
            {"test": Images(split().images, split().labels + 1)},
            ValueError,
            f"below the model's {CLASSES} logits",
        ),
    ],
)
def test_mistakes_are_named(networks, changes, error, message):
    with pytest.raises(error, match=message):
        networks.sweep(**changes)


def test_a_watched_trainer_cannot_sweep(networks):
    model = networks.models[0]
    rest = (networks.models, networks.data, networks.orders, networks.tables)
    for trainer in (
        Trainer(model, adam(), watch=Watch()),
        Trainer(model, adam(), watch=None, devices=jax.devices()[:1]),
    ):
        with pytest.raises(ValueError, match=r"must watch nothing.*watch=None.*Trainer\.run"):
            sweep(trainer, *rest, test=networks.test)
    with pytest.raises(TypeError, match="trainer must be Trainer, got ConvNet"):
        sweep(model, *rest, test=networks.test)
