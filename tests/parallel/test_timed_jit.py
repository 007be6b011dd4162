import time

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from convjax.parallel.timed_jit import TimedJit


class Counted:
    """The program of a function, and how often the function was traced."""

    def __init__(self, function, **settings):
        self.traces = 0

        def counting(*args):
            self.traces += 1
            return function(*args)

        self.program = TimedJit(counting, **settings)

    def __call__(self, *args):
        """Calls the program; returns its result and whether it compiled anew."""
        programs, seconds = self.program.programs, self.program.compile_seconds
        result = self.program(*args)
        new = self.program.programs - programs
        assert (self.program.compile_seconds > seconds) == bool(new)
        assert self.traces == self.program.programs
        return result, new == 1


def tree(x, scale):
    return {"sum": (x["a"] * scale).sum(), "rows": [x["b"][0], x["b"][1] - scale]}


ARGS = {"a": np.arange(6.0, dtype=np.float32), "b": (np.int32(3), np.arange(4, dtype=np.int32))}


def test_timed_jit_returns_the_result_of_the_function():
    found, wanted = TimedJit(tree)(ARGS, 0.5), tree(ARGS, 0.5)
    assert jax.tree.structure(found) == jax.tree.structure(wanted)
    # Sums of halves: exact in float32.
    for actual, expected in zip(jax.tree.leaves(found), jax.tree.leaves(wanted), strict=True):
        np.testing.assert_array_equal(actual, expected)


def test_timed_jit_compiles_at_the_first_call():
    program = TimedJit(tree)
    assert (program.programs, program.compile_seconds) == (0, 0)


def test_timed_jit_compiles_once_per_kind():
    call = Counted(tree)
    assert call(ARGS, np.float32(0.5))[1]
    for scale in (0.25, -1, 0):
        result, new = call(jax.tree.map(lambda x: x + 1, ARGS), np.float32(scale))
        assert not new
        # 21 quarters at most: exact.
        assert float(result["sum"]) == 21 * scale


@pytest.mark.parametrize(
    "other",
    [
        np.zeros((3, 3), np.float32),
        np.zeros(9, np.float32),
        np.zeros((3, 2), np.int32),
        (np.zeros((3, 2), np.float32),),
        {"x": np.zeros((3, 2), np.float32)},
    ],
    ids=["shape", "rank", "dtype", "tuple", "dict"],
)
def test_timed_jit_compiles_a_new_kind(other):
    call = Counted(lambda x: jax.tree.map(lambda y: y + 1, x))
    first = np.zeros((3, 2), np.float32)
    assert call(first)[1]
    result, new = call(other)
    assert new
    for actual, given in zip(jax.tree.leaves(result), jax.tree.leaves(other), strict=True):
        np.testing.assert_array_equal(actual, given + 1, strict=True)
    # Both are kept.
    assert not call(first)[1]
    assert not call(other)[1]


def test_timed_jit_takes_scalars_as_jit():
    # A Python number takes the dtype of the other; a NumPy one has its own.
    function = lambda x, y: x * y  # noqa: E731
    program, jitted = TimedJit(function), jax.jit(function)
    half = np.array([1.5, 2.5], np.float16)
    scalars = 3, 3.0, True, np.int32(3), np.int64(3), np.float32(3), np.float64(3)
    for scalar in (*scalars, jnp.asarray(3.0), jnp.float32(3)):
        found, wanted = program(half, scalar), jitted(half, scalar)
        np.testing.assert_array_equal(found, wanted, strict=True)
        assert found.weak_type == wanted.weak_type
    assert program(half, 3.0).dtype == np.float16
    assert program(half, np.float32(3)).dtype == np.float32
    fresh = Counted(function)
    # int64 and float64 are read as the 32 bits that there was a program for.
    assert [fresh(half, scalar)[1] for scalar in scalars] == [True] * 4 + [False, True, False]


def test_timed_jit_takes_its_results_without_compiling():
    call = Counted(lambda state, x: (state[0] + x, state[1] + 1))
    state, new = call(jax.tree.map(jnp.asarray, (np.zeros(3, np.float32), np.int32(0))), 2.0)
    assert new
    for _ in range(3):
        state, new = call(state, 2.0)
        assert not new
    assert state[0].tolist() == [8, 8, 8]
    assert int(state[1]) == 4


def test_timed_jit_donates_arguments():
    program = TimedJit(lambda state, x: state + x, donate_argnums=0)
    state, x = jnp.zeros(1000), jnp.ones(1000)
    for count in (1, 2):  # compiling, and compiled
        old = state
        state = program(old, x)
        assert old.is_deleted()
        assert not x.is_deleted()
        assert (np.asarray(state) == count).all()
    kept = jnp.zeros(1000)
    TimedJit(lambda state, x: state + x)(kept, x)
    assert not kept.is_deleted()


def test_timed_jit_measures_compilation_only():
    def slow(x):
        time.sleep(0.2)  # while traced
        return jax.pure_callback(later, jax.ShapeDtypeStruct((), np.float32), x)

    def later(x):
        time.sleep(0.4)  # while run
        return x

    program = TimedJit(slow)
    began = time.perf_counter()
    program(np.float32(1)).block_until_ready()
    # Sleeping takes at least the given time. There are no upper bounds: the machine may be busy.
    assert time.perf_counter() - began - program.compile_seconds >= 0.4
    assert program.compile_seconds >= 0.2


def test_timed_jit_keeps_no_program_after_an_error():
    program = TimedJit(lambda x: x[0] if x.ndim else x.missing)
    with pytest.raises(AttributeError, match="missing"):
        program(np.float32(1))
    assert program.programs == 0
    assert int(program(np.array([7]))) == 7


def test_timed_jit_with_jit_disabled():
    seen = []
    program = TimedJit(lambda x: seen.append(x) or x + 1)
    with jax.disable_jit():
        assert program(2.0) == 3.0
    assert seen == [2.0]
    assert program.programs == 0
