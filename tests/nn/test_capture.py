import threading

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx

from convjax.nn import _nnx_calls as capture_library
from convjax.nn._capture import capture, layer_names
from convjax.nn.layers import Linear
from convjax.nn.models import ConvNet, LinearNet
from convjax.nn.selection import has_parameters

IMAGES = np.random.default_rng(0).standard_normal((3, 6, 6, 1)).astype(np.float32)
X = np.array([[1.0, -2.0]], np.float32)


class Scale(nnx.Module):
    """Multiplies by a number, so that outputs are easy to predict."""

    def __init__(self, factor):
        self.factor = nnx.Param(jnp.float32(factor))

    def __call__(self, x):
        return x * self.factor[...]


class Inherits(Scale):
    """Inherits `__call__`."""


class Extends(Scale):
    """Overrides `__call__` and calls the inherited one."""

    def __call__(self, x):
        return super().__call__(x) + 1


class Chain(nnx.Module):
    """Calls the given modules one after the other."""

    def __init__(self, *modules, **named):
        self.steps = nnx.List(modules)
        for name, module in named.items():
            setattr(self, name, module)

    def __call__(self, x):
        for step in self.steps:
            x = step(x)
        return x


class Fails(nnx.Module):
    def __init__(self):
        self.inner = Scale(2.0)

    def __call__(self, x):
        self.inner(x)
        raise RuntimeError("in the middle of the forward pass")


# --- names, order and values -------------------------------------------------------------------


def test_capture_returns_outputs_by_name():
    output, found = capture(Chain(Scale(2.0), Scale(3.0)), X)
    assert list(found) == ["steps.0", "steps.1"]
    assert found["steps.0"].tolist() == [[2, -4]]
    assert found["steps.1"].tolist() == output.tolist() == [[6, -12]]


def test_capture_selects_layers_with_parameters_by_default():
    model = ConvNet((1, 2, 3), norm="batch", layout="NHWC", rngs=nnx.Rngs(0))
    names = ["blocks.0.conv", "blocks.0.norm", "blocks.1.conv", "blocks.1.norm"]
    assert sorted(layer_names(model)) == names
    model.eval()
    output, found = capture(model, IMAGES)
    assert list(found) == names
    # Capturing changes nothing: the same compiled operations on the same numbers.
    np.testing.assert_array_equal(output, model(IMAGES))
    np.testing.assert_array_equal(found["blocks.0.conv"], model.blocks[0].conv(IMAGES))
    assert (found["blocks.0.norm"] < 0).any()
    np.testing.assert_array_equal(
        model.blocks[1].conv(jnp.maximum(found["blocks.0.norm"], 0)), found["blocks.1.conv"]
    )


def test_capture_keeps_the_order_of_calls():
    class Backwards(nnx.Module):
        def __init__(self):
            self.a, self.b = Scale(2.0), Scale(3.0)

        def __call__(self, x):
            return self.a(self.b(x))

    assert list(capture(Backwards(), X)[1]) == ["b", "a"]


def test_capture_selects_by_name_and_type():
    model = ConvNet((1, 2, 3), norm="batch", layout="NHWC", rngs=nnx.Rngs(0))
    norms = capture(model, IMAGES, select=lambda name, module: name.endswith(".norm"))[1]
    assert list(norms) == ["blocks.0.norm", "blocks.1.norm"]
    blocks = capture(
        model, IMAGES, select=lambda name, module: type(module).__name__ == "ConvBlock"
    )[1]
    assert list(blocks) == ["blocks.0", "blocks.1"]
    assert (blocks["blocks.0"] >= 0).all()  # the whole block, its ReLU included
    assert has_parameters("", Linear(1, 1, rngs=nnx.Rngs(0)))
    assert not has_parameters("", LinearNet(rngs=nnx.Rngs(0)))  # its layers have them


def test_capture_works_on_flax_layers():
    model = Chain(nnx.Linear(2, 3, rngs=nnx.Rngs(0)), nnx.BatchNorm(3, rngs=nnx.Rngs(0)))
    model.eval()
    output, found = capture(model, X)
    assert list(found) == ["steps.0", "steps.1"]
    np.testing.assert_array_equal(found["steps.1"], output)


