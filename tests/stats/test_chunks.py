"""Arrays laid in chunks, against NumPy."""

import jax.numpy as jnp
import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st

from convjax.stats.chunks import CHUNK, Chunks
from convjax.stats.counting import sum_rows

SHAPES = st.lists(
    st.lists(st.integers(0, 20), min_size=0, max_size=3).map(tuple), min_size=1, max_size=5
)


def test_chunks_by_hand():
    layout = Chunks((CHUNK, 1, 0, CHUNK + 1))
    assert layout.padding.tolist() == [0, CHUNK - 1, CHUNK, CHUNK - 1]
    assert layout.arrays.tolist() == [0, 1, 2, 3, 3]


@settings(max_examples=20, deadline=None)  # each of them compiles
@given(shapes=SHAPES, seed=st.integers(0))
def test_chunks_hold_every_element_once_and_zeros(shapes, seed):
    rng = np.random.default_rng(seed)
    arrays = [rng.normal(size=shape).astype(np.float32) for shape in shapes]
    layout = Chunks(tuple(x.size for x in arrays))
    laid = np.asarray(layout.of(list(map(jnp.asarray, arrays))))
    for i, x in enumerate(arrays):
        found = laid[layout.arrays == i].reshape(-1)
        np.testing.assert_array_equal(found, np.pad(x.reshape(-1), (0, layout.padding[i])))


def test_chunks_are_float32():
    layout = Chunks((2, 3))
    assert layout.of([jnp.ones(2, jnp.bfloat16), jnp.ones(3, jnp.float16)]).dtype == jnp.float32


def test_sum_rows_of_chunks_are_sums_of_arrays():
    arrays = [np.full(size, i + 1) for i, size in enumerate((3, 600, 0, 256))]
    layout = Chunks(tuple(map(len, arrays)))
    sums = sum_rows(layout.of(list(map(jnp.asarray, arrays))).sum(1), layout.arrays)
    assert sums.tolist() == [3, 1200, 0, 1024]
