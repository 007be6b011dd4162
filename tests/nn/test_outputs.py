"""What is known of captured layers stays with them, in whatever dictionary their outputs are."""

import copy
import gc
import sys
import threading

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from convjax.nn.outputs import LayerKind, LayerOutputs

CONV, HEAD = LayerKind("Conv", "relu"), LayerKind("Linear")
X = np.ones((2, 3))


def captured(**named):
    """Outputs of a network with maps of NCHW, like those of a capture."""
    outputs = named or {"conv": np.zeros((2, 3, 4, 4)), "head": np.zeros((2, 5))}
    kinds = dict(zip(outputs, (CONV, HEAD), strict=False))
    return LayerOutputs(outputs, {next(iter(outputs)): -3}, kinds, output=np.full(2, 7.0))


def known(outputs):
    return outputs.channel_axes, outputs.kinds, outputs.output


def test_layer_outputs_of_themselves_are_the_same_object():
    outputs = captured()
    assert LayerOutputs.of(outputs) is outputs


def test_layer_outputs_of_an_unpacked_dictionary_know_the_layers():
    outputs = captured()
    found = LayerOutputs.of({"input": X, **outputs, "labels": X})
    assert list(found) == ["input", "conv", "head", "labels"]
    assert found["conv"] is outputs["conv"]
    assert known(found) == ({"conv": -3}, {"conv": CONV, "head": HEAD}, outputs.output)


def test_layer_outputs_of_some_layers_know_these():
    outputs = captured()
    found = LayerOutputs.of({"head": outputs["head"]})
    assert known(found) == ({}, {"head": HEAD}, outputs.output)


def test_layer_outputs_of_a_dictionary_with_another_array_of_the_name_do_not_know_it():
    outputs = captured()
    found = LayerOutputs.of({**outputs, "conv": outputs["conv"].copy()})
    assert known(found) == ({}, {"head": HEAD}, outputs.output)


def test_layer_outputs_of_a_foreign_dictionary_know_nothing():
    outputs = captured()
    for foreign in ({}, {"conv": X}, {"other": outputs["conv"]}):
        found = LayerOutputs.of(foreign)
        assert (dict(found), *known(found)) == (foreign, {}, {}, None)


def test_layer_outputs_of_two_captures_know_the_layers_of_both():
    encoder, decoder = captured(), captured(up=np.zeros((2, 3, 8, 8)), last=np.zeros((2, 1)))
    found = LayerOutputs.of({"input": X, **encoder, **decoder})
    assert found.channel_axes == {"conv": -3, "up": -3}
    assert found.kinds == {"conv": CONV, "head": HEAD, "up": CONV, "last": HEAD}
    assert found.output is decoder.output  # of the last capture, as with |


def test_layer_outputs_of_a_dictionary_are_not_those_without_arrays():
    outputs = captured()
    emptied = jax.tree.map(lambda x: None, outputs)
    assert emptied["conv"] is None
    assert known(LayerOutputs.of({"input": X})) == ({}, {}, None)
    assert known(LayerOutputs.of({"conv": X, "head": None})) == ({}, {}, None)


def test_layer_outputs_of_an_ended_capture_are_forgotten():
    outputs = captured()
    conv = outputs["conv"]
    del outputs
    gc.collect()
    assert known(LayerOutputs.of({"conv": conv})) == ({}, {}, None)


def test_layer_outputs_of_a_traced_dictionary_know_the_layers():
    found = []

    @jax.jit
    def step(x):
        outputs = LayerOutputs({"conv": x + 1}, {"conv": -3}, {"conv": CONV}, output=2 * x)
        found.append(LayerOutputs.of({"input": x, **outputs}))
        assert found[0].output is outputs.output
        return outputs

    returned = step(jnp.ones((2, 3, 4, 4)))
    assert (found[0].channel_axes, found[0].kinds) == ({"conv": -3}, {"conv": CONV})
    # The output is only that of its trace.
    assert known(returned) == ({"conv": -3}, {"conv": CONV}, None)


