"""The agreement of processes that train together: the same values in each, before they are used.

Collective operations do not compare what the processes were given. With another rate in each the
parameters of the devices drift apart without a message, and with another number of steps the
processes wait for each other.
"""

import hashlib
import re
from collections.abc import Mapping, Sequence
from importlib import metadata
from typing import Any

import jax
import numpy as np

from convjax.parallel.exchange import ProcessError, current

# The most characters of a value in a message.
_SHOWN = 80

# Arrays of so few numbers are shown and compared as they are.
_FEW = 4


def agree(
    values: Mapping[str, Any],
    *,
    call: str = "agree",
    fix: str = "Pass the same in every process.",
    processes: Sequence[int] | None = None,
) -> None:
    """Checks that the processes of a training have the same values; every process must call this.

    With one process it does nothing, and digests no array.

    Args:
      values: by name: plain data, arrays, or trees of arrays, of which digests are compared. Arrays
        on the devices of several processes are not read: only their shapes and dtypes count.
      call: what the process does, for the message where another does something else.
      fix: the last sentence of the message.
      processes: those that take part, the same in each; None for all.

    Raises:
      ProcessError: in every process, if a value differs; it is a ValueError.

    Examples:
      >>> from convjax import distributed
      >>> distributed.agree({"learning_rate": 0.1, "epochs": 5})
    """
    exchange = current()
    if exchange is None or (processes is not None and len(processes) < 2):
        return
    texts = {name: describe(value) for name, value in values.items()}
    # At first only a digest: with many processes, all texts of all are much for each of them.
    digest = hashlib.sha256(repr(texts).encode()).hexdigest()[:16]
    if len(set(exchange.texts(call, digest, processes).values())) == 1:
        return
    lines = exchange.texts(f"{call}, to compare", "\n".join(_lines(texts)), processes)
    given = {i: dict(line.split("\t") for line in of.split("\n")) for i, of in lines.items()}
    first = min(given)
    names = dict.fromkeys(name for of in given.values() for name in of)
    differing = [name for name in names if len({of.get(name) for of in given.values()}) > 1]
    name = differing[0]
    other = next(i for i in sorted(given) if given[i].get(name) != given[first].get(name))
    more = f" So must {', '.join(differing[1:])}." if len(differing) > 1 else ""
    raise ProcessError(
        f"{name} must be the same in every process, got {given[first].get(name)} in process "
        f"{first} and {given[other].get(name)} in process {other}.{more} {fix}"
    )


def _lines(texts: Mapping[str, str]) -> list[str]:
    return [f"{name}\t{_short(text)}" for name, text in texts.items()]


def _short(text: str) -> str:
    """Returns a text in one line; a long one is cut, and its digest tells it from others."""
    line = " ".join(text.split())
    if len(line) <= _SHOWN:
        return line
    return f"{line[:_SHOWN]}… (digest {hashlib.sha256(text.encode()).hexdigest()[:8]})"


def describe(value: Any) -> str:
    """Returns a text that is the same for equal values in different processes.

    Arrays give their dtype, shape, range and digest, and trees of several arrays their digest.

    Examples:
      >>> import numpy as np
      >>> from convjax.parallel.agreement import describe
      >>> describe({"lr": 0.1}), describe(len)
      ("{'lr': 0.1}", '<built-in function len>')
      >>> describe(np.arange(5.0)), describe(np.float32(0.5))
      ('float64[5] from 0 to 4 (digest 2e56f28a)', 'float32[] 0.5')
    """
    if isinstance(value, str):
        return value
    paths = jax.tree_util.tree_leaves_with_path(value)
    if not any(_is_array(leaf) for _, leaf in paths):
        return re.sub(r" at 0x[0-9a-f]+", "", repr(value))  # the address of a function or an object
    if _is_array(value):
        return _describe_array(value)
    digest = hashlib.sha256()
    for path, leaf in paths:
        text = _describe_array(leaf, 64) if _is_array(leaf) else describe(leaf)
        digest.update(f"{jax.tree_util.keystr(path)}: {text}\n".encode())
    numbers = sum(int(getattr(leaf, "size", 1)) for _, leaf in paths)
    return f"{numbers:,} numbers in {len(paths)} arrays (digest {digest.hexdigest()[:8]})"


def _is_array(value: Any) -> bool:
    return hasattr(value, "shape") and hasattr(value, "dtype")


def _describe_array(value: Any, digits: int = 8) -> str:
    kind = f"{value.dtype}[{','.join(map(str, value.shape))}]"
    if isinstance(value, jax.Array):
        if not value.is_fully_addressable:
            return kind
        if jax.dtypes.issubdtype(value.dtype, jax.dtypes.prng_key):
            value = jax.random.key_data(value)
    array = np.ascontiguousarray(value)
    if array.size <= _FEW:
        return f"{kind} {array.reshape(value.shape).tolist()}"
    content: Any = array.reshape(-1).view(np.uint8)
    digest = hashlib.sha256(content).hexdigest()
    between = ""
    if array.dtype.kind in "fiu":
        between = f" from {array.min():.6g} to {array.max():.6g}"
    return f"{kind}{between} (digest {digest[:digits]})"


def versions() -> dict[str, str | None]:
    """Returns the versions of the packages that results depend on.

    Examples:
      >>> from convjax.parallel.agreement import versions
      >>> sorted(versions())
      ['convjax', 'flax', 'jax', 'jaxlib', 'numpy', 'optax']
    """
    return {name: _version(name) for name in ("convjax", "jax", "jaxlib", "flax", "optax", "numpy")}


def _version(package: str) -> str | None:
    try:
        return metadata.version(package)
    except metadata.PackageNotFoundError:
        return None  # convjax imported from a source tree that is not installed
