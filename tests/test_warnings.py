"""Warnings point at the line that the user can change."""

import contextlib
import sys
import types
import warnings

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from flax import linen, nnx

from convjax import _warnings, capture, layer_stats
from convjax._warnings import warn_user

EMPTY = {"conv": np.zeros((2, 0)), "head": np.zeros(3)}  # layer_stats warns of "conv"
X = np.ones((2, 3), np.float32)


def test_warn_user_points_at_its_caller():
    with pytest.warns(UserWarning, match="^what happens$") as caught:
        warn_user("what happens")
    code, first = test_warn_user_points_at_its_caller.__code__, caught[0]
    assert first.filename == __file__
    assert first.lineno == code.co_firstlineno + 2
