"""Custom training loops: the record of the recorder, against the statistics by hand."""

import dataclasses
import math

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from flax import linen, nnx

from convjax.nn._capture import capture, channel_axes
from convjax.nn.models import ConvNet
from convjax.plots import color_dim, plot_layer_stats
from convjax.stats import recorder as recorders
from convjax.stats.activations import activation_stats
from convjax.stats.layers import LayerStats, layer_stats
from convjax.stats.parameters import parameter_stats
from convjax.stats.record import Record
from convjax.stats.recorder import Recorder
from tests.stats.record_kinds import assert_equal

X = np.random.default_rng(0).standard_normal((30, 4, 8, 8, 1)).astype(np.float32)
Y = np.random.default_rng(1).integers(0, 3, (30, 4))


@pytest.fixture(autouse=True)
def small_blocks(monkeypatch):
    """Makes fetches happen in the middle of every loop."""
    monkeypatch.setattr(recorders, "BLOCK", 4)


def cross_entropy(logits, labels):
    return optax.softmax_cross_entropy_with_integer_labels(logits, labels).mean()


def train_nnx(recorder):
    """A plain Flax NNX loop; three of its lines are convjax's."""
    model = ConvNet((1, 4, 3), stride=4, norm="batch", rngs=nnx.Rngs(0))
    optimizer = nnx.Optimizer(model, optax.adam(1e-2), wrt=nnx.Param)

    @nnx.jit
    def train_step(model, optimizer, x, y):
        def loss_fn(model):
            logits, outputs = capture(model, x)
            return cross_entropy(logits, y), layer_stats(outputs)

        (loss, stats), grads = nnx.value_and_grad(loss_fn, has_aux=True)(model)
        optimizer.update(model, grads)
        return loss, stats

    for x, y in zip(X, Y, strict=True):
        loss, stats = train_step(model, optimizer, x, y)
        recorder.add(loss, stats)


class LinenNet(linen.Module):
    @linen.compact
    def __call__(self, x, train=True):
        x = linen.Conv(4, (3, 3), strides=4, name="first")(x)
        x = linen.relu(linen.BatchNorm(use_running_average=not train, name="norm")(x))
        return linen.Dense(3, name="last")(x.reshape(len(x), -1))


def train_linen(recorder):
    """A plain Flax Linen loop."""
    model, optimizer = LinenNet(), optax.adam(1e-2)
    variables = model.init(jax.random.key(0), X[0])
    params, batch_stats = variables["params"], variables["batch_stats"]
    opt_state = optimizer.init(params)

    @jax.jit
    def train_step(params, batch_stats, opt_state, x, y):
        def loss_fn(params):
            variables = {"params": params, "batch_stats": batch_stats}
            (logits, changed), outputs = capture(model, variables, x, mutable=["batch_stats"])
            return cross_entropy(logits, y), (changed["batch_stats"], layer_stats(outputs))

        (loss, (new, stats)), grads = jax.value_and_grad(loss_fn, has_aux=True)(params)
        updates, opt_state = optimizer.update(grads, opt_state, params)
        return optax.apply_updates(params, updates), new, opt_state, loss, stats

    for x, y in zip(X, Y, strict=True):
        params, batch_stats, opt_state, loss, stats = train_step(
            params, batch_stats, opt_state, x, y
        )
        recorder.add(loss, stats)


def network(params, x):
    """A function of a pytree of parameters that names its intermediate values."""
    hidden = x.reshape(len(x), -1) @ params["first"]
    return jax.nn.relu(hidden) @ params["last"], {"hidden": hidden}


def train_optax(recorder):
    """A plain Optax loop, with parameters in a pytree."""
    rng = np.random.default_rng(0)
    params = {"first": rng.normal(0, 0.1, (64, 5)), "last": rng.normal(0, 0.1, (5, 3))}
    optimizer = optax.sgd(0.1)
    opt_state = optimizer.init(params)

    @jax.jit
    def train_step(params, opt_state, x, y):
        def loss_fn(params):
            logits, outputs = capture(network, params, x)
            return cross_entropy(logits, y), layer_stats(outputs)

        (loss, stats), grads = jax.value_and_grad(loss_fn, has_aux=True)(params)
        updates, opt_state = optimizer.update(grads, opt_state)
        return optax.apply_updates(params, updates), opt_state, loss, stats

    for x, y in zip(X, Y, strict=True):
        params, opt_state, loss, stats = train_step(params, opt_state, x, y)
        recorder.add(loss, stats)


