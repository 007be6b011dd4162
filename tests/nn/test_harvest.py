import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.extend.core import jaxpr_as_fun

from convjax.nn._harvest import Tag, harvest, layer_output_p, tagged

X = jnp.arange(6.0).reshape(2, 3)


def harvested(function, *args, level=0):
    """Returns the function's result and {name: (found, arranged value)}, and the lost names."""
    program = jax.make_jaxpr(function)(*args)
    rewritten, found, lost = harvest(program, level)
    values = jaxpr_as_fun(rewritten)(*jax.tree.leaves(args))
    count = len(program.jaxpr.outvars)
    pairs = [(f, f.arranged(value)) for f, value in zip(found, values[count:], strict=True)]
    left = [e.params["tag"] for e in rewritten.jaxpr.eqns if e.primitive is layer_output_p]
    assert all(other.level != level for other in left)
    return values[:count], pairs, lost


def tag(x, name="a", owner=None, **settings):
    return tagged(x, Tag(name, **settings), owner)


def test_harvest_returns_tagged_values_in_order():
    (result,), pairs, lost = harvested(lambda x: tag(tag(x + 1, "b") * 2, "a") - 1, X)
    np.testing.assert_array_equal(result, (X + 1) * 2 - 1)
    assert [f.tag.name for f, _ in pairs] == ["b", "a"]
    np.testing.assert_array_equal(pairs[0][1], X + 1)
    np.testing.assert_array_equal(pairs[1][1], (X + 1) * 2)
    assert lost == {}


def test_harvest_leaves_a_program_without_tags_as_it_is():
    program = jax.make_jaxpr(lambda x: jnp.sin(x) + 1)(X)
    rewritten, found, lost = harvest(program, 0)
    assert str(rewritten.jaxpr) == str(program.jaxpr)
    assert (found, lost) == ([], {})


def test_harvest_reads_tags_of_its_level():
    def function(x):
        return tag(tag(x + 1, "outer"), "inner", level=1)

    assert [f.tag.name for f, _ in harvested(function, X)[1]] == ["outer"]
    program = jax.make_jaxpr(function)(X)
    assert [f.tag.name for f in harvest(program, 1)[1]] == ["inner"]


def test_harvest_tells_a_scan_over_layers_from_one_over_time():
    kernels = jnp.arange(1.0, 4)

    def over_layers(x, kernels):
        return jax.lax.scan(lambda x, k: (tag(x * k, owner=k), None), x, kernels)[0]

    def over_time(x, kernels):
        shared = kernels[0]
        return jax.lax.scan(lambda c, row: (c, tag(row * shared, owner=shared)), 0.0, x)[1]

    for function, depth, length in ((over_layers, True, 3), (over_time, False, 2)):
        _, ((found, value),), _ = harvested(function, X, kernels)
        (scan,) = found.scans
        assert (scan.depth, scan.length) == (depth, length)
        assert value.shape[0] == length
    np.testing.assert_array_equal(value, X)


def test_harvest_of_nested_scans_has_the_outer_axis_first():
    kernels = jnp.arange(1.0, 4)

    def function(xs, kernels):
        def time(carry, x):
            last = jax.lax.scan(lambda x, k: (tag(x * k, owner=k), None), x, kernels)[0]
            return carry, last

        return jax.lax.scan(time, 0.0, xs)[1]

    _, ((found, value),), _ = harvested(function, X, kernels)
    assert [(scan.length, scan.depth) for scan in found.scans] == [(2, False), (3, True)]
    wanted = np.asarray(X)[:, None, :] * np.cumprod(kernels)[None, :, None]
    np.testing.assert_array_equal(value, wanted)


def test_harvest_of_vmap_has_its_axes_first():
    xs = jnp.arange(24.0).reshape(2, 3, 4)

    def function(xs):
        inner = jax.vmap(lambda x: tag(2 * x), in_axes=1, out_axes=1)  # over the axis of length 4
        return jax.vmap(inner)(xs)

    (result,), ((found, value),), _ = harvested(function, xs)
    np.testing.assert_array_equal(result, 2 * xs)
    assert len(found.tag.batch_axes) == 2
    # The axes of the vmaps, the outermost first, and then the value's own.
    np.testing.assert_array_equal(value, 2 * np.moveaxis(xs, 2, 1))


