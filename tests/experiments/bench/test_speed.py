"""The benchmark: its arithmetic on invented times, its child processes, and quick runs."""

import json
import sys
from dataclasses import replace

import numpy as np
import pytest
from typer.testing import CliRunner

from experiments.bench import speed
from experiments.bench.case import BenchCase
from experiments.bench.cases import (
    QUANTITIES,
    Group,
    Ratio,
    Timing,
    case_groups,
    ratios,
    take_turns,
)
from experiments.bench.jax_engine import WATCHED, setup
from experiments.bench.report import bars
from experiments.bench.worker import BenchError, RefusalError, Worker
from experiments.cli import app

OURS = BenchCase("convjax", "CHWN")


def invoke(*arguments):
    return CliRunner().invoke(app.app, ["bench", *map(str, arguments)])


def timing(group, case, *seconds, images=4000, compile_seconds=None):
    return Timing(group, case, images, compile_seconds, list(seconds))


# figures by hand


@pytest.fixture
def engines():
    """Three rounds of our cases and PyTorch's; in the second, the machine is ten times slower."""
    cases = [replace(OURS, stats=stats) for stats in ("none", "all")]
    cases += [replace(OURS, devices=2)]
    cases += [
        BenchCase("torch", x, stats=stats) for x in ("NCHW", "NHWC") for stats in ("none", "all")
    ]
    group = Group("engines", tuple(cases))
    seconds = [
        (1, 10, 1.1),
        (2, 20, 2.2),
        (0.5, 5, 0.4),
        (6, 60, 5.5),
        (9, 60, 8),
        (5, 50, 4.4),
        (14, 120, 11),
    ]
    return [timing(group, case, *s) for case, s in zip(cases, seconds, strict=True)]


def test_ratio_is_the_median_of_the_ratios_within_a_round():
    group = Group("cadence", (OURS, replace(OURS, stats="all")))
    below, above = timing(group, OURS, 1, 10, 2), timing(group, group.cases[1], 3, 20, 8)
    assert Ratio(above, below).rounds == [3, 2, 4]
    assert Ratio(above, below).median == 3  # the ratio of the medians would be 4


def test_ratios_compare_cases_with_equal_statistics(engines):
    found = {
        (r.above.case.program, r.above.case.layout, r.above.case.stats): (r.below.case, r.median)
        for r in ratios(engines)
        if r.above.case.devices == 1
    }
    watched = replace(OURS, stats="all")
    assert found == {
        ("convjax", "CHWN", "all"): (OURS, pytest.approx(2)),
        ("torch", "NCHW", "none"): (OURS, pytest.approx(6)),
        ("torch", "NCHW", "all"): (watched, pytest.approx(8 / 2.2)),
        ("torch", "NHWC", "none"): (OURS, pytest.approx(5)),
        ("torch", "NHWC", "all"): (watched, pytest.approx(6)),
    }
    (devices,) = (r for r in ratios(engines) if r.above.case.devices == 2)
    assert (devices.below.case, devices.median) == (OURS, 0.5)


def test_timing_steps_per_second_and_share():
    half = timing(Group("engines", (OURS,)), OURS, 4, 2, 1, images=640)
    assert half.steps_per_second == 640 / 64 / 2
    assert half.share(roof=1280) == 0.25
    assert replace(half, case=replace(OURS, dtype="bfloat16")).share(roof=1280) is None


