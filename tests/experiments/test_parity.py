import json
import shutil

import numpy as np
import pytest
from typer.testing import CliRunner

from experiments.cli import app
from experiments.parity import BOUNDS, TrajectoryError, read, replay

GOLDEN = "tests/golden/mnist5k_onecycle_batchnorm.npz"


@pytest.mark.parametrize("layout", ["CHWN", "NCHW"])
def test_equal_to_fastai_step_by_step(request, layout):
    report = replay(request.config.rootpath / GOLDEN, layout=layout)
    assert report["steps"] == 60
    assert {name: report[name] for name in BOUNDS if report[name] > BOUNDS[name]} == {}
    assert report["holds"]


def altered(request, tmp_path, **arrays):
    golden = dict(np.load(request.config.rootpath / GOLDEN))
    path = tmp_path / "altered.npz"
    np.savez(path, **{**golden, **arrays})
    return path, golden


def test_a_deviation_is_seen(request, tmp_path):
    with np.load(request.config.rootpath / GOLDEN) as golden:
        hist, loss = golden["act_hist"].copy(), golden["loss"].copy()
    hist[3, 2, 1] += 1
    loss[-1] *= 1 + 1e-8
    path, _ = altered(request, tmp_path, act_hist=hist, loss=loss)
    result = CliRunner().invoke(app, ["parity", str(path)])
    report = json.loads(result.stdout)
    assert result.exit_code == 1
    assert not report["holds"]
    assert report["act_hist"] == 1
    assert report["loss"] > 1e-9


def test_errors(request, tmp_path):
    with pytest.raises(TrajectoryError, match="does not exist"):
        read(tmp_path / "none.npz")
    (tmp_path / "text.npz").write_text("no")
    with pytest.raises(TrajectoryError, match=r"not a whole \.npz"):
        read(tmp_path / "text.npz")
    with pytest.raises(TrajectoryError, match="lacks config"):
        read(shutil.copy(request.config.rootpath / "tests/golden/conv2d_cases.npz", tmp_path))
    path, _ = altered(request, tmp_path, data=np.array("cifar10"))
    with pytest.raises(TrajectoryError, match="data must be mnist or mnist5k, got cifar10"):
        read(path)
    path, _ = altered(request, tmp_path, config=np.array(["sawtooth", "none"]))
    with pytest.raises(TrajectoryError, match="config must be"):
        read(path)


def test_the_command_line_shows_no_traceback(tmp_path):
    result = CliRunner().invoke(app, ["parity", str(tmp_path / "none.npz")])
    assert result.exit_code == 2
    assert result.stderr.startswith("error: FILE")
