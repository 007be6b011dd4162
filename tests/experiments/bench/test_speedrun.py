import json
import subprocess
import sys
from dataclasses import replace

import numpy as np
import pytest
import typer
from typer.testing import CliRunner

from convjax.terminal.one_line_errors import OneLineCommand
from experiments.bench.speedrun import (
    CPU,
    GOAL,
    SETTINGS,
    SpeedrunSetting,
    _cut,
    measure_speedrun,
    verdict,
)
from experiments.cli.measurements import speedrun


def invoke(*arguments):
    app = typer.Typer(pretty_exceptions_enable=False)
    app.command(cls=OneLineCommand)(speedrun)
    return CliRunner().invoke(app, [str(argument) for argument in arguments])


@pytest.fixture(scope="module")
def quick(tmp_path_factory):
    """The report and the process of a quick run."""
    out = tmp_path_factory.mktemp("speedrun") / "new" / "speedrun.json"
    command = [sys.executable, "-m", "experiments", "speedrun", "--quick", "--data", "mnist5k"]
    done = subprocess.run([*command, "--out", out], capture_output=True, text=True, timeout=300)
    return out, done


@pytest.mark.slow
def test_speedrun_quick_run_is_undecided(quick):
    out, done = quick
    assert done.returncode == 0, done.stderr
    report = json.loads(out.read_text())
    assert report["verdict"] == "undecided"
    assert report["steps"] == 3
    assert report["seeds"] == [0, 1]
    for name in ("accuracy", "seconds"):
        values = report[name]["values"]
        assert len(values) == 2
        assert report[name]["mean"] == pytest.approx(np.mean(values))
        assert report[name]["std"] == pytest.approx(np.std(values, ddof=1))
    assert min(report["seconds"]["values"]) <= report["seconds"]["median"]
    assert report["compile_seconds"] > 0
    assert report["parameters"] > 10_000


@pytest.mark.slow
def test_speedrun_report_has_command_and_setting(quick):
    out, done = quick
    report = json.loads(out.read_text())
    command = "python -m experiments speedrun --seeds 2 --data mnist5k --quick"
    assert report["command"] == command.split()
    assert report["environment"]["jax"]
    # JSON turns tuples into lists.
    assert report["setting"] == json.loads(json.dumps(vars(SETTINGS["cpu"])))
    for word in ("seeds", "accuracy", "seconds of training", "compiling", "device", "schedule"):
        assert word in done.stdout


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--seeds", "0"], "--seeds"),
        (["--data", "mnist", "--data-dir", "/nowhere"], "/nowhere"),
        (["--data", "nmist"], "mnist"),
    ],
)
def test_speedrun_reports_a_mistake_in_one_line(arguments, message, tmp_path):
    result = invoke(*arguments, "--out", tmp_path / "out.json")
    assert result.exit_code == 2
    assert message in result.stderr
    assert len(result.stderr.strip().splitlines()) == 1
    assert "Traceback" not in result.stderr
    assert not (tmp_path / "out.json").exists()


def test_speedrun_rejects_a_folder_as_out(tmp_path):
    result = invoke("--data", "mnist5k", "--quick", "--out", tmp_path)
    assert result.exit_code == 2
    assert "--out must be a file" in result.stderr


@pytest.mark.parametrize(
    ("accuracies", "expected"),
    [
        ([0.9899, 0.9901], "reached"),
        # Their float sum is below 20 times 0.99; exactly the goal counts as reached.
        ([GOAL] * 20, "reached"),
        ([0.9899, 0.9900], "missed"),
        ([0.995, 0.9849], "missed"),  # the mean counts, not the best
    ],
)
def test_verdict_depends_on_the_mean(accuracies, expected):
    assert verdict(accuracies) == expected
    assert verdict(accuracies, quick=True) == "undecided"


@pytest.mark.parametrize(("reached", "status"), [("reached", 0), ("missed", 1), ("undecided", 0)])
def test_speedrun_exit_status_follows_the_verdict(reached, status, tmp_path, monkeypatch):
    spread = {"mean": 0.5, "std": 0.1, "values": [0.4, 0.6]}
    found = {"steps": 3, "parameters": 9, "compile_seconds": 1.0, "seeds": [0, 1]}
    found |= {"accuracy": spread, "seconds": {"median": 0.5, **spread}, "verdict": reached}
    monkeypatch.setattr("experiments.bench.speedrun.measure_speedrun", lambda *_: found)
    result = invoke("--data", "mnist5k", "--seeds", 2, "--out", tmp_path / "out.json")
    assert result.exit_code == status, result.output
    assert "records take 20 seeds" in result.stdout


def test_settings_are_tuned_for_cpu_only():
    assert {name for name, setting in SETTINGS.items() if setting.tuned} == {"cpu"}


@pytest.mark.parametrize("epochs", [0.5, 1.0, 1.5])
def test_setting_order_and_table_have_equal_length(epochs):
    setting = SpeedrunSetting(epochs=epochs, batch_size=64)
    order = setting.order(1000, seed=0)
    steps = setting.steps(1000)
    assert order.shape == (steps, 64) == (int(epochs * 15), 64)
    assert all(len(column) == steps for column in setting.table(steps).values())
    one_epoch = order[:15]
    assert len(np.unique(one_epoch)) == one_epoch.size  # no image twice within an epoch
    assert (order != setting.order(1000, seed=1)).any()


def test_setting_loss_is_cross_entropy_with_smoothed_labels():
    logits = np.array([[2.0, 0.0, -1.0]], np.float32)
    logs = logits[0] - np.log(np.exp(logits[0]).sum())
    # A tenth is spread over all three classes, including the correct one.
    expected = -(0.9 * logs[1] + 0.1 / 3 * logs.sum())
    loss = replace(CPU, smoothing=0.1).loss(logits, np.array([1]))
    np.testing.assert_allclose(loss, [expected], rtol=1e-6)


def test_measure_speedrun_rejects_other_sizes():
    from convjax.data import Dataset, Split

    split = Split(np.zeros((200, 18, 28, 1), np.uint8), np.zeros(200, np.int32))
    dataset = Dataset("small", split, split, ("0", "1"))
    with pytest.raises(ValueError, match="pixels a side, got 18×28"):
        measure_speedrun(dataset, CPU, 1, True, lambda seeds: None)
    assert _cut(split, 2).images.shape == (200, 14, 24, 1)
