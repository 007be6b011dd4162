"""Which layers of a network are meant: by name, by type, or by a function of both."""

from collections.abc import Callable, Mapping, Sequence
from fnmatch import fnmatchcase
from typing import Any

from flax import linen, nnx

# A function of a layer's name and the module; a type of modules; a pattern of names such as
# "blocks.*.conv"; or several, of which one must match.
Select = Callable[[str, Any], bool] | type | str | Sequence["Select"]


def has_parameters(name: str, module: Any) -> bool:
    """Tells whether a module holds parameters of its own: the layers that fastai watches.

    The named values of a function, which belong to no module, all count as layers.
    """
    del name
    if isinstance(module, linen.Module):
        # Those of submodules lie in mappings of their own; a parameter may be boxed.
        found = module.variables.get("params", {}).values()
        return any(not isinstance(value, Mapping) for value in found)
    return module is None or any(isinstance(value, nnx.Param) for value in vars(module).values())


def every_module(name: str, module: Any) -> bool:
    """Selects all modules: also activations that are modules, and blocks, whose outputs lie behind
    their activation."""
    del name, module
    return True


def matcher(select: Select) -> Callable[[str, Any], bool]:
    """Returns the function of a layer's name and the module that a selection stands for.

    Raises:
      TypeError: for another kind of selection, such as a module instead of its type.
    """
    if isinstance(select, str):
        return lambda name, module: fnmatchcase(name, select)
    if isinstance(select, type):
        return lambda name, module: isinstance(module, select)
    if isinstance(select, Sequence):
        matchers = [matcher(part) for part in select]
        return lambda name, module: any(matches(name, module) for matches in matchers)
    if not callable(select) or isinstance(select, nnx.Module | linen.Module):
        raise TypeError(
            f"select must be a function of a layer's name and the module, a type of modules, a "
            f'pattern of names such as "*conv", or a list of these, got {select!r}.'
        )
    return select


def nothing_selected(what: str, names: Sequence[str]) -> ValueError:
    """Returns the error for a selection that matches none of the names."""
    return ValueError(
        f"select matches no layer of {what}. It has: {', '.join(names) or 'none at all'}."
    )
