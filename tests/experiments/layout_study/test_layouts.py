"""The comparison of layouts: its programs, its arithmetic on invented times, a quick run."""

import json
from dataclasses import asdict, replace

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from typer.testing import CliRunner

import experiments.layouts
from convjax.ops.layout import KERNEL_AXES
from experiments.cli import registry
from experiments.cli.app import app
from experiments.harness.claim import judge
from experiments.harness.lab import Lab
from experiments.layout_study.cases import (
    NETWORK,
    SHAPES,
    Shape,
    Variant,
    convolution,
    network,
    variants,
)
from experiments.layout_study.report import (
    best,
    compiled_summary,
    markdown_layouts,
    picture,
    recommendation,
    relative,
)
from experiments.layout_study.timing import LayoutTiming, deviation, measure_case, reference_of
from experiments.layouts import BOUNDS, same_results
from tests.plots.drawn import draw

SMALL = Shape("small", 2, 6, 4, 4, 3, 2, 2)
CLAIM = {claim.id: claim for _, claim in registry.all_claims()}["layouts"]


def invented(case, variant, where, seconds, **others):
    compiled = {
        "convolutions": [["library" if where == "entry" else "own loops", "", variant.layout]],
        "products": 0,
        "transposes": 1,
        "copies": 2,
        "moved_bytes": 2**20,
        "flops": None,
        "bytes": None,
    }
    row = LayoutTiming(
        case, variant.layout, variant.method, variant.force, "float32", True, where, seconds,
        0.1, 1e-7, compiled,
    )  # fmt: skip
    return replace(row, **others)


BASE, OTHER = Variant("NHWC", "lax"), Variant("CHWN", "matmul")
ROWS = [
    invented("a", BASE, "entry", 1.0),
    invented("b", BASE, "entry", 10.0),
    invented("a", OTHER, "entry", 4.0),
    invented("b", OTHER, "entry", 10.0),
    invented("a", BASE, "loop", 9.0),
    invented("b", BASE, "loop", 10.0),
    invented("a", OTHER, "loop", 1.0),
    invented("b", OTHER, "loop", 10.0),
    invented("a", OTHER, "loop", 1e-9, dtype="bfloat16"),
    invented("a", BASE, "loop", 1.0, dtype="bfloat16"),
]


# arithmetic by hand


def test_relative_is_a_geometric_mean():
    assert relative(ROWS, OTHER, "entry") == pytest.approx(2)  # √(4·1)
    assert relative(ROWS, OTHER, "loop") == pytest.approx(1 / 3)  # √(1/9 · 1)
    assert relative(ROWS, BASE, "loop", base="entry") == pytest.approx(3)
    assert (best(ROWS, "entry"), best(ROWS, "loop")) == (BASE, OTHER)


def test_recommendation_has_the_reason():
    assert recommendation(ROWS) == (
        "in a loop, as in a training: CHWN by matmul, 0.33 of the time of NHWC by lax; outside a "
        "loop: NHWC by lax; NHWC by lax takes 3.0 times as long in a loop as outside: 2 library "
        "outside, 2 own loops inside"
    )


def test_compiled_summary_sums_over_the_cases():
    made = compiled_summary(ROWS, OTHER, "loop")
    assert (made.convolutions, made.physical) == ("2 own loops", "2 CHWN")
    assert (made.transposes, made.copies, made.moved_mib) == (2, 4, 2)


def test_markdown_layouts_by_hand():
    text = markdown_layouts({"layouts": [asdict(row) for row in ROWS if row.dtype == "float32"]})
    tables = text.split("\n\n")
    assert tables[0].splitlines()[2:] == ["| a | 1.00 | 4.00 |", "| b | 1.00 | 1.00 |"]
    assert tables[1].splitlines()[2:] == ["| a | 9.00 | 1.00 |", "| b | 1.00 | 1.00 |"]
    assert tables[2].splitlines()[-1] == "| float32, loop | 3.00 | 1.00 |"
    assert "| CHWN by matmul, loop | 2 own loops | 2 CHWN | 0 | 2 | 4 | 2.0 |" in tables[3]
    assert tables[4] == f"Recommended for this device: {recommendation(ROWS)}."


def test_picture_has_every_time():
    figure = picture(ROWS)
    for axes, times in zip(
        figure.axes, ([[1e3, 1e4], [4e3, 1e4]], [[9e3, 1e4], [1e3, 1e4]]), strict=True
    ):
        assert [line.get_xdata().tolist() for line in axes.lines] == times
    labels = [label.get_text() for label in figure.axes[0].get_yticklabels()]
    assert labels == ["a", "b"]
    assert [text.get_text() for text in figure.axes[0].get_legend().get_texts()] == [
        "NHWC by lax",
        "CHWN by matmul",
    ]
    draw(figure)