def test_recorder_first_step_by_hand():
    recorder = Recorder()
    train_nnx(recorder)
    model = ConvNet((1, 4, 3), stride=4, norm="batch", rngs=nnx.Rngs(0))
    logits, outputs = capture(model, X[0])
    record = recorder.record()
    assert record.loss[0] == pytest.approx(float(cross_entropy(logits, Y[0])), rel=1e-5)
    for column, (name, x) in enumerate(outputs.items()):
        assert record.layers[column] == name
        assert record.mean[0, column] == pytest.approx(float(x.mean()), rel=1e-4, abs=1e-6)
        assert record.under[0, column] == (np.asarray(x) < 0).sum()


@pytest.mark.parametrize(
    ("train", "layers"),
    [
        (train_nnx, ("blocks.0.conv", "blocks.0.norm", "blocks.1.conv", "blocks.1.norm")),
        (train_linen, ("first", "norm", "last")),
        (train_optax, ("hidden",)),
    ],
)
def test_recorder_in_loops_of_each_library(train, layers):
    recorder = Recorder()
    train(recorder)
    record = recorder.record()
    assert record.layers == layers
    assert record.steps == len(record.watched) == len(X)
    assert (record.hist.sum(-1) + record.under + record.over == record.sizes).all()
    assert np.isfinite(record.loss).all()
    color_dim(record, layers[0])
    plot_layer_stats(record, 0)


def steps(count, every=1):
    """Pairs of a loss and the statistics of two layers, or None."""
    rng = np.random.default_rng(0)
    outputs = [{"a": rng.normal(size=12), "b": rng.normal(size=(3, 5))} for _ in range(count)]
    return [
        (jnp.float32(i), layer_stats(found) if i % every == 0 else None)
        for i, found in enumerate(outputs)
    ], outputs


@pytest.mark.parametrize("count", [1, 7, 8, 9, 21])
@pytest.mark.parametrize("every", [1, 3, 6])
def test_recorder_has_every_step_once_and_in_order(count, every):
    added, outputs = steps(count, every)
    recorder = Recorder()
    for i, (loss, layers) in enumerate(added):
        recorder.add(loss, layers, learning_rate=i / 2, momentum=0.9)
        if i == count // 2:
            assert recorder.record().steps == i + 1  # in the middle, without effect
    record = recorder.record()
    np.testing.assert_array_equal(record.loss, np.arange(count))
    np.testing.assert_array_equal(record.learning_rate, np.arange(count) / 2)
    np.testing.assert_array_equal(record.momentum, np.full(count, np.float32(0.9)))
    np.testing.assert_array_equal(record.watched, np.arange(0, count, every))
    assert record.layers == ("a", "b")
    assert record.sizes.tolist() == [12, 15]
    for row, step in enumerate(record.watched):
        for column, name in enumerate("ab"):
            wanted = activation_stats(jnp.asarray(outputs[step][name]))
            assert record.mean[row, column] == wanted.mean
            assert record.near_zero[row, column] == wanted.near_zero
            np.testing.assert_array_equal(record.hist[row, column], wanted.hist)


@pytest.mark.parametrize("every", [1, 3, 50])
def test_recorder_bounds_the_rows_of_a_long_training(every):
    added, _ = steps(500, every)
    bounded, whole = Recorder(rows=16), Recorder()
    for loss, layers in added:
        bounded.add(loss, layers)
        whole.add(loss, layers)
        assert sum(len(part.first) for part in bounded._builder._parts) <= 32 + 2 * recorders.BLOCK
    record, wanted = bounded.record(), whole.record().merged(16)
    assert (record.steps, len(record.first)) == (500, 16)
    assert set(record.counts[:-1]) == {32}
    for field in ("first", "watched", "watched_count", "hist", "under", "over"):
        np.testing.assert_array_equal(getattr(record, field), getattr(wanted, field))
    # Merged in several goes, each of which rounds to float32.
    for field in ("loss", "mean", "std", "near_zero"):
        np.testing.assert_allclose(
            getattr(record, field), getattr(wanted, field), rtol=1e-5, atol=1e-6
        )


def test_recorder_rejects_no_rows():
    with pytest.raises(ValueError, match="rows must be at least 1, got 0"):
        Recorder(rows=0)


def test_recorder_without_layers_has_the_loss():
    recorder = Recorder()
    for loss in (3.0, 2.0):
        recorder.add(loss)
    record = recorder.record()
    assert record.loss.tolist() == [3, 2]
    assert record.layers == ()
    assert np.isnan(record.learning_rate).all()


