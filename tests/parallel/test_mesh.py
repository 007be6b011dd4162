"""Training over several devices; the tests' configuration shows four of them on CPU."""

from functools import cache
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx
from jax.sharding import Mesh

from convjax.data import Split
from convjax.nn import sync_batch_norm
from convjax.nn.layers import BatchNorm, Linear
from convjax.nn.models import ConvNet
from convjax.optim.optimizers import adam
from convjax.optim.schedules import one_cycle
from convjax.parallel.mesh import (
    REPLICATED,
    SPLIT_FIRST,
    data_mesh,
    gather_over_devices,
    mean_over_devices,
    on_devices,
    place,
    replicate,
)
from convjax.parallel.placement import Placement
from convjax.stats.activations import ActivationStats
from convjax.stats.record import Record
from convjax.stats.watch import Watch
from convjax.train import scan_loop
from convjax.train.device_data import Images
from convjax.train.evaluation import Scores
from convjax.train.trainer import Trainer
from tests.helpers import assert_trees_close, on_accelerator

STEPS, BATCH, EXAMPLES, CLASSES = 7, 8, 23, 3


def devices(count):
    found = jax.devices("cpu")[:count]
    assert len(found) == count
    return found


class Normed(nnx.Module):
    """Batch norm of ours or Flax's between two linear layers, in float64."""

    def __init__(self, norm):
        rngs = nnx.Rngs(0)
        self.linear = Linear(12, 8, param_dtype=jnp.float64, rngs=rngs)
        self.norm = norm
        self.last = Linear(8, CLASSES, param_dtype=jnp.float64, rngs=rngs)

    def __call__(self, x):
        x = self.linear(x.reshape(len(x), -1))
        if self.norm is not None:
            x = self.norm(x[:, None, None])[:, 0, 0]
        return self.last(x)


def flax_norm():
    norm = nnx.BatchNorm(8, param_dtype=jnp.float64, dtype=jnp.float64, rngs=nnx.Rngs(0))
    for running in (norm.mean, norm.var):  # Flax makes them float32 in any case
        running.set_value(running[...].astype(jnp.float64))
    return norm


NORMS = {
    "none": lambda: None,
    "convjax": lambda: BatchNorm(8, param_dtype=jnp.float64),
    "flax": flax_norm,
}


def split():
    rng = np.random.default_rng(0)
    pixels = rng.integers(0, 256, (EXAMPLES, 2, 2, 3), np.uint8)
    labels = rng.integers(0, CLASSES, EXAMPLES)
    return Images(jnp.asarray(pixels), jnp.asarray(labels, jnp.int32))


def batches(steps=STEPS, seed=0):
    return np.random.default_rng(seed).integers(0, EXAMPLES, (steps, BATCH))


class Trained(NamedTuple):
    trainer: Trainer
    state: Any
    record: Record
    scores: Scores


@cache
def trained(norm: str, count: int | None, *, every: int = 1, fixed: bool = False) -> Trained:
    """A training in float64 in chunks of four steps, on devices or the default one."""
    with jax.enable_x64(True), pytest.MonkeyPatch.context() as patch:
        patch.setattr(scan_loop, "CHUNK_STEPS", 4)
        if fixed:
            patch.setattr(scan_loop, "platform_dependent", on_accelerator)
            patch.setattr(Placement, "platform", "gpu")
        model = Normed(NORMS[norm]())
        watch = Watch(every=every)
        chosen = None if count is None else devices(count)
        trainer = Trainer(model, adam(), mean=0.4, std=0.3, watch=watch, devices=chosen)
        table = one_cycle(STEPS, 0.05).table(STEPS)
        state, record = trainer.run(trainer.start(model), split(), batches(), table)
        scores = trainer.evaluate(state, split(), batch_size=7)
        return Trained(trainer, state, record, scores)


