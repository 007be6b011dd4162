"""Norms and magnitudes of parameters, gradients and updates, against NumPy and by hand."""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from flax import nnx
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays
from jax.sharding import AxisType, NamedSharding, PartitionSpec

from convjax.nn.models import digits_net
from convjax.stats import parameter_forms as library
from convjax.stats.parameter_forms import LOG_BINS, LOG_FIRST
from convjax.stats.parameter_record import ParameterRecord
from convjax.stats.parameters import Described, applied, describe, parameter_stats

TREE = {"b": jnp.array([3.0, 4.0]), "k": jnp.array([[0.0, -2.0], [np.inf, np.nan]])}


def test_parameter_stats_by_hand():
    grads = {"b": jnp.array([6.0, 8.0]), "k": jnp.zeros((2, 2))}
    updated = {"b": jnp.array([3.0, 3.5]), "k": TREE["k"]}
    found = parameter_stats(TREE, grads=grads, updated=updated)
    assert found.of == (("b", "k"), (2, 4), (1, 2))
    stats = found.stats
    assert stats.weight_norm[0] == 5
    assert stats.grad_norm.tolist() == [10, 0]
    assert stats.update_norm[0] == 0.5
    # 6 and 8 lie in 4..8 and 8..16, whose lower ends are 2^2 and 2^3; 0.5 is 2^-1, 0 is under.
    assert np.flatnonzero(stats.grad_hist[0]).tolist() == [2 - LOG_FIRST + 1, 3 - LOG_FIRST + 1]
    assert (stats.update_hist[0, 0], stats.update_hist[0, -1 - LOG_FIRST + 1]) == (1, 1)
    assert stats.grad_hist[1, 0] == 4
    # inf − inf and NaN − NaN are NaN, which no bin counts.
    assert stats.update_hist[1].sum() == 2


finite = st.floats(-1e4, 1e4, width=32)
any_float = st.floats(width=32, allow_nan=True, allow_infinity=True)


@settings(max_examples=50, deadline=None)  # one compiled program
@given(arrays(np.float32, 30, elements=any_float))
def test_parameter_stats_magnitudes_equal_numpy(x):
    found = parameter_stats({"x": jnp.asarray(x)}, grads={"x": jnp.asarray(x)}).stats.grad_hist[0]
    edges = 2.0 ** np.arange(LOG_FIRST, LOG_FIRST + LOG_BINS + 1)
    size = np.abs(x[~np.isnan(x)].astype(np.float64))
    bins = np.searchsorted(edges, size, side="right")
    np.testing.assert_array_equal(found, np.bincount(bins, minlength=LOG_BINS + 2))


@settings(max_examples=50, deadline=None)  # one compiled program
@given(arrays(np.float32, 30, elements=finite))
def test_parameter_stats_norms_equal_numpy(x):
    found = parameter_stats({"x": jnp.asarray(x)}, updated={"x": jnp.zeros(x.shape)}).stats
    wanted = np.linalg.norm(x.astype(np.float64))
    # Sums of at most 30 squares in float32, whose smallest vanish.
    np.testing.assert_allclose(found.update_norm[0], wanted, rtol=1e-6, atol=1e-18)
    assert found.update_norm[0] == found.weight_norm[0]


def test_parameter_stats_names_are_paths_of_the_model():
    params = nnx.state(digits_net(rngs=nnx.Rngs(0)), nnx.Param)
    found = jax.jit(lambda p: parameter_stats(p, grads=p))(params)
    assert found.of.names[:2] == ("blocks.0.conv.bias", "blocks.0.conv.kernel")
    assert found.of.sizes[:2] == (8, 200)


def test_parameter_stats_rejects_mistakes():
    with pytest.raises(ValueError, match=r"grads or updated must be given, got neither"):
        parameter_stats(TREE)
    with pytest.raises(ValueError, match=r"updated or updates must be given, got both"):
        parameter_stats(TREE, updated=TREE, updates=TREE)
    with pytest.raises(ValueError, match=r"updates must have the structure .* differs in 'c'"):
        parameter_stats(TREE, updates={**TREE, "c": jnp.ones(2)})
    with pytest.raises(ValueError, match=r"updated must have the structure .* differs in 'k'"):
        parameter_stats(TREE, updated={"b": TREE["b"]})
    with pytest.raises(
        ValueError, match=r"grads must have the shapes of params, got \(1,\) for \(2,\) in 'b'"
    ):
        parameter_stats(TREE, grads={"b": jnp.ones(1), "k": TREE["k"]})
    with pytest.raises(ValueError, match=r"params must hold one array or more of real .* got none"):
        parameter_stats({}, grads={})