def test_layer_outputs_of_while_other_threads_capture():
    ended = threading.Event()

    def captures():
        while not ended.is_set():
            captured()

    kept = [captured() for _ in range(200)]
    outputs = kept[0]
    plain = {"input": X, **outputs}
    others = [threading.Thread(target=captures) for _ in range(2)]
    interval = sys.getswitchinterval()
    sys.setswitchinterval(1e-6)
    try:
        for other in others:
            other.start()
        for _ in range(300):
            assert LayerOutputs.of(plain).kinds == outputs.kinds
    finally:
        ended.set()
        sys.setswitchinterval(interval)
        for other in others:
            other.join()


# --- pytrees and copies --------------------------------------------------------------------------


def test_layer_outputs_keep_order_axes_and_kinds_through_trees():
    outputs = captured(z=np.ones(2), a=np.zeros(2))
    doubled = jax.tree.map(lambda x: 2 * x, outputs)
    assert isinstance(doubled, LayerOutputs)
    assert list(doubled) == ["z", "a"]
    assert known(doubled) == ({"z": -3}, {"z": CONV, "a": HEAD}, None)
    paths = [jax.tree_util.keystr(path) for path, _ in jax.tree.leaves_with_path(outputs)]
    assert paths == ["['z']", "['a']"]
    unknown = LayerOutputs(outputs, outputs.channel_axes)
    assert jax.tree.structure(unknown) != jax.tree.structure(outputs)
    assert hash(jax.tree.structure(outputs)) == hash(jax.tree.structure(outputs.copy()))


@pytest.mark.parametrize(
    "copied", [LayerOutputs.copy, copy.copy, copy.deepcopy], ids=["copy", "shallow", "deep"]
)
def test_layer_outputs_copies_know_the_same_and_change_alone(copied):
    outputs = captured()
    other = copied(outputs)
    np.testing.assert_equal(dict(other), dict(outputs))
    assert (other.channel_axes, other.kinds) == (outputs.channel_axes, outputs.kinds)
    np.testing.assert_array_equal(other.output, outputs.output)
    other["more"] = X
    assert "more" not in outputs
    if copied is not copy.copy:  # which shares what an object holds, of any object
        other.kinds["more"] = other.channel_axes["more"] = HEAD
        assert "more" not in outputs.kinds | outputs.channel_axes


# --- | ------------------------------------------------------------------------------------------


def test_layer_outputs_or_keeps_what_is_known_of_both():
    first, second = captured(), captured(up=np.zeros((2, 3, 8, 8)))
    both = first | second
    assert list(both) == ["conv", "head", "up"]
    assert both.channel_axes == {"conv": -3, "up": -3}
    assert both.kinds == {"conv": CONV, "head": HEAD, "up": CONV}
    assert both.output is second.output
    assert (first | {"more": X}).output is first.output
    assert list(first) == ["conv", "head"]  # it has not changed


@pytest.mark.parametrize("operation", ["or", "reflected", "in place"])
def test_layer_outputs_or_of_a_plain_dictionary(operation):
    outputs = captured()
    output = outputs.output
    if operation == "or":
        found = outputs | {"labels": X}
    elif operation == "reflected":
        found = {"labels": X} | outputs
    else:
        found = outputs
        found |= {"labels": X}
        assert found is outputs
    wanted = ["labels", "conv", "head"] if operation == "reflected" else ["conv", "head", "labels"]
    assert list(found) == wanted
    assert known(found) == ({"conv": -3}, {"conv": CONV, "head": HEAD}, output)


def test_layer_outputs_or_forgets_layers_that_are_replaced():
    for found in (captured() | {"conv": X}, captured().__ior__({"conv": X})):
        assert found["conv"] is X
        assert (found.channel_axes, found.kinds) == ({}, {"head": HEAD})
    # Those on the right stand, here the captured ones.
    found = {"conv": X} | captured()
    assert (found.channel_axes, found.kinds["conv"]) == ({"conv": -3}, CONV)


def test_layer_outputs_or_in_place_takes_the_output():
    outputs, second = LayerOutputs(), captured()
    outputs |= second
    assert known(outputs) == known(second)
