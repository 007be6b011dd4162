from functools import cache
from typing import Any, NamedTuple

import jax
import numpy as np
import pytest

from convjax.optim.optimizers import adam
from convjax.parallel.placement import Placement
from convjax.stats.activations import ActivationStats
from convjax.stats.record import Record
from convjax.stats.watch import Watch
from convjax.train import scan_loop
from convjax.train.trainer import Trainer
from tests.helpers import assert_trees_close, on_accelerator
from tests.trainings import MEAN, STD, STEPS, Normed, batches, conv_net, split, table

pytestmark = pytest.mark.usefixtures("small_chunks")


class Trained(NamedTuple):
    trainer: Trainer
    state: Any
    record: Record
    arrived: list[int]


@cache
def normed_trainer(watch, fixed):
    """Returns a trainer per setting, each with its own programs, compiled in the first run."""
    del fixed
    return Trainer(Normed(), adam(), mean=MEAN, std=STD, watch=watch)


def trained(watch, steps=STEPS, *, fixed=False):
    """Trains in float64, with loops of fixed length as on an accelerator or without."""
    arrived = []
    with jax.enable_x64(True), pytest.MonkeyPatch.context() as patch:
        if fixed:
            patch.setattr(scan_loop, "platform_dependent", on_accelerator)
            patch.setattr(Placement, "platform", "gpu")
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
    """Compares everything except the statistics."""
    # The same float64 operations on numbers of order 1, which the compiler may fuse differently:
    # roundings of 1e-16, magnified a thousandfold per step at most.
    assert_trees_close(found.state, wanted.state, rtol=1e-10, atol=1e-12)
    np.testing.assert_allclose(found.record.loss, wanted.record.loss, rtol=1e-10)
    for name in ("learning_rate", "momentum"):
        np.testing.assert_array_equal(getattr(found.record, name), getattr(wanted.record, name))


def assert_same_statistics(found, wanted, rows, names=ActivationStats._fields[:-1]):
    """Compares statistics with rows of the wanted record."""
    assert found.layers == wanted.layers == ("norm", "linear")
    assert found.sizes.tolist() == wanted.sizes.tolist() == [160, 15]
    for name in names:
        # Sums in float32 of at most 160 values of order 1; counts, and shares by them, are exact.
        atol = 1e-6 if name in ("mean", "std") else 0
        actual, expected = getattr(found, name), getattr(wanted, name)[rows]
        np.testing.assert_allclose(actual, expected, rtol=0, atol=atol, err_msg=name, strict=True)


def test_record_columns_are_in_the_order_of_the_layers():
    # norm is called before linear, and has 160 values to its 15.
    assert not trained(Watch()).record.nan().any()


@pytest.mark.parametrize(
    ("every", "arrived"), [(2, [4, 4, 1]), (3, [6, 3]), (5, [5, 4]), (20, [9])]
)
def test_run_steps_every_few_steps_equals_every_step(every, arrived):
    found, wanted = trained(Watch(every=every)), trained(Watch())
    assert found.arrived == arrived  # so that watched steps lie in several chunks
    assert wanted.record.watched.tolist() == list(range(STEPS))
    watched = list(range(0, STEPS, every))
    assert found.record.watched.tolist() == watched
    assert len(np.unique(wanted.record.mean[:, 1])) == STEPS  # so that a wrong row would show
    assert_same_statistics(found.record, wanted.record, watched)
    assert_same_training(found, wanted)


def test_run_without_watch_records_no_layers():
    found = trained(None)
    assert_same_training(found, trained(Watch()))
    record = found.record
    assert (record.layers, record.sizes.tolist(), record.watched.tolist()) == ((), [], [])
    assert record.std.shape == record.under.shape == (0, 0)
    assert record.hist.shape == (0, 0, 40)


def test_run_without_histograms_records_other_statistics():
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
def test_run_steps_in_fixed_loops_trains_alike(every, steps, arrived):
    # The last chunk is full, or has steps past the end, which must not change the state, including
    # running statistics and moments.
    found, wanted = (trained(Watch(every=every), steps, fixed=fixed) for fixed in (True, False))
    assert found.arrived == arrived
    assert_same_training(found, wanted)
    assert found.record.watched.tolist() == list(range(0, steps, every))
    assert_same_statistics(found.record, wanted.record, slice(None))


@pytest.mark.parametrize("platform", ["cpu", "cuda", "tpu"])
@pytest.mark.parametrize("every", [1, 3])
def test_run_steps_has_loops_of_known_length_except_on_cpu(platform, every, x64):
    trainer = Trainer(Normed(), adam(), watch=Watch(every=every))
    rates = {name: np.asarray(column, np.float32) for name, column in table(6).items()}
    args = trainer.start(Normed()), split(), batches(6), rates, np.int32(4)
    traced = jax.jit(trainer.chunks.take).trace(*args)
    text = traced.lower(lowering_platforms=(platform,)).as_text()
    # Only where the number of steps that count bounds the loops is it converted to a bound.
    whole = "stablehlo.constant dense<6> : tensor<i32>" if every == 1 else "dense<2>"
    assert "stablehlo.while" in text
    if platform != "cpu":
        assert whole in text


def test_chunk_length_equals_values_by_hand():
    def lengths(platform, every, *steps):
        return [scan_loop.chunk_length(count, every, platform) for count in steps]

    # CHUNK is 4. On CPU the length depends only on `every`, so that there is one program.
    assert lengths("cpu", 1, 1, 4, 5, 100) == [4] * 4
    assert lengths("cpu", 3, 1, 4, 5, 100) == [6] * 4
    assert lengths("cpu", 1000, 1, 4, 5) == [4, 4, 5]  # no room for steps that do not come
    # Elsewhere 5 steps are 3 + 2 and 9 are 3 + 3 + 3, then rounded up for watched steps.
    assert lengths("gpu", 1, 1, 4, 5, 9, 100) == [1, 4, 3, 3, 4]
    assert lengths("tpu", 2, 1, 4, 5, 9, 100) == [1, 4, 4, 4, 4]
    assert lengths("gpu", 1000, 1, 5, 9) == [1, 5, 9]


def test_run_compiles_one_program_for_all_lengths_and_rates(run):
    traces = run.loss.traces
    trainer = run.trainer
    flat = {"learning_rate": [0.1] * 3, "momentum": np.full(3, 0.8)}
    for steps, rates in ((3, flat), (4, table(4, lr_max=1.0)), (11, table(11)), (1, table(1))):
        state, record = trainer.run(trainer.start(conv_net(1)), split(), batches(steps, 7), rates)
        assert record.steps == steps
        # The same from a state that a training returned.
        trainer.run(state, split(), batches(steps, 8), rates)
    assert run.loss.traces == traces
    assert trainer.chunks.resident.programs == 1


def test_run_compiles_one_program_for_unwatched_steps(x64):
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
    assert trainer.chunks.resident.programs == 1
    assert trainer.compile_seconds == seconds
