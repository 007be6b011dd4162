"""Loops of Flax Linen, Haiku, Equinox and Optax alone, watched."""

from dataclasses import replace
from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from convjax.stats import _watched_program
from convjax.stats.recorder import Recorder
from tests.stats.watched import equinox_loops, haiku_loops, linen_loops, linen_models
from tests.stats.watched.cases import check, run_plain, run_watched
from tests.stats.watched.data import LABELS, VECTOR_BATCHES, VECTORS, cross_entropy

CASES = [*linen_loops.CASES, *haiku_loops.CASES, *equinox_loops.CASES]
# Those that compile longest; each has a faster one of its kind.
SLOW = (
    "transformer",
    "dynamic loss scale",
    "ImageNet",
    "remat_scan",
    "pmap",
    "as a transformation",
    "Linen: LSTM",
    "Linen: remat",
    "vmap over members",
    "Haiku: CNN with a key",
    "Equinox: CNN",
    "Equinox: GRU, scan",
    "frozen by multi_transform",
)


@pytest.mark.parametrize(
    "case",
    [
        pytest.param(case, marks=[pytest.mark.slow] if case.name.endswith(SLOW) else [])
        for case in CASES
    ],
    ids=str,
)
def test_watched_loop_is_the_plain_one(case):
    check(case)


def test_watched_step_records_that_an_update_was_skipped():
    (case,) = (case for case in CASES if case.name == "Linen: apply_if_finite")
    broken = VECTORS[1].copy()
    broken[0, 0] = np.nan
    case = replace(case, batches=[VECTOR_BATCHES[0], (broken, LABELS[1]), VECTOR_BATCHES[2]])
    plain, found = run_plain(case), run_watched(case)
    for wanted, value in zip(plain.state, found.state, strict=True):
        np.testing.assert_array_equal(value, wanted)
    assert np.isnan(found.record.loss).tolist() == [False, True, False]
    updates = found.record.parameters.update_norm
    assert (updates[1] == 0).all()
    assert (updates[[0, 2]] > 0).all()


def averaging(params, average, opt_state, x):
    """One step that passes no parameters, and has two candidates for them."""

    def loss_fn(params):
        return jnp.mean((x @ params["w"] - 1) ** 2)

    loss, grads = jax.value_and_grad(loss_fn)(params)
    updates, opt_state = optax.sgd(0.1).update(grads, opt_state)
    params = optax.apply_updates(params, updates)
    average = optax.incremental_update(params, average, 0.1)
    return params, average, opt_state, loss


def test_watched_step_does_not_guess_the_parameters():
    params, opt_state = {"w": jnp.ones(8)}, optax.sgd(0.1).init({"w": jnp.ones(8)})
    recorder = Recorder()
    with pytest.warns(UserWarning, match=r"does not get the parameters\. Write update\(grads"):
        recorder.watch(averaging)(params, params, opt_state, VECTORS[0])
    assert recorder.record().parameters is None


@pytest.mark.filterwarnings("error::UserWarning")
def test_watched_loss_in_evaluation_mode_with_static_and_donated_arguments(monkeypatch):
    monkeypatch.setattr(_watched_program, "EVALUATION_STEPS", 1)
    model, tx = linen_models.DroppingMLP(), optax.sgd(0.1)

    def train_step(params, opt_state, x, y, train):
        def loss_fn(params):
            rngs = {"dropout": jax.random.key(0)}
            return cross_entropy(model.apply(params, x, train=train, rngs=rngs), y)

        loss, grads = jax.value_and_grad(loss_fn)(params)
        updates, opt_state = tx.update(grads, opt_state, params)
        return optax.apply_updates(params, updates), opt_state, loss

    params = model.init(jax.random.key(0), VECTORS[0], train=False)
    recorder, opt_state = Recorder(), tx.init(params)
    jit = partial(jax.jit, static_argnums=4, donate_argnums=(0, 1))
    step = recorder.watch(train_step, jit=jit)
    params, opt_state, _ = step(params, opt_state, *VECTOR_BATCHES[0], True)
    x, y = VECTOR_BATCHES[1]
    wanted = cross_entropy(model.apply(params, x, train=False), y)
    _, _, loss = step(params, opt_state, x, y, True)
    record = recorder.record()
    np.testing.assert_allclose(record.eval_loss[1], wanted, rtol=1e-6)
    assert abs(record.loss[1] - wanted) > 1e-3  # dropout makes a difference
    assert record.loss[1] == loss