def test_recorder_without_histograms():
    recorder = Recorder()
    for _ in range(9):
        recorder.add(1.0, layer_stats({"a": jnp.ones(3)}, histogram=False))
    record = recorder.record()
    np.testing.assert_array_equal(record.mean, np.ones((9, 1)))
    with pytest.raises(ValueError, match="must hold histograms"):
        record.check_histograms()


def test_layer_stats_pass_through_jit_scan_and_vmap():
    outputs = {"b": jnp.arange(6.0), "a": jnp.ones((2, 3))}
    wanted = layer_stats(outputs)
    assert wanted.names == ("b", "a")
    assert wanted.sizes == (6, 6)
    found = jax.jit(layer_stats)(outputs)
    # JAX sorts the keys of a mapping that it passes on; inside the step the order is the calls'.
    assert isinstance(found, LayerStats)
    assert found.names == ("a", "b")
    scanned = jax.lax.scan(lambda c, _: (c, layer_stats(outputs)), 0, length=3)[1]
    assert scanned.names == ("b", "a")
    np.testing.assert_array_equal(scanned.stats.mean, np.stack([wanted.stats.mean] * 3))
    mapped = jax.vmap(lambda x: layer_stats({"x": x}))(jnp.ones((4, 5)))
    assert mapped.sizes == (5,)
    assert mapped.stats.hist.shape == (4, 1, 40)


def test_recorder_rejects_mistakes():
    recorder = Recorder()
    with pytest.raises(ValueError, match=r"no steps yet\. .*add\(loss, layers\) after each"):
        recorder.record()
    with pytest.raises(TypeError, match="loss must be a number, got str"):
        recorder.add("1.0")
    with pytest.raises(TypeError, match=r"what layer_stats\(outputs\) returns, got dict"):
        recorder.add(1.0, {"a": 1})
    with pytest.raises(TypeError, match=r"parameters must be what parameter_stats"):
        recorder.add(1.0, None, {"a": 1})
    with pytest.raises(TypeError, match=r"got a tracer: return the loss and the statistics"):
        jax.jit(recorder.add)(1.0)
    stats = layer_stats({"a": jnp.ones(3)})
    with pytest.raises(TypeError, match=r"layers must be a value, got a tracer"):
        jax.jit(lambda layers: recorder.add(1.0, layers))(stats)
    assert repr(recorder) == "Recorder(0 steps, 0 layers)"


def test_recorder_keeps_the_order_of_layers():
    recorder = Recorder()
    outputs = {"b": jnp.zeros(3), "a": jnp.ones(2)}
    recorder.add(1.0, layer_stats(outputs))
    recorder.add(1.0, layer_stats(dict(reversed(outputs.items()))))
    record = recorder.record()
    assert record.layers == ("b", "a")
    assert record.sizes.tolist() == [3, 2]
    assert record.mean.tolist() == [[0, 1], [0, 1]]


# --- what changes between steps ------------------------------------------------------------------


def layer(*values, name="a", **options):
    return layer_stats({name: jnp.array(values, jnp.float32)}, **options)


def test_recorder_merges_batches_of_two_sizes():
    rng = np.random.default_rng(0)
    batches = [rng.normal(0.3, 2, 3 if i % 3 == 2 else 12).astype(np.float32) for i in range(30)]
    every, bounded = Recorder(), Recorder(rows=4)
    for x in batches:
        for recorder in (every, bounded):
            recorder.add(1.0, layer(*x))
    record = every.record()
    assert record.sizes.tolist() == [12]
    assert record.counted[:, 0].tolist() == [12, 12, 3] * 10
    assert not record.nan().any()
    np.testing.assert_allclose(record.active_share(0), [(x >= 0.25).mean() for x in batches])
    merged = bounded.record()
    assert merged.watched_count.tolist() == [8, 8, 8, 6]
    for row, start in enumerate(range(0, 30, 8)):
        values = np.concatenate(batches[start : start + 8])
        assert merged.values[row, 0] == len(values)
        # Rounding of float32, in three merges.
        assert merged.mean[row, 0] == pytest.approx(values.mean(), rel=1e-5)
        assert merged.std[row, 0] == pytest.approx(values.std(ddof=1), rel=1e-5)
        assert merged.near_zero[row, 0] == pytest.approx((values <= 0.05).mean(), rel=1e-6)
        np.testing.assert_array_equal(merged.hist[row, 0], np.histogram(values, 40, (0, 10))[0])
        assert merged.active_share(0)[row] == (values >= 0.25).mean()
    assert not merged.nan().any()


