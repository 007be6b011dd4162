"""Custom training loops: the record of the recorder, against the statistics by hand."""

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
from convjax.stats.recorder import Recorder

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
        assert sum(len(piece.first) for piece in bounded._record._pieces) <= 32 + recorders.BLOCK
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
    with pytest.raises(ValueError, match=r"no steps yet: add\(loss, layers\)"):
        recorder.record()
    with pytest.raises(ValueError, match=r"loss must be a scalar, got the shape \(2,\)"):
        recorder.add(np.zeros(2))
    with pytest.raises(TypeError, match=r"what layer_stats\(outputs\) returns, got dict"):
        recorder.add(1.0, {"a": 1})
    with pytest.raises(ValueError, match="output of one layer or more, got none"):
        layer_stats({})
    with pytest.raises(ValueError, match=r"outputs\['a'\] must hold one value .* shape \(0, 3\)"):
        layer_stats({"a": jnp.ones((0, 3))})
    recorder.add(1.0, layer_stats({"a": jnp.ones(3)}))
    with pytest.raises(ValueError, match=r"sizes {.a.: 2} after {.a.: 3}\..* smaller last"):
        recorder.add(1.0, layer_stats({"a": jnp.ones(2)}))
    with pytest.raises(ValueError, match=r"histograms False after True\."):
        recorder.add(1.0, layer_stats({"a": jnp.ones(3)}, histogram=False))
    several = jax.vmap(lambda x: layer_stats({"a": x}))(jnp.ones((2, 3)))
    with pytest.raises(ValueError, match=r"means of the shape \(2, 1\) for 1 layers"):
        recorder.add(1.0, several)
    with pytest.raises(TypeError, match=r"got a tracer: return the loss and the statistics"):
        jax.jit(recorder.add)(1.0)
    assert recorder.record().steps == 1


def test_recorder_keeps_the_order_of_layers():
    recorder = Recorder()
    outputs = {"b": jnp.zeros(3), "a": jnp.ones(2)}
    recorder.add(1.0, layer_stats(outputs))
    recorder.add(1.0, layer_stats(dict(reversed(outputs.items()))))
    record = recorder.record()
    assert record.layers == ("b", "a")
    assert record.sizes.tolist() == [3, 2]
    assert record.mean.tolist() == [[0, 1], [0, 1]]


def test_recorder_rejects_other_parameters():
    params = {"w": jnp.ones((2, 2))}
    recorder = Recorder()
    recorder.add(1.0, None, parameter_stats(params, grads=params))
    with pytest.raises(ValueError, match=r"parameters must be the same .* update_norm"):
        recorder.add(1.0, None, parameter_stats(params, updated=params))
    scanned = jax.vmap(lambda p: parameter_stats(p, grads=p))({"w": jnp.ones((3, 2, 2))})
    with pytest.raises(ValueError, match=r"of one step, got norms of the shape \(3, 1\)"):
        recorder.add(1.0, None, scanned)
    with pytest.raises(TypeError, match=r"parameters must be what parameter_stats"):
        recorder.add(1.0, None, params)
    recorder.add(1.0)
    record = recorder.record()
    assert (record.steps, record.parameters.watched.tolist()) == (2, [0])


def test_recorder_keeps_the_bins_and_rejects_others():
    recorder = Recorder()
    stats = layer_stats({"a": jnp.array([-2.0, 0.0, 3.0])}, bins="symmetric")
    recorder.add(1.0)
    recorder.add(1.0, jax.jit(lambda s: s)(stats))
    record = recorder.record()
    assert record.hist_edges[[0, -1]].tolist() == [-5, 5]
    assert np.flatnonzero(record.hist[0, 0]).tolist() == [12, 20, 32]
    with pytest.raises(ValueError, match=r"the same bins.*low=0\.0.* after .*low=-5\.0"):
        recorder.add(1.0, layer_stats({"a": jnp.ones(3)}))
    with pytest.raises(ValueError, match=r"bins must be 'fastai'.* got 'gelu'"):
        layer_stats({"a": jnp.ones(3)}, bins="gelu")


@pytest.mark.parametrize("layout", ["NHWC", "CHWN"])
def test_layer_stats_finds_channels_in_every_layout(layout):
    model = ConvNet((1, 4, 3), stride=4, layout=layout, rngs=nnx.Rngs(0))
    _, outputs = capture(model, X[0])
    axes = channel_axes(model, outputs)
    recorder = Recorder()
    recorder.add(1.0, layer_stats(outputs, units=True, channel_axes=axes))
    assert recorder.record().channels.tolist() == [4, 3]