def test_capture_numbers_repeated_calls():
    shared = Scale(2.0)
    output, found = capture(Chain(shared, shared, Scale(5.0), shared), X)
    first = next(iter(found))
    assert list(found) == [first, f"{first}#2", "steps.2", f"{first}#3"]
    assert [value[0, 0].item() for value in found.values()] == [2, 4, 20, 40]
    assert output[0, 0] == 40


def test_capture_passes_arguments_to_the_model():
    class Takes(nnx.Module):
        def __init__(self):
            self.inner = Scale(2.0)

        def __call__(self, x, y, *, negate):
            return self.inner(x) + (-y if negate else y)

    output, _ = capture(Takes(), X, 10.0, negate=True)
    assert output.tolist() == [[-8, -14]]


def test_capture_ignores_instances_outside_the_model():
    outside = Scale(7.0)

    class Calls(nnx.Module):
        def __init__(self):
            self.inner = Scale(2.0)

        def __call__(self, x):
            return outside(self.inner(x))

    output, found = capture(Calls(), X)
    assert list(found) == ["inner"]
    assert output[0, 0] == 14


# --- transformations ---------------------------------------------------------------------------


def test_capture_inside_jit_and_grad():
    model = ConvNet((1, 2, 3), layout="NHWC", rngs=nnx.Rngs(0))
    graphdef, state = nnx.split(model)

    def loss(state, images):
        output, found = capture(nnx.merge(graphdef, state), images)
        return jnp.sum(output**2), found

    plain = loss(state, IMAGES)[1]
    assert list(plain) == ["blocks.0.conv", "blocks.1.conv"]
    compiled = jax.jit(loss)(state, IMAGES)[1]
    gradients, through_grad = jax.jit(jax.grad(loss, has_aux=True))(state, IMAGES)
    for found in (compiled, through_grad):
        # jit may change the order of a dictionary and the rounding of values.
        assert found.keys() == plain.keys()
        for name, value in plain.items():
            np.testing.assert_allclose(found[name], value, atol=1e-5)
    # Capturing does not change the gradient.
    unwatched = jax.jit(jax.grad(lambda s: jnp.sum(nnx.merge(graphdef, s)(IMAGES) ** 2)))(state)
    for watched, wanted in zip(jax.tree.leaves(gradients), jax.tree.leaves(unwatched), strict=True):
        assert np.abs(wanted).max() > 0
        np.testing.assert_allclose(watched, wanted, rtol=1e-4, atol=1e-5)


def test_capture_inside_scan_and_vmap():
    graphdef, state = nnx.split(Chain(Scale(2.0), Scale(3.0)))

    def step(x, _):
        output, found = capture(nnx.merge(graphdef, state), x)
        return output, found

    last, found = jax.lax.scan(step, X, None, length=2)
    assert last.tolist() == [[36, -72]]
    assert found["steps.0"][:, 0, 0].tolist() == [2, 12]
    together = jax.vmap(lambda x: capture(nnx.merge(graphdef, state), x)[1])(np.stack([X, 2 * X]))
    assert together["steps.1"][:, 0, 0].tolist() == [6, 12]


# --- no trace afterwards -----------------------------------------------------------------------


def test_capture_restores_classes():
    before = {cls: dict(vars(cls)) for cls in (Scale, Inherits, Extends, Chain)}
    assert "__call__" not in vars(Inherits)
    model = Chain(Scale(2.0), Inherits(3.0), Extends(5.0))
    output, found = capture(model, X)
    assert list(found) == ["steps.0", "steps.1", "steps.2"]
    assert output[0, 0] == 31
    for cls, content in before.items():
        assert dict(vars(cls)) == content
    assert "__call__" not in vars(Inherits)
    # A change of the base class still reaches the class that inherits it.
    assert Inherits.__call__ is Scale.__call__


def test_capture_restores_classes_after_an_exception():
    original = Scale.__call__
    with pytest.raises(RuntimeError, match="in the middle"):
        capture(Fails(), X)
    assert Scale.__call__ is original
    assert "__call__" not in vars(Inherits)
    # The next capture has each layer once.
    assert list(capture(Chain(Scale(2.0)), X)[1]) == ["steps.0"]