def test_recorder_counts_nan_in_batches_of_two_sizes():
    recorder = Recorder()
    recorder.add(1.0, layer(1, 2, np.nan, 3))
    recorder.add(1.0, layer(np.nan, 2))
    record = recorder.record()
    assert record.nan().tolist() == [[1], [1]]
    assert record.merged(1).nan().tolist() == [[2]]


def test_recorder_leaves_out_layers_that_the_first_step_lacks():
    recorder = Recorder()
    recorder.add(1.0, layer(1, 1))
    both = {"b": jnp.zeros(2), "a": jnp.full(2, 2.0)}
    with pytest.warns(UserWarning, match=r"got b, too, left out\. .*Recorder of its own.*Step 1\."):
        recorder.add(2.0, layer_stats(both))
    recorder.add(3.0, layer_stats(both))  # warns once
    record = recorder.record()
    assert record.layers == ("a",)
    assert record.mean.tolist() == [[1], [2], [2]]


def test_recorder_records_the_loss_of_a_step_without_its_layers():
    recorder = Recorder()
    recorder.add(1.0, layer_stats({"a": jnp.ones(2), "b": jnp.ones(2)}))
    with pytest.warns(UserWarning, match=r"layers must be .* got no b\. .*recorded without layers"):
        recorder.add(2.0, layer(1, 1), eval_loss=0.5)
    record = recorder.record()
    assert (record.loss.tolist(), record.watched.tolist()) == ([1, 2], [0])


@pytest.mark.parametrize(
    ("later", "message"),
    [
        ({"histogram": False}, "got no histograms"),
        ({"bins": "symmetric"}, r"got Bins\(low=-5\.0.* after Bins\(low=0\.0"),
        ({"units": False}, "got no units"),
    ],
)
def test_recorder_leaves_out_steps_with_fewer_quantities(later, message):
    recorder = Recorder()
    recorder.add(1.0, layer(1, 2, units=True))
    with pytest.warns(UserWarning, match=message):
        recorder.add(2.0, layer(1, 2, **{"units": True} | later))
    recorder.add(3.0, layer(3, 4, units=True))
    record = recorder.record()
    assert (record.steps, record.watched.tolist()) == (3, [0, 2])


def test_recorder_leaves_out_quantities_that_the_first_step_lacks():
    recorder = Recorder()
    recorder.add(1.0, layer(1, 2, histogram=False))
    with pytest.warns(UserWarning, match="got histograms, units, too, left out"):
        recorder.add(2.0, layer(3, 4, units=True))
    record = recorder.record()
    assert record.mean.tolist() == [[1.5], [3.5]]
    assert len(record.hist) == len(record.active) == 0


def test_recorder_leaves_out_steps_with_other_channels():
    recorder = Recorder()
    recorder.add(1.0, layer_stats({"a": jnp.ones((2, 3))}, units=True))
    with pytest.warns(UserWarning, match="another number of channels in a"):
        recorder.add(1.0, layer_stats({"a": jnp.ones((2, 4))}, units=True))
    recorder.add(1.0, layer_stats({"a": jnp.ones((1, 3))}, units=True))
    assert recorder.record().active_channels("a").shape == (2, 3)


def test_recorder_without_any_layer_is_without_layers():
    none = LayerStats((), (), layer(1).stats)
    recorder = Recorder()
    recorder.add(1.0, none)
    recorder.add(2.0, layer(1))
    recorder.add(3.0, none)
    assert recorder.record().watched.tolist() == [1]


def test_recorder_leaves_out_parameters_that_do_not_fit():
    params = {"w": jnp.ones((2, 2)), "b": jnp.ones(3)}
    recorder = Recorder()
    recorder.add(1.0, None, parameter_stats(params, grads=params))
    moved = jax.tree.map(lambda x: x + 1, params)
    with pytest.warns(UserWarning, match=r"parameters must be .* got no grad_norm"):
        recorder.add(1.0, None, parameter_stats(params, updated=moved))
    with pytest.warns(UserWarning, match="got no b"):
        recorder.add(1.0, None, parameter_stats({"w": params["w"]}, grads={"w": params["w"]}))
    other = {"w": jnp.ones((3, 3)), "b": jnp.ones(3)}
    with pytest.warns(UserWarning, match="another number of elements in w"):
        recorder.add(1.0, None, parameter_stats(other, grads=other))
    more = {"a": jnp.full(2, 7.0), **params}
    with pytest.warns(UserWarning, match="got a, too"):
        recorder.add(1.0, None, parameter_stats(more, grads=more))
    record = recorder.record()
    assert (record.steps, record.parameters.watched.tolist()) == (5, [0, 4])
    np.testing.assert_array_equal(record.parameters.weight_norm, np.float32([[3**0.5, 2]] * 2))


