"""The forms of the statistics of layers and of parameters: all give the same."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from convjax.stats import forms, parameter_forms
from convjax.stats.bins import FASTAI, PRESETS, Bins

RNG = np.random.default_rng(0)


def outputs():
    shapes = (16, 14, 14, 8), (16, 7, 7, 16), (16, 4, 4, 32), (16, 10), (16, 7, 7, 16), ()
    arrays = [3 * RNG.normal(size=shape).astype(np.float32) for shape in shapes]
    arrays[0][..., 3] = -1  # a channel that is never active
    arrays[0][0, 0, 0, :3] = 0.25, 10, 0.05
    arrays[1][0, 0, 0, :3] = np.nan, np.inf, -np.inf
    return [jnp.asarray(x) for x in arrays], (3, 3, 1, 1, 3, None)


@pytest.mark.parametrize("form", [forms.by_stacking, forms.on_own_axes])
@pytest.mark.parametrize("bins", [FASTAI, PRESETS["symmetric"], Bins(-1.0, 1.0, 13)], ids=str)
@pytest.mark.parametrize("histogram", [True, False])
def test_forms_of_layers_give_the_same(form, bins, histogram):
    arrays, axes = outputs()
    wanted, found = (
        jax.jit(lambda x, f=f: f(x, axes, histogram=histogram, bins=bins))(arrays)
        for f in (forms.by_groups, form)
    )
    for name in ("counts", "active"):
        jax.tree.map(np.testing.assert_array_equal, getattr(found, name), getattr(wanted, name))
    for name in ("mean", "squares", "near"):
        # float32 sums of 25,000 values, on CPU one after the other.
        jax.tree.map(
            lambda a, b: np.testing.assert_allclose(a, b, rtol=2e-4, atol=1e-6),
            getattr(found, name),
            getattr(wanted, name),
        )


@pytest.mark.parametrize(
    ("sizes", "buckets"),
    [
        ([5, 3, 4], [[0, 1, 2]]),
        ([2**23, 10, 2**23], [[0], [2], [1]]),  # those above the limit alone
        # A fifth row of 2^21 would make the rows five times as large as the outputs.
        ([2**21] + [10] * 19, [[0, 1, 2, 3], [*range(4, 20)]]),
    ],
)
def test_buckets_hold_no_more_than_memory_allows(sizes, buckets):
    assert forms.buckets_of(sizes) == buckets


@pytest.mark.parametrize("bins", [FASTAI, PRESETS["symmetric"]], ids=str)
@pytest.mark.parametrize("histogram", [True, False])
def test_forms_have_equal_types_where_float64_is_enabled(bins, histogram, x64):
    # Long enough for counts in pairs.
    arrays = [jnp.zeros((2**12, 8)), jnp.zeros((2**12, 8), jnp.float32), jnp.zeros(3)]
    found = forms.rows_of(arrays, (1, 1, None), histogram=histogram, bins=bins)
    assert {str(x.dtype) for x in jax.tree.leaves(found)} <= {"float32", "int32", "bool"}
    trees = {"params": arrays, "grads": arrays, "updated": arrays}
    sums = parameter_forms.sums_of(trees, histogram=histogram)
    assert {str(x.dtype) for x in jax.tree.leaves(sums)} <= {"float32", "int32"}


def parameters():
    shapes = (5, 5, 1, 8), (8,), (3, 3, 32, 64), (300, 700), ()
    trees = {
        name: [RNG.normal(size=s) * 10.0 ** RNG.uniform(-12, 3, size=s) for s in shapes]
        for name in ("params", "grads", "updated")
    }
    trees = jax.tree.map(lambda x: np.asarray(x, np.float32), trees)
    trees["grads"][0][0, 0, 0, :5] = np.nan, np.inf, 0, 2.0**-34, 2.0**6
    return jax.tree.map(jnp.asarray, trees)


@pytest.mark.parametrize("form", [parameter_forms.by_stacking, parameter_forms.on_own_axes])
@pytest.mark.parametrize("histogram", [True, False])
@pytest.mark.parametrize("names", [("params", "grads", "updated"), ("params", "updates")])
def test_forms_of_parameters_give_the_same(form, histogram, names):
    trees = parameters()
    trees = {name: trees.get(name, trees["grads"]) for name in names}
    wanted, found = (
        jax.jit(lambda x, f=f: f(x, histogram=histogram))(trees)
        for f in (parameter_forms.by_chunks, form)
    )
    jax.tree.map(np.testing.assert_array_equal, found[1], wanted[1])
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, rtol=2e-4), found[0], wanted[0])
