"""Capturing from Flax Linen modules and from functions; NNX modules are in test_capture.py."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import linen

from convjax.nn._capture import capture

X = np.random.default_rng(0).standard_normal((4, 8, 8, 1)).astype(np.float32)


class Block(linen.Module):
    @linen.compact
    def __call__(self, x):
        return linen.relu(linen.Dense(3, name="inner")(x))


class Net(linen.Module):
    """With a shared layer, a block, batch norm and dropout."""

    @linen.compact
    def __call__(self, x, *, train=False):
        shared = linen.Dense(6, name="shared")
        x = linen.Conv(6, (3, 3), name="z_first")(x).mean((1, 2))
        x = linen.BatchNorm(use_running_average=not train, name="norm")(x)
        x = shared(linen.relu(shared(x)))
        x = linen.Dropout(0.5, deterministic=not train)(x)
        return Block(name="block")(x)


NET = Net()
VARIABLES = NET.init(jax.random.key(0), X)


def test_capture_of_linen_keeps_the_order_of_calls():
    output, found = capture(NET, VARIABLES, X)
    np.testing.assert_array_equal(output, NET.apply(VARIABLES, X))
    assert list(found) == ["z_first", "norm", "shared", "shared#2", "block.inner"]
    assert found["z_first"].shape == (4, 8, 8, 6)
    # The output of a layer is the input of what follows, computed by hand.
    first = np.asarray(found["z_first"]).mean((1, 2))
    np.testing.assert_allclose(found["norm"], first / np.sqrt(1 + 1e-5), rtol=1e-5, atol=1e-6)
    np.testing.assert_allclose(np.maximum(found["block.inner"], 0), output, rtol=1e-6)


def test_capture_of_linen_selects_layers():
    assert list(capture(NET, VARIABLES, X, select="block*")[1]) == ["block.inner", "block"]
    assert list(capture(NET, VARIABLES, X, select=linen.Dense)[1])[1:] == [
        "shared#2",
        "block.inner",
    ]
    assert "Dropout_0" in capture(NET, VARIABLES, X, select="*")[1]
    with pytest.raises(
        ValueError,
        match=r"select must match a layer of Net, .*Its layers: .*block.inner.*shared, z_",
    ):
        capture(NET, VARIABLES, X, select="conv")


def test_capture_of_linen_passes_arguments_to_apply():
    rngs = {"dropout": jax.random.key(1)}
    arguments = {"train": True, "rngs": rngs, "mutable": ["batch_stats"]}
    (output, changed), found = capture(NET, VARIABLES, X, **arguments)
    wanted, wanted_changed = NET.apply(VARIABLES, X, **arguments)
    np.testing.assert_array_equal(output, wanted)
    assert changed.keys() == {"batch_stats"}
    jax.tree.map(np.testing.assert_array_equal, changed, wanted_changed)
    assert "norm" in found
    assert capture(NET, VARIABLES, X, train=True, rngs=rngs, mutable="batch_stats")[0][
        1
    ].keys() == {"batch_stats"}


def test_capture_of_linen_inside_jit_grad_vmap_and_remat():
    @jax.jit
    def gradient(variables, x):
        def loss(params):
            remat = jax.checkpoint(lambda p: capture(NET, {**variables, "params": p}, x))
            output, found = remat(params)
            return output.sum(), found

        return jax.grad(loss, has_aux=True)(variables["params"])

    grads, found = gradient(VARIABLES, X)
    wanted = jax.grad(lambda p: NET.apply({**VARIABLES, "params": p}, X).sum())(VARIABLES["params"])
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-4, atol=1e-5), grads, wanted)
    assert found["shared#2"].shape == (4, 6)
    each = jax.vmap(lambda x: capture(NET, VARIABLES, x[None])[1]["shared"][0])(X)
    np.testing.assert_allclose(each, capture(NET, VARIABLES, X)[1]["shared"], rtol=1e-4, atol=1e-5)


def named(scale, x):
    return x.sum() * scale, {"b": x * scale, "a": x + 1}


def test_capture_of_a_function_returns_its_named_values():
    output, found = capture(named, 2.0, jnp.ones(3))
    assert output == 6
    assert list(found) == ["b", "a"]
    assert list(capture(named, 2.0, X, select="a")[1]) == ["a"]
    with pytest.raises(ValueError, match=r"select must match a layer of named, .*Its layers: b, a"):
        capture(named, 2.0, X, select="c")


def test_capture_rejects_other_models():
    with pytest.warns(UserWarning, match=r"finds no layer of <lambda>.*returns \(output, {name:"):
        assert capture(lambda x: 1.0, X) == (1.0, {})
    with pytest.raises(TypeError, match="model must be a Flax module or a function, got dict"):
        capture({}, X)


class Boxed(linen.Module):
    @linen.compact
    def __call__(self, x):
        kernel = linen.with_partitioning(linen.initializers.ones, (None, "model"))
        return linen.Dense(3, name="dense", kernel_init=kernel)(x)


def test_capture_of_linen_with_boxed_parameters():
    x = jnp.ones((2, 4))
    assert list(capture(Boxed(), Boxed().init(jax.random.key(0), x), x)[1]) == ["dense"]


class Cell(linen.Module):
    @linen.compact
    def __call__(self, carry, _):
        return linen.Dense(4, name="inner")(carry), None


def scanned(**axes):
    class Scanned(linen.Module):
        @linen.compact
        def __call__(self, x):
            scan = linen.scan(
                Cell, variable_axes={"params": 0, **axes}, split_rngs={"params": True}, length=3
            )
            return scan(name="cells")(x, None)[0]

    return Scanned()


def test_capture_of_linen_inside_scan_names_each_depth():
    x = jnp.ones((2, 4))
    for model in (scanned(), scanned(intermediates=0)):
        variables = scanned().init(jax.random.key(0), x)
        output, found = capture(model, variables, x)
        assert list(found) == [f"cells[{i}].inner" for i in range(3)]
        np.testing.assert_array_equal(found["cells[2].inner"], output)


def test_capture_of_linen_inside_remat():
    class Rematerialised(linen.Module):
        @linen.compact
        def __call__(self, x):
            return linen.remat(linen.Dense)(3, name="dense")(x)

    x = jnp.ones((2, 4))
    variables = Rematerialised().init(jax.random.key(0), x)
    output, found = capture(Rematerialised(), variables, x, select="dense")
    np.testing.assert_array_equal(found["dense"], output)


class Sowing(linen.Module):
    @linen.compact
    def __call__(self, x):
        x = linen.Dense(3, name="dense")(x)
        self.sow("intermediates", "own", x + 1)
        return x


def test_capture_of_linen_keeps_sown_and_drops_earlier_intermediates():
    x = jnp.ones((2, 4))
    variables = Sowing().init(jax.random.key(0), x)
    _, old = Sowing().apply(variables, x, capture_intermediates=True)
    output, found = capture(Sowing(), {**variables, **old}, 2 * x)
    np.testing.assert_array_equal(found["dense"], output)
    (output, changed), _ = capture(Sowing(), variables, x, mutable=["intermediates"])
    np.testing.assert_array_equal(changed["intermediates"]["own"][0], output + 1)
    assert "dense" not in changed["intermediates"] or not changed["intermediates"]["dense"]


@pytest.mark.parametrize("mutable", [True, [], linen.DenyList("params")])
def test_capture_of_linen_accepts_mutable_as_apply(mutable):
    (output, changed), found = capture(NET, VARIABLES, X, mutable=mutable)
    np.testing.assert_array_equal(output, NET.apply(VARIABLES, X))
    assert ("batch_stats" in changed) == (mutable != [])
    assert "norm" in found
