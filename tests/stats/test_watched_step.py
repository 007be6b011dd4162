import warnings

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from flax import nnx

import convjax
from convjax.stats._step_arguments import find_loss

ONE, TWO, THREE = jnp.float32(1), jnp.float32(2), jnp.float32(3)


@pytest.mark.parametrize(
    "result",
    [
        ONE,
        (0, ONE, TWO),
        {"aux_loss": TWO, "loss": ONE},
        {"aux_loss": TWO, "ce": THREE, "total": ONE},
        {"accuracy": TWO, "nll": ONE},
        ({"loss_scale": THREE}, ONE),
        (TWO, {"loss": ONE}),
    ],
    ids=str,
)
def test_find_loss_takes_the_scalar_that_is_named_so(result):
    assert find_loss(result) is ONE


@pytest.mark.parametrize(
    "result", [{"a": ONE, "b": TWO}, {"d_loss": ONE, "g_loss": TWO}, ()], ids=str
)
def test_find_loss_warns_where_it_is_not_clear(result):
    with pytest.warns(UserWarning, match="leaves out the loss: .* Pass loss=lambda result"):
        assert find_loss(result) is None


def loop(names, labels=None):
    optimizer, recorder = optax.sgd(0.1), convjax.Recorder()

    def step(w, x, count):
        loss, grads = jax.value_and_grad(lambda w: jnp.mean((x @ w - count) ** 2))(w)
        updates, _ = optimizer.update(grads, optimizer.init(w), w)
        return w + updates, loss

    scope = {"inner": step}
    exec(f"def step(w, {names}): return inner(w, {names})", scope)
    watched = recorder.watch(scope["step"], labels=labels)
    watched(jnp.zeros(2), jnp.ones((3, 2)), jnp.array([4, 5, 6]))
    return recorder.record()


@pytest.mark.parametrize("name", ["y", "lengths"])
def test_watch_step_takes_labels_by_their_name_or_by_what_the_loss_compares(name):
    record = loop(f"x, {name}")
    assert record.layers == ("input", "labels")
    assert record.mean[0, 1] == 5
    assert record.facts["squared error"] == record.loss


def test_watch_step_warns_of_a_loss_that_it_cannot_take_and_of_layers_that_do_not_exist():
    model = convjax.ConvNet((1, 4, 2), rngs=nnx.Rngs(0))
    optimizer = nnx.Optimizer(model, optax.sgd(0.1), wrt=nnx.Param)
    recorder = convjax.Recorder()

    def step(model, optimizer, x, y):
        def loss_fn(model):
            return optax.softmax_cross_entropy_with_integer_labels(model(x), y).mean()

        loss, grads = nnx.value_and_grad(loss_fn)(model)
        optimizer.update(model, grads)
        return loss

    watch = convjax.Watch.everything("nosuch*")
    watched = recorder.watch(step, watch=watch, loss=lambda result: result["nope"])
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        watched(model, optimizer, jnp.ones((3, 8, 8, 1)), jnp.array([0, 1, 0]))
    text = "\n".join(str(warning.message) for warning in caught)
    assert "leaves out the loss" in text
    assert "loss= is called with what the step returns" in text
    assert "leaves out all layers: none matches select='nosuch*'" in text
    record = recorder.record()
    assert np.isnan(record.loss).all()
    assert record.layers == ("input", "labels")  # the rest is recorded
    assert (record.parameters.update_norm > 0).any()
    assert not convjax.diagnose(record).findings  # no loss is not a loss that is not finite


def test_watch_step_does_not_take_labels_that_the_step_does_not_use():
    optimizer, recorder = optax.sgd(0.1), convjax.Recorder()

    @recorder.watch
    def step(w, x, y):
        loss, grads = jax.value_and_grad(lambda w: jnp.mean((x @ w) ** 2))(w)
        updates, _ = optimizer.update(grads, optimizer.init(w), w)
        return w + updates, loss

    step(jnp.ones(2), jnp.ones((3, 2)), jnp.zeros(3))
    assert "labels" not in recorder.record().layers