def assert_same(found: Trained, wanted: Trained) -> None:
    # The same sums of float64 numbers of order 1 in another order: 1e-15, which Adam's division by
    # the root of a small second moment magnifies.
    arrays = (jax.tree.map(np.array, training.state) for training in (found, wanted))
    assert_trees_close(*arrays, rtol=1e-9, atol=1e-11)
    np.testing.assert_allclose(found.record.loss, wanted.record.loss, rtol=1e-10)
    for name in ("layers", "sizes", "watched", "learning_rate", "momentum"):
        np.testing.assert_array_equal(getattr(found.record, name), getattr(wanted.record, name))
    for name in ActivationStats._fields:
        # Float32 sums of at most 64 values of order 1, and shares below 1; counts are exact.
        atol = {"mean": 1e-6, "std": 1e-6, "near_zero": 2e-7, "abs_near_zero": 2e-7}.get(name, 0)
        actual, expected = getattr(found.record, name), getattr(wanted.record, name)
        np.testing.assert_allclose(actual, expected, rtol=0, atol=atol, err_msg=name, strict=True)
    assert found.scores.correct == wanted.scores.correct
    assert found.scores.examples == wanted.scores.examples == EXAMPLES
    assert found.scores.loss == pytest.approx(wanted.scores.loss, rel=1e-9)


@pytest.mark.parametrize("norm", NORMS)
@pytest.mark.parametrize("count", [1, 2, 4])
def test_trainer_on_devices_is_that_on_one(norm, count):
    assert_same(trained(norm, count), trained(norm, None))


def test_batch_norm_changes_the_reference():
    # The batch's parts differ: normalised each by itself they would end elsewhere.
    first, second = np.split(np.asarray(split().images, np.float64)[batches()[0]], 2)
    assert np.abs(first.mean(0) - second.mean(0)).max() > 1
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("convjax.train.step.set_axis_name", lambda model, name: None)
        unsynchronized = trained.__wrapped__("convjax", 2)
    wanted = trained("convjax", None)
    assert np.abs(unsynchronized.record.loss - wanted.record.loss).max() > 1e-3


@pytest.mark.parametrize("fixed", [False, True])
def test_trainer_on_devices_watches_every_second_step(fixed):
    found, wanted = (trained("convjax", n, every=3, fixed=fixed) for n in (2, None))
    assert found.record.watched.tolist() == [0, 3, 6]
    assert_same(found, wanted)


def test_trainer_on_devices_compiles_one_program():
    trainings = trained("convjax", None), trained("convjax", 2)
    with jax.enable_x64(True), pytest.MonkeyPatch.context() as patch:
        patch.setattr(scan_loop, "CHUNK_STEPS", 4)
        table = one_cycle(5, 0.05).table(5)
        losses = []
        for source, target in ((0, 1), (1, 0), (0, 0)):
            # A copy, which the run may give up, as it lies on the devices of its training.
            state = jax.tree.map(jnp.copy, trainings[source].state)
            trainer = trainings[target].trainer
            after, record = trainer.run(state, split(), batches(5, 1), table)
            assert trainer.chunks.resident.programs == 1
            assert {len(leaf.devices()) for leaf in jax.tree.leaves(after)} == {target + 1}
            losses.append(record.loss)
        np.testing.assert_allclose(losses, np.broadcast_to(losses[0], (3, 5)), rtol=1e-9)


@pytest.mark.parametrize("count", [None, 2])
def test_trainer_model_outlives_its_state(count):
    training = trained("convjax", count)
    with jax.enable_x64(True):
        state = jax.tree.map(jnp.copy, training.state)
        model = training.trainer.model(state)
        before = jax.tree.map(np.array, nnx.state(model))
        training.trainer.run(state, split(), batches(4, 1), one_cycle(4, 0.05).table(4))
        assert_trees_close(jax.tree.map(np.array, nnx.state(model)), before, rtol=0, atol=0)
        # And it is for one device, wherever it was trained.
        assert {leaf.device for leaf in jax.tree.leaves(nnx.state(model))} == set(devices(1))


def test_images_put_keeps_placed_arrays():
    trainer = trained("none", 2).trainer
    host = Split(np.asarray(split().images), np.asarray(split().labels))
    data = Images.put(host, devices(2))
    assert trainer._placement.put(data).images is data.images
    assert len(data.images.devices()) == 2
    with jax.enable_x64(True):
        scores = trainer.evaluate(trained("none", 2).state, data, batch_size=7)
    assert scores == trained("none", 2).scores


