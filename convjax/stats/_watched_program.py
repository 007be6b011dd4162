"""A training step that is compiled, runs, and adds its statistics to a recorder."""

from collections.abc import Callable
from functools import partial, update_wrapper
from types import MethodType
from typing import Any

import jax
import numpy as np
from flax import nnx

from convjax._warnings import warn_user
from convjax.nn._equinox_calls import is_equinox
from convjax.stats._evaluation_loss import evaluation_loss
from convjax.stats._step_arguments import loss_of
from convjax.stats.watch import Watch
from convjax.stats.watched_step import Step, watch_step

Jit = Callable[[Step], Step]

# The loss in evaluation mode costs a forward pass, a third of a step: every 32nd step is 1 %.
EVALUATION_STEPS = 32


class WatchedProgram:
    """A compiled step: called like the step, it returns what the step returns.

    Args:
      add: `convjax.Recorder.add` of the recorder that gets the statistics.
      step, jit, watch, loss, labels: as for `convjax.Recorder.watch`.
    """

    def __init__(
        self,
        add: Callable[..., None],
        step: Step,
        *,
        jit: Jit | None,
        watch: Watch,
        loss: Callable[[Any], jax.Array] | None,
        labels: Callable[..., jax.Array] | None,
    ):
        self._add, self._step, self._jit, self._every = add, step, jit, watch.every
        self._loss = partial(loss_of, loss=loss)
        self._evaluation_steps = -(-EVALUATION_STEPS // watch.every) * watch.every
        self._with_stats = watch_step(step, watch=watch, loss=loss, labels=labels)
        self._plain: Step | None = None
        self._watched: Step | None = None
        self._evaluation: Step | None = None
        self._evaluates = watch.evaluation
        self._steps = 0
        self._works = self._fails = False
        update_wrapper(self, step)

    def __get__(self, instance: Any, owner: type | None = None) -> Any:
        return self if instance is None else MethodType(self, instance)

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        step = self._steps
        self._steps += 1
        if self._jit is None:
            self._jit = _jit_of((args, kwargs))
        if step % self._every == 0 and not self._fails:
            # Not at the first step, whose compilation takes long enough.
            due = step > 0 and step % self._evaluation_steps == 0
            evaluated = self._evaluated(args, kwargs) if due else {}
            result, stats = self._run_watched(args, kwargs)
            if failed := evaluated.pop("failed", None):
                warn_user(f"the recorder leaves out the loss in evaluation mode: {failed}")
            stats |= evaluated if stats.get("layers") is not None else {}
        else:
            result, stats = self._run_plain(args, kwargs), {}
        try:
            if stats.get("loss") is None:
                loss = self._loss(result)
                stats["loss"] = np.nan if loss is None else loss
            self._add(**stats)
        except Exception as error:
            warn_user(f"the recorder leaves out a step: {type(error).__name__}: {error}")
        return result

    def _evaluated(self, args: Any, kwargs: Any) -> dict[str, Any]:
        """Returns the loss in evaluation mode, before the step may take its arguments' memory."""
        if not self._evaluates:
            return {}
        try:
            if self._evaluation is None:
                jit = _of_further_program(self._jit, (args, kwargs))
                self._evaluation = jit(evaluation_loss(self._step, self._loss))
            loss = self._evaluation(*args, **kwargs)
        except Exception as error:
            # The caller warns after the step, which may itself be at fault.
            self._evaluates = False
            advice = "Pass it to Recorder.add as eval_loss yourself."
            return {"failed": f"{type(error).__name__}: {error}. {advice}"}
        self._evaluates = loss is not None
        return {} if loss is None else {"eval_loss": loss}

    def _run_watched(self, args: Any, kwargs: Any) -> tuple[Any, dict[str, Any]]:
        if self._watched is None:
            self._watched = _with_further_output(self._jit)(self._with_stats)
        try:
            result, stats = self._watched(*args, **kwargs)
            self._works = True
            return result, stats
        except Exception as error:
            if self._works:
                raise  # it ran before: most likely the step alone would, too
            failed = f"{type(error).__name__}: {error}"
        # If the step is itself at fault, it raises here.
        result = self._run_plain(args, kwargs)
        self._fails = True
        warn_user(
            "the recorder leaves out all but the loss, because the step does not compile with its "
            f"statistics: {failed}. Write convjax.watch_step inside your own transforms."
        )
        return result, {}

    def _run_plain(self, args: Any, kwargs: Any) -> Any:
        if self._plain is None:
            compiled = hasattr(self._step, "lower")
            self._plain = self._step if compiled or self._jit is None else self._jit(self._step)
        return self._plain(*args, **kwargs)


def _jit_of(arguments: Any) -> Jit:
    """Returns the jit of the library whose models are among the arguments of a step."""
    leaves = jax.tree.leaves(arguments, is_leaf=_is_model)
    if any(isinstance(leaf, nnx.Pytree | nnx.Variable) for leaf in leaves):
        return nnx.jit
    if any(map(is_equinox, leaves)):
        import equinox

        return equinox.filter_jit
    return jax.jit


def _is_model(value: Any) -> bool:
    return isinstance(value, nnx.Pytree | nnx.Variable) or is_equinox(value)


# What holds for the memory and the results of the step alone.
_OF_STEP = ("donate", "donate_argnums", "donate_argnames", "out_axes", "out_shardings")


def _of_further_program(jit: Any, arguments: Any) -> Jit:
    """Returns a jit for a function of the arguments of a step, which keeps them."""
    if not isinstance(jit, partial):
        return _jit_of(arguments)
    keywords = {name: value for name, value in jit.keywords.items() if name not in _OF_STEP}
    return partial(jit.func, *jit.args, **keywords)


def _with_further_output(jit: Any) -> Jit:
    """Returns a jit whose shardings of results hold for a step that also returns statistics."""
    given = jit.keywords.get("out_shardings") if isinstance(jit, partial) else None
    if given is None:
        return jit
    return partial(jit.func, *jit.args, **{**jit.keywords, "out_shardings": (given, None)})
