"""Capturing from Equinox models; whole training loops are in tests/stats/watched."""

import threading

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from convjax.nn._capture import capture
from convjax.nn._equinox_calls import equinox_modules, equinox_reporting, is_equinox
from convjax.nn._module_calls import LayerCalls

KEYS = jax.random.split(jax.random.key(0), 4)
X = np.random.default_rng(0).standard_normal(8).astype(np.float32)
IMAGES = np.random.default_rng(1).standard_normal((4, 1, 6, 6)).astype(np.float32)


class Twice(eqx.nn.Linear):
    """Inherits from a layer, and calls its method."""

    def __call__(self, x):
        return 2 * super().__call__(x)


class Inheriting(eqx.nn.Linear):
    """Has no method of its own."""


class Net(eqx.Module):
    parts: dict
    scale: jax.Array

    def __init__(self):
        self.parts = {
            "z": [eqx.nn.Linear(8, 4, key=KEYS[0]), Twice(4, 4, key=KEYS[1])],
            "a": Inheriting(4, 2, key=KEYS[2]),
        }
        self.scale = jnp.full(2, 3.0)

    def encode(self, x):
        for layer in self.parts["z"]:
            x = layer(x)
        return x

    def __call__(self, x):
        return self.scale * self.parts["a"](self.encode(x))


def by_hand(layer, x):
    return np.asarray(layer.weight) @ np.asarray(x) + np.asarray(layer.bias)


def test_capture_of_equinox_keeps_the_order_and_values_of_calls():
    model = Net()
    output, found = capture(model, X)
    assert list(found) == ["parts.z.0", "parts.z.1", "parts.a", "Net"]
    first = by_hand(model.parts["z"][0], X)
    np.testing.assert_allclose(found["parts.z.0"], first, rtol=1e-5, atol=1e-6)
    # The method that calls that of its base is one layer.
    second = 2 * by_hand(model.parts["z"][1], first)
    np.testing.assert_allclose(found["parts.z.1"], second, rtol=1e-5, atol=1e-6)
    np.testing.assert_array_equal(found["Net"], output)
    np.testing.assert_array_equal(output, model(X))


def test_capture_of_a_method_of_equinox():
    output, found = capture(Net().encode, X)
    assert list(found)[:2] == ["parts.z.0", "parts.z.1"]
    np.testing.assert_array_equal(output, Net().encode(X))


def test_equinox_modules_names_the_owner_of_parameters_by_its_class():
    assert list(equinox_modules(Net())) == ["Net", "parts.z.0", "parts.z.1", "parts.a"]
    assert list(equinox_modules(eqx.nn.MLP(8, 2, 4, 1, key=KEYS[0]))) == ["layers.0", "layers.1"]


def test_is_equinox_tells_models_from_functions_of_transforms():
    assert is_equinox(Net())
    assert not is_equinox(eqx.filter_jit(lambda x: x))
    assert not is_equinox(jax.nn.relu)
    assert not is_equinox({"w": X})


def methods():
    return [vars(cls).get("__call__") for cls in (eqx.nn.Linear, Twice, Inheriting, Net)]


def test_equinox_reporting_leaves_the_classes_as_they_were():
    before = methods()
    capture(Net(), X)
    assert methods() == before
    assert before[2] is None  # inherited
    with pytest.raises(TypeError):
        capture(Net(), "no array")
    assert methods() == before


def test_equinox_reporting_is_silent_in_other_threads():
    model, calls = Net(), LayerCalls(lambda name, module: True)
    with calls.reporting(), equinox_reporting({"": model}, calls):
        thread = threading.Thread(target=model, args=(X,))
        thread.start()
        thread.join()
    assert not calls.seen


class Normalised(eqx.Module):
    conv: eqx.nn.Conv2d
    norm: eqx.nn.BatchNorm

    def __init__(self):
        self.conv = eqx.nn.Conv2d(1, 3, 3, key=KEYS[0])
        self.norm = eqx.nn.BatchNorm(3, axis_name="batch", mode="batch")

    def __call__(self, x, state):
        return self.norm(self.conv(x), state)


def test_capture_of_equinox_leaves_out_the_state():
    model, state = eqx.nn.make_with_state(Normalised)()
    batched = jax.vmap(model, axis_name="batch", in_axes=(0, None), out_axes=(0, None))

    def call(model, x, state):
        return jax.vmap(model, axis_name="batch", in_axes=(0, None), out_axes=(0, None))(x, state)

    (output, new), found = capture(call, model, IMAGES, state)
    assert list(found) == ["conv", "norm"]
    assert found.channel_axes == {"conv": -3, "norm": -3}
    np.testing.assert_array_equal(found["norm"], output)
    wanted, wanted_state = batched(IMAGES, state)
    np.testing.assert_array_equal(output, wanted)
    for value, other in zip(jax.tree.leaves(new), jax.tree.leaves(wanted_state), strict=True):
        np.testing.assert_array_equal(value, other)


class Blocks(eqx.Module):
    first: eqx.nn.Linear
    second: eqx.nn.Linear
    head: eqx.nn.Linear

    def __init__(self):
        self.first = eqx.nn.Linear(8, 8, key=KEYS[0])
        self.second = eqx.nn.Linear(8, 8, key=KEYS[1])
        self.head = eqx.nn.Linear(8, 2, key=KEYS[2])

    def __call__(self, x):
        for layer in (self.first, self.second, self.head):
            x = eqx.filter_checkpoint(layer)(x)
        return x


def test_capture_of_equinox_names_a_rebuilt_module_by_its_structure():
    # Two modules of one structure cannot be told apart: they have the name of their class.
    output, found = capture(Blocks(), X)
    assert list(found) == ["Linear", "Linear#2", "head"]
    np.testing.assert_array_equal(found["head"], output)


class Stack(eqx.Module):
    layers: eqx.nn.Linear

    def __init__(self):
        self.layers = eqx.filter_vmap(lambda key: eqx.nn.Linear(8, 8, key=key))(KEYS)

    def __call__(self, x):
        dynamic, static = eqx.partition(self.layers, eqx.is_array)

        def step(x, layer):
            return eqx.combine(layer, static)(x), None

        return jax.lax.scan(step, x, dynamic)[0]


def test_capture_of_equinox_names_each_depth_of_a_scan():
    output, found = capture(Stack(), X)
    assert list(found) == [f"layers[{i}]" for i in range(4)]
    np.testing.assert_array_equal(found["layers[3]"], output)


def test_capture_of_two_equinox_models_puts_their_arguments_before_the_names():
    def loss(encoder, decoder, x):
        return decoder(encoder(x)).sum()

    encoder, decoder = Blocks(), eqx.nn.MLP(2, 8, 4, 1, key=KEYS[0])
    found = capture(loss, encoder, decoder, X)[1]
    layers = ["decoder.layers.0", "decoder.layers.1"]
    assert list(found) == ["Linear", "Linear#2", "encoder.head", *layers]