def test_bars_by_hand(engines):
    kinds = [("none", 1), ("scalars", 1), ("all", 1), ("all", 8), ("all", 16)]
    cases = [replace(OURS, stats=stats, every=every) for stats, every in kinds]
    cadence = Group("cadence", tuple(cases))
    cadenced = [timing(cadence, case, 1 + i / 10) for i, case in enumerate(cases)]
    norm = Group("norm", (OURS, replace(OURS, norm="batch")))
    normed = [timing(norm, case, s) for case, s in zip(norm.cases, (2, 3), strict=True)]
    starts = [{"case": vars(OURS), "compile_seconds": [1.25, 0.25]}]
    rows = bars(engines + cadenced + normed, starts, roof=8000)
    assert [
        (row["name"], pytest.approx(row["value"]), row["bar"], row["side"]) for row in rows
    ] == [
        # In the memory format that is faster with these statistics.
        ("epoch without statistics, PyTorch / ours, batch 64", 5, 4, "at least"),
        ("with all statistics, PyTorch with hooks / ours, batch 64", 8 / 2.2, 6, "at least"),
        ("epoch without statistics, PyTorch / ours on 2 devices, batch 64", 10, 4, "at least"),
        ("overhead, scalars every step, batch 64", 1.1, 1.05, "at most"),
        ("overhead, all every step, batch 64", 1.2, 1.25, "at most"),
        ("overhead, all every 8 steps, batch 64", 1.3, 1.05, "at most"),
        ("batch norm / none, batch 64", 1.5, 1.25, "at most"),
        ("share of matrix-product rate, batch 64", 4000 / 1.1 / 8000, None, "at least"),
        ("compile seconds, first, no statistics", 1.25, 1.5, "at most"),
        ("compile seconds, cached, no statistics", 0.25, 0.3, "at most"),
    ]


def test_case_groups_have_each_case_once_and_ours_first():
    options = {"devices": 1, "torch": True, "bfloat16": True, "graphs": True, "quick": False}
    groups = case_groups("CHWN", (64, 512), **options)
    for group in groups:
        plain = group.cases[0]
        assert (plain.program, plain.layout, plain.stats) == ("convjax", "CHWN", "none")
        assert len(set(group.cases)) == len(group.cases)
    engines = [group for group in groups if group.kind == "engines"]
    assert len({group.title for group in engines}) == len(engines) == 2 * 2 * 2
    ways = {(case.program, case.layout, case.stats) for case in engines[0].cases}
    both = ("none", "all")
    assert ways == (
        {("convjax", x, s) for x in ("CHWN", "NCHW", "NHWC") for s in both}
        | {(p, x, s) for p in ("torch", "torch-graph") for x in ("NCHW", "NHWC") for s in both}
        | {("torch-compile", x, "none") for x in ("NCHW", "NHWC")}
    )
    (quantities,) = (group for group in groups if group.kind == "quantities")
    assert {case.stats for case in quantities.cases} == {"none", *QUANTITIES} <= set(WATCHED)
    (cadence,) = (group for group in groups if group.kind == "cadence")
    assert [case.every for case in cadence.cases if case.stats == "all"] == [1, 8, 16, 256]
    assert {case.devices for group in groups for case in group.cases} == {1}
    options |= {"torch": False, "bfloat16": False, "graphs": False}
    alone = case_groups("NHWC", (64,), **options)
    assert {case.program for group in alone for case in group.cases} == {"convjax"}


def test_case_groups_use_all_devices_if_they_divide_the_batch():
    options = {"torch": True, "bfloat16": False, "graphs": False, "quick": True}
    for devices, wanted in ((4, ["none", "all"]), (3, [])):
        groups = case_groups("CHWN", (64,), devices=devices, **options)
        several = [case for group in groups for case in group.cases if case.devices > 1]
        assert [case.stats for case in several] == wanted
        assert {(case.program, case.devices) for case in several} <= {("convjax", devices)}


class FakeWorker:
    """Returns the number of requests so far as seconds; cannot compile for PyTorch."""

    def __init__(self):
        self.asked = []

    def ask(self, do, case):
        if case.program == "torch-compile":
            raise RefusalError("no compiler")
        self.asked.append((do, case.stats))
        return {"seconds": float(len(self.asked)), "compile_seconds": None}


