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
            [
                "blocks",
                "blocks.0",
                *CONVS[:1],
                NORMS[0],
                "blocks.0.relu",
                "blocks.1",
                CONVS[1],
                NORMS[1],
            ],
        ),
    ],
)
def test_layer_names_by_name_type_and_function(select, names):
    assert sorted(layer_names(MODEL, select)) == sorted(names)


def test_predicate_patterns_are_case_sensitive():
    assert not predicate("CONV*")("conv1", None)


def test_has_parameters_accepts_named_values():
    assert has_parameters("hidden", None)


@pytest.mark.parametrize("select", [3, None, MODEL, linen.Dense(3)])
def test_predicate_rejects_other_kinds(select):
    with pytest.raises(TypeError, match=r"select must be a function of a layer's name"):
        predicate(select)
