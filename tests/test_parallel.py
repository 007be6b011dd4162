"""Training over several devices; the tests' configuration shows four of them on CPU."""

from functools import cache
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx
from jax.sharding import Mesh

from convjax import chunks, parallel
from convjax.layers import BatchNorm, Linear
from convjax.optim import adam
from convjax.record import Record
from convjax.schedules import one_cycle
from convjax.stats import ActivationStats
from convjax.train import Images, Scores, Trainer
from convjax.watch import Watch
from tests.helpers import assert_trees_close

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
    """A training in float64 in chunks of four steps, on so many devices, or on none named."""
    with jax.enable_x64(True), pytest.MonkeyPatch.context() as patch:
        patch.setattr(chunks, "CHUNK", 4)
        patch.setattr(chunks, "fixed_loops", lambda: fixed)
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
def test_several_devices_train_as_one(norm, count):
    assert_same(trained(norm, count), trained(norm, None))


def test_batch_norm_matters_here():
    # The batch's parts differ: normalised each by itself they would end elsewhere.
    first, second = np.split(np.asarray(split().images, np.float64)[batches()[0]], 2)
    assert np.abs(first.mean(0) - second.mean(0)).max() > 1
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(parallel, "synchronize", lambda model: None)
        unsynchronized = trained.__wrapped__("convjax", 2)
    wanted = trained("convjax", None)
    assert np.abs(unsynchronized.record.loss - wanted.record.loss).max() > 1e-3


@pytest.mark.parametrize("fixed", [False, True])
def test_steps_between_the_watched(fixed):
    found, wanted = (trained("convjax", n, every=3, fixed=fixed) for n in (2, None))
    assert found.record.watched.tolist() == [0, 3, 6]
    assert_same(found, wanted)


def test_one_program_and_a_state_of_another_trainer():
    one, two = trained("convjax", None), trained("convjax", 2)
    assert two.trainer._run_chunk.programs == 1
    with jax.enable_x64(True), pytest.MonkeyPatch.context() as patch:
        patch.setattr(chunks, "CHUNK", 4)
        table = one_cycle(5, 0.05).table(5)
        states = [jax.tree.map(jnp.asarray, jax.device_get(one.state)) for _ in range(2)]
        runs = [
            training.trainer.run(state, split(), batches(5, 1), table)
            for training, state in zip((one, two), states, strict=True)
        ]
        assert two.trainer._run_chunk.programs == 1
        np.testing.assert_allclose(runs[0][1].loss, runs[1][1].loss, rtol=1e-10)
        # The model is for one device, wherever it was trained.
        leaves = jax.tree.leaves(nnx.state(two.trainer.model(runs[1][0])))
        assert {leaf.device for leaf in leaves} == {jax.devices()[0]}


def test_one_exchange_per_step_without_batch_norm():
    trainer = trained("none", 2).trainer
    with jax.enable_x64(True):
        table = {name: np.zeros(4, np.float32) for name in ("learning_rate", "momentum")}
        args = trainer.start(Normed(None)), split(), batches(4), table, np.int32(4)
        program = str(jax.make_jaxpr(trainer._run_chunk._jitted)(*args))
    assert program.count("psum") == 1


def test_the_mean_over_devices_by_hand():
    mesh = parallel.data_mesh(devices(2))
    tree = {
        "single": jnp.array([1.0, 3.0], jnp.float32),
        "half": jnp.array([[1.0, 2.0], [4.0, 8.0]], jnp.bfloat16),
    }
    mean = parallel.on_devices(
        parallel.mean_over_devices, mesh, (parallel.FIRST,), parallel.EVERYWHERE
    )
    found = mean(tree)
    assert {name: (x.dtype.name, x.tolist()) for name, x in found.items()} == {
        "single": ("float32", [2.0]),
        "half": ("bfloat16", [[2.5, 5.0]]),
    }


def test_the_mesh_keeps_the_order_of_the_devices():
    one, two, three = devices(3)
    mesh = parallel.data_mesh([three, one, two])
    assert isinstance(mesh, Mesh)
    assert (mesh.axis_names, list(mesh.devices)) == (("batch",), [three, one, two])


@pytest.mark.parametrize("chosen", [[], [0, 1, 0]])
def test_the_mesh_rejects(chosen):
    with pytest.raises(ValueError, match=r"devices must be one device or more, each once.*\["):
        parallel.data_mesh([jax.devices()[i] for i in chosen])


def test_synchronize_reaches_batch_norm_alone():
    norms = nnx.List(
        [BatchNorm(3), nnx.BatchNorm(3, rngs=nnx.Rngs(0)), nnx.LayerNorm(3, rngs=nnx.Rngs(0))]
    )
    parallel.synchronize(norms)
    assert [norm.axis_name for norm in norms] == ["batch", "batch", None]


def test_a_model_that_draws_random_numbers_is_rejected():
    model = nnx.Dropout(0.5, rngs=nnx.Rngs(0))
    with pytest.raises(ValueError, match="devices must be None for a model that draws random"):
        Trainer(model, adam(), devices=devices(2))


def test_batches_that_do_not_split_are_rejected(x64):
    trainer = trained("none", 4).trainer
    model, table = Normed(None), one_cycle(2, 0.1).table(2)
    with pytest.raises(ValueError, match=r"batches of a multiple of 4.*got batches of 6"):
        trainer.run(trainer.start(model), split(), batches(2)[:, :6], table)