def test_watch_step_takes_the_labels_it_is_told():
    record = loop("x, lengths", labels=lambda w, x, lengths: lengths)
    np.testing.assert_allclose(record.mean[0, record.layer("labels")], 5)
    with pytest.warns(UserWarning, match="leaves out the labels: TypeError.*with the arguments"):
        record = loop("x, lengths", labels=lambda batch: batch)
    assert record.parameters.update_norm[0, 0] > 0  # the rest is recorded


def test_recorder_watch_decorates_a_method():
    class Training:
        recorder = convjax.Recorder()

        @recorder.watch(jit=lambda step: jax.jit(step, static_argnums=0))
        def step(self, x):
            return x.sum()

    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # it has no optimiser
        assert Training().step(jnp.ones(2)) == 2
    assert Training.recorder.record().loss.tolist() == [2]


def test_recorder_watch_survives_a_faulty_loss():
    recorder = convjax.Recorder()
    step = recorder.watch(
        lambda x: x.sum(),
        loss=lambda result: result["loss"],
        watch=convjax.Watch.everything(every=2),
    )
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        assert [float(step(jnp.ones(2))) for _ in range(3)] == [2, 2, 2]


def test_diagnose_does_not_take_an_absent_loss_for_a_divergence():
    recorder = convjax.Recorder()
    for _ in range(3):
        recorder.add(np.nan, convjax.layer_stats({"layer": jnp.ones((2, 3))}))
    assert convjax.diagnose(recorder.record()).findings == ()


def test_watch_step_reads_a_loss_by_hand_in_a_network_of_arrays():
    optimizer, recorder = optax.sgd(0.1), convjax.Recorder()
    w = {"first": jnp.eye(4, 5), "last": jnp.ones((5, 1))}

    @recorder.watch
    def step(w, batch):
        def loss_fn(w):
            out = jnp.tanh(batch[0] @ w["first"]) @ w["last"]
            return jnp.mean((out - batch[1]) ** 2)

        loss, grads = jax.value_and_grad(loss_fn)(w)
        updates, _ = optimizer.update(grads, optimizer.init(w), w)
        return optax.apply_updates(w, updates), loss

    # As many examples as the first kernel has rows: its shape cannot tell it from the input.
    step(w, (jnp.arange(16.0).reshape(4, 4), jnp.array([0.5, 1, 2, 4])))
    record = recorder.record()
    assert record.layers == ("input", "labels")
    assert record.mean[0].tolist() == [7.5, 1.875]
    assert record.facts["squared error of pairs"] == pytest.approx(record.loss, rel=1e-6)
    assert record.facts["squared error"] != pytest.approx(record.loss, rel=1e-2)
    assert record.facts["loss by hand"] == 1


def test_watch_step_reads_the_labels_that_it_is_told_and_no_others():
    optimizer, recorder = optax.sgd(0.1), convjax.Recorder()

    def step(w, x, digit, y_std):
        def loss_fn(w):
            return jnp.mean((x @ w - digit) ** 2 / y_std)

        loss, grads = jax.value_and_grad(loss_fn)(w)
        updates, _ = optimizer.update(grads, optimizer.init(w), w)
        return w + updates, loss

    watched = recorder.watch(step, labels=lambda w, x, digit, y_std: digit)
    watched(jnp.zeros(2), jnp.ones((3, 2)), jnp.array([4.0, 5.0, 9.0]), jnp.ones(3))
    record = recorder.record()
    assert record.mean[0, record.layer("labels")] == 6
    assert (record.facts["label low"], record.facts["label high"]) == (4, 9)


def test_watch_step_takes_the_first_loss_for_that_of_the_data():
    optimizer, recorder = optax.sgd(0.1), convjax.Recorder()

    @recorder.watch
    def step(w, x, y):
        def loss_fn(w):
            of_data = optax.squared_error(x @ w, y).mean()
            return of_data + 0.01 * optax.squared_error(x @ w, jnp.zeros(3)).mean()

        loss, grads = jax.value_and_grad(loss_fn)(w)
        updates, _ = optimizer.update(grads, optimizer.init(w), w)
        return w + updates, loss

    step(jnp.zeros(2), jnp.ones((3, 2)), jnp.array([4.0, 5.0, 9.0]))
    assert recorder.record().facts["label high"] == 9