def test_trainer_on_devices_in_float32():
    # CHWN: the batch is the last axis of the maps, and the shift of its moments is taken from it.
    rng = np.random.default_rng(0)
    images = rng.integers(0, 256, (20, 8, 8, 1), np.uint8)
    data = Images.put(Split(images, rng.integers(0, 3, 20).astype(np.int32)))
    model = ConvNet((1, 4, 3), norm="batch", stride=4, layout="CHWN", rngs=nnx.Rngs(0))
    order, table = batches(3) % 20, one_cycle(3, 0.01).table(3)
    found = []
    for chosen in (None, devices(4)):
        trainer = Trainer(model, adam(), watch=None, devices=chosen)
        state, record = trainer.run(trainer.start(model), data, order, table)
        few = Images(data.images[:3], data.labels[:3])  # fewer than devices
        found.append((record.loss, trainer.evaluate(state, few)))
        assert record.layers == ()
    # Three steps in float32, whose first gradients Adam scales to 1: roundings of 1e-7 stay below
    # 1e-4 unless a gradient is nearly 0.
    np.testing.assert_allclose(found[0][0], found[1][0], rtol=1e-4)
    assert found[0][1].correct == found[1][1].correct
    assert found[0][1].loss == pytest.approx(found[1][1].loss, rel=1e-2)


def test_trainer_on_devices_without_histograms():
    found = trained("convjax", 2)
    with jax.enable_x64(True):
        model = Normed(NORMS["convjax"]())
        trainer = Trainer(
            model, adam(), mean=0.4, std=0.3, watch=Watch(histogram=False), devices=devices(2)
        )
        table = one_cycle(STEPS, 0.05).table(STEPS)
        _, record = trainer.run(trainer.start(model), split(), batches(), table)
    assert record.hist.shape == (0, 3, 40)
    np.testing.assert_allclose(record.std, found.record.std, rtol=1e-6)


def test_trainer_on_devices_exchanges_once_per_step():
    trainer = trained("none", 2).trainer
    with jax.enable_x64(True):
        table = {name: np.zeros(4, np.float32) for name in ("learning_rate", "momentum")}
        args = trainer.start(Normed(None)), split(), batches(4), table, np.int32(4)
        program = str(jax.make_jaxpr(trainer.chunks.resident._jitted)(*args))
    assert program.count("psum") == 1
    assert not any(word in program for word in ("all_gather", "all_to_all", "ppermute"))


def test_mean_over_devices_by_hand():
    mesh = data_mesh(devices(2))
    tree = {
        "single": jnp.array([1.0, 3.0], jnp.float32),
        "half": jnp.array([[1.0, 2.0], [4.0, 8.0]], jnp.bfloat16),
    }
    mean = on_devices(mean_over_devices, mesh, (SPLIT_FIRST,), REPLICATED)
    found = mean(tree)
    assert {name: (x.dtype.name, x.tolist()) for name, x in found.items()} == {
        "single": ("float32", [2.0]),
        "half": ("bfloat16", [[2.5, 5.0]]),
    }


def test_gather_over_devices_by_hand():
    mesh = data_mesh(devices(2))
    # Two dtypes in turns, and whole numbers that float32 does not hold.
    tree = {
        "a": jnp.array([[1.5], [2.5]], jnp.float32),
        "b": jnp.array([2**24 + 1, 2**24 + 3], jnp.int32),
        "c": jnp.array([[[1.0, 2.0]], [[3.0, 4.0]]], jnp.float32),
        "d": jnp.array([True, False]),
    }
    gathered = on_devices(
        lambda part: gather_over_devices(jax.tree.map(lambda a: a[0], part)),
        mesh,
        (SPLIT_FIRST,),
        REPLICATED,
    )
    found = jax.jit(gathered)(tree)
    assert_trees_close(found, tree)
    assert jax.tree.map(lambda a: a.dtype, found) == jax.tree.map(lambda a: a.dtype, tree)
    assert str(jax.make_jaxpr(gathered)(tree)).count("= all_gather[") == 3  # one for each dtype


@pytest.mark.parametrize("spans", [False, True])
def test_place_on_devices(spans, monkeypatch):
    mesh = data_mesh(devices(2))
    monkeypatch.setattr("convjax.parallel.mesh.spans_processes", lambda mesh: spans)
    values = np.arange(12, dtype=np.float64).reshape(4, 3)
    first = place(values, mesh, SPLIT_FIRST)
    assert [shard.data.tolist() for shard in first.addressable_shards] == [
        values[:2].tolist(),
        values[2:].tolist(),
    ]
    assert first.dtype == np.float32  # as everywhere without x64
    everywhere = replicate((first, 5), mesh)
    for array, wanted in zip(everywhere, (values, 5), strict=True):
        assert array.is_fully_replicated
        np.testing.assert_array_equal(array, wanted)
    assert replicate(everywhere[0], mesh) is everywhere[0]