def test_harvest_of_vmap_inside_scan_has_the_scan_first():
    def function(xs):
        def step(carry, x):
            return carry, jax.vmap(lambda x: tag(x + 1), 1, 1)(x)

        return jax.lax.scan(step, 0.0, xs)[1]

    xs = jnp.arange(24.0).reshape(2, 3, 4)
    _, ((found, value),), _ = harvested(function, xs)
    assert len(found.scans) == 1
    np.testing.assert_array_equal(value, np.moveaxis(xs, 2, 1) + 1)


def test_harvest_of_checkpoint_under_grad_finds_each_call_once():
    def loss(w):
        layer = jax.checkpoint(lambda w: jnp.sin(tag(w * X)))
        return layer(w).sum()

    (gradient,), pairs, lost = harvested(jax.grad(loss), 2.0)
    ((_, value),) = pairs
    np.testing.assert_array_equal(value, 2 * X)
    plain = jax.grad(lambda w: jnp.sin(w * X).sum())(2.0)
    np.testing.assert_allclose(gradient, plain, rtol=1e-6)
    assert lost == {}


def test_harvest_of_grad_takes_the_primal():
    _, ((_, value),), _ = harvested(jax.grad(lambda w: (tag(w * X) ** 2).sum()), 3.0)
    np.testing.assert_array_equal(value, 3 * X)


def test_harvest_finds_both_calls_of_a_jitted_function():
    layer = jax.jit(lambda x: tag(x + 1))
    (result,), pairs, _ = harvested(lambda x: layer(layer(x)), X)
    assert [f.tag.name for f, _ in pairs] == ["a", "a"]
    np.testing.assert_array_equal(pairs[0][1], X + 1)
    np.testing.assert_array_equal(pairs[1][1], X + 2)
    np.testing.assert_array_equal(result, X + 2)


@pytest.mark.parametrize(
    "returned",
    [
        pytest.param(lambda x, y: (y, y), id="one value twice"),
        pytest.param(lambda x, y: (x, y), id="its argument"),
        pytest.param(lambda x, y: (1.0, y), id="a number"),
        pytest.param(lambda x, y: (x,), id="not the tagged value"),
    ],
)
def test_harvest_of_jit_with_any_results(returned):
    layer = jax.jit(lambda x: returned(x, tag(2 * x)))
    results, ((_, value),), _ = harvested(layer, X)
    for result, wanted in zip(results, returned(X, 2 * X), strict=True):
        np.testing.assert_array_equal(result, wanted)
    np.testing.assert_array_equal(value, 2 * X)


def test_harvest_of_reversed_scan_keeps_the_order_of_inputs():
    def function(xs):
        return jax.lax.scan(lambda c, x: (c + x.sum(), tag(x + c)), 0.0, xs, reverse=True)[1]

    (result,), ((_, value),), _ = harvested(function, X)
    np.testing.assert_array_equal(value, result)


def test_harvest_names_what_cannot_leave():
    def function(x):
        x = jax.lax.cond(x.sum() > 0, lambda x: tag(x, "branch"), lambda x: x, x)
        x = jax.lax.while_loop(lambda x: x.sum() < 0, lambda x: tag(x, "loop"), x)

        @jax.custom_vjp
        def ruled(x):
            return tag(x, "ruled")

        ruled.defvjp(lambda x: (x, None), lambda _, g: (g,))
        # Neither gradients nor updates of an optimiser are layers.
        return tag(ruled(tag(x, "outside")), "loss", kind="optimizer")

    (result,), pairs, lost = harvested(function, X)
    np.testing.assert_array_equal(result, X)
    assert [f.tag.name for f, _ in pairs] == ["outside", "loss"]
    assert list(lost) == ["branch", "loop", "ruled"]
    assert (lost["branch"], lost["loop"]) == ("cond", "while")
    assert lost["ruled"].startswith("custom_vjp")
