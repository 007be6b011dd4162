"""Records of parameters, units, inputs and evaluation, compared with single steps."""

import jax
import numpy as np
import optax
import pytest
from flax import nnx

from convjax.nn._capture import capture
from convjax.optim.optimizers import adam
from convjax.stats.layers import layer_stats
from convjax.stats.parameters import parameter_stats
from convjax.stats.recorder import Recorder
from convjax.stats.watch import Watch
from convjax.train.losses import cross_entropy
from convjax.train.trainer import Trainer
from tests.trainings import MEAN, STD, STEPS, batches, conv_net, normalised, pixels, split, table


def trained(watch, devices=None, **options):
    trainer = Trainer(conv_net(), adam(), mean=MEAN, std=STD, watch=watch, devices=devices)
    return trainer.run(trainer.start(conv_net()), split(), batches(), table(), **options)


@pytest.fixture(scope="module")
def whole():
    return trained(Watch.everything())


@pytest.fixture(scope="module")
def by_hand():
    """The states before each step, and the state after the last."""
    trainer = Trainer(conv_net(), adam(), mean=MEAN, std=STD, watch=None)
    state, rates = trainer.start(conv_net()), table()
    states = [jax.device_get(state)]
    for i, batch in enumerate(batches()):
        row = {name: column[i : i + 1] for name, column in rates.items()}
        state, _ = trainer.run(state, split(), batch[None], row)
        states.append(jax.device_get(state))
    return trainer, states


def leaves(tree):
    return [np.asarray(leaf, np.float64) for leaf in jax.tree.leaves(tree)]


def test_watched_updates_are_differences_of_parameters(whole, by_hand):
    record, (_, states) = whole[1].parameters, by_hand
    assert record.watched.tolist() == list(range(STEPS))
    for i in range(STEPS):
        before, after = leaves(states[i].params), leaves(states[i + 1].params)
        # Roundings of float32 in the parameters, which are larger than their updates.
        changes = [np.linalg.norm(b - a) for a, b in zip(before, after, strict=True)]
        np.testing.assert_allclose(record.update_norm[i], changes, rtol=1e-3, atol=1e-6)
        weights = [np.linalg.norm(a) for a in before]
        np.testing.assert_allclose(record.weight_norm[i], weights, rtol=1e-4, atol=1e-6)


def test_watched_gradients_are_those_of_the_loss(whole, by_hand):
    record, (_, states) = whole[1].parameters, by_hand
    graphdef, _, _ = nnx.split(conv_net(), nnx.Param, ...)
    data = split()

    def loss(params, variables, batch):
        model = nnx.merge(graphdef, params, variables, copy=True)
        x = normalised(pixels()[batch]).astype(np.float32)
        return cross_entropy(model(x), data.labels[batch]).mean()

    for i in (0, STEPS - 1):
        params, variables = jax.device_put((states[i].params, states[i].variables))
        grads = jax.grad(loss)(params, variables, batches()[i])
        wanted = [np.linalg.norm(g) for g in leaves(grads)]
        # Biases before a norm have gradients of 0 up to rounding.
        np.testing.assert_allclose(record.grad_norm[i], wanted, rtol=1e-3, atol=1e-5)
    assert record.grad_hist.sum(-1).tolist() == [record.sizes.tolist()] * STEPS


def test_watched_evaluation_is_of_the_batch_before_the_update(whole, by_hand):
    trainer, states = by_hand
    data = split()
    for i, batch in enumerate(batches()):
        # The running statistics are those after the step, as they include the batch.
        state = states[i]._replace(variables=states[i + 1].variables)
        logits = trainer.predict(state, data.images[batch])
        wanted = cross_entropy(logits, data.labels[batch]).mean()
        np.testing.assert_allclose(whole[1].eval_loss[i], wanted, rtol=1e-4)


def test_watch_records_inputs_and_units(whole):
    record = whole[1]
    assert record.layers[:2] == ("input", "labels")
    for i, batch in enumerate(batches()):
        x = normalised(pixels()[batch])
        np.testing.assert_allclose(record.mean[i, 0], x.mean(), atol=1e-5)
        np.testing.assert_array_equal(record.active_channels("input")[i], (x > 0).any((0, 1, 2)))
    labels = np.asarray(split().labels)[batches()]
    np.testing.assert_allclose(record.mean[:, 1], labels.mean(1), atol=1e-6)
    assert record.channels.tolist() == [2, 1, 3, 3, 3, 3]


def test_watch_does_not_change_the_training(whole, by_hand):
    for found, wanted in zip(leaves(whole[0].params), leaves(by_hand[1][-1].params), strict=True):
        # Batch norm over five values and Adam's root magnify roundings of float32.
        np.testing.assert_allclose(found, wanted, rtol=0, atol=1e-3)


