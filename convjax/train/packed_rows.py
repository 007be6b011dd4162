"""Many small arrays of a loop on the device as one: the rows of a record, and a state's scalars.

A row has a hundred small arrays. To write each by itself is a launch for each on a GPU, more than
the rest of a small step.
"""

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

# Numbers of a size are kept as unsigned integers of that size, bit for bit.
_BITS = {4: jnp.uint32, 8: jnp.uint64}


class PackedRows:
    """Rows of trees of small arrays, as one array for each size of their numbers.

    Args:
      row: a tree of arrays or their shapes, as one row has them.

    Examples:
      >>> import jax.numpy as jnp
      >>> from convjax.train.packed_rows import PackedRows
      >>> row = {"loss": jnp.float32(0.5), "hist": jnp.array([1, 2]), "active": jnp.array([True])}
      >>> packed = PackedRows(row)
      >>> rows = packed.set(packed.zeros(3), 1, row)
      >>> {size: array.shape for size, array in rows.items()}
      {4: (3, 4)}
      >>> found = packed.unpack(rows)
      >>> found["loss"].tolist(), found["hist"].tolist(), found["active"].tolist()
      ([0.0, 0.5, 0.0], [[0, 0], [1, 2], [0, 0]], [[False], [True], [False]])
    """

    def __init__(self, row: Any):
        self._leaves, self._structure = jax.tree.flatten(jax.eval_shape(lambda tree: tree, row))
        self._sizes = [8 if leaf.dtype.itemsize == 8 else 4 for leaf in self._leaves]

    def zeros(self, rows: int) -> dict[int, jax.Array]:
        """Returns a number of rows of zeros."""
        lengths = {
            size: sum(x.size for x, s in zip(self._leaves, self._sizes, strict=True) if s == size)
            for size in sorted(set(self._sizes))
        }
        return {size: jnp.zeros((rows, n), _BITS[size]) for size, n in lengths.items()}

    def pack(self, row: Any) -> dict[int, jax.Array]:
        """Returns one row."""
        leaves = jax.tree.leaves(row)
        of_size: dict[int, list[jax.Array]] = {size: [] for size in sorted(set(self._sizes))}
        for leaf, size in zip(leaves, self._sizes, strict=True):
            of_size[size].append(_to_bits(leaf, size))
        return {size: jnp.concatenate(bits) for size, bits in of_size.items()}

    def set(self, rows: dict[int, jax.Array], i: Any, row: Any) -> dict[int, jax.Array]:
        """Returns the rows with a row at `i`, which must be the number of one of them."""
        # Unlike x.at[i].set, which is a launch more on a GPU: it asks whether i is in bounds.
        return {
            size: jax.lax.dynamic_update_index_in_dim(rows[size], packed, i, 0)
            for size, packed in self.pack(row).items()
        }

    def unpack(self, rows: dict[int, jax.Array]) -> Any:
        """Returns the tree, each array with a first axis of rows."""
        found, starts = [], dict.fromkeys(rows, 0)
        for leaf, size in zip(self._leaves, self._sizes, strict=True):
            stop = starts[size] + leaf.size
            cut = jax.lax.slice_in_dim(rows[size], starts[size], stop, axis=1)
            found.append(_from_bits(cut.reshape(-1, *leaf.shape), leaf.dtype))
            starts[size] = stop
        return jax.tree.unflatten(self._structure, found)


def _to_bits(x: Any, size: int) -> jax.Array:
    x = jnp.asarray(x).reshape(-1)
    if x.dtype.itemsize == size and x.dtype != jnp.bool_:
        return jax.lax.bitcast_convert_type(x, _BITS[size])
    if jnp.issubdtype(x.dtype, jnp.floating):
        return jax.lax.bitcast_convert_type(x.astype(jnp.float32), jnp.uint32)
    return x.astype(jnp.int32).astype(jnp.uint32)


def _from_bits(x: jax.Array, dtype: Any) -> jax.Array:
    if np.dtype(dtype).itemsize == x.dtype.itemsize and dtype != jnp.bool_:
        return jax.lax.bitcast_convert_type(x, dtype)
    if jnp.issubdtype(dtype, jnp.floating):
        return jax.lax.bitcast_convert_type(x, jnp.float32).astype(dtype)
    return x.astype(jnp.int32).astype(dtype)


class PackedScalars:
    """The state of a loop with its scalars in one array, bit for bit.

    What a loop carries is written in every round, each array by a launch of its own on a GPU. An
    optimiser's state has a handful of scalars.

    Args:
      state: a tree of arrays or their shapes.
      after: what a round makes of it. A scalar whose type it changes stays by itself, as does one
        of a weak type, so that JAX treats or refuses it as it does without us.

    Examples:
      >>> import jax.numpy as jnp
      >>> from convjax.train.packed_rows import PackedScalars
      >>> state = {"kernel": jnp.ones((2, 3)), "rate": jnp.float32(0.5), "count": jnp.int32(7)}
      >>> scalars = PackedScalars(state, state)
      >>> arrays, packed = scalars.pack(state)
      >>> [x.shape for x in arrays], packed[4].shape
      ([(2, 3)], (2,))
      >>> back = scalars.unpack((arrays, packed))
      >>> float(back["rate"]), int(back["count"])
      (0.5, 7)
    """

    def __init__(self, state: Any, after: Any):
        leaves, new = map(jax.tree.leaves, jax.eval_shape(lambda *trees: trees, state, after))
        self._structure: Any = jax.tree.structure(state)
        structure: Any = jax.tree.structure(after)
        self._packed = [False] * len(leaves)
        if structure == self._structure:
            self._packed = [_stays_scalar(x, y) for x, y in zip(leaves, new, strict=True)]
        self._row = PackedRows([x for x, is_in in zip(leaves, self._packed, strict=True) if is_in])

    def pack(self, state: Any) -> tuple[Any, dict[int, jax.Array]]:
        """Returns the other arrays, and the scalars."""
        if not any(self._packed):
            return state, {}
        parts: tuple[list[Any], list[Any]] = [], []
        for leaf, is_packed in zip(jax.tree.leaves(state), self._packed, strict=True):
            parts[is_packed].append(leaf)
        return parts[0], self._row.pack(parts[1])

    def unpack(self, packed: tuple[Any, dict[int, jax.Array]]) -> Any:
        """Returns the state."""
        others, bits = packed
        if not any(self._packed):
            return others
        rows = self._row.unpack({size: x[None] for size, x in bits.items()})
        parts = iter(others), (x[0] for x in rows)
        return jax.tree.unflatten(self._structure, [next(parts[p]) for p in self._packed])


def _stays_scalar(x: jax.ShapeDtypeStruct, y: jax.ShapeDtypeStruct) -> bool:
    real = any(jnp.issubdtype(x.dtype, kind) for kind in (jnp.integer, jnp.floating))
    same = x.shape == y.shape == () and x.dtype == y.dtype
    return real and same and not (x.weak_type or y.weak_type)
