"""Training loops as people write them, each run plain and watched by `Recorder.watch`.

`python -m tests.stats.watched.cases` prints the matrix of all of them as a Markdown table.
"""

import sys
import time
import warnings
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from importlib import import_module
from typing import Any

import jax
import numpy as np
from flax import nnx

from convjax.optim.optimizers import path_name
from convjax.stats.record import Record
from convjax.stats.recorder import Recorder

STEPS = 3


def same_state(state: tuple[Any, ...], result: Any) -> tuple[Any, ...]:
    """Returns the next state of a loop whose step changes its objects in place, as in NNX."""
    return state


def returned_state(state: tuple[Any, ...], result: Any) -> tuple[Any, ...]:
    """Returns the next state of a loop whose step returns the new state before all else."""
    return tuple(result[: len(state)])


def loss_of(result: Any) -> Any:
    """Returns the loss: the result, its entry "loss", or that of the last of several results."""
    if isinstance(result, tuple):
        return loss_of(result[-1])
    return result["loss"] if isinstance(result, Mapping) else result


def params_of(state: tuple[Any, ...]) -> Any:
    """Returns the parameters: those of the only NNX model, or the first of the state."""
    models = [x for x in state if isinstance(x, nnx.Module) and not isinstance(x, nnx.Optimizer)]
    if models:
        return nnx.state(models[0], nnx.Param)
    return getattr(state[0], "params", state[0])


@dataclass(frozen=True)
class Case:
    """A training loop and what its record must hold.

    Attributes:
      name: of the case.
      make: returns (state, step, jit) anew: a tuple; the function that takes the state and a batch
        as its arguments; and what compiles it, such as `nnx.jit`.
      batches: the further arguments of each step.
      layers: the names of the record's layers, in order; a set for names that must be among them.
      left_out: of what is left out, with a word of the warning that names it.
      lines: number of lines that differ between the plain and the watched loop.
      next_state: returns the state after a step, given that before it and what the step returned.
      loss: returns the loss, given what the step returns.
      params: returns the parameters, given the state; None if the record must have none.
      watch: returns the watched step, given the recorder, the step and the jit; by default
        `recorder.watch(step)`, with the jit if it is not that of a library.
      updates_at: the steps at which the parameters change; by default all.
      checks_updates: whether a call is one step, so that updates are differences of states; the
        losses of several steps are not among the results.
      rounding: largest difference of a number where the compiler's optimisations are on, because
        they round the program differently whose values also leave it. By default, and always
        without optimisations, the numbers are the same bit for bit.
      images: returns the network's input, given a batch; its mean is compared.
      labels: returns the labels, likewise.
    """

    name: str
    make: Callable[[], tuple[tuple[Any, ...], Callable[..., Any], Any]]
    batches: Sequence[tuple[Any, ...]]
    layers: tuple[str, ...] | frozenset[str] | set[str]
    left_out: Mapping[str, str] = field(default_factory=dict)
    lines: int = 3
    next_state: Callable[[tuple[Any, ...], Any], tuple[Any, ...]] = same_state
    loss: Callable[[Any], Any] = loss_of
    params: Callable[[tuple[Any, ...]], Any] | None = params_of
    watch: Callable[[Recorder, Callable[..., Any], Any], Callable[..., Any]] | None = None
    updates_at: tuple[int, ...] | None = None
    checks_updates: bool = True
    rounding: float = 0.0
    images: Callable[..., Any] = lambda *batch: batch[0]
    labels: Callable[..., Any] = lambda *batch: batch[1]

    def __str__(self) -> str:
        return self.name


@dataclass
class Run:
    """What a loop has computed; arrays are copies of NumPy.

    Attributes:
      results: of each step.
      losses: of each step.
      state: after the last step.
      params: before each step, and after the last.
      warnings: messages.
      record: of the watched loop.
    """

    results: list[list[Any]]
    losses: list[Any]
    state: list[Any]
    params: list[dict[str, np.ndarray]]
    warnings: list[str]
    record: Record | None = None


def run_plain(case: Case) -> Run:
    """Runs the loop without a recorder."""
    state, step, jit = case.make()
    return _run(case, state, jit(step))


def run_watched(case: Case) -> Run:
    """Runs the loop with a recorder."""
    recorder = Recorder()
    state, step, jit = case.make()
    run = _run(case, state, watched(case, recorder, step, jit))
    run.record = recorder.record()
    return run