def norms_of_nnx_step(how):
    """The gradient's and the update's norms of one step of SGD with the rate 0.5."""
    model = nnx.Linear(3, 2, rngs=nnx.Rngs(0))
    optimizer = nnx.Optimizer(model, optax.sgd(0.5), wrt=nnx.Param)

    @nnx.jit
    def step(model, optimizer):
        grads = nnx.grad(lambda model: jnp.mean((model(jnp.ones((4, 3))) - 2) ** 2))(model)
        params = nnx.state(model, nnx.Param)
        if how == "copied":
            params = jax.tree.map(jnp.copy, params)
        if how == "dictionary":
            params = nnx.to_pure_dict(params)
        if how == "updates":
            updates = jax.tree.map(lambda g: -0.5 * g, grads)
            return parameter_stats(params, grads=grads, updates=updates).stats
        optimizer.update(model, grads)
        return parameter_stats(params, grads=grads, updated=nnx.state(model, nnx.Param)).stats

    return step(model, optimizer)


@pytest.mark.parametrize("how", ["copied", "dictionary", "updates"])
def test_parameter_stats_of_an_nnx_step_by_hand(how):
    found = norms_of_nnx_step(how)
    assert (found.grad_norm > 0).all()
    # The differences of weights around 1 are rounded at 1e-7.
    np.testing.assert_allclose(found.update_norm, 0.5 * found.grad_norm, rtol=1e-5)


def test_parameter_stats_rejects_states_that_share_their_variables():
    message = (
        r"updated must .* got the very arrays of params.*share.*updates=.*tree\.map\(jnp\.copy"
    )
    with pytest.raises(ValueError, match=message):
        norms_of_nnx_step("shared")


def test_parameter_stats_of_many_shapes_are_those_of_each():
    rng = np.random.default_rng(0)
    shapes = [(3, 4), (2,), (12,), (4, 3), (), (2,), (0, 5)]
    params, grads, updates = (
        {
            f"p{i}": jnp.asarray(rng.normal(size=shape), jnp.float32)
            for i, shape in enumerate(shapes)
        }
        for _ in range(3)
    )
    grads["p1"] = grads["p1"].astype(jnp.bfloat16)
    found = parameter_stats(params, grads=grads, updates=updates)
    assert found.of.sizes == (12, 2, 12, 12, 1, 2, 0)
    for i, name in enumerate(params):
        one = parameter_stats(
            *({name: t[name]} for t in (params,)),
            grads={name: grads[name]},
            updates={name: updates[name]},
        )
        for field, rows, row in zip(one.stats._fields, found.stats, one.stats, strict=True):
            # Sums of at most 12 squares, whose order differs.
            tolerance = 1e-6 if field.endswith("norm") else 0
            np.testing.assert_allclose(rows[i], row[0], rtol=tolerance, atol=0)


@pytest.mark.parametrize("stacked_size", [0, 2**18])
def test_parameter_stats_of_large_parameters_equal_numpy(stacked_size, monkeypatch):
    monkeypatch.setattr(library, "STACKED_SIZE", stacked_size)
    rng = np.random.default_rng(0)
    params = {"a": rng.normal(size=(512, 512)), "b": 3 + rng.random((2, 300)), "c": np.zeros(7)}
    params = {name: x.astype(np.float32) for name, x in params.items()}
    updates = jax.tree.map(lambda x: -0.01 * x, params)
    found = parameter_stats(params, grads=params, updates=updates).stats
    # Sums of 1,024 chunks, one after the other, lose at most a few millionths.
    norms = [np.linalg.norm(x.astype(float)) for x in params.values()]
    np.testing.assert_allclose(found.grad_norm, norms, rtol=5e-6)
    for counts, tree in ((found.grad_hist, params), (found.update_hist, updates)):
        edges = 2.0 ** np.arange(LOG_FIRST, LOG_FIRST + LOG_BINS + 1)
        for row, x in zip(counts, tree.values(), strict=True):
            wanted = np.histogram(np.abs(x), [0, *edges, np.inf])[0]
            np.testing.assert_array_equal(row, wanted)


@pytest.mark.parametrize("kind", [AxisType.Explicit, AxisType.Auto])
def test_parameter_stats_on_a_mesh(kind):
    params = {"k": np.random.default_rng(0).normal(size=(8, 12)).astype(np.float32)}
    params |= {"l": params["k"] / 3, "b": params["k"][:, 0]}
    specs = {"k": PartitionSpec("x", "y"), "l": PartitionSpec(None, "x"), "b": PartitionSpec("x")}

    @jax.jit
    def stats(params):
        halves = jax.tree.map(lambda p: p / 2, params)
        return parameter_stats(params, grads=halves, updated=halves).stats

    wanted = stats(params)
    mesh = jax.make_mesh((2, 2), ("x", "y"), axis_types=(kind, kind))
    with jax.set_mesh(mesh):
        split = {k: jax.device_put(p, NamedSharding(mesh, specs[k])) for k, p in params.items()}
        found = stats(split)
    np.testing.assert_array_equal(found.grad_hist, wanted.grad_hist)
    np.testing.assert_array_equal(found.update_hist, wanted.update_hist)
    np.testing.assert_allclose(found.update_norm, wanted.update_norm, rtol=1e-6)


