import json

import numpy as np
import pytest
from typer.testing import CliRunner

from experiments.bench import devices
from experiments.cli.app import app


@pytest.mark.slow
def test_bench_devices_quick_run(tmp_path):
    out = tmp_path / "devices.json"
    result = CliRunner().invoke(app, ["bench-devices", "--quick", "--out", str(out)])
    assert result.exit_code == 0, result.output
    one, *rows = json.loads(out.read_text())["devices"]
    assert (one["processes"], one["devices"], one["steps"]) == (1, 1, 3)
    assert one["loss"] == one["parameters"] == one["statistics"] == one["moved"] == 0
    assert [(row["processes"], row["devices"]) for row in rows] == [(1, 2), (2, 2)]
    for row in rows:
        # Float64: roundings of 1e-16 after three steps of Adam; statistics are float32.
        assert 0 < row["parameters"] < 1e-8
        assert row["loss"] < 1e-10
        assert row["statistics"] < 1e-5
        assert row["correct"] == 0
    assert devices.markdown_devices([one, *rows]) in result.stdout


def test_compare_deviations_by_hand():
    wanted = {
        "loss": np.array([2.0, 4.0]),
        "parameter a": np.array([1.0, -4.0]),
        "correct": np.array(5),
    }
    wanted |= {name: np.zeros(2) for name in devices.STATISTICS}
    wanted |= {name: np.array([3, 1]) for name in devices.COUNTS}
    found = {name: value.copy() for name, value in wanted.items()}
    found["loss"] += [0, 1]
    found["parameter a"] += [0.5, 0]
    found["std"] += [0, 0.25]
    found["hist"] += [1, -1]
    found["correct"] -= 2
    assert devices.compare(found, wanted) == {
        "loss": 0.25,
        "parameters": 0.125,
        "statistics": 0.25,
        "moved": 1 / 12,
        "correct": -2,
    }


def test_run_case_reports_a_failed_process():
    with pytest.raises(ValueError, match=r"a process ended with status 1: .*float65"):
        devices.run_case(1, 1, "float65", True)