def test_take_turns_changes_the_order_and_notes_a_failing_compiler():
    cases = (OURS, replace(OURS, stats="all"), BenchCase("torch-compile", "NCHW"))
    worker, notes = FakeWorker(), []
    group = Group("engines", cases)
    timings = take_turns({"jax": worker, "torch": worker}, group, 2, 4000, notes)
    prepared = [("prepare", "none"), ("prepare", "all")]
    assert worker.asked == [*prepared, *(("run", s) for s in ("none", "all", "all", "none"))]
    assert [t.seconds for t in timings] == [[3, 6], [4, 5]]
    assert len(notes) == 1
    assert "torch-compile NCHW" in notes[0]
    assert "no compiler" in notes[0]
    with pytest.raises(RefusalError, match="no compiler"):  # our cases must not fail
        take_turns({"jax": _Refusing()}, group, 1, 4000, notes)


class _Refusing:
    def ask(self, do, case):
        raise RefusalError("no compiler")


# child processes


def child(tmp_path, code):
    return Worker("jax", tmp_path / "data.npz", command=[sys.executable, "-c", code])


@pytest.mark.parametrize("read", ["input(); ", ""])  # dies at a request, or before any
def test_worker_reports_the_stderr_of_a_dead_child(tmp_path, read):
    code = f"import sys; {read}print('out of memory', file=sys.stderr); sys.exit(3)"
    with child(tmp_path, code) as worker:
        message = r"jax worker died with exit status 3 when asked to run BenchCase"
        with pytest.raises(BenchError, match=message + r".*\nout of memory$"):
            worker.ask("run", OURS)


def test_worker_continues_after_an_error(tmp_path):
    with Worker("jax", tmp_path / "data.npz") as worker:
        for _ in range(2):
            with pytest.raises(RefusalError, match="name_or_path must be one of mnist5k"):
                worker.ask("setup", data="nmist", data_dir=None, batch_sizes=[64], quick=True)


def test_setup_counts_the_operations_of_an_image(tmp_path):
    found = setup(str(tmp_path / "data.npz"), "mnist5k", None, (64, 512, 8000), quick=False)
    assert found["images_per_epoch"] == {64: 62 * 64, 512: 7 * 512}
    # Output cells times weights of each layer; the first has no gradient of its input.
    layers = [14**2 * 25 * 8, 7**2 * 9 * 8 * 16, 4**2 * 9 * 16 * 32, 2**2 * 9 * 32 * 64, 9 * 640]
    assert found["flops_per_image"] == 2 * (3 * sum(layers) - layers[0])
    with np.load(tmp_path / "data.npz") as data:
        assert data["order_64"].shape == (62, 64)
        assert data["momentum_512"].shape == data["learning_rate_512"].shape == (7,)
        assert data["images"].shape == (4000, 28, 28, 1)


# quick runs


@pytest.mark.slow
def test_bench_quick_run_without_torch(tmp_path, monkeypatch):
    monkeypatch.setattr(speed, "has_torch", lambda: False)
    out = tmp_path / "new" / "bench.json"
    result = invoke("--quick", "--out", out)
    assert result.exit_code == 0, result.output
    assert "pip install torch" in result.stdout
    report = json.loads(out.read_text())
    assert set(report) == {
        *("environment", "device", "torch", "data", "rounds", "matrix_product", "cases", "ratios"),
        *("cold_start", "bars", "notes"),
    }
    assert report["environment"]["jax"]
    assert report["torch"] is None
    assert any("pip install torch" in note for note in report["notes"])
    assert report["rounds"] == 2
    assert {case["program"] for case in report["cases"]} == {"convjax"}
    for case in report["cases"]:
        assert len(case["seconds"]) == 2
        assert min(case["seconds"]) > 0
        assert case["compile_seconds"] > 0
        assert case["steps_per_second"] == pytest.approx(3 / case["median_seconds"])
    assert len(report["ratios"]) == len(report["cases"]) - 4  # four groups, one base case each
    (start,) = report["cold_start"]
    assert start["compile_seconds"][1] < start["compile_seconds"][0]  # the cache was read
    assert all(
        seconds > compiled
        for seconds, compiled in zip(start["seconds"], start["compile_seconds"], strict=True)
    )
    assert min(start["host_bytes"]) > 50e6
    assert {row["bar"] for row in report["bars"]} == {None}  # a quick run decides nothing
    shown = CliRunner().invoke(app.app, ["table", str(out)]).stdout
    assert "note: quick" in shown
    names = " ".join(row["name"] for row in report["bars"])
    assert all(word in names for word in ("every 8", "batch norm", "share", "cached"))


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--data", "nmist"], "must be one of mnist5k"),
        (["--rounds", "0"], "--rounds"),
        (["--out", "."], "--out must be a file"),
        (["--out", __file__], "--out must be a new file"),
    ],
)
def test_bench_reports_a_mistake_with_status_2(arguments, message, tmp_path, monkeypatch):
    monkeypatch.setattr(speed, "has_torch", lambda: False)
    monkeypatch.chdir(tmp_path)
    result = invoke(*arguments)
    assert result.exit_code == 2
    assert message in result.stderr
    assert "Traceback" not in result.output