def test_watch_records_each_quantity_alone(whole):
    only = {"activations": False, "histogram": False}
    gradients = trained(Watch(gradients=True, **only))[1]
    assert gradients.layers == ()
    np.testing.assert_allclose(
        gradients.parameters.grad_norm, whole[1].parameters.grad_norm, rtol=1e-2, atol=1e-4
    )
    assert len(gradients.parameters.update_norm) == len(gradients.eval_loss) == 0
    evaluated = trained(Watch(evaluation=True, **only))[1]
    assert evaluated.parameters is None
    np.testing.assert_allclose(evaluated.eval_loss, whole[1].eval_loss, rtol=1e-2)


def test_watch_every_few_steps_equals_every_step(whole, small_chunks):
    record = trained(Watch.everything(every=3))[1]
    steps = list(range(0, STEPS, 3))
    assert record.watched.tolist() == record.parameters.watched.tolist() == steps
    np.testing.assert_allclose(record.eval_loss, whole[1].eval_loss[steps], rtol=1e-2)
    np.testing.assert_allclose(
        record.parameters.update_norm, whole[1].parameters.update_norm[steps], rtol=1e-2, atol=1e-3
    )


def test_run_merges_a_long_record_as_it_grows(whole, small_chunks):
    steps, record = [], trained(Watch.everything(), rows=2)[1]
    assert record.steps == STEPS
    assert len(record.first) == len(record.parameters.watched) == len(record.eval_loss) == 2
    assert record.hist.sum() == whole[1].hist.sum()
    np.testing.assert_allclose(record.loss[0], whole[1].loss[:8].mean(), rtol=1e-3)
    trained(None, rows=2, on_steps=steps.append)
    assert sum(steps) == STEPS
    with pytest.raises(ValueError, match="rows must be at least 1, got 0"):
        trained(None, rows=0)


def test_recorder_in_a_custom_loop_records_the_same(whole):
    """An Optax loop in which everything is watched at every step."""
    model = conv_net()
    graphdef, params, variables = nnx.split(model, nnx.Param, ...)
    data, recorder, rates = split(), Recorder(), table()
    optimizer = adam()
    opt_state = optimizer.transform.init(params)

    @jax.jit
    def train_step(params, variables, opt_state, batch, rate, momentum):
        x = (data.images[batch] / 255 - np.array(MEAN)) / np.array(STD)

        def loss_fn(params):
            model = nnx.merge(graphdef, params, variables, copy=True)
            logits, outputs = capture(model, x)
            new = nnx.split(model, nnx.Param, ...)[2]
            loss = cross_entropy(logits, data.labels[batch]).mean()
            return loss, (layer_stats({"input": x, **outputs}), new)

        (loss, (layers, new)), grads = jax.value_and_grad(loss_fn, has_aux=True)(params)
        opt_state = optimizer.set(opt_state, rate, momentum)
        updates, opt_state = optimizer.transform.update(grads, opt_state, params)
        updated = optax.apply_updates(params, updates)
        seen = parameter_stats(params, grads=grads, updated=updated)
        return updated, new, opt_state, loss, layers, seen

    for i, batch in enumerate(batches()):
        rate, momentum = rates["learning_rate"][i], rates["momentum"][i]
        params, variables, opt_state, loss, layers, seen = train_step(
            params, variables, opt_state, batch, rate, momentum
        )
        recorder.add(loss, layers, seen)
    found, wanted = recorder.record().parameters, whole[1].parameters
    assert found.names == wanted.names
    assert found.watched.tolist() == wanted.watched.tolist()
    np.testing.assert_allclose(found.grad_norm, wanted.grad_norm, rtol=1e-2, atol=1e-4)
    np.testing.assert_allclose(found.update_norm, wanted.update_norm, rtol=1e-2, atol=1e-3)


def test_devices_record_the_same_as_one_device():
    def found(devices):
        trainer = Trainer(
            conv_net(), adam(), mean=MEAN, std=STD, watch=Watch.everything(), devices=devices
        )
        return trainer.run(trainer.start(conv_net()), split(), batches()[:, :4], table())[1]

    one, two = found(None), found(jax.devices("cpu")[:2])
    assert two.parameters.names == one.parameters.names
    # Sums in another order, magnified by batch norm over four values.
    np.testing.assert_allclose(two.eval_loss, one.eval_loss, rtol=1e-2)
    for name in ("grad_norm", "update_norm"):
        expected = getattr(one.parameters, name)
        # A bias before a norm has a gradient of 0 up to rounding, which Adam magnifies.
        np.testing.assert_allclose(getattr(two.parameters, name), expected, rtol=1e-2, atol=1e-3)
    np.testing.assert_array_equal(two.active, one.active)