@pytest.mark.parametrize("how", ["model", "split before"])
def test_capture_leaves_nothing_in_structures_that_the_call_returns(how):
    graph, state = nnx.split(Chain(Scale(2.0), named=Scale(3.0)))

    def step(graph, state, x):
        model = nnx.merge(graph, state)
        model(x)
        return nnx.split(model), nnx.graphdef(model)

    def of_model(model, x):
        model(x)
        return nnx.split(model), nnx.graphdef(model)

    arguments = (nnx.merge(graph, state),) if how == "model" else (graph, state)
    call = of_model if how == "model" else step
    ((returned, left), other), found = capture(call, *arguments, X)
    assert list(found) == ["steps.0"]
    assert returned == other == graph
    merged = nnx.merge(returned, left)
    assert [type(module) for _, module in nnx.iter_modules(merged)][:2] == [Scale, Scale]
    assert nnx.merge is capture_library._own["merge"]
    assert nnx.split is capture_library._own["split"]


def test_capture_names_layers_of_models_that_are_split_and_merged():
    def loss(model, x):
        graph, state = nnx.split(model)
        inner_graph, inner_state = nnx.split(model.steps[1])
        x = nnx.merge(graph, state)(x)
        return nnx.merge(inner_graph, inner_state)(x).sum()

    model = Chain(Scale(2.0), Chain(Scale(3.0)))
    _, found = capture(loss, model, X)
    assert list(found) == ["steps.0", "steps.1.steps.0", "steps.1.steps.0#2"]


def test_capture_of_a_scan_that_carries_a_structure():
    graph, state = nnx.split(Chain(Scale(2.0)))

    def step(x):
        def body(carry, _):
            model = nnx.merge(*carry)
            return nnx.split(model), model(x).sum()

        return jax.lax.scan(body, (graph, state), length=2)

    (_, sums), found = capture(step, X)
    assert sums.tolist() == [-2, -2]
    assert found["steps.0"].shape == (2, 1, 2)


def test_capture_warns_at_the_line_of_its_caller():
    def nothing(x):
        return x

    for call in (capture, jax.jit(lambda f, x: capture(f, x), static_argnums=0)):
        with pytest.warns(UserWarning, match="finds no layer of nothing") as caught:
            call(nothing, X)
        assert caught[0].filename == __file__


def test_capture_counts_a_call_of_super_once():
    # Both classes are captured: the output of the subclass counts, once, and not the inner one.
    _, found = capture(Chain(Extends(2.0), Scale(3.0)), X)
    assert {name: value[0, 0].item() for name, value in found.items()} == {
        "steps.0": 3,
        "steps.1": 9,
    }


def test_capture_inside_capture():
    class Capturing(nnx.Module):
        def __init__(self):
            self.inner = Chain(Scale(2.0), Scale(3.0))

        def __call__(self, x):
            output, found = capture(self.inner, x)
            seen.append(list(found))
            return output

    seen = []
    output, found = capture(Capturing(), X)
    assert seen == [["steps.0", "steps.1"]]
    assert list(found) == ["inner.steps.0", "inner.steps.1"]
    assert output[0, 0] == 6


def test_capture_in_several_threads():
    results = {}

    def watch(factor):
        for _ in range(20):
            _, found = capture(Chain(Scale(factor), Scale(factor)), X)
            results.setdefault(factor, []).append([v[0, 0].item() for v in found.values()])

    threads = [threading.Thread(target=watch, args=(float(factor),)) for factor in (2, 3)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert results == {2.0: [[2, 4]] * 20, 3.0: [[3, 9]] * 20}


# --- errors ------------------------------------------------------------------------------------


class Rectifier(nnx.Module):
    def __call__(self, x):
        return nnx.relu(x)


def test_capture_without_a_match_lists_the_layers():
    model = ConvNet((1, 2), norm="batch", rngs=nnx.Rngs(0))
    message = (
        r"select must match a layer of ConvNet, .* Its layers: "
        r"blocks, blocks.0, blocks.0.conv, blocks.0.norm\."
    )
    with pytest.raises(ValueError, match=message):
        capture(model, IMAGES, select=lambda name, module: False)
    with pytest.raises(ValueError, match=r"a layer of Rectifier, .* Its layers: none\."):
        layer_names(Rectifier())


class Rematerialised(nnx.Module):
    """Two layers called by nnx.remat, with one called directly between them."""

    def __init__(self):
        rngs = nnx.Rngs(0)
        self.first, self.second = nnx.Linear(2, 3, rngs=rngs), nnx.Linear(3, 2, rngs=rngs)
        self.between = nnx.Linear(3, 3, rngs=rngs)

    def __call__(self, x):
        remat = nnx.remat(lambda module, x: module(x))
        return remat(self.second, self.between(remat(self.first, x)))


def test_capture_of_layers_inside_remat():
    model = Rematerialised()
    wanted = [model.first(X)]
    wanted += [model.between(wanted[0])]
    wanted += [model.second(wanted[1])]
    before = nnx.state(model)
    _, found = capture(model, X)
    assert list(found) == ["first", "between", "second"]
    for value, output in zip(found.values(), wanted, strict=True):
        np.testing.assert_allclose(value, output, rtol=1e-6)
    assert jax.tree.structure(nnx.state(model)) == jax.tree.structure(before)
    assert not [name for name in vars(model.first) if "convjax" in name]

    @nnx.jit
    def in_a_loop(model):
        def loss(model):
            output, found = capture(model, X)
            return (output**2).sum(), tuple(found.values())

        return nnx.value_and_grad(loss, has_aux=True)(model)[0][1]

    for value, output in zip(in_a_loop(model), wanted, strict=True):
        np.testing.assert_allclose(value, output, rtol=1e-6)


def test_capture_does_not_change_gradients_through_remat():
    graphdef, params = nnx.split(Rematerialised())

    def loss(params, watched):
        model = nnx.merge(graphdef, params, copy=True)
        output = capture(model, X)[0] if watched else model(X)
        return (output**2).sum()

    found, wanted = (jax.jit(jax.grad(loss), static_argnums=1)(params, w) for w in (True, False))
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-6), found, wanted)


