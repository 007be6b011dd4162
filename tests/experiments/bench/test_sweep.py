import json

import numpy as np
import pytest
from typer.testing import CliRunner

from convjax.data import Dataset, Split
from experiments.bench import sweep
from experiments.cli.app import app


@pytest.mark.slow
def test_bench_sweep_quick_run(tmp_path):
    out = tmp_path / "sweep.json"
    result = CliRunner().invoke(app, ["bench-sweep", "--quick", "--out", str(out)])
    assert result.exit_code == 0, result.output
    assert "runs at once" in result.stdout
    report = json.loads(out.read_text())
    assert (report["data"], report["quick"]) == ("mnist5k", True)
    rows = report["sweeps"]
    assert [(row["batch_size"], row["at_once"]) for row in rows] == [(64, 1), (64, 2)]
    for row in rows:
        assert len(row["seconds_alone"]) == len(row["seconds_per_run"]) == 2
        ratios = np.divide(row["seconds_per_run"], row["seconds_alone"])
        assert row["ratio"] == pytest.approx(np.median(ratios))
        assert row["compile_seconds"] > 0
        assert row["default_at_once"] == 1
    again = CliRunner().invoke(app, ["bench-sweep", "--quick", "--out", str(out)])
    assert again.exit_code == 2
    assert "--out must be a new file" in again.stderr


def test_measure_sweeps_rejects_too_few_images():
    few = Split(np.zeros((9, 28, 28, 1), np.uint8), np.zeros(9, np.int32))
    with pytest.raises(ValueError, match="data must have at least 64 images, got 9"):
        sweep.measure_sweeps(Dataset("few", few, few, ("0",)), rounds=1, quick=True)