def accumulated(params, applied):
    found = parameter_stats(params, updated={"w": params["w"] + 1})
    return dataclasses.replace(found, applied=applied)


def test_recorder_leaves_out_parameters_of_accumulating_steps():
    params = {"w": jnp.ones(2)}
    recorder = Recorder()
    for i in range(9):
        recorder.add(1.0, None, accumulated(params, jnp.array(i % 4 == 3)))
    recorder.add(1.0, None, accumulated(params, None))
    assert recorder.record().parameters.watched.tolist() == [3, 7, 9]


def test_recorder_takes_the_evaluation_loss_at_some_steps():
    recorder = Recorder(rows=8)
    for i in range(16):
        recorder.add(1.0, layer(1), eval_loss=float(i) if i in (3, 4, 5) else None)
    with pytest.warns(UserWarning, match="eval_loss must go with layers"):
        recorder.add(1.0, eval_loss=1.0)
    eval_loss = recorder.record().eval_loss  # of four steps a row
    np.testing.assert_array_equal(eval_loss, [3, 4.5, np.nan, np.nan])


def test_recorder_leaves_out_arrays_that_were_donated():
    recorder, loss = Recorder(), jnp.float32(2.0)
    recorder._waiting.append(None)  # keeps the next step waiting
    recorder._convert_finished = lambda: None
    recorder.add(loss, layer(1))
    recorder._waiting.popleft()
    loss.delete()
    with pytest.warns(UserWarning, match="donated to a later step"):
        record = recorder.record()
    assert np.isnan(record.loss[0])
    assert record.mean.tolist() == [[1]]


def test_recorder_keeps_the_bins():
    recorder = Recorder()
    recorder.add(1.0)
    recorder.add(1.0, jax.jit(lambda s: s)(layer(-2, 0, 3, bins="symmetric")))
    record = recorder.record()
    assert record.hist_edges[[0, -1]].tolist() == [-5, 5]
    assert np.flatnonzero(record.hist[0, 0]).tolist() == [12, 20, 32]
    with pytest.raises(ValueError, match=r"bins must be 'fastai'.* got 'gelu'"):
        layer(1, bins="gelu")


# --- further axes --------------------------------------------------------------------------------


def taken(x, params):
    """The loss and the statistics of one member."""
    grads = {"w": params["w"] * 2}
    stats = layer_stats({"a": x[None], "b": x[None, :2] - 1}, units=True)
    return x.sum(), stats, parameter_stats(params, grads=grads, updated={"w": params["w"] + 1})


def members(*lead):
    rng = np.random.default_rng(3)
    x = rng.normal(size=(*lead, 5)).astype(np.float32)
    return jnp.asarray(x), {"w": jnp.asarray(rng.normal(size=(*lead, 4)).astype(np.float32))}


