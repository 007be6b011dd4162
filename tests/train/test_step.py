import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx

from convjax.nn.models import LinearNet
from convjax.optim.optimizers import adam, sgd
from convjax.stats.watch import Watch
from convjax.train import scan_loop
from convjax.train.losses import cross_entropy
from convjax.train.trainer import Trainer
from tests.helpers import assert_trees_close
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
    normalised,
    split,
    table,
)

pytestmark = pytest.mark.usefixtures("small_chunks")


def test_train_step_in_a_loop_equals_run(x64):
    model = conv_net(param_dtype=jnp.float64)
    trainer = Trainer(model, adam(), mean=MEAN, std=STD)
    data, order, rates = split(), batches(), table()
    assert STEPS > scan_loop.CHUNK_STEPS
    assert STEPS % scan_loop.CHUNK_STEPS != 0
    last, record = trainer.run(trainer.start(model), data, order, rates)

    state, step = trainer.start(model), jax.jit(trainer.step)
    rows = []
    for i, batch in enumerate(order):
        images, labels = data.images[batch], data.labels[batch]
        state, metrics, stats = step(
            state, images, labels, rates["learning_rate"][i], rates["momentum"][i]
        )
        rows.append((metrics, stats.layers))

    # The same float64 operations, which the compiler may fuse differently in a loop. Per step,
    # batch norm over five values and Adam's root magnify roundings of 1e-16 at most a thousandfold.
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


def test_train_step_of_a_linear_model_equals_numpy(x64):
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


def test_normalize_equals_values_by_hand():
    trainer = Trainer(LinearNet((2, 2), rngs=nnx.Rngs(0)), sgd(), mean=(0, 0.5), std=(1, 0.25))
    found = trainer.step.normalize(jnp.array([[[[0, 0], [51, 255]]]], jnp.uint8))
    # 51/255 is 1/5.
    np.testing.assert_allclose(found, [[[[0, -2], [0.2, 2]]]], rtol=1e-6)  # float32
    assert found.dtype == jnp.float32
    assert (
        trainer.step.normalize(jnp.zeros((1, 1, 1, 2), jnp.uint8), jnp.float16).dtype == jnp.float16
    )


def test_cross_entropy_equals_values_by_hand():
    logits = jnp.log(jnp.array([[0.5, 0.25, 0.25], [0.2, 0.2, 0.6]]))
    losses = cross_entropy(logits, jnp.array([0, 1]))
    assert losses.shape == (2,)
    np.testing.assert_allclose(losses, [np.log(2), np.log(5)], rtol=1e-6)  # float32


def test_train_step_of_bfloat16_products_keeps_float32():
    model = conv_net(dtype=jnp.bfloat16)
    trainer = Trainer(model, adam(), mean=MEAN, std=STD, watch=Watch.everything())
    state, metrics, stats = jax.eval_shape(
        trainer.step, trainer.start(model), *(x[:BATCH] for x in split()), *map(jnp.float32, (1, 1))
    )
    floats = [x for x in jax.tree.leaves((state, metrics, stats)) if x.dtype.kind in "fV"]
    assert {x.dtype for x in floats} == {np.dtype(np.float32)}
    # The products are of bfloat16.
    logits = jax.eval_shape(trainer.step.logits, state, split().images[:1])
    assert logits.dtype == jnp.bfloat16


def test_train_step_of_bfloat16_products_is_near_that_of_float32():
    data, order, rates = split(), batches(), table()
    records = []
    for dtype in (jnp.float32, jnp.bfloat16):
        model = conv_net(dtype=dtype)
        trainer = Trainer(model, sgd(), mean=MEAN, std=STD, watch=None)
        records.append(trainer.run(trainer.start(model), data, order, rates)[1])
    # Products of 8 bits, before any difference has grown.
    np.testing.assert_allclose(records[1].loss[0], records[0].loss[0], rtol=2e-2)
    assert records[1].loss.dtype == np.float32


def test_train_step_unwatched_equals_training_without_watch(x64):
    data, rate = split(), jnp.float32(0.1)

    def traced(watch, watched):
        trainer = Trainer(Normed(), adam(), watch=watch)
        args = trainer.start(Normed()), data.images[:BATCH], data.labels[:BATCH], rate, rate
        return str(jax.make_jaxpr(lambda *args: trainer.step(*args, watched=watched))(*args))

    # The same operations, not only the same results: it has no extra cost.
    assert traced(Watch(), False) == traced(None, True) == traced(None, False)
    assert traced(Watch(), False) != traced(Watch(), True)


def test_reprs_of_states_metrics_and_stats_are_short_and_stay_trees():
    trainer = Trainer(conv_net(), adam(), mean=MEAN, std=STD, watch=Watch.everything())
    state = trainer.start(conv_net())
    parameters = sum(leaf.size for leaf in jax.tree.leaves(state.params))
    arrays = len(jax.tree.leaves(state.params))
    assert repr(state).startswith(f"TrainState({parameters:,} parameters in {arrays} arrays, ")
    assert len(repr(state)) < 200
    data, rates = split(), table()
    first = data.images[:BATCH], data.labels[:BATCH]
    taken, metrics, stats = jax.jit(trainer.step)(
        state, *first, rates["learning_rate"][0], rates["momentum"][0]
    )
    assert repr(metrics).startswith(f"StepMetrics(loss={float(metrics.loss):.6g}, learning_rate=")
    layers = len(stats.layers)
    assert repr(stats).startswith(f"StepStats({layers} layers, {arrays} parameters, eval_loss=")
    assert repr(type(stats)()) == "StepStats(0 layers)"
    rows = jax.tree.map(lambda x: jnp.stack([x, x]), metrics)
    assert "loss=float32[2]" in repr(rows)
    # Of what has no values, too: shapes, tracers, donated buffers and the indices of vmap.
    assert repr(jax.eval_shape(lambda s: s, state)) == repr(state)
    assert "loss=float32[]" in repr(jax.eval_shape(lambda m: m, metrics))
    traced = []
    jax.jit(lambda *values: traced.extend(map(repr, values)))(taken, metrics, stats)
    assert traced[0] == repr(taken)
    assert "loss=float32[]" in traced[1]
    assert "eval_loss=float32[]" in traced[2]
    assert repr(jax.tree.map(lambda x: 0, stats)).endswith("parameters, eval_loss=0)")
    jax.tree.map(lambda x: x.delete(), (state, metrics))
    assert repr(state) == repr(taken)
    assert "loss=float32[]" in repr(metrics)
    names = trainer.step.layers(taken, *(jax.ShapeDtypeStruct(x.shape, x.dtype) for x in first[:2]))
    assert repr(names) == f"WatchedNames({layers} layers, {arrays} parameters)"
