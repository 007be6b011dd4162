"""Capturing from Linen modules, by Linen's own `capture_intermediates`."""

from collections.abc import Mapping
from typing import Any

from flax import linen
from flax.core.scope import in_filter, union_filters

from convjax.nn.selection import Predicate, no_match_error, numbered


def capture_linen(
    model: linen.Module, args: tuple[Any, ...], kwargs: dict[str, Any], selects: Predicate
) -> tuple[Any, dict[str, Any]]:
    """Returns the output of a Linen model and those of its selected layers.

    Args:
      model: applied to `args`, of which the first is its variables, and `kwargs`, those of `apply`.
      selects: the predicate of a layer's name and the bound module.
    """
    mutable = kwargs.pop("mutable", False)
    chosen: list[tuple[str, ...]] = []
    others: set[str] = set()

    def keep(module: linen.Module, method: str) -> bool:
        """Returns whether Linen shall store an output; Linen asks at the end of each call."""
        if method != "__call__" or not module.path:
            return False
        name = ".".join(module.path)
        if not selects(name, module):
            others.add(name)
            return False
        chosen.append(module.path)
        return True

    if args and isinstance(args[0], Mapping):
        # Linen would append to the intermediates of an earlier call.
        variables = {name: value for name, value in args[0].items() if name != "intermediates"}
        args = (variables, *args[1:])
    output, changed = model.apply(
        *args,
        **kwargs,
        capture_intermediates=keep,
        mutable=union_filters(mutable, "intermediates"),
    )
    if not chosen:
        raise no_match_error(type(model).__name__, sorted(others))
    changed = dict(changed)
    kept = changed.pop("intermediates", {})
    found: dict[str, Any] = {}
    calls: dict[tuple[str, ...], int] = {}
    for path in chosen:
        outputs = _outputs_at(kept, path)
        call = calls[path] = calls.get(path, -1) + 1
        if call < len(outputs):  # a transform may ask more often than it calls
            found[numbered(".".join(path), found)] = outputs[call]
    lost = sorted({".".join(path) for path in chosen} - set(found))
    if lost:
        raise ValueError(
            "select must match layers whose outputs leave the transforms of Linen, got "
            f'{", ".join(lost)}. Give nn.scan and nn.vmap variable_axes={{"intermediates": 0}}; '
            "do not select layers inside nn.cond and nn.RNN, whose outputs never leave."
        )
    if in_filter(mutable, "intermediates"):  # the caller asked for what the model itself sows
        changed["intermediates"] = _without_calls(kept)
    return (output if mutable is False else (output, changed)), found


def _outputs_at(kept: Any, path: tuple[str, ...]) -> tuple[Any, ...]:
    """Returns the outputs of the calls of one module; none if a transform let none out."""
    for part in path:
        kept = kept.get(part, {})
    return tuple(kept.get("__call__", ()))


def _without_calls(kept: Any) -> Any:
    if not isinstance(kept, Mapping):
        return kept
    return {name: _without_calls(value) for name, value in kept.items() if name != "__call__"}
