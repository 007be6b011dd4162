"""What models store, by layer: parameters and batch statistics, as arrays or their shapes."""

import math
import re
from collections.abc import Mapping
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx
from flax.traverse_util import flatten_dict

from convjax.nn._equinox_calls import equinox_modules

# Arrays by name, by (layer, kind); the layer is "" for the model itself, the kind is "params" or
# "batch_stats".
Variables = dict[tuple[str, str], dict[str, Any]]


def is_array(value: Any) -> bool:
    """Returns whether a value is an array with axes or of JAX, or the shape of one."""
    return hasattr(value, "shape") and hasattr(value, "dtype") and not isinstance(value, np.generic)


def nnx_variables(model: nnx.Module) -> Variables:
    """Returns what an NNX model stores; shared variables once."""
    modules = {".".join(map(str, path)): module for path, module in nnx.iter_modules(model)}
    variables: Variables = {}
    for kind, of in (("params", nnx.Param), ("batch_stats", nnx.BatchStat)):
        for path, variable in nnx.to_flat_state(nnx.state(model, of)):
            parts = list(map(str, path))
            end = max(i for i in range(len(parts)) if ".".join(parts[:i]) in modules)
            if isinstance(modules[".".join(parts[:end])], nnx.bridge.ToNNX):
                end = len(parts) - 1  # the modules inside are of Linen
            layer, name = ".".join(parts[:end]), ".".join(parts[end:])
            variables.setdefault((layer, kind), {})[name] = variable
    return variables


def equinox_variables(model: Any) -> Variables:
    """Returns the arrays of numbers that an Equinox model stores."""
    variables: Variables = {}
    for name, module in equinox_modules(model).items():
        owned = {key: value for key, value in vars(module).items() if _is_parameter(value)}
        variables["" if module is model else name, "params"] = owned
    known = {id(value) for owned in variables.values() for value in owned.values()}
    # Those in lists and dictionaries.
    others = [v for v in jax.tree.leaves(model) if _is_parameter(v) and id(v) not in known]
    of_model = variables.setdefault(("", "params"), {})
    variables["", "params"] = of_model | {str(i): value for i, value in enumerate(others)}
    return variables


def linen_variables(variables: Mapping[str, Any]) -> Variables:
    """Returns what the variables of a Linen module hold."""
    found: Variables = {}
    for kind in ("params", "batch_stats"):
        for path, leaf in flatten_dict(variables.get(kind, {})).items():
            found.setdefault((".".join(path[:-1]), kind), {})[path[-1]] = leaf
    return found


def haiku_variables(parameters: Mapping[str, Mapping[str, Any]]) -> Variables:
    """Returns what the parameters of a Haiku transform hold, by the names of `capture`."""
    return {
        (re.sub(r"/(~\w*/)?", ".", module), "params"): dict(of_module)
        for module, of_module in parameters.items()
    }


def count(tree: Any) -> int:
    """Returns the number of values in the arrays of a tree."""
    return sum(math.prod(leaf.shape) for leaf in jax.tree.leaves(tree))


def _is_parameter(value: Any) -> bool:
    return is_array(value) and jnp.issubdtype(value.dtype, jnp.inexact)
