import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from convjax import _checks as checks


@given(st.integers(-5, 5), st.integers(-5, 5))
def test_whole_numbers(value, minimum):
    for of in (int, np.int8, jnp.asarray):
        if value >= minimum:
            assert checks.check_whole("n", of(value), minimum) == value
        else:
            with pytest.raises(ValueError, match=f"n must be at least {minimum}, got {value}"):
                checks.check_whole("n", of(value), minimum)


@pytest.mark.parametrize("value", [2.0, "2", None, [2], np.float32(2)])
def test_what_is_no_whole_number(value):
    with pytest.raises(TypeError, match="n must be a whole number, got "):
        checks.check_whole("n", value, 0)


@pytest.mark.parametrize("value", [2, 2.0, np.float16(2), np.array(2.0), jnp.float32(2)])
def test_numbers(value):
    assert checks.check_number("x", value) == 2
    checks.check_real("x", value)
    checks.check_real("x", jnp.full(2, value, jnp.bfloat16))


@pytest.mark.parametrize("value", ["2", b"2", None, [1, 2], np.ones(2), 1j])
def test_what_is_no_number(value):
    with pytest.raises(TypeError, match="x must be a number, got "):
        checks.check_number("x", value)


@pytest.mark.parametrize("value", ["2", None, 1j, np.array("2")])
def test_what_is_no_real_number(value):
    with pytest.raises(TypeError, match="x must be a number, got "):
        checks.check_real("x", value)
    with pytest.raises(TypeError, match="x must be a value, got a tracer"):
        jax.jit(lambda x: checks.check_real("x", x))(1.0)


def test_a_value_is_described_in_one_short_line():
    assert checks.describe_value([1, 2]) == "list: [1, 2]"
    assert checks.describe_value(np.zeros((2, 2))) == "ndarray: array([[0., 0.], [0., 0.]])"
    text = checks.describe_value("x" * 1000)
    assert len(text) == len("str: ") + 80
    assert text.endswith("x…")