def test_parameter_stats_leaves_out_what_is_no_real_number():
    params = {
        "w": jnp.ones(4),
        "step": jnp.zeros((), int),
        "mask": jnp.ones(2, bool),
        "wave": jnp.ones(2, complex),
        "key": jax.random.key(0),
        "none": None,
    }
    found = parameter_stats(params, grads={"w": jnp.ones(4)}, updates=params)
    assert found.of == describe(params) == (("w",), (4,), (1,))
    assert found.stats.update_norm.tolist() == [2]
    with pytest.raises(ValueError, match=r"one array or more of real floating.* got none"):
        parameter_stats({"step": params["step"]}, grads={})


def test_applied_is_whether_all_parameters_may_change():
    params = {"w": jnp.ones(3), "v": jnp.ones(2)}
    every = {"a": optax.MultiSteps(optax.adam(0.1), 2), "b": optax.MultiSteps(optax.sgd(0.1), 4)}
    transform = optax.chain(
        optax.clip(1.0), optax.transforms.partition(every, {"w": "a", "v": "b"})
    )
    state, done = transform.init(params), []
    for _ in range(8):
        updates, state = transform.update(params, state, params)
        done.append(bool(jax.jit(applied)(state)))
        assert done[-1] == all(bool(u.any()) for u in updates.values())
    assert done == [False, False, False, True] * 2
    assert applied(optax.adam(0.1).init({"mini_step": jnp.ones(2)})) is None


def test_applied_of_an_nnx_optimizer():
    model = nnx.Linear(3, 2, rngs=nnx.Rngs(0))
    optimizer = nnx.Optimizer(model, optax.MultiSteps(optax.sgd(0.1), 2), wrt=nnx.Param)
    grads = nnx.grad(lambda model: model(jnp.ones((1, 3))).sum())(model)
    for wanted in (False, True):
        optimizer.update(model, grads)
        assert bool(applied(optimizer)) is bool(applied(nnx.state(optimizer))) is wanted
        assert bool(applied(optimizer.opt_state)) is wanted


def of_steps(norms, hist=None):
    """The record of one parameter with these norms at successive steps."""
    found = [
        parameter_stats({"w": jnp.ones(4)}, grads={"w": jnp.full(4, n / 2)}, histogram=hist)
        for n in norms
    ]
    stats = jax.tree.map(lambda *steps: np.stack(steps), *(step.stats for step in found))
    return ParameterRecord.from_steps(Described(("w",), (4,), (1,)), np.arange(len(norms)), stats)


def test_parameter_record_merged_by_hand():
    record = of_steps([3.0, 4.0, 6.0], hist=True)
    merged = record.merged(np.array([0, 2]))
    # √((9 + 16)/2)
    np.testing.assert_allclose(merged.grad_norm[:, 0], [np.sqrt(12.5), 6], rtol=1e-6)
    np.testing.assert_array_equal(merged.grad_hist.sum(0), record.grad_hist.sum(0))
    assert (merged.watched.tolist(), merged.watched_count.tolist()) == ([0, 2], [2, 1])
    assert len(merged.update_norm) == len(merged.update_hist) == 0


def test_parameter_record_merged_keeps_a_norm_that_is_not_finite():
    assert np.isnan(of_steps([1.0, np.nan]).merged(np.array([0])).grad_norm).all()


def test_parameter_record_joined_and_between():
    record = of_steps([1.0, 2.0, 3.0, 4.0])
    parts = [record.between(0, 1), record.between(1, 4)]
    assert parts[1].watched.tolist() == [0, 1, 2]
    joined = ParameterRecord.joined(parts, [0, 1])
    for field in dataclasses.fields(ParameterRecord):
        np.testing.assert_array_equal(getattr(joined, field.name), getattr(record, field.name))
    with pytest.raises(ValueError, match="same parameters and the same quantities"):
        ParameterRecord.joined([record, of_steps([1.0], hist=True)], [0, 4])


def test_parameter_record_ratios():
    record = of_steps([1.0])
    replaced = dataclasses.replace(record, update_norm=np.array([[0.02]]))
    np.testing.assert_allclose(replaced.update_ratio, [[0.01]])  # the weights' norm is 2
    np.testing.assert_allclose(record.grad_rms, [[0.5]])
