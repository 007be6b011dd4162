"""Helpers for tests of the receptive fields of functions."""

import math

import jax
import jax.numpy as jnp
import pytest
from flax import nnx

from convjax.analysis import jaxpr_walk
from convjax.analysis.affine import TracedArray, shape_of
from convjax.analysis.receptive_field import receptive_fields

WHOLE = (math.inf, math.inf)


@pytest.fixture(autouse=True)
def shapes_hold(monkeypatch):
    """Checks after each operation that the traced array has the shape of the result."""
    follow = jaxpr_walk._results

    def checked(equation, operands, stacks):
        results = follow(equation, operands, stacks)
        for variable, result in zip(equation.outvars, results, strict=True):
            if isinstance(result, TracedArray):
                assert result.shape == shape_of(variable), equation.primitive.name
        return results

    monkeypatch.setattr(jaxpr_walk, "_results", checked)


def field(function, shape=(1, 32, 32, 1)):
    """Returns the field of a function of images."""
    named = receptive_fields(
        lambda x: (function(x), {"x": x}), jax.ShapeDtypeStruct(shape, jnp.float32)
    )
    return named["(output)"]


def pool(x, size=2, stride=2, padding="VALID"):
    return nnx.max_pool(x, (size, size), strides=(stride, stride), padding=padding)