def watched(case: Case, recorder: Recorder, step: Any, jit: Any) -> Callable[..., Any]:
    """Returns the step of a case as its watched loop has it."""
    if case.watch is not None:
        return case.watch(recorder, step, jit)
    return recorder.watch(step, **({} if _of_library(jit) else {"jit": jit}))  # type: ignore[no-any-return]


def check(case: Case) -> Record:
    """Asserts that the watched loop computes what the plain one does, and that its record is true.

    Returns:
      The record, for further assertions.
    """
    plain, found = run_plain(case), run_watched(case)
    record = found.record
    assert record is not None
    optimised = not jax.config.read("jax_disable_most_optimizations")
    rounding = case.rounding if optimised else 0.0
    assert_same(plain.results, found.results, rounding)
    assert_same(plain.state, found.state, rounding)
    _check_warnings(case, [text for text in found.warnings if text not in plain.warnings])
    if isinstance(case.layers, tuple):
        assert record.layers == case.layers, record.layers
    else:
        assert case.layers <= set(record.layers), record.layers
    if case.checks_updates:
        assert_same(np.ravel(plain.losses).astype(np.float32), record.loss, rounding)
    for name, values in (("input", case.images), ("labels", case.labels)):
        if name in record.layers:
            arrays = [np.asarray(values(*batch), np.float64) for batch in case.batches]
            column = record.layers.index(name)
            # A call of several steps has as many rows.
            found_means = record.mean[:, column].reshape(len(arrays), -1).mean(1)
            wanted = [array.mean() for array in arrays]
            np.testing.assert_allclose(found_means, wanted, rtol=1e-5, atol=1e-6)
    assert np.isfinite(record.mean).all()
    _check_parameters(case, record, plain)
    return record


def _check_warnings(case: Case, messages: list[str]) -> None:
    for name, word in case.left_out.items():
        assert any(name in text and word in text for text in messages), (name, messages)
    for text in messages:
        assert any(name in text and word in text for name, word in case.left_out.items()), text


def _check_parameters(case: Case, record: Record, plain: Run) -> None:
    found = record.parameters
    if case.params is None:
        assert found is None or not found.names
        return
    assert found is not None
    assert found.names
    steps = tuple(range(len(case.batches)))
    if case.checks_updates:
        assert tuple(found.watched) == (steps if case.updates_at is None else case.updates_at)
        first = int(found.watched[0])
        before, after = plain.params[first], plain.params[first + 1]
        assert set(found.names) == set(before)
        for name, weights, update in zip(
            found.names, found.weight_norm[0], found.update_norm[0], strict=True
        ):
            precision = float(jax.numpy.finfo(before[name].dtype).eps)
            old, new = (np.asarray(p[name], np.float64) for p in (before, after))
            # A parameter of magnitude 1 loses digits of its update when the two are added. By XLA's
            # xla_allow_excess_precision an update is not rounded to bfloat16 before it is measured:
            # half a digit is then missing in the difference of the parameters.
            change = np.linalg.norm(new - old)
            of_parameter = np.linalg.norm(old) + np.sqrt(old.size) * 1e-6
            tolerance = precision * (of_parameter + change / 2)
            np.testing.assert_allclose(weights, np.linalg.norm(old), rtol=1e-5, err_msg=name)
            np.testing.assert_allclose(
                update, np.linalg.norm(new - old), rtol=1e-5, atol=tolerance, err_msg=name
            )
    assert np.isfinite(found.grad_norm).all()
    assert (found.grad_norm >= 0).all()
    # A bias before batch norm has the gradient 0, and rounding may leave it so; kernels have none.
    assert (found.grad_norm[0] > 0).any()


def _run(case: Case, state: tuple[Any, ...], step: Callable[..., Any]) -> Run:
    run = Run([], [], [], [_named(case, state)], [])
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        for batch in case.batches:
            result = step(*state, *batch)
            state = case.next_state(state, result)
            run.results.append(numbers(result))
            run.losses.append(np.asarray(case.loss(result)))
            run.params.append(_named(case, state))
        run.state = numbers(state)
    run.warnings = [str(warning.message) for warning in caught]
    return run


