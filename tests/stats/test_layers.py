"""Statistics of several layers, against those of each layer, under every sharding."""

import warnings

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.sharding import AxisType, NamedSharding, PartitionSpec

from convjax.nn.outputs import LayerOutputs
from convjax.stats import groups
from convjax.stats.activations import activation_stats
from convjax.stats.bins import Bins
from convjax.stats.layers import layer_stats

RNG = np.random.default_rng(0)


def normal(*shape):
    return RNG.normal(size=shape).astype(np.float32)


# Groups of several members, out of order; the last two are one group where units are off.
OUTPUTS = LayerOutputs(
    {
        "first": normal(8, 4, 4, 12),
        "vector": normal(8),
        "second": normal(8, 4, 4, 12),
        "long": normal(8, 40, 41),
        "third": normal(8, 2, 8, 12),
        "half": normal(8, 12).astype(jnp.bfloat16),
        "flat": normal(8, 12, 16),
    },
    {"long": -3, "flat": -2},
)
SPECS = {
    "first": PartitionSpec("x"),
    "vector": PartitionSpec("x"),
    "second": PartitionSpec("x", None, None, "y"),
    "long": PartitionSpec("x"),
    "third": PartitionSpec(None, "x", "y"),
    "half": PartitionSpec(("x", "y")),
    "flat": PartitionSpec("x", "y"),
}
QUANTITIES = {
    "units": {"units": True},
    "fastai": {},
    "bare": {"histogram": False},
    "own bins": {"bins": Bins(-0.7, 0.7, 14), "units": True},
}
quantities = pytest.mark.parametrize("kwargs", QUANTITIES.values(), ids=QUANTITIES)


def assert_same(found, wanted):
    """Counts are equal; mean and std are sums of float32 in another order."""
    assert jax.tree.structure(found) == jax.tree.structure(wanted)
    for one, other in zip(jax.tree.leaves(found), jax.tree.leaves(wanted), strict=True):
        if np.asarray(other).dtype == np.float32:
            np.testing.assert_allclose(one, other, rtol=1e-6, atol=1e-6)
        else:
            np.testing.assert_array_equal(one, other)


@quantities
def test_layer_stats_are_those_of_each_layer(kwargs):
    found = layer_stats(OUTPUTS, **kwargs)
    assert found.names == tuple(OUTPUTS)
    assert found.sizes == tuple(x.size for x in OUTPUTS.values())
    kwargs = dict(kwargs)
    units = kwargs.pop("units", False)
    for i, (name, x) in enumerate(OUTPUTS.items()):
        axis = OUTPUTS.channel_axes.get(name, -1) if units else None
        wanted = activation_stats(x, channel_axis=axis, **kwargs)
        active = found.active[i] if units else None
        assert_same(
            jax.tree.map(lambda row, i=i: row[i], found.stats)._replace(active=active), wanted
        )


def test_layer_stats_takes_few_operations_for_many_layers():
    def operations(layers):
        outputs = {str(i): jnp.ones((4, 8)) for i in range(layers)}
        jaxpr = jax.make_jaxpr(lambda o: layer_stats(o, units=True))(outputs)
        return len(jaxpr.eqns)

    # Two per layer: its axes are merged, and it becomes a row.
    assert operations(12) - operations(2) <= 10 * 2 + 2


@quantities
@pytest.mark.parametrize("kind", [AxisType.Explicit, AxisType.Auto])
def test_layer_stats_on_a_mesh(kwargs, kind):
    wanted = layer_stats(OUTPUTS, **kwargs)
    mesh = jax.make_mesh((2, 2), ("x", "y"), axis_types=(kind, kind))
    with jax.set_mesh(mesh):
        split = jax.tree.map(
            lambda x, spec: jax.device_put(x, NamedSharding(mesh, spec)),
            OUTPUTS,
            LayerOutputs(SPECS, OUTPUTS.channel_axes),
        )
        assert_same(jax.jit(lambda o: layer_stats(o, **kwargs))(split), wanted)


@pytest.mark.parametrize("check_vma", [True, False])
def test_layer_stats_within_shard_map(check_vma):
    def local(outputs):
        # One layer is the same on all devices.
        return jax.tree.map(
            lambda v: v[None], layer_stats(outputs | {"same": jnp.ones((2, 4, 4, 12))}, units=True)
        )

    mesh = jax.make_mesh((4,), ("x",), axis_types=(AxisType.Auto,))
    spec = PartitionSpec("x")
    mapped = jax.shard_map(local, mesh=mesh, in_specs=spec, out_specs=spec, check_vma=check_vma)
    found = jax.jit(mapped)(OUTPUTS)
    for i in range(4):
        part = jax.tree.map(lambda x, i=i: x[2 * i : 2 * i + 2], OUTPUTS)
        assert_same(jax.tree.map(lambda v, i=i: v[i : i + 1], found), local(part))


