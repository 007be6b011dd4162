"""Summaries against the chapter's figures and against numbers worked out by hand."""

import math

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx

from convjax.analysis._summary import summary
from convjax.nn.layers import BatchNorm, Conv, Linear
from convjax.nn.models import ConvNet, LinearNet, digits_net, threes_sevens_net


class Chain(nnx.Module):
    """Calls modules and functions one after the other."""

    def __init__(self, *layers):
        self.layers = nnx.List(list(layers))

    def __call__(self, x):
        for layer in self.layers:
            x = layer(x)
        return x


ALL = (math.inf, math.inf)


def abstract(make):
    """Makes a model of shapes alone: drawing parameters would take most of the tests' time."""
    return nnx.eval_shape(lambda: make(nnx.Rngs(0)))


def fields_of(model):
    return [row.receptive_field for row in summary(model).rows]


@pytest.mark.parametrize("layout", ["NHWC", "NCHW", "CHWN"])
def test_summary_of_the_threes_sevens_net_has_the_chapters_figures(layout):
    table = summary(abstract(lambda rngs: threes_sevens_net(layout=layout, rngs=rngs)))
    assert table.parameters == 6722
    assert [row.parameters for row in table.rows] == [40, 296, 1168, 4640, 578]
    sizes = [14, 7, 4, 2, 1]
    shapes = [
        tuple({"N": 1, "C": channels, "H": size, "W": size}[letter] for letter in layout)
        for channels, size in zip([4, 8, 16, 32, 2], sizes, strict=True)
    ]
    assert [row.output_shape for row in table.rows] == shapes
    # One multiplication per weight and output cell: 36·14², 288·7², 1152·4², 4608·2², 576.
    assert [row.multiplications for row in table.rows] == [7056, 14112, 18432, 18432, 576]
    assert table.multiplications == 58608
    assert [row.receptive_field for row in table.rows] == [(n, n) for n in (3, 7, 15, 31, 63)]
    assert table.layout == layout
    # Few people know CHWN: the text has NHWC instead.
    shown = "NHWC" if layout == "CHWN" else layout
    assert f"output shape ({shown})" in str(table)
    assert ("1×4×14×14" if shown == "NCHW" else "1×14×14×4") in str(table)
    assert {row.kind for row in table.rows} == {"Conv"}


def test_summary_of_the_linear_net_has_the_chapters_parameters():
    table = summary(abstract(lambda rngs: LinearNet(rngs=rngs)))
    assert table.parameters == 23_581
    assert [row.parameters for row in table.rows] == [23_550, 31]
    assert [row.multiplications for row in table.rows] == [784 * 30, 30]
    assert [row.output_shape for row in table.rows] == [(1, 30), (1, 1)]
    assert [row.receptive_field for row in table.rows] == [ALL, ALL]
    assert table.layout is None
    assert [line.split()[-1] for line in str(table).splitlines()[3:5]] == ["all×all"] * 2


def test_summary_counts_batch_norm_scales_and_statistics_separately():
    table = summary(abstract(lambda rngs: digits_net(norm="batch", rngs=rngs)))
    plain = summary(abstract(lambda rngs: digits_net(rngs=rngs)))
    channels = 8 + 16 + 32 + 64 + 10
    assert table.parameters == plain.parameters + 2 * channels
    assert table.batch_statistics == 2 * channels
    assert plain.batch_statistics == 0
    assert table.multiplications == plain.multiplications + channels
    norms = table.rows[1::2]
    assert {row.kind for row in norms} == {"BatchNorm"}
    assert [row.receptive_field for row in norms] == [
        row.receptive_field for row in table.rows[::2]
    ]
    assert "batch statistics, not among the parameters: 260" in str(table)


def test_summary_rows_follow_the_calls():
    class Backwards(nnx.Module):
        def __init__(self, rngs):
            self.a = Linear(5, 2, rngs=rngs)
            self.b = Linear(3, 5, rngs=rngs)

        def __call__(self, x):
            return self.a(self.b(x))

    table = summary(abstract(Backwards), (1, 3))
    assert [(row.name, row.output_shape) for row in table.rows] == [("b", (1, 5)), ("a", (1, 2))]


def test_summary_batch_size_changes_shapes_only():
    model = abstract(lambda rngs: threes_sevens_net(layout="NHWC", rngs=rngs))
    one, many = summary(model), summary(model, (64, 28, 28, 1))
    assert one.multiplications == many.multiplications
    assert many.rows[0].output_shape == (64, 14, 14, 4)


