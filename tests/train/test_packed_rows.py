import jax
import jax.numpy as jnp
import numpy as np
import pytest

from convjax.train.packed_rows import PackedRows, PackedScalars


def row(rng):
    return {
        "loss": jnp.float32(rng.normal()),
        "hist": jnp.asarray(rng.integers(-5, 5, (2, 3)), jnp.int32),
        "active": jnp.asarray(rng.integers(0, 2, 7), bool),
        "half": jnp.asarray(rng.normal(size=3), jnp.bfloat16),
        "small": jnp.asarray(rng.integers(-5, 5, 2), jnp.int8),
        "nan": jnp.asarray([np.nan, -0.0, np.inf], jnp.float32),
        "none": None,
    }


@pytest.mark.parametrize("wide", [False, True])
def test_packed_rows_keep_every_bit(wide):
    with jax.enable_x64(wide):
        rng = np.random.default_rng(0)
        rows = [row(rng) | ({"exact": jnp.float64(rng.normal())} if wide else {}) for _ in range(3)]
        packed = PackedRows(rows[0])
        found = packed.zeros(4)
        for i in (2, 0, 1):
            found = jax.jit(packed.set)(found, i, rows[i])
        assert set(found) == ({4, 8} if wide else {4})
        unpacked = packed.unpack(found)
        for i, wanted in enumerate(rows):
            for name, x in wanted.items():
                if x is not None:
                    got = unpacked[name][i]
                    assert (got.dtype, got.shape) == (x.dtype, x.shape)
                    assert np.asarray(got).tobytes() == np.asarray(x).tobytes()
        assert not np.asarray(unpacked["hist"][3]).any()


def test_packed_rows_of_nothing():
    packed = PackedRows(())
    assert packed.zeros(3) == {}
    assert packed.unpack(packed.set({}, 0, ())) == ()


def test_packed_scalars_keep_every_bit_and_leave_the_rest():
    state = row(np.random.default_rng(0)) | {
        "count": jnp.int32(-7),
        "rate": jnp.float32(np.nan),
        "low": jnp.bfloat16(0.3),
        "flag": jnp.array(True),
        "key": jax.random.key(3),
    }
    scalars = PackedScalars(state)
    arrays, packed = jax.jit(scalars.pack)(state)
    # Loss, count, rate and low are one array; neither the key nor the truth value is a number.
    assert {size: x.shape for size, x in packed.items()} == {4: (4,)}
    assert len(arrays) == len(jax.tree.leaves(state)) - 4
    found = jax.jit(scalars.unpack)((arrays, packed))
    assert jax.tree.structure(found) == jax.tree.structure(state)
    for got, wanted in zip(jax.tree.leaves(found), jax.tree.leaves(state), strict=True):
        assert (got.dtype, got.shape) == (wanted.dtype, wanted.shape)
        if wanted.dtype == state["key"].dtype:
            got, wanted = map(jax.random.key_data, (got, wanted))
        assert np.asarray(got).tobytes() == np.asarray(wanted).tobytes()


def test_packed_scalars_of_a_tree_without_any():
    state = {"kernel": jnp.ones(3)}
    scalars = PackedScalars(state)
    arrays, packed = scalars.pack(state)
    assert (len(arrays), packed) == (1, {})
    assert scalars.unpack((arrays, packed))["kernel"].tolist() == [1, 1, 1]
