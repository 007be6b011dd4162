"""Arrays of any shapes, laid one after the other, so that few operations treat all of them.

An operation for each of hundreds of parameters would take longer to compile than the network, and
longer to launch than to run.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property

import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, Int, Shaped

# Numbers in a chunk, which holds numbers of one array. Sums over the chunks of an array add few
# rounding errors, and padding small arrays to whole chunks costs little.
CHUNK = 256


@dataclass(frozen=True)
class Chunks:
    """How A arrays fill K chunks of C numbers; each begins a new chunk, and zeros fill its last.

    Attributes:
      sizes: number of elements of each array.
    """

    sizes: tuple[int, ...]

    def of(self, arrays: Sequence[Shaped[Array, "..."]]) -> Float[Array, "K C"]:
        """Returns the elements of arrays of these sizes in chunks, as float32.

        Examples:
          >>> import jax.numpy as jnp
          >>> from convjax.stats.chunks import Chunks
          >>> layout = Chunks((2, 300))
          >>> found = layout.of([jnp.ones(2), jnp.ones((3, 100))])
          >>> found.shape, found.sum(1).tolist(), layout.arrays.tolist(), layout.padding.tolist()
          ((3, 256), [2.0, 256.0, 44.0], [0, 1, 1], [254, 212])
        """
        parts = []
        for x, padding in zip(arrays, self.padding, strict=True):
            parts.append(x.reshape(-1).astype(jnp.float32))
            if padding:
                parts.append(jnp.zeros(padding, jnp.float32))
        return jnp.concatenate(parts).reshape(-1, CHUNK)

    @cached_property
    def padding(self) -> Int[np.ndarray, " A"]:
        """Number of zeros after each array."""
        return CHUNK * self._counts - np.asarray(self.sizes)

    @cached_property
    def arrays(self) -> Int[np.ndarray, " K"]:
        """The array of each chunk, by number."""
        return np.repeat(np.arange(len(self.sizes)), self._counts)

    @property
    def _counts(self) -> Int[np.ndarray, " A"]:
        return np.asarray([max(-(-size // CHUNK), 1) for size in self.sizes])