def test_summary_counts_a_linear_layer_at_every_position():
    table = summary(abstract(lambda rngs: Chain(Linear(3, 5, rngs=rngs))), (2, 7, 4, 3))
    assert table.rows[0].multiplications == 7 * 4 * 3 * 5


def test_summary_of_grouped_and_uneven_convolutions():
    settings = {"stride": (1, 2), "padding": "same", "dilation": (2, 1), "groups": 2}
    model = abstract(lambda rngs: Chain(Conv(4, 6, (3, 5), **settings, rngs=rngs)))
    (row,) = summary(model, (1, 8, 10, 4)).rows
    assert row.output_shape == (1, 8, 5, 6)
    assert row.multiplications == 8 * 5 * (3 * 5 * 2 * 6)
    assert row.receptive_field == (5, 5)  # height 2·(3−1) + 1


def test_summary_counts_parameters_of_a_repeated_layer_once():
    def twice(rngs):
        conv = Conv(4, 4, padding=1, rngs=rngs)
        return Chain(conv, conv)

    table = summary(abstract(twice), (1, 8, 8, 4))
    assert [row.name for row in table.rows] == ["layers.0", "layers.0#2"]
    assert [row.parameters for row in table.rows] == [148, 0]
    assert table.parameters == 148
    assert table.multiplications == 2 * 64 * 144
    assert [row.receptive_field for row in table.rows] == [(3, 3), (5, 5)]


# --- the receptive field (tests of the formula: test_receptive_field.py) ---------------------


def test_summary_receptive_field_includes_pooling_and_branches():
    class Branched(nnx.Module):
        def __init__(self, rngs):
            self.main = Conv(1, 4, stride=2, padding=1, rngs=rngs)
            self.short = Conv(1, 4, 1, stride=2, rngs=rngs)
            self.after = Conv(4, 4, padding=1, rngs=rngs)

        def __call__(self, x):
            both = self.main(x) + self.short(x)
            return self.after(nnx.max_pool(both, (2, 2), strides=(2, 2)))

    # The pooling makes 5 of 3, the last convolution adds two strides of 4 pixels.
    assert fields_of(abstract(Branched)) == [(3, 3), (1, 1), (13, 13)]


def test_summary_of_an_unknown_receptive_field():
    def circular(rngs):
        return Chain(nnx.Conv(1, 4, (3, 3), padding="CIRCULAR", rngs=rngs), Conv(4, 4, rngs=rngs))

    table = summary(abstract(circular))
    assert [row.receptive_field for row in table.rows] == [None, None]
    assert str(table).splitlines()[3].split()[-1] == "-"


# --- other people's models -------------------------------------------------------------------


def test_summary_of_flax_layers():
    model = abstract(
        lambda rngs: Chain(
            nnx.Conv(1, 4, (3, 3), strides=2, rngs=rngs),
            nnx.BatchNorm(4, rngs=rngs),
            nnx.Conv(4, 8, (3, 3), strides=2, padding=1, rngs=rngs),
            nnx.Linear(8, 2, rngs=rngs),
        )
    )
    table = summary(model)
    assert [row.multiplications for row in table.rows] == [36 * 196, 4, 288 * 49, 16 * 49]
    assert [row.receptive_field for row in table.rows] == [(3, 3), (3, 3), (7, 7), (7, 7)]
    assert [row.parameters for row in table.rows] == [40, 8, 296, 18]
    assert table.batch_statistics == 8


@pytest.mark.parametrize(
    "make",
    [
        lambda rngs: nnx.LayerNorm(3, rngs=rngs),
        lambda rngs: nnx.RMSNorm(3, rngs=rngs),
        lambda rngs: nnx.GroupNorm(3, num_groups=3, rngs=rngs),
    ],
)
def test_summary_counts_the_scale_of_norms_once_per_channel(make):
    model = abstract(lambda rngs: Chain(make(rngs), Linear(3, 2, rngs=rngs)))
    table = summary(model, (4, 7, 3))
    assert [row.multiplications for row in table.rows] == [3, 7 * 6]


def test_summary_marks_what_is_unknown():
    class Loop(nnx.Module):
        def __init__(self, rngs):
            self.linear = Linear(3, 3, rngs=rngs)

        def __call__(self, x):
            x = self.linear(x)
            return jax.lax.while_loop(lambda x: x.sum() < 3, lambda x: x @ jnp.ones((3, 3)), x)

    table = summary(abstract(Loop), (1, 3))
    assert [(row.name, row.multiplications) for row in table.rows] == [
        ("linear", 9),
        ("(model)", None),
    ]
    assert table.multiplications == 9
    assert str(table).splitlines()[-1].startswith("?: unknown; those of while loops are in no row")