def test_same_results_depends_on_the_deviation():
    measured = {
        "programs": [8],
        **{f"deviation_{dtype}": [bound] for dtype, bound in BOUNDS.items()},
        "CHWN by matmul, entry": [2.0],
        "CHWN by matmul, loop": [0.3],
        "NHWC by lax, loop / entry": [3.0],
    }
    decision = same_results(measured)
    assert decision.holds
    assert "outside a loop NHWC by lax (1.00 of" in decision.reason
    assert "in a loop CHWN by matmul (0.30 of" in decision.reason
    assert not same_results({**measured, "deviation_float32": [2e-5]}).holds


# programs


@pytest.mark.parametrize("backward", [False, True])
@pytest.mark.parametrize("variant", variants("cpu"), ids=str)
def test_convolution_variants_have_equal_results(variant, backward):
    _, state, results = convolution(SMALL, variant, jnp.float32, backward)
    found = [np.asarray(array) for array in results(state)]
    reference = reference_of(SMALL, "float32", backward)
    assert [array.shape for array in found] == [array.shape for array in reference]
    assert len(found) == (3 if backward else 1)
    assert found[0].shape == (2, 3, 3, 4)
    # Sums of 18 products of order 1 in float32, in another order.
    assert deviation(found, reference) < 1e-6


@pytest.mark.parametrize("backward", [False, True])
def test_step_keeps_the_shapes_of_its_state(backward):
    for make in (
        lambda variant: convolution(SMALL, variant, jnp.bfloat16, backward),
        lambda variant: network(variant, jnp.bfloat16, backward),
    ):
        step, state, _ = make(Variant("CHWN", "lax"))
        after = jax.eval_shape(step, state)
        assert jax.tree.structure(after) == jax.tree.structure(state)
        for a, b in zip(jax.tree.leaves(after), jax.tree.leaves(state), strict=True):
            assert (a.shape, a.dtype) == (b.shape, b.dtype)


def test_deviation_detects_wrong_results():
    reference = reference_of(SMALL, "float32", True)
    assert deviation([np.array([3.0, 4.5])], [np.array([3.0, 4.0])]) == pytest.approx(0.1)
    wrong = [reference[0], reference[1][:, ::-1], reference[2]]
    assert deviation(wrong, reference) > 0.1


def test_variants_by_backend():
    assert [v.layout for v in variants("cpu")] == 2 * list(KERNEL_AXES)
    forced = variants("gpu")
    assert {v.force for v in forced} == {"", "nchw", "nhwc"}
    assert str(Variant("NCHW", "lax", "nhwc")) == "NCHW by lax, nhwc forced"
    assert {v.method for v in variants("tpu")} == {"lax"}
    assert len({str(shape) for shape in SHAPES}) == len(SHAPES)


def test_measure_case_accepts_a_forced_layout():
    """The option has no effect on CPU, but XLA rejects an unknown one."""
    rows = measure_case(
        SMALL,
        [BASE, replace(BASE, force="nchw")],
        "float32",
        False,
        1,
        reference_of(SMALL, "float32", False),
    )
    assert [row.force for row in rows] == ["", "", "nchw", "nchw"]
    assert all(row.seconds > 0 and row.deviation < 1e-6 for row in rows)


# brief form and quick run


def test_layouts_in_brief_measures_one_convolution_in_every_layout(monkeypatch, tmp_path):
    asked = []

    def invent(case, tried, dtype, backward, rounds, reference):
        asked.append((case, dtype, backward))
        return [
            invented(NETWORK, variant, where, 1.0, dtype=dtype)
            for variant in tried
            for where in ("entry", "loop")
        ]

    monkeypatch.setattr(experiments.layouts, "measure_case", invent)
    monkeypatch.setattr(experiments.layouts, "reference_of", lambda *of: [])
    result = judge(CLAIM, Lab(out=tmp_path), brief=True)
    assert asked == [(SHAPES[1], "float32", True), (SHAPES[1], "bfloat16", True)]
    assert result.measured["programs"] == [2 * 2 * len(variants(jax.default_backend()))]
    assert result.verdict == "reproduced"
    assert result.reason.startswith("24 programs; ")
    assert result.reason.endswith("in its brief form, the whole one: `run layouts`")


@pytest.mark.slow
def test_layouts_quick_run(tmp_path):
    result = judge(CLAIM, Lab(out=tmp_path, quick=True))
    assert result.reason == "a quick run decides nothing"
    # Two cases, three passes, two variants, outside and inside a loop.
    assert result.measured["programs"] == [24]
    found = json.loads((tmp_path / "layouts.json").read_text())
    rows = [LayoutTiming(**row) for row in found["layouts"]]
    assert {row.case for row in rows} == {NETWORK, str(SHAPES[0])}
    assert max(row.deviation for row in rows if row.dtype == "float32") < BOUNDS["float32"]
    assert (tmp_path / "plots" / "layouts.png").exists()
    table = CliRunner().invoke(app, ["table", str(tmp_path / "layouts.json")])
    assert table.exit_code == 0
    assert found["recommended"] in table.output
