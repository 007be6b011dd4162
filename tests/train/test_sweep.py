"""Sweeps compared with single runs and with steps derived by hand."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx

from convjax.nn.models import LinearNet
from convjax.optim.optimizers import adam, sgd
from convjax.optim.schedules import constant
from convjax.stats.record import PER_STEP
from convjax.stats.watch import Watch
from convjax.train._fit import fit
from convjax.train._sweep import Sweep, SweepRun, groups, sweep
from convjax.train.device_data import Images
from convjax.train.plan import Plan
from convjax.train.trainer import Trainer
from tests.helpers import make_record
from tests.train.fits import untimed
from tests.trainings import (
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
    """Single runs: (loss, scores on the test images, scores on the training images)."""
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
def test_sweep_equals_single_runs(networks, singles, at_once):
    before = jax.tree.map(np.array, [nnx.state(model) for model in networks.models])
    found = networks.sweep(at_once=at_once, score_training=True)
    assert found.loss.shape == (SEEDS, len(RATES), STEPS)
    # One at a time it is the same program. With others, float32 sums are in another order, which
    # nine steps of Adam magnify: an answer near a tie may change.
    alone = at_once in (None, 1)
    close = {"rtol": 0 if alone else 1e-3}
    for (seed, setting), (loss, test, train) in singles.items():
        np.testing.assert_allclose(found.loss[seed, setting], loss, **close)
        np.testing.assert_allclose(found.test_loss[seed, setting], test.loss, **close)
        answers = [found.accuracy, found.train_accuracy]
        for accuracy, scores in zip(answers, (test, train), strict=True):
            correct = accuracy[seed, setting] * scores.examples
            assert correct == pytest.approx(scores.correct, abs=1e-6 if alone else 1 + 1e-6)
    jax.tree.map(
        np.testing.assert_array_equal, [nnx.state(model) for model in networks.models], before
    )


def test_sweep_metrics_and_records_equal_fit_bit_for_bit(networks):
    runs, taken = [], []
    found = networks.sweep(
        epochs=3,
        evaluations=2,
        score_training=True,
        at_once=1,
        on_run=runs.append,
        on_steps=taken.append,
    )
    assert [(run.setting, run.seed) for run in runs] == [(v, s) for v in range(3) for s in (0, 1)]
    assert sum(taken) == len(runs) * STEPS
    for run in (runs[0], runs[-1]):
        order = np.split(networks.orders[run.seed], 3)
        plan = Plan(3, lambda epoch, order=order: order[epoch], networks.tables[run.setting], 2)
        model = networks.models[run.seed]
        wanted = fit(networks.trainer, model, networks.data, networks.test, plan)
        assert [row["step"] for row in run.metrics] == [2, 3, 5, 6, 8, 9]
        assert untimed(run.metrics) == untimed(wanted.metrics)
        for name in PER_STEP:
            np.testing.assert_array_equal(
                getattr(run.record, name), getattr(wanted.record, name), name
            )
        assert found.accuracy[run.seed, run.setting] == wanted.metrics[-1]["accuracy"]
        assert found.train_accuracy[run.seed, run.setting] == wanted.metrics[-1]["train_accuracy"]


def test_sweep_calls_on_run_when_each_group_has_finished(networks):
    taken, ended = [], []
    networks.sweep(
        at_once=4, on_steps=taken.append, on_run=lambda run: ended.append((run, sum(taken)))
    )
    assert [steps for _, steps in ended] == [STEPS] * 3 + [2 * STEPS] * 3
    # Three runs share the seconds of their group.
    assert len({run.metrics[-1]["seconds"] for run, _ in ended[:3]}) == 1


def test_sweep_equals_single_runs_in_float64_to_the_last_digits(x64):
    model = Normed()
    trainer = Trainer(model, adam(), mean=MEAN, std=STD, watch=None)
    rates, data = [table(lr_max=rate) for rate in RATES], split()
    order = batches()
    found = sweep(trainer, [model], data, order[None], rates, test=data, at_once=3)
    for setting, columns in enumerate(rates):
        _, record = trainer.run(trainer.start(model), data, order, columns)
        # Rounding of 1e-16 in another order of sums, which nine steps magnify a little.
        np.testing.assert_allclose(found.loss[0, setting], record.loss, rtol=1e-12)


def test_sweep_takes_two_steps_as_derived_by_hand():
    """Images of zeros, so that the logits are the bias and only the bias learns."""
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
    # At bias 0 each class has probability 1/3: loss log 3, gradient (1/3 − 1, 1/3, 1/3).
    for setting, rate in enumerate((0.3, 3)):
        bias = rate * np.array([2 / 3, -1 / 3, -1 / 3])
        second = np.log(np.exp(bias).sum()) - bias[0]
        np.testing.assert_allclose(found.loss[0, setting], [np.log(3), second], rtol=1e-6)
    assert found.accuracy.tolist() == [[1, 1]]
    assert found.train_accuracy is None


def test_sweep_results_follow_the_order_of_settings_and_seeds(networks):
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
        # Rows of one program, which differ only in their place.
        np.testing.assert_allclose(getattr(found, name), wanted, rtol=1e-5, err_msg=name)


def test_sweep_is_not_affected_by_a_run_that_diverges():
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


def test_sweep_trained_needs_a_finite_loss_and_the_accuracy():
    loss = np.ones((2, 2, 3))
    loss[0, 1, 2], loss[1, 1, 0] = np.nan, np.inf
    found = Sweep(loss, loss[..., 0], np.array([[0.9, 0.95], [0.89, 0.99]]))
    assert found.broken_at.tolist() == [[-1, 2], [-1, 0]]
    assert found.trained(0.9).tolist() == [[True, False], [False, False]]


@pytest.mark.parametrize("make", [sgd, adam])
def test_sweep_varies_weight_decay_in_one_program(make):
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


def test_sweep_compiles_nothing_the_second_time(networks):
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


@pytest.mark.parametrize(
    ("changes", "error", "message"),
    [
        ({"models": []}, ValueError, "got 0 models, 2 orders and 3 tables"),
        ({"tables": []}, ValueError, "got 2 models, 2 orders and 0 tables"),
        ({"orders": batches()[None]}, ValueError, "got 2 models, 1 orders"),
        ({"orders": [batches(3), batches(4)]}, ValueError, r"got the shapes \(3, 5\), \(4, 5\)"),
        ({"orders": [[[EXAMPLES]]] * 2}, ValueError, f"got {EXAMPLES} to {EXAMPLES}"),
        ({"tables": [table(STEPS + 1)]}, ValueError, r"one number per step \(9\)"),
        ({"epochs": 2}, ValueError, "equally many steps for each of 2 epochs, got 9"),
        ({"evaluations": 0}, ValueError, "evaluations must be at least 1, got 0"),
        ({"at_once": 0}, ValueError, "at_once must be at least 1, got 0"),
        ({"scalars": {"weight_decay": [0.1]}}, ValueError, r"one number per table \(3\)"),
        ({"scalars": {"b2": [0.1] * 3}}, ValueError, "among eps, weight_decay.*got b2"),
        ({"scalars": {"learning_rate": [0.1] * 3}}, ValueError, "Rate and momentum are columns"),
        ({"scalars": [0.1]}, TypeError, "scalars must be Mapping, got list"),
        ({"on_steps": 3}, TypeError, "on_steps must be a function of a number of steps, got int"),
        ({"on_run": None}, TypeError, "on_run must be a function of a SweepRun, got NoneType"),
        ({"test": None}, TypeError, r"test must be Images.*Images\.put"),
        ({"test": Images(split().images[:0], split().labels[:0])}, ValueError, "test must hold"),
        (
            {"test": Images(split().images, split().labels + 1)},
            ValueError,
            f"below the model's {CLASSES} logits",
        ),
    ],
)
def test_sweep_rejects_wrong_arguments(networks, changes, error, message):
    with pytest.raises(error, match=message):
        networks.sweep(**changes)


def test_sweep_rejects_a_trainer_with_watch_or_devices(networks):
    model = networks.models[0]
    rest = (networks.models, networks.data, networks.orders, networks.tables)
    for trainer in (
        Trainer(model, adam(), watch=Watch()),
        Trainer(model, adam(), watch=None, devices=jax.devices()[:1]),
    ):
        with pytest.raises(ValueError, match=r"must have watch=None.*Trainer\.run"):
            sweep(trainer, *rest, test=networks.test)
    with pytest.raises(TypeError, match="trainer must be Trainer, got ConvNet"):
        sweep(model, *rest, test=networks.test)


def test_repr_of_a_run_is_short():
    found = SweepRun(3, 1, make_record(steps=5, layers=0), [{"accuracy": 0.25}] * 100)
    assert repr(found) == "SweepRun(seed 3, setting 1, Record(5 steps, 0 layers), accuracy 0.25)"
    assert repr(found._replace(metrics=[])).endswith("Record(5 steps, 0 layers))")