def _named(case: Case, state: tuple[Any, ...]) -> dict[str, np.ndarray]:
    if case.params is None:
        return {}
    leaves = jax.tree_util.tree_leaves_with_path(case.params(state))
    return {
        path_name(path): np.array(x)
        for path, x in leaves
        if isinstance(x, jax.Array) and jax.numpy.issubdtype(x.dtype, jax.numpy.floating)
    }


def numbers(tree: Any) -> list[Any]:
    """Returns all numbers of a tree, copied: those of arrays and of the attributes of modules."""
    simple: list[Any] = []
    nodes = jax.tree.leaves(tree, is_leaf=_is_module)
    for path, module in (p for x in nodes if _is_module(x) for p in nnx.iter_modules(x)):
        attributes = sorted(vars(module).items(), key=lambda item: item[0])
        simple += [
            (path, name, x) for name, x in attributes if isinstance(x, bool | int | float | str)
        ]
    return [
        np.array(
            jax.random.key_data(x) if jax.dtypes.issubdtype(x.dtype, jax.dtypes.prng_key) else x
        )
        if isinstance(x, jax.Array)
        else x
        for x in jax.tree.leaves(_state(tree))
        if isinstance(x, jax.Array | np.ndarray | bool | int | float)
    ] + simple


def _state(tree: Any) -> Any:
    return (
        nnx.split(tree)[1]
        if any(map(_is_module, jax.tree.leaves(tree, is_leaf=_is_module)))
        else tree
    )


def _is_module(value: Any) -> bool:
    return isinstance(value, nnx.Module)


def assert_same(plain: Any, found: Any, rounding: float = 0.0) -> None:
    """Asserts that two trees of numbers are equal bit for bit, or but for a rounding."""
    plain, found = (jax.tree.leaves(tree) for tree in (plain, found))
    assert len(plain) == len(found)
    for wanted, value in zip(plain, found, strict=True):
        if rounding and isinstance(wanted, np.ndarray):
            np.testing.assert_allclose(value, wanted, rtol=0, atol=rounding)
        else:
            np.testing.assert_array_equal(value, wanted, strict=isinstance(wanted, np.ndarray))


def _of_library(jit: Any) -> bool:
    equinox = sys.modules.get("equinox")
    return jit in (jax.jit, nnx.jit) or (equinox is not None and jit is equinox.filter_jit)


# --- the matrix --------------------------------------------------------------------------------

MODULES = ("test_nnx_and_jax", "test_linen_haiku_equinox")


def costs(case: Case, steps: int = 5) -> tuple[float, float]:
    """Returns the time of the first call, traced and compiled, and of later ones over the plain."""
    seconds: list[list[float]] = [[], []]
    loops: list[Any] = []
    jax.clear_caches()  # the case has run before
    for is_watched in (False, True):
        state, step, jit = case.make()
        loops.append([state, watched(case, Recorder(), step, jit) if is_watched else jit(step)])
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        for _ in range(steps + 1):
            for loop, times in zip(loops, seconds, strict=True):
                start = time.perf_counter()
                result = jax.block_until_ready(loop[1](*loop[0], *case.batches[0]))
                times.append(time.perf_counter() - start)
                loop[0] = case.next_state(loop[0], result)
    plain, with_stats = ((times[0], float(np.median(times[1:]))) for times in seconds)
    return with_stats[0] / plain[0], with_stats[1] / plain[1]


def matrix(modules: Sequence[str] = MODULES) -> Iterator[str]:
    """Yields the lines of the matrix of all cases, a Markdown table."""
    yield "| Loop | Lines | Layers watched | Left out | Compile | Step |"
    yield "|---" * 6 + "|"
    for module in modules:
        for case in import_module(f"{__package__}.{module}").CASES:
            record = run_watched(case).record
            assert record is not None
            names = [name for name in record.layers if name not in ("input", "labels")]
            shown = ", ".join(names[:3]) + (f", … ({len(names)})" if len(names) > 3 else "")
            out = "; ".join(f"{name} ({word})" for name, word in case.left_out.items())
            compiled, step = costs(case)
            row = case.name, str(case.lines), shown, out, f"{compiled:.1f}×", f"{step:.2f}×"
            yield f"| {' | '.join(row)} |"


if __name__ == "__main__":
    jax.config.update("jax_num_cpu_devices", 4)
    for line in matrix(sys.argv[1:] or MODULES):
        print(line, flush=True)
