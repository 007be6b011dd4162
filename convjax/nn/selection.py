"""The selection of a network's layers: by name, by type, or by a function of both."""

from collections.abc import Callable, Mapping, Sequence
from fnmatch import fnmatchcase
from typing import Any

import jax.numpy as jnp
from flax import linen, nnx

# A function of a layer's name and the module.
Predicate = Callable[[str, Any], bool]

# A predicate; a type of modules; a case-sensitive pattern of names such as "blocks.*.conv", where
# "*" also crosses dots; or a sequence of these, of which one must match.
Select = Predicate | type | str | Sequence["Select"]


def has_parameters(name: str, module: Any) -> bool:
    """Returns whether a module has parameters of its own: the layers that fastai records.

    The named values of a function, which have no module (None), all count as layers.
    """
    del name
    if module is None:
        return True
    if isinstance(module, linen.Module):
        # Those of submodules are in mappings; a parameter may be boxed.
        found = module.variables.get("params", {}).values()
        return any(not isinstance(value, Mapping) for value in found)
    if isinstance(module, nnx.Module):
        if isinstance(module, nnx.bridge.ToNNX):  # its Linen modules are the layers
            return False
        return any(isinstance(value, nnx.Param) for value in vars(module).values())
    if hasattr(module, "params_dict"):  # Haiku
        return any(path.rpartition("/")[0] == module.module_name for path in module.params_dict())
    leaves = (value for value in vars(module).values() if hasattr(value, "dtype"))  # Equinox
    return any(jnp.issubdtype(value.dtype, jnp.inexact) for value in leaves)


def predicate(select: Select) -> Predicate:
    """Returns the predicate of a selection.

    Raises:
      TypeError: if `select` is none of the kinds of `Select`, such as a module instead of its type.
    """
    if isinstance(select, str):
        return lambda name, module: fnmatchcase(name, select)
    if isinstance(select, type):
        return lambda name, module: isinstance(module, select)
    if isinstance(select, Sequence):
        parts = [predicate(part) for part in select]
        return lambda name, module: any(matches(name, module) for matches in parts)
    if not callable(select) or isinstance(select, nnx.Module | linen.Module):
        raise TypeError(
            "select must be a function of a layer's name and the module, a type of modules, a "
            f'pattern of names such as "*conv", or a list of these, got {select!r}.'
        )
    return select


def no_match_error(what: str, names: Sequence[str]) -> ValueError:
    """Returns the error for a selection that matches none of `names`, the layers of `what`."""
    return ValueError(
        f"select must match a layer of {what}, got a selection that matches none. "
        f"Its layers: {', '.join(names) or 'none'}."
    )


def numbered(name: str, found: Mapping[str, Any]) -> str:
    """Returns "name", or "name#2" and so on if a call of that name is already in `found`."""
    call = 1
    while (key := name if call == 1 else f"{name}#{call}") in found:
        call += 1
    return key