@pytest.mark.parametrize("lead", [(3,), (2, 3), (1,)])
def test_recorder_merges_the_members_of_an_ensemble(lead):
    x, params = members(*lead)
    of_members = taken
    for _ in lead:
        of_members = jax.vmap(of_members)
    loss, layers, parameters = of_members(x, params)
    recorder, wanted = Recorder(), Recorder()
    recorder.add(loss, layers, parameters, learning_rate=np.full(lead, 0.5), eval_loss=loss)
    recorder.add(loss, layers, parameters, learning_rate=0.5, eval_loss=loss)
    flat = np.asarray(x).reshape(-1, 5)
    stats = layer_stats({"a": jnp.asarray(flat), "b": jnp.asarray(flat[:, :2] - 1)})
    wanted.add(np.mean(loss), stats)
    found, whole = recorder.record(), wanted.record()
    assert found.sizes.tolist() == whole.sizes.tolist() == [flat.size, flat[:, :2].size]
    assert len(found.counted) == 0
    for name in ("loss", "mean", "std", "near_zero", "abs_near_zero"):
        # Another order of summing in float32.
        row, expected = getattr(found, name)[0], getattr(whole, name)[0]
        np.testing.assert_allclose(row, expected, rtol=1e-5, atol=1e-6)
    for name in ("hist", "under", "over"):
        np.testing.assert_array_equal(getattr(found, name)[0], getattr(whole, name)[0])
    assert (found.learning_rate.tolist(), found.eval_loss[0]) == ([0.5, 0.5], found.loss[0])
    assert found.active_channels("a")[0].tolist() == (flat > 0).any(0).tolist()
    of = found.parameters
    weights, count = np.asarray(params["w"], np.float64).reshape(-1, 4), math.prod(lead)
    rms = np.sqrt((weights**2).sum(1).mean())
    np.testing.assert_allclose(of.weight_norm[:, 0], rms, rtol=1e-6)
    np.testing.assert_allclose(of.grad_norm[:, 0], 2 * rms, rtol=1e-6)
    np.testing.assert_allclose(of.update_norm[:, 0], 2, rtol=1e-6)
    np.testing.assert_allclose(of.grad_rms[0], np.sqrt((4 * weights**2).mean()), rtol=1e-6)
    assert of.sizes.tolist() == [4]
    assert of.watched_count.tolist() == [count, count]
    assert of.update_hist.sum(-1).tolist() == [[4 * count]] * 2
    assert Record.from_bytes(found.to_bytes()).parameters.watched_count.tolist() == [count] * 2


def test_recorder_keeps_the_norms_of_replicas():
    x, params = members()
    one = taken(x, params)
    replicas = jax.tree.map(lambda value: jnp.stack([value] * 4), one)
    alone, together = Recorder(), Recorder()
    alone.add(*one)
    together.add(*replicas)
    for name in ("weight_norm", "grad_norm", "update_norm"):
        found, wanted = (getattr(r.record().parameters, name) for r in (together, alone))
        np.testing.assert_array_equal(found, wanted)
    np.testing.assert_array_equal(together.record().mean, alone.record().mean)


def test_recorder_of_one_member_each():
    x, params = members(3)
    found = jax.vmap(taken)(x, params)
    recorders_of_members = [Recorder() for _ in range(3)]
    for i, recorder in enumerate(recorders_of_members):
        recorder.add(*jax.tree.map(lambda value, i=i: value[i], found))
    for i, recorder in enumerate(recorders_of_members):
        record = recorder.record()
        assert record.sizes.tolist() == [5, 2]
        np.testing.assert_allclose(record.mean[0, 0], x[i].mean(), rtol=1e-5, atol=1e-7)


@pytest.mark.parametrize("lead", [(), (2,)])
def test_recorder_adds_the_steps_of_a_scan(lead):
    x, params = members(9, *lead)
    of_step = jax.vmap(taken) if lead else taken
    _, found = jax.lax.scan(lambda carry, args: (carry, of_step(*args)), 0, (x, params))
    at_once, one_by_one = Recorder(), Recorder()
    rates = np.arange(9.0)
    at_once.add(*found, steps=True, learning_rate=rates, momentum=0.9, eval_loss=found[0])
    for i in range(9):
        step = jax.tree.map(lambda value, i=i: value[i], found)
        one_by_one.add(*step, learning_rate=rates[i], momentum=0.9, eval_loss=step[0])
    assert repr(at_once) == "Recorder(9 steps, 2 layers)"
    assert_equal(at_once.record(), one_by_one.record())


def test_recorder_rejects_steps_without_their_axis():
    x, params = members()
    one = taken(x, params)
    with pytest.raises(
        ValueError, match=r"steps must be False .* axes \(\) of loss, \(\) of layers"
    ):
        Recorder().add(*one, steps=True)
    with pytest.raises(ValueError, match=r"axes \(3,\) of loss, \(\) of layers, \(\) of param"):
        Recorder().add(np.zeros(3), *one[1:], steps=True)
    with pytest.raises(ValueError, match=r"axes \(3,\) of loss, \(2,\) of eval_loss"):
        Recorder().add(np.zeros(3), eval_loss=np.zeros(2), steps=True)


@pytest.mark.parametrize("layout", ["NHWC", "CHWN"])
def test_layer_stats_finds_channels_in_every_layout(layout):
    model = ConvNet((1, 4, 3), stride=4, layout=layout, rngs=nnx.Rngs(0))
    _, outputs = capture(model, X[0])
    axes = channel_axes(model, outputs)
    recorder = Recorder()
    recorder.add(1.0, layer_stats(outputs, units=True, channel_axes=axes))
    assert recorder.record().channels.tolist() == [4, 3]