def test_data_mesh_keeps_the_order_of_devices():
    one, two, three = devices(3)
    mesh = data_mesh([three, one, two])
    assert isinstance(mesh, Mesh)
    assert (mesh.axis_names, list(mesh.devices)) == (("batch",), [three, one, two])


@pytest.mark.parametrize("chosen", [[], [0, 1, 0]])
def test_data_mesh_rejects_none_and_repeated(chosen):
    with pytest.raises(ValueError, match=r"devices must be one device or more, each once.*\["):
        data_mesh([devices(2)[i] for i in chosen])


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"process_index": 1}, r"must include one of this process.*jax.local_devices\(\)"),
        ({"platform": "gpu"}, "of one platform"),
    ],
)
def test_data_mesh_rejects_devices_of_several_kinds(change, message):
    class Device(NamedTuple):
        number: int
        process_index: int = jax.process_index()
        platform: str = "cpu"

    chosen: Any = [Device(0, **change), Device(1, **{**change, "platform": "cpu"})]
    with pytest.raises(ValueError, match=message):
        data_mesh(chosen)


def test_trainer_sets_the_axis_of_batch_norm_only():
    norms = nnx.List(
        [BatchNorm(3), nnx.BatchNorm(3, rngs=nnx.Rngs(0)), nnx.LayerNorm(3, rngs=nnx.Rngs(0))]
    )
    sync_batch_norm.set_axis_name(norms, "batch")
    assert [norm.axis_name for norm in norms] == ["batch", "batch", None]
    sync_batch_norm.set_axis_name(norms, None)
    assert [norm.axis_name for norm in norms] == [None] * 3


@pytest.mark.parametrize("count", [None, 2])
def test_trainer_replaces_the_axis_of_the_model(count):
    with jax.enable_x64(True):
        model = Normed(BatchNorm(8, axis_name="mine", param_dtype=jnp.float64))
        chosen = None if count is None else devices(count)
        trainer = Trainer(model, adam(), mean=0.4, std=0.3, devices=chosen)
        table = one_cycle(STEPS, 0.05).table(STEPS)
        _, record = trainer.run(trainer.start(model), split(), batches(), table)
    np.testing.assert_allclose(record.loss, trained("convjax", None).record.loss, rtol=1e-10)
    assert model.norm.axis_name == "mine"


class Averaging(nnx.Module):
    """Keeps a statistic of its batches that only it knows how to update."""

    def __init__(self):
        self.seen = nnx.BatchStat(jnp.zeros(()))


class Pooling(nnx.Module):
    """A watched layer whose output has the same size for every batch."""

    def __init__(self):
        self.scale = nnx.Param(jnp.ones(()))

    def __call__(self, x):
        return x.mean(0) * self.scale


class Pooled(nnx.Module):
    def __init__(self):
        self.pooling = Pooling()
        self.linear = Linear(12, CLASSES, rngs=nnx.Rngs(0))

    def __call__(self, x):
        x = x.reshape(len(x), -1)
        return self.linear(x - self.pooling(x))


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: nnx.Dropout(0.5, rngs=nnx.Rngs(0)), "draws random numbers"),
        (lambda: nnx.List([Averaging()]), r"Averaging \(0\)"),
        (Averaging, "Averaging .the model itself"),
    ],
)
def test_trainer_rejects_a_model_that_does_not_split(make, message):
    with pytest.raises(ValueError, match=f"devices must be None.*{message}"):
        Trainer(make(), adam(), devices=devices(2))


def test_trainer_rejects_a_watched_output_that_does_not_split():
    trainer = Trainer(Pooled(), adam(), devices=devices(2))
    for _ in range(2):  # an error is not cached as a success
        with pytest.raises(ValueError, match="None to watch pooling, whose output has 12 values"):
            trainer.run(trainer.start(Pooled()), split(), batches(2), one_cycle(2, 0.1).table(2))


def test_trainer_rejects_batches_that_do_not_split(x64):
    trainer = trained("none", 4).trainer
    model, table = Normed(None), one_cycle(2, 0.1).table(2)
    with pytest.raises(ValueError, match=r"multiple of the 4 devices, got 6 .*Use 4 or 8"):
        trainer.run(trainer.start(model), split(), batches(2)[:, :6], table)


@pytest.mark.parametrize("chosen", [2, "cpu", jax.Device])
def test_data_mesh_rejects_other_types(chosen):
    with pytest.raises(TypeError, match=r"devices must be a sequence of JAX devices, got"):
        data_mesh(chosen)