def test_capture_of_layers_inside_scan_names_each_depth():
    class Stack(nnx.Module):
        def __init__(self):
            make = nnx.split_rngs(splits=3)(nnx.vmap(lambda rngs: nnx.Linear(2, 2, rngs=rngs)))
            self.layers = make(nnx.Rngs(0))

        def __call__(self, x):
            step = nnx.scan(lambda layer, x: layer(x), in_axes=(0, nnx.Carry), out_axes=nnx.Carry)
            return step(self.layers, x)

    model = Stack()
    output, found = capture(model, X)
    assert list(found) == ["layers[0]", "layers[1]", "layers[2]"]
    x = X
    for i, value in enumerate(found.values()):
        x = x @ model.layers.kernel[i] + model.layers.bias[i]
        np.testing.assert_allclose(value, x, rtol=1e-6)
    np.testing.assert_array_equal(value, output)


@pytest.mark.parametrize("transform", [nnx.remat, nnx.jit])
def test_capture_of_layers_inside_a_transform_traced_before(transform):
    call = transform(lambda module, x: module(x))

    class Transformed(nnx.Module):
        def __init__(self):
            self.inner, self.outer = Scale(2.0), Scale(3.0)

        def __call__(self, x):
            return self.outer(call(self.inner, x))

    model = Transformed()
    for factor in (1, 2):  # the second call could reuse the trace of the first
        _, found = capture(model, factor * X)
        assert list(found) == ["inner", "outer"]
        np.testing.assert_array_equal(found["inner"], 2 * factor * X)


def test_capture_inside_capture_with_remat():
    class Capturing(nnx.Module):
        def __init__(self):
            self.inner = Rematerialised()

        def __call__(self, x):
            first, found = capture(self.inner, x)
            return self.inner(x) + 0 * (found["second"] - first)

    output, found = capture(Capturing(), X)
    names = [f"inner.{name}" for name in ("first", "between", "second")]
    assert list(found) == names + [f"{name}#2" for name in names]
    np.testing.assert_array_equal(found["inner.second#2"], output)


def test_capture_warns_of_layers_that_are_not_called():
    class Idle(nnx.Module):
        def __init__(self):
            self.inner = Scale(2.0)

        def __call__(self, x):
            return x

    with pytest.warns(UserWarning, match=r"capture finds no layer of Idle: it calls none"):
        assert capture(Idle(), X)[1] == {}


def test_capture_traces_compiled_layers_again():
    class Compiled(nnx.Module):
        def __init__(self):
            rngs = nnx.Rngs(0)
            self.a, self.b = nnx.Linear(2, 2, rngs=rngs), nnx.Linear(2, 2, rngs=rngs)

        @nnx.jit
        def __call__(self, x):
            return self.b(self.a(x))

    model = Compiled()
    model(X)  # the first trace has no tags
    assert list(capture(model, X, select="a")[1]) == ["a"]
    assert list(capture(model, X)[1]) == ["a", "b"]
