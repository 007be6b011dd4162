"""Named intermediate outputs of a Flax NNX model, without a change to the model."""

import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import jax
from flax import nnx

Select = Callable[[str, nnx.Module], bool]

# Watching replaces `__call__` on classes, which all threads share.
_lock = threading.RLock()


def has_parameters(name: str, module: nnx.Module) -> bool:
    """Tells whether a module holds parameters of its own: the layers that fastai watches."""
    del name
    return any(isinstance(value, nnx.Param) for value in vars(module).values())


def layer_names(model: nnx.Module, select: Select = has_parameters) -> dict[str, nnx.Module]:
    """Returns the selected modules by name, the path with dots: "blocks.0.conv".

    Raises:
      ValueError: if nothing is selected; the message lists what there is.
    """
    modules = {".".join(map(str, path)): module for path, module in nnx.iter_modules(model) if path}
    chosen = {name: module for name, module in modules.items() if select(name, module)}
    if not chosen:
        raise ValueError(
            f"select matches no module of {type(model).__name__}. It has: "
            f"{', '.join(sorted(modules)) or 'no submodules'}."
        )
    return chosen


def capture(
    model: nnx.Module, *args: Any, select: Select = has_parameters, **kwargs: Any
) -> tuple[Any, dict[str, jax.Array]]:
    """Calls a model and returns its output together with those of its layers.

    It works inside jit, grad, scan and vmap, because it only keeps the values that the forward
    pass makes anyway; those that nobody uses are dropped by the compiler.

    Args:
      model: a Flax NNX module, called with `args` and `kwargs`.
      select: takes a module's name and the module and tells whether to keep its output. The
        default keeps the modules with parameters of their own, so that in convolution, ReLU the
        output before the ReLU is seen, as with fastai's ActivationStats.

    Returns:
      (output, {name: output of that module}), in the order of the calls. A module called again
      adds "name#2", "name#3" and so on.

    Raises:
      ValueError: if nothing is selected, or no selected layer is called, as within `nnx.remat`.
    """
    chosen = layer_names(model, select)
    names = {id(module): name for name, module in chosen.items()}
    found: dict[str, jax.Array] = {}
    calls: dict[str, int] = {}

    def keep(module: nnx.Module, output: Any) -> None:
        name = names.get(id(module))
        if name is None:
            return
        calls[name] = calls.get(name, 0) + 1
        found[name if calls[name] == 1 else f"{name}#{calls[name]}"] = output

    with _watched({type(module) for module in chosen.values()}, keep):
        output = model(*args, **kwargs)
    if not found:
        raise ValueError(
            f"none of the selected layers was called as itself: {', '.join(chosen)}. Transforms "
            "inside a model (nnx.remat, nnx.scan, nnx.vmap) call copies, which cannot be watched."
        )
    return output, found


@contextmanager
def _watched(classes: set[type], keep: Callable[[nnx.Module, Any], None]) -> Iterator[None]:
    """Lets every call of an instance of `classes` report its output while the context lasts."""

    def watching(cls: type, call: Callable[..., Any]) -> Callable[..., Any]:
        def wrapper(self: nnx.Module, *args: Any, **kwargs: Any) -> Any:
            output = call(self, *args, **kwargs)
            if type(self) is cls:  # not where a watched subclass calls super().__call__
                keep(self, output)
            return output

        return wrapper

    with _lock:
        # vars, not getattr: a class that inherits its __call__ must go back to inheriting it.
        own = {cls: vars(cls).get("__call__") for cls in classes}
        watched = {cls: watching(cls, getattr(cls, "__call__")) for cls in classes}  # noqa: B004, B009
        try:
            for cls, wrapper in watched.items():
                setattr(cls, "__call__", wrapper)  # noqa: B010
            yield
        finally:
            for cls, original in own.items():
                if original is None:
                    delattr(cls, "__call__")
                else:
                    setattr(cls, "__call__", original)  # noqa: B010
