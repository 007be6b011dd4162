"""Summaries of models of other people's kinds: inputs, methods, libraries and own products."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import linen, nnx

from convjax.analysis._summary import summary

IDS = jax.ShapeDtypeStruct((2, 10), jnp.int32)


def abstract(make):
    return nnx.eval_shape(lambda: make(nnx.Rngs(0)))


def columns(table):
    return [(row.name, row.kind, row.parameters, row.multiplications) for row in table.rows]


def check_sums(table):
    """Every parameter and product is in one row."""
    assert sum(row.parameters for row in table.rows) == table.parameters
    assert sum(row.multiplications for row in table.rows) == table.multiplications


class Transformer(nnx.Module):
    """A block with an attention, a tied embedding and parameters of its own."""

    def __init__(self, rngs):
        self.embed = nnx.Embed(100, 16, rngs=rngs)
        self.attention = nnx.MultiHeadAttention(4, 16, decode=False, rngs=rngs)
        self.norm = nnx.LayerNorm(16, rngs=rngs)
        self.position = nnx.Param(jnp.zeros((1, 10, 16)))
        self.dropout = nnx.Dropout(0.5, rngs=rngs)

    def __call__(self, tokens, mask=None):
        x = self.embed(tokens) + self.position[...]
        x = self.norm(x + self.dropout(self.attention(x, mask=mask)))
        return self.embed.attend(x)

    def encode(self, tokens):
        return self.norm(self.embed(tokens))


ATTENTION = [
    *((f"attention.{name}", "LinearGeneral", 272, 10 * 256) for name in ("query", "key", "value")),
    ("attention.out", "LinearGeneral", 272, 10 * 256),
    # Queries times keys and weights times values: 10·10 products of 16 numbers each.
    ("attention", "MultiHeadAttention", 0, 2 * 100 * 16),
]


def test_summary_of_tokens_attention_and_a_tied_embedding():
    table = summary(abstract(Transformer), IDS)
    assert columns(table) == [
        ("embed", "Embed", 1600, 0),
        *ATTENTION,
        ("norm", "LayerNorm", 32, 16),
        ("embed.attend", "Embed", 0, 10 * 16 * 100),
        ("Transformer", "Transformer", 160, 0),
    ]
    check_sums(table)
    assert {row.receptive_field for row in table.rows} == {None}
    assert (table.input_shape, table.examples) == ((2, 10), 2)
    assert str(table).startswith("Transformer, input 2×10; multiplications per example\n")


def test_summary_of_keyword_inputs():
    mask = np.ones((2, 1, 10, 10), bool)
    table = summary(abstract(Transformer), tokens=IDS, mask=mask)
    assert columns(table) == columns(summary(abstract(Transformer), IDS))
    assert table.inputs == ((2, 10), (2, 1, 10, 10))
    assert "inputs 2×10, 2×1×10×10" in repr(table)
    assert summary(abstract(Transformer), IDS, mask=None).inputs == ((2, 10),)


def test_summary_of_a_method():
    model = abstract(Transformer)
    table = summary(model.encode, IDS)
    assert table.model == "Transformer.encode"
    rows = {row.name: row for row in table.rows}
    assert rows["embed"].parameters == 1600
    assert rows["norm"].multiplications == 16
    check_sums(table)  # the other layers are in the row of the model


def test_summary_select_keeps_the_totals():
    model = abstract(Transformer)
    every, some = summary(model, IDS), summary(model, IDS, select="attention.*")
    assert columns(some)[:-1] == ATTENTION[:-1]
    assert columns(some)[-1][:2] == ("(model)", "Transformer")
    assert (some.parameters, some.multiplications) == (every.parameters, every.multiplications)
    check_sums(some)
    names = [row.name for row in summary(model, IDS, select="*").rows]
    assert "dropout" in names
    assert set(names) > {row.name for row in every.rows}


def test_summary_of_a_model_that_owns_its_parameters():
    class Owner(nnx.Module):
        def __init__(self, rngs):
            self.weight = nnx.Param(rngs.params.normal((3, 4)))

        def __call__(self, x):
            return x @ self.weight

    assert columns(summary(abstract(Owner), (5, 3))) == [("Owner", "Owner", 12, 12)]


def test_summary_of_products_outside_of_layers():
    class Gram(nnx.Module):
        def __init__(self, rngs):
            self.linear = nnx.Linear(3, 4, rngs=rngs)

        def __call__(self, x):
            y = self.linear(x)
            return jnp.einsum("ntc,nsc->nts", y, y)

    table = summary(abstract(Gram), (2, 7, 3))
    assert columns(table) == [("linear", "Linear", 16, 84), ("(model)", "Gram", 0, 49 * 4)]
    assert table.rows[1].output_shape == (2, 7, 7)


def test_summary_of_a_recurrent_network():
    class Recurrent(nnx.Module):
        def __init__(self, rngs):
            self.rnn = nnx.RNN(nnx.GRUCell(3, 5, rngs=rngs))
            self.out = nnx.Linear(5, 2, rngs=rngs)

        def __call__(self, x):
            return self.out(self.rnn(x)[:, -1])

    table = summary(abstract(Recurrent), (2, 7, 3))
    assert [row.multiplications for row in table.rows] == [7 * 3 * 15, 7 * 5 * 15, 10]
    check_sums(table)


def test_summary_of_a_method_that_calls_its_model():
    class Shared(nnx.Module):
        def __init__(self, rngs):
            self.weight = nnx.Param(jnp.ones((3, 3)))

        def __call__(self, x):
            return x @ self.weight

        def twice(self, x):
            return self(x) @ self.weight

    class Outer(nnx.Module):
        def __init__(self, rngs):
            self.first, self.second = Shared(rngs), nnx.Linear(3, 3, rngs=rngs)

        def __call__(self, x):
            return self.second(self.first.twice(x))

    table = summary(abstract(Outer), (2, 3))
    assert [(row.kind, row.multiplications) for row in table.rows] == [
        ("Shared", 18),
        ("Linear", 9),
    ]
    check_sums(table)


def test_summary_of_a_scanned_stack_has_a_row_for_each_depth():
    class Stack(nnx.Module):
        def __init__(self, rngs):
            make = nnx.split_rngs(splits=3)(nnx.vmap(lambda rngs: nnx.Linear(4, 4, rngs=rngs)))
            self.layers = make(rngs)

        def __call__(self, x):
            scan = nnx.scan(in_axes=(nnx.Carry, 0), out_axes=nnx.Carry)
            return scan(lambda x, layer: layer(x))(x, self.layers)

    table = summary(Stack(nnx.Rngs(0)), (2, 4))
    assert columns(table) == [(f"layers[{i}]", "Linear", 20, 16) for i in range(3)]


def test_summary_of_other_convolutions():
    class Convolutions(nnx.Module):
        def __init__(self, rngs):
            self.transposed = nnx.ConvTranspose(3, 4, (3, 3), strides=2, rngs=rngs)
            self.depthwise = nnx.Conv(4, 4, (3, 3), feature_group_count=4, rngs=rngs)
            self.row = nnx.Conv(4, 8, (5,), kernel_dilation=2, rngs=rngs)
            self.volume = nnx.Conv(8, 2, (2, 3, 3), padding="VALID", rngs=rngs)

        def __call__(self, x):
            x = self.depthwise(self.transposed(x))
            x = self.row(x.reshape(-1, 16, 4)).reshape(-1, 2, 8, 16, 8)
            return self.volume(x)

    table = summary(abstract(Convolutions), (2, 8, 8, 3))
    assert [row.multiplications for row in table.rows] == [
        # 8 pixels of 3 taps along each axis, of which one is cropped.
        23**2 * 3 * 4,
        256 * 9 * 4,
        256 * 5 * 4 * 8,
        1 * 6 * 14 * 2 * 9 * 8 * 2,
    ]
    assert table.rows[0].receptive_field is not None


def test_summary_of_a_jitted_model_does_not_depend_on_earlier_summaries():
    class Jitted(nnx.Module):
        def __init__(self, rngs):
            self.linear = nnx.Linear(3, 3, rngs=rngs)

        @nnx.jit
        def __call__(self, x):
            return self.linear(self.linear(x))

    model = Jitted(nnx.Rngs(0))
    first, second = summary(model, (2, 3)), summary(model, (2, 3))
    assert first == second
    assert columns(first) == [("linear", "Linear", 12, 9), ("linear#2", "Linear", 0, 9)]


def test_summary_of_several_inputs_has_fields_if_the_first_is_images():
    class Two(nnx.Module):
        def __init__(self, rngs):
            self.conv = nnx.Conv(1, 2, (3, 3), rngs=rngs)
            self.linear = nnx.Linear(4, 2, rngs=rngs)

        def __call__(self, images, features, *, scale):
            return scale * self.conv(images).mean((1, 2)) + self.linear(features)

    images = jax.ShapeDtypeStruct((2, 9, 9, 1), jnp.uint8)
    table = summary(abstract(Two), images, np.ones((2, 4)), scale=2.0)
    assert [row.receptive_field for row in table.rows] == [(3, 3), None]
    assert table.inputs == ((2, 9, 9, 1), (2, 4))


def test_summary_of_a_generator():
    class Generator(nnx.Module):
        def __init__(self, rngs):
            self.linear = nnx.Linear(3, 2, rngs=rngs)

        def __call__(self, key):
            return self.linear(jax.random.normal(key, (4, 3)))

    table = summary(abstract(Generator), jax.random.key(0))
    assert (table.inputs, table.input_shape, table.multiplications) == ((), (), 24)
    assert str(table).startswith("Generator, no inputs; multiplications of the whole call\n")


def test_summary_says_when_the_output_has_no_examples():
    class Loss(nnx.Module):
        def __init__(self, rngs):
            self.linear = nnx.Linear(3, 2, rngs=rngs)

        def __call__(self, x):
            return self.linear(x).mean()

    table = summary(abstract(Loss), (8, 3))
    assert (table.examples, table.multiplications) == (1, 8 * 6)
    assert "input 8×3; multiplications of the whole call\n" in str(table)


# --- Linen -------------------------------------------------------------------------------------


class Attending(linen.Module):
    """Needs a key for its dropout even in evaluation."""

    @linen.compact
    def __call__(self, x, train=False):
        x = linen.BatchNorm(use_running_average=not train)(linen.Dense(8)(x))
        x = linen.Dropout(0.5, deterministic=False)(x)
        x = linen.MultiHeadDotProductAttention(2, name="attention")(x)
        return x + self.param("shift", linen.initializers.zeros, (8,))


class Pair(linen.Module):
    @linen.compact
    def __call__(self, first, second):
        return linen.Dense(2)(first + second)


FEATURES = jax.ShapeDtypeStruct((2, 6, 8), jnp.float32)


def test_summary_of_linen_with_and_without_variables():
    keys = {"params": jax.random.key(0), "dropout": jax.random.key(1)}
    variables = Attending().init(keys, jnp.ones((2, 6, 8)))
    table = summary(Attending(), variables, FEATURES, train=False)
    assert columns(table) == [
        ("Dense_0", "Dense", 72, 6 * 64),
        ("BatchNorm_0", "BatchNorm", 16, 8),
        *((f"attention.{name}", "DenseGeneral", 72, 6 * 64) for name in ("query", "key", "value")),
        ("attention.out", "DenseGeneral", 72, 6 * 64),
        ("attention", "MultiHeadDotProductAttention", 0, 2 * 36 * 8),
        ("Attending", "Attending", 8, 0),
    ]
    check_sums(table)
    assert table.batch_statistics == 16
    others = [
        summary(Attending(), FEATURES),
        summary(Attending(), (2, 6, 8), train=False),
        summary(Attending(), input_shape=(2, 6, 8)),
        summary(Attending(), x=FEATURES),
        summary(Attending(), variables, FEATURES, rngs={"dropout": jax.random.key(0)}),
        summary(Attending(), FEATURES, train=True, mutable=["batch_stats"]),
        summary(Attending().apply, variables, FEATURES),
    ]
    assert others == [table] * len(others)


def test_summary_adds_a_line_to_the_errors_of_linen():
    with pytest.raises(TypeError, match="missing 1 required positional argument") as error:
        summary(Pair(), (2, 3))
    assert "no variables stand before" in error.value.__notes__[-1]


def test_summary_of_branches_belongs_to_the_model():
    class Branches(nnx.Module):
        def __init__(self, rngs):
            self.first = nnx.Linear(3, 3, rngs=rngs)
            self.second = nnx.Linear(3, 3, rngs=rngs)

        def __call__(self, x):
            x = self.first(x)
            return nnx.cond(x.sum() > 0, lambda m, x: m(x), lambda m, x: x, self.second, x)

    table = summary(abstract(Branches), (2, 3))
    assert columns(table) == [("first", "Linear", 12, 9), ("(model)", "Branches", 12, 9)]


def test_summary_of_a_linen_method():
    class Coder(linen.Module):
        def setup(self):
            self.encoder, self.decoder = linen.Dense(4), linen.Dense(3)

        def __call__(self, x):
            return self.decoder(self.encode(x))

        def encode(self, x):
            return self.encoder(x)

    x = jnp.ones((2, 3))
    variables = Coder().init(jax.random.key(0), x)
    table = summary(Coder().encode, variables, x)
    assert table.model == "Coder.encode"
    assert ("encoder", "Dense", 16, 12) in columns(table)
    assert table == summary(Coder(), variables, x, method="encode")
    assert table.parameters == 16 + 15


def test_summary_of_linen_inside_nnx():
    model = nnx.bridge.ToNNX(Attending(), rngs=nnx.Rngs(0, dropout=1)).lazy_init(
        jnp.ones((2, 6, 8))
    )
    inside, alone = summary(model, FEATURES), summary(Attending(), FEATURES)
    assert columns(inside) == columns(alone)
    assert (inside.parameters, inside.batch_statistics) == (alone.parameters, 16)


# --- other libraries ---------------------------------------------------------------------------


def test_summary_of_equinox():
    eqx = pytest.importorskip("equinox")

    class Model(eqx.Module):
        conv: eqx.nn.Conv2d
        mlp: eqx.nn.MLP
        weight: jax.Array

        def __call__(self, image):
            return self.mlp(self.conv(image).mean((1, 2)) @ self.weight)

    keys = jax.random.split(jax.random.key(0))
    model = Model(
        eqx.nn.Conv2d(3, 4, 3, key=keys[0]),
        eqx.nn.MLP(4, 2, 8, 1, key=keys[1]),
        jnp.ones((4, 4)),
    )
    table = summary(model, jax.ShapeDtypeStruct((3, 8, 8), jnp.float32))
    assert columns(table) == [
        ("conv", "Conv2d", 112, 36 * 27 * 4),
        ("mlp.layers.0", "Linear", 40, 32),
        ("mlp.layers.1", "Linear", 18, 16),
        ("Model", "Model", 16, 16),
    ]
    batch = summary(
        lambda model, x: jax.vmap(model)(x), model, jax.ShapeDtypeStruct((5, 3, 8, 8), jnp.float32)
    )
    assert (batch.examples, batch.parameters) == (5, table.parameters)
    assert batch.multiplications == table.multiplications
    check_sums(batch)


def test_summary_counts_the_scale_of_equinox_norms():
    eqx = pytest.importorskip("equinox")
    layers = [eqx.nn.LayerNorm(4), eqx.nn.Linear(4, 2, key=jax.random.key(0))]
    table = summary(eqx.nn.Sequential(layers), jnp.ones(4))
    assert [row.multiplications for row in table.rows] == [4, 8]


def test_summary_of_haiku():
    hk = pytest.importorskip("haiku")
    transform = hk.transform(lambda x: hk.nets.MLP([8, 2])(x))
    x = jnp.ones((5, 3))
    parameters = transform.init(jax.random.key(0), x)
    with pytest.raises(TypeError, match=r"begin with parameters, .* got 1 arguments. `model.init`"):
        summary(transform, parameters)
    table = summary(transform, parameters, None, x)
    assert columns(table) == [
        ("mlp.linear_0", "Linear", 32, 24),
        ("mlp.linear_1", "Linear", 18, 16),
    ]
    assert (table.parameters, table.examples) == (50, 5)


def test_summary_of_a_function_that_names_its_values():
    def function(x):
        return x.sum(1), {"double": x @ x.T}

    table = summary(function, jnp.ones((2, 3)))
    assert columns(table) == [("double", "", 0, None), ("(model)", "function", 0, 6)]
