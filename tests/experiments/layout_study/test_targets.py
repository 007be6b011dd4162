"""Layouts for chips that need not be there: networks, the table and picture of invented rows."""

import importlib.util
import json

import jax
import jax.numpy as jnp
import pytest
from flax import nnx
from typer.testing import CliRunner

import convjax
from convjax.analysis import LayoutProgram
from convjax.analysis.hlo import CompiledProgram, HloConvolution
from convjax.ops.layout import KERNEL_AXES
from experiments.cli.app import app
from experiments.harness.lab import Lab
from experiments.layout_study.networks import DepthwiseNet, ResNetConvolutions
from experiments.layout_study.targets import (
    compile_for_targets,
    markdown_layouts_by_target,
    saved_row,
    targets_picture,
)
from tests.plots.drawn import draw


def row(target, layout, force="", physical="NHWC", **fields):
    made = CompiledProgram(
        (HloConvolution("__cudnn$convForward", "", physical),), 0, 1, 0, 2**20, None,
        **({"bytes": 2.0**21, "launches": 5} | fields),
    )  # fmt: skip
    found = saved_row(LayoutProgram(target, layout, force, made, None, 0.1))
    return {"network": "net", "dtype": "bfloat16", "images": [64, 8, 8, 3], **found}


ROWS = [
    *(row("h100", layout) for layout in KERNEL_AXES),
    *(row("h100", layout, "nchw", "NCHW", bytes=2.0**22) for layout in ("NHWC", "NCHW")),
    row("v5e", "NHWC", cycles=1000.0),
    row("v5e", "NCHW", cycles=1500.0),
]


def test_table_has_one_row_for_equal_programs():
    text = markdown_layouts_by_target(json.loads(json.dumps(ROWS)))
    assert text.splitlines()[2:] == [
        "| net, bfloat16, batch 64 | h100 | any | - | - | 5 | 2.0 | - | 1 | 1.0 | 1 NHWC "
        "| 1 convForward |",
        "| net, bfloat16, batch 64 | h100 | NHWC, NCHW, nchw forced | - | - | 5 | 4.0 | - | 1 "
        "| 1.0 | 1 NCHW | 1 convForward |",
        "| net, bfloat16, batch 64 | v5e | NHWC | - | 1,000 | 5 | 2.0 | - | 1 | 1.0 | 1 NHWC "
        "| 1 convForward |",
        "| net, bfloat16, batch 64 | v5e | NCHW | - | 1,500 | 5 | 2.0 | - | 1 | 1.0 | 1 NHWC "
        "| 1 convForward |",
    ]


def test_picture_shows_costs_over_that_of_nhwc():
    figure = targets_picture(ROWS)
    (axes,) = figure.axes
    shown = [float(line.get_xdata()[0]) for line in axes.lines if len(line.get_xdata()) == 1]
    assert shown == [1, 1, 1, 2, 2, 1, 1.5]
    assert [tick.get_text() for tick in axes.get_yticklabels()] == ["h100: bytes", "v5e: cycles"]
    draw(figure)


@pytest.mark.parametrize(
    ("make", "multiplications", "parameters"),
    [
        # ResNet-50 has 4.09 G multiplications and 23.45 M parameters of convolutions. Left out are
        # eight blocks of 0.22 G: one, two, four and one of 70, 280, 1,117 and 4,456 thousand.
        (ResNetConvolutions, 4.09e9 - 8 * 0.218e9, 23.45e6 - 70e3 - 560e3 - 4_468e3 - 4_456e3),
        # MobileNet has 568 M multiplications and 3.19 M parameters of convolutions. Left out are
        # four of five equal blocks, each of 14²·512·(9 + 512) multiplications.
        (DepthwiseNet, 568e6 - 4 * 14**2 * 512 * 521, 3.19e6 - 4 * 512 * 521),
    ],
)
def test_networks_have_the_sizes_of_the_papers(make, multiplications, parameters):
    for layout in KERNEL_AXES:
        net = nnx.eval_shape(lambda layout=layout: make(layout, jnp.float32))
        shape = [{"N": 1, "C": 3}.get(letter, 224) for letter in layout]
        found = convjax.summary(net, jax.ShapeDtypeStruct(tuple(shape), jnp.float32))
        # Of the whole call, which has one example, wherever its axis is.
        assert found.multiplications * found.examples == pytest.approx(multiplications, rel=0.03)
        assert found.parameters == pytest.approx(parameters, rel=0.03)


def test_target_is_for_layouts_alone(tmp_path):
    for command in (
        ["run", "arithmetic", "--target", "h100"],
        ["run", "layouts", "--target", "h100", "--resume", "--out", str(tmp_path)],
    ):
        (tmp_path / "runs").mkdir(exist_ok=True)
        found = CliRunner().invoke(app, command)
        assert found.exit_code == 2
        message = " ".join(found.output.split())
        assert "--target is for a new run of the claim layouts" in message


def test_unknown_target_ends_before_any_work(tmp_path):
    command = ["run", "layouts", "--target", "h300", "--out", str(tmp_path / "out")]
    found = CliRunner().invoke(app, command)
    assert found.exit_code == 2
    assert "target must be one of a100, h100" in " ".join(found.output.split())
    assert not (tmp_path / "out").exists()


@pytest.mark.skipif(jax.default_backend() != "cpu", reason="compiles for the CPU")
def test_compile_for_targets_writes_table_and_picture(tmp_path):
    compile_for_targets(Lab(out=tmp_path, targets=("cpu",), quick=True))
    found = json.loads((tmp_path / "layouts_by_target.json").read_text())
    rows = found["layouts_by_target"]
    assert [row["layout"] for row in rows] == list(KERNEL_AXES)
    assert all(row["seconds"] > 0 and row["images"] == [512, 28, 28, 1] for row in rows)
    assert (tmp_path / "plots" / "layouts_by_target.png").stat().st_size > 10_000
    shown = CliRunner().invoke(app, ["table", str(tmp_path / "layouts_by_target.json")])
    assert shown.output.startswith("| network | target | layout |")


@pytest.mark.skipif(
    importlib.util.find_spec("jax_cuda13_plugin") is None, reason="needs the extra targets"
)
def test_logical_layout_does_not_decide_the_order_in_memory(tmp_path):
    """On an H100 float32 convolutions lie as NHWC, on an A100 as NCHW, whatever the network's."""
    compile_for_targets(Lab(out=tmp_path, targets=("h100", "a100"), quick=True))
    rows = json.loads((tmp_path / "layouts_by_target.json").read_text())["layouts_by_target"]
    orders = {
        (row["target"], convolution[2])
        for row in rows
        if not row["force"]
        for convolution in row["program"]["convolutions"]
    }
    assert orders == {("h100", "NHWC"), ("a100", "NCHW")}
