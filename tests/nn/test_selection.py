import pytest
from flax import linen, nnx

from convjax.nn._capture import layer_names
from convjax.nn.layers import BatchNorm, Conv
from convjax.nn.models import ConvNet
from convjax.nn.selection import has_parameters, predicate

MODEL = ConvNet((1, 2, 3), norm="batch", rngs=nnx.Rngs(0))
CONVS = ["blocks.0.conv", "blocks.1.conv"]
NORMS = ["blocks.0.norm", "blocks.1.norm"]


@pytest.mark.parametrize(
    ("select", "names"),
    [
        (has_parameters, sorted(CONVS + NORMS)),
        (Conv, CONVS),
        ("*conv", CONVS),
        ("blocks.1.*", ["blocks.1.conv", "blocks.1.norm"]),
        ("blocks.0.conv", CONVS[:1]),
        (["blocks.0.conv", BatchNorm], sorted(CONVS[:1] + NORMS)),
        (lambda name, module: isinstance(module, Conv) and "1" in name, CONVS[1:]),
        (
            "*",
            ["blocks", "blocks.0", *CONVS[:1], NORMS[0], "blocks.1", CONVS[1], NORMS[1]],
        ),
    ],
)
def test_by_name_by_type_and_by_a_function(select, names):
    assert sorted(layer_names(MODEL, select)) == sorted(names)


def test_patterns_tell_capitals_apart():
    assert not predicate("CONV*")("conv1", None)


def test_named_values_of_a_function_count_as_layers():
    assert has_parameters("hidden", None)


@pytest.mark.parametrize("select", [3, None, MODEL, linen.Dense(3)])
def test_another_kind(select):
    with pytest.raises(TypeError, match=r"select must be a function of a layer's name"):
        predicate(select)
