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


@pytest.mark.parametrize("wide", [False, True])
def test_packed_scalars_keep_every_bit_and_leave_the_rest(wide):
    with jax.enable_x64(wide):
        state = row(np.random.default_rng(0)) | {
            "count": jnp.int32(-7),
            "rate": jnp.float32(np.nan),
            "low": jnp.bfloat16(0.3),
            "flag": jnp.array(True),
            "weak": jnp.asarray(0.5),
            "pair": jnp.complex64(1 + 2j),
            "key": jax.random.key(3),
        }
        state |= {"exact": jnp.float64(1 / 3), "long": jnp.int64(2**40)} if wide else {}
        scalars = PackedScalars(state, state)
        arrays, packed = jax.jit(scalars.pack)(state)
        # Loss, count, rate and low are one array, exact and long another.
        assert {size: x.shape for size, x in packed.items()} == {4: (4,)} | (
            {8: (2,)} if wide else {}
        )
        found = jax.jit(scalars.unpack)((arrays, packed))
        assert jax.tree.structure(found) == jax.tree.structure(state)
        for got, wanted in zip(jax.tree.leaves(found), jax.tree.leaves(state), strict=True):
            assert (got.dtype, got.shape) == (wanted.dtype, wanted.shape)
            if wanted.dtype == state["key"].dtype:
                got, wanted = map(jax.random.key_data, (got, wanted))
            assert np.asarray(got).tobytes() == np.asarray(wanted).tobytes()


ROUNDS = {
    "a count that becomes a float": (jnp.int32(1), lambda x: x + 0.5),
    "bfloat16 that becomes float32": (jnp.bfloat16(1), lambda x: x + jnp.float32(1e-3)),
    "a vector": (jnp.float32(1), lambda x: x[None]),
    "other names": ({"a": jnp.int32(1), "c": jnp.int32(2)}, lambda x: {"a": x["c"], "b": x["a"]}),
    "a weak type": (jnp.asarray(0), lambda x: x + jnp.float32(1.5)),
    "nothing to pack": (jnp.ones(3), lambda x: 2 * x),
    "a complex number": (jnp.complex64(1j), lambda x: x * x),
}


@pytest.mark.parametrize("name", ROUNDS)
def test_packed_scalars_leave_it_to_jax_what_a_loop_may_change(name):
    start, change = ROUNDS[name]
    scalars = PackedScalars(start, jax.eval_shape(change, start))

    def outcome(loop):
        try:
            return jax.tree.map(lambda x: (x.dtype, x.tolist()), loop())
        except TypeError:
            return "TypeError"

    def with_packing():
        def take(_, carry):
            return scalars.pack(change(scalars.unpack(carry)))

        return scalars.unpack(jax.lax.fori_loop(0, 3, take, scalars.pack(start)))

    def without():
        return jax.lax.fori_loop(0, 3, lambda _, x: change(x), start)

    assert outcome(with_packing) == outcome(without)