def test_layer_stats_within_vmap():
    def stats(outputs):
        return layer_stats(dict(outputs), units=True, channel_axes={"long": 0, "flat": 0})

    found = jax.vmap(stats)(OUTPUTS)
    for i in range(8):
        one = jax.tree.map(lambda x, i=i: x[i], OUTPUTS)
        assert_same(jax.tree.map(lambda v, i=i: v[i], found), jax.jit(stats)(one))


def test_layer_stats_of_large_outputs_are_those_of_small_ones(monkeypatch):
    wanted = layer_stats(OUTPUTS, units=True)
    monkeypatch.setattr(groups, "STACKED_SIZE", 0)
    assert_same(layer_stats(OUTPUTS, units=True), wanted)


@pytest.mark.parametrize("dtype", [jnp.bfloat16, jnp.float16, jnp.int32, jnp.uint8])
def test_layer_stats_of_other_dtypes_are_those_of_float32(dtype):
    x = jnp.asarray(10 * RNG.random((2, 5)), dtype)
    found = layer_stats({"a": x, "b": x + 1})
    assert_same(found, layer_stats({"a": x.astype(jnp.float32), "b": (x + 1).astype(jnp.float32)}))


def test_layer_stats_of_scalars():
    found = layer_stats({"a": jnp.float32(0.3), "b": jnp.float32(-1)}, units=True)
    assert found.stats.mean.tolist() == [np.float32(0.3), -1]
    assert found.stats.std.tolist() == [0, 0]
    assert [a.tolist() for a in found.active] == [[True], [False]]
    assert found.channels == (1, 1)


@pytest.mark.parametrize("histogram", [True, False])
def test_layer_stats_of_no_layer(histogram):
    found = jax.jit(lambda: layer_stats({}, histogram=histogram, units=True))()
    assert (found.names, found.sizes, found.active) == ((), (), ())
    assert found.stats.mean.shape == (0,)
    assert found.stats.hist is None if not histogram else found.stats.hist.shape == (0, 40)


def test_layer_stats_of_trees_are_those_of_their_arrays():
    tree = {"lstm": (jnp.ones(3), {"h": jnp.zeros((2, 2, 5))}, None), "conv": jnp.ones(2)}
    found = layer_stats(tree, units=True, channel_axes={"lstm:1:h": 0})
    assert found.names == ("lstm:0", "lstm:1:h", "conv")
    assert found.channels == (1, 2, 1)
    assert found.stats.mean.tolist() == [1, 0, 1]


def test_layer_stats_leaves_out_what_is_no_real_number():
    outputs = {
        "empty": jnp.ones((0, 3)),
        "complex": jnp.ones(2, complex),
        "mask": jnp.ones(2, bool),
        "key": jax.random.key(0),
        "pair": (jnp.ones(2), 3),
    }
    with pytest.warns(UserWarning, match="layer_stats leaves out") as caught:
        found = layer_stats(outputs)
    assert found.names == ("pair:0",)
    message = str(caught.pop().message)
    assert not caught.list
    for part in (
        r"'empty' (no values, shape (0, 3))",
        "'complex' (dtype complex64)",
        "'mask' (dtype bool)",
        "'key' (dtype key<fry>)",
        "'pair:1' (int, not an array)",
        "jnp.abs(x)",
    ):
        assert part in message


def test_layer_stats_warns_that_the_last_axis_is_taken_for_the_channels():
    maps = {"conv": jnp.ones((2, 4, 8, 8)), "head": jnp.ones((2, 3))}
    with pytest.warns(UserWarning, match=r"last axis .* 'conv' .*\(2, 4, 8, 8\).* channel_axes="):
        assert layer_stats(maps, units=True).channels == (8, 3)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert layer_stats(maps, units=True, channel_axes={"conv": 1}).channels == (4, 3)
        assert layer_stats(LayerOutputs(maps, {"conv": -3}), units=True).channels == (4, 3)
        layer_stats({"head": maps["head"]}, units=True)
        layer_stats(maps)


def test_layer_stats_rejects_mistakes():
    with pytest.raises(ValueError, match=r"channel_axes\['x'\] must be an axis of .*, got 4"):
        layer_stats({"x": jnp.ones((2, 3))}, units=True, channel_axes={"x": 4})
    with pytest.raises(TypeError, match=r"outputs\['x'\] must be an array, got str"):
        layer_stats({"x": "text"})