@pytest.mark.parametrize("dtype", [jnp.bfloat16, jnp.float16, jnp.float32])
def test_summary_of_any_dtype(dtype):
    model = abstract(lambda rngs: threes_sevens_net(param_dtype=dtype, rngs=rngs))
    assert summary(model).parameters == 6722


# --- nothing is computed or changed ----------------------------------------------------------


@pytest.mark.parametrize("training", [True, False])
def test_summary_keeps_the_model(training):
    model = ConvNet((1, 2, 2), norm="batch", rngs=nnx.Rngs(0))
    if training:
        model.train()
    else:
        model.eval()
    graph, before = nnx.graphdef(model), jax.tree.map(np.array, nnx.state(model))
    summary(model)
    assert nnx.graphdef(model) == graph
    jax.tree.map(np.testing.assert_array_equal, before, nnx.state(model))
    assert {block.norm.use_running_average for block in model.blocks} == {not training}


def test_summary_keeps_a_model_that_changes_itself():
    class Counter(nnx.Module):
        def __init__(self, rngs):
            self.calls = nnx.Variable(jnp.array(0))
            self.linear = Linear(3, 2, rngs=rngs)

        def __call__(self, x):
            self.calls[...] += 1
            return self.linear(x)

    model = Counter(nnx.Rngs(0))
    assert summary(model, (1, 3)).parameters == 8
    assert model.calls[...] == 0


def test_summary_accepts_one_value_per_channel():
    """Evaluation mode: batch norm in training mode would refuse a single value per channel."""
    table = summary(Chain(BatchNorm(3)), (1, 1, 1, 3))
    assert table.rows[0].output_shape == (1, 1, 1, 3)


# --- table and errors ------------------------------------------------------------------------


def test_summary_table_is_aligned():
    table = str(summary(abstract(lambda rngs: threes_sevens_net(layout="NCHW", rngs=rngs))))
    assert table == (
        "ConvNet, input 1×28×28×1; multiplications per example\n"
        "layer          kind  output shape (NCHW)  parameters  multiplications  receptive field\n"
        "--------------------------------------------------------------------------------------\n"
        "blocks.0.conv  Conv            1×4×14×14          40            7,056              3×3\n"
        "blocks.1.conv  Conv              1×8×7×7         296           14,112              7×7\n"
        "blocks.2.conv  Conv             1×16×4×4       1,168           18,432            15×15\n"
        "blocks.3.conv  Conv             1×32×2×2       4,640           18,432            31×31\n"
        "blocks.4.conv  Conv              1×2×1×1         578              576            63×63\n"
        "--------------------------------------------------------------------------------------\n"
        "total                                          6,722           58,608"
    )


def test_summary_rejects_wrong_arguments():
    with pytest.raises(TypeError, match=r"model must be a .*, got the class LinearNet. Construct"):
        summary(LinearNet)
    with pytest.raises(TypeError, match=r"model must be a module or a function, got int: 3. Pass"):
        summary(3)
    model = abstract(lambda rngs: LinearNet(rngs=rngs))
    with pytest.raises(ValueError, match=r"at least 1, got \(1, 0, 28, 1\)"):
        summary(model, (1, 0, 28, 1))
    with pytest.raises(ValueError, match=r"at least 1, got \(\)"):
        summary(model, ())
    for shape in ((1, 28.0, 28, 1), "NHWC", 28, (True, 28)):
        with pytest.raises(TypeError, match=r"args must be .*\(N, H, W, C\) of .*, got "):
            summary(model, shape)
    with pytest.raises(ValueError, match=r"select must match a layer of LinearNet, .* layers: "):
        summary(model, select="nothing")


def test_summary_adds_a_line_to_the_errors_of_the_model():
    model = abstract(lambda rngs: LinearNet(rngs=rngs))
    with pytest.raises(TypeError, match="contracting dimensions") as error:
        summary(model, (2, 5, 5, 1))
    assert error.value.__notes__[-1] == "convjax.summary called LinearNet with input 2×5×5×1."
    with pytest.raises(TypeError, match="contracting dimensions") as error:
        summary(Linear(3, 2, rngs=nnx.Rngs(0)))
    assert error.value.__notes__[-1].endswith("Without inputs it assumes images (1, 28, 28, 1).")
    with pytest.raises(TypeError, match="unexpected keyword argument 'train'"):
        summary(model, train=False)