# with PyTorch


@pytest.mark.slow
def test_bench_quick_run_with_torch(tmp_path):
    pytest.importorskip("torch")
    result = invoke("--quick", "--out", tmp_path / "bench.json")
    assert result.exit_code == 0, result.output
    report = json.loads((tmp_path / "bench.json").read_text())
    assert report["torch"]["threads"] >= 1
    assert {case["program"] for case in report["cases"]} == {"convjax", "torch"}
    assert {start["case"]["program"] for start in report["cold_start"]} == {"convjax", "torch"}
    devices = {case["devices"] for case in report["cases"]}
    assert sum("PyTorch" in row["name"] for row in report["bars"]) == 2 * len(devices)


@pytest.fixture(scope="module")
def data(tmp_path_factory):
    path = tmp_path_factory.mktemp("data") / "data.npz"
    setup(str(path), "mnist5k", None, (64,), quick=True)
    with np.load(path) as found:
        return dict(found)


@pytest.mark.parametrize("norm", [None, "batch"])
@pytest.mark.parametrize("layout", ["NCHW", "NHWC"])
def test_torch_program_trains_like_jax_program(data, norm, layout):
    torch = pytest.importorskip("torch")
    from experiments.bench.jax_engine import JaxProgram
    from experiments.bench.torch_engine import TorchProgram

    # A small constant rate: rounding stays rounding, and so does the decay of biases, which only
    # the loop of PyTorch has.
    data = data | {"learning_rate_64": np.full(3, 1e-3), "momentum_64": np.full(3, 0.9)}
    ours = JaxProgram(BenchCase("convjax", "NCHW", norm, stats="all"), data)
    theirs = TorchProgram(BenchCase("torch", layout, norm, stats="all"), data)
    start = []
    for block in ours.model.blocks:
        start += [block.conv.kernel, block.conv.bias]
        if block.norm is not None:
            start += [block.norm.scale, block.norm.bias]
    with torch.no_grad():
        for parameter, value in zip(theirs.model.parameters(), start, strict=True):
            array = np.asarray(value[...])
            if array.ndim == 4:  # ours are HWIO in every layout
                array = array.transpose(3, 2, 0, 1).copy()
            parameter.copy_(torch.tensor(array))
    theirs.initial = [value.clone() for value in theirs.model.state_dict().values()]

    ours.reset()
    record = ours.epoch()
    layers = len(record.layers)
    for _ in range(2):  # reset leads back to the start
        theirs.reset()
        losses = theirs.epoch().numpy()
        np.testing.assert_allclose(losses[0], record.loss[0], rtol=0, atol=1e-5)
        np.testing.assert_allclose(losses, record.loss, rtol=0, atol=2e-4)
    assert len(theirs.stats) == 3 * layers
    fields = ("mean", "std", "near_zero", "abs_near_zero", "hist", "under", "over")
    for layer, found in enumerate(theirs.stats[:layers]):
        for name, value in zip(fields, found, strict=True):
            counts = name in fields[4:]
            # Two values of 100,000 may be rounded to the other side of an edge.
            tolerance = 2 if counts else 1e-4 if "zero" in name else 1e-5
            np.testing.assert_allclose(
                np.asarray(value), getattr(record, name)[0, layer], rtol=0, atol=tolerance
            )
