"""Warnings point at the line that the user can change."""

import os
import sys
import warnings

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from flax import linen, nnx

import convjax
from convjax import capture, layer_stats
from convjax._warnings import warn_user

LEFT_OUT = {"conv": np.ones((2, 3), bool), "head": np.ones(3)}  # layer_stats warns of "conv"


def line_below(lines):
    return sys._getframe(1).f_lineno + lines


def place(caught):
    (warning,) = caught
    return warning.filename, warning.lineno


def function_in(package, code, **names):
    """Returns the function `f` of a source that seems to be a file of a package."""
    file = os.path.join(os.path.dirname(package.__file__), "somewhere.py")
    exec(compile(code, file, "exec"), names)
    return names["f"]


def test_warn_user_points_at_its_caller():
    line = line_below(2)
    with pytest.warns(UserWarning, match="^what happens$") as caught:
        warn_user("what happens")
    assert place(caught) == (__file__, line)
    assert caught[0].category is UserWarning


def test_warn_user_points_at_the_call_of_the_library():
    line = line_below(2)
    with pytest.warns(UserWarning, match="layer_stats leaves out 'conv'") as caught:
        layer_stats(LEFT_OUT)
    assert place(caught) == (__file__, line)
    line = line_below(2)
    with pytest.warns(UserWarning, match="capture finds no layer") as caught:
        capture(lambda x: 2 * x, np.ones(3))
    assert place(caught) == (__file__, line)


@pytest.mark.parametrize("around", [lambda f: f, nnx.jit, jax.vmap, jax.checkpoint])
def test_warn_user_points_into_the_step_that_is_traced(around):
    lines = []

    @jax.jit
    def step(x):
        lines.append(line_below(1))
        return layer_stats({"conv": x > 0, "head": x})

    with pytest.warns(UserWarning, match="layer_stats leaves out 'conv'") as caught:
        around(step)(jnp.ones((2, 3)))
    assert place(caught) == (__file__, lines[0])


def test_warn_user_points_into_the_module_that_is_called():
    lines = []

    class Net(linen.Module):
        @linen.compact
        def __call__(self, x):
            lines.append(line_below(1))
            layer_stats({"conv": x > 0, "head": x})
            return linen.Dense(2)(x)

    with pytest.warns(UserWarning, match="layer_stats leaves out 'conv'") as caught:
        Net().init(jax.random.key(0), jnp.ones((2, 3)))
    assert place(caught) == (__file__, lines[0])


@pytest.mark.parametrize("package", [convjax, jax, nnx, optax], ids=lambda p: p.__name__)
def test_warn_user_passes_over_packages(package):
    between = function_in(package, "def f(call):\n    call()", __name__="between")
    line = line_below(2)
    with pytest.warns(UserWarning, match="deep inside") as caught:
        between(lambda: between(warned))
    # The innermost line of the user's, here that of the lambda, is the same.
    assert place(caught) == (__file__, line)


warned = function_in(convjax, "def f():\n    warn_user('deep inside')", warn_user=warn_user)


def test_warn_user_passes_over_context_managers_of_the_library():
    code = (
        "import contextlib\n"
        "@contextlib.contextmanager\n"
        "def f():\n"
        "    warn_user('at the start')\n"
        "    yield\n"
    )
    manager = function_in(convjax, code, warn_user=warn_user)
    line = line_below(1)
    with pytest.warns(UserWarning, match="at the start") as caught, manager():
        pass
    assert place(caught) == (__file__, line)


def test_warn_user_does_not_pass_over_folders_whose_names_begin_alike():
    folder = os.path.dirname(jax.__file__) + "_of_mine"
    names = {"warn_user": warn_user}
    exec(compile("def f():\n    warn_user('here')", f"{folder}/step.py", "exec"), names)
    with pytest.warns(UserWarning, match="here") as caught:
        names["f"]()
    assert place(caught) == (f"{folder}/step.py", 2)


def test_warn_user_warns_once_per_line_of_the_user():
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("default")
        for _ in range(3):
            warned()
        warned()
    assert len(caught) == 2
    assert caught[1].lineno == caught[0].lineno + 1


def test_warn_user_is_an_error_where_warnings_are():
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        with pytest.raises(UserWarning, match="deep inside"):
            warned()
