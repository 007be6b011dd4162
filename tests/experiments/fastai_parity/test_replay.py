import json
import shutil

import numpy as np
import pytest
from typer.testing import CliRunner

from experiments.cli.app import app
from experiments.fastai_parity.replay import BOUNDS, TrajectoryError, read, replay

GOLDEN = "tests/golden/mnist5k_onecycle_batchnorm.npz"


@pytest.mark.slow
@pytest.mark.parametrize("layout", ["CHWN", "NCHW"])
def test_replay_equals_fastai_step_by_step(request, layout):
    report = replay(request.config.rootpath / GOLDEN, layout=layout)
    assert report["steps"] == 60
    assert {name: report[name] for name in BOUNDS if report[name] > BOUNDS[name]} == {}
    assert report["holds"]


def altered(request, tmp_path, **arrays):
    golden = dict(np.load(request.config.rootpath / GOLDEN))
    path = tmp_path / "altered.npz"
    np.savez(path, **{**golden, **arrays})
    return path


def test_parity_command_reports_a_deviation(request, tmp_path):
    with np.load(request.config.rootpath / GOLDEN) as golden:
        hist, loss = golden["act_hist"].copy(), golden["loss"].copy()
    hist[3, 2, 1] += 1
    loss[-1] *= 1 + 1e-8
    path = altered(request, tmp_path, act_hist=hist, loss=loss)
    result = CliRunner().invoke(app, ["parity", str(path)])
    report = json.loads(result.stdout)
    assert result.exit_code == 1
    assert not report["holds"]
    deviating = {name: report[name] for name in BOUNDS if report[name] > BOUNDS[name]}
    assert list(deviating) == ["loss", "act_hist"]
    assert deviating["act_hist"] == 1


def test_read_rejects_other_files(request, tmp_path):
    with pytest.raises(TrajectoryError, match="does not exist"):
        read(tmp_path / "none.npz")
    (tmp_path / "text.npz").write_text("no")
    with pytest.raises(TrajectoryError, match=r"not a complete \.npz"):
        read(tmp_path / "text.npz")
    with pytest.raises(TrajectoryError, match="lacks config"):
        read(shutil.copy(request.config.rootpath / "tests/golden/conv2d_cases.npz", tmp_path))


WRONG = {
    "data": (np.array("cifar10"), "data must be mnist or mnist5k, got cifar10"),
    "config": (np.array(["sawtooth", "none"]), "config must be"),
    "epochs": (
        np.int64(2),
        "order must be complete batches .* 3840 images for 60 steps in 2 epoch",
    ),
    "batch_size": (np.int64(0), "order must be complete batches .* of batches of 0"),
    "mean": (np.zeros(3), r"mean has the shape \(3,\)"),
    "lr_max": (np.array("0.06"), "lr_max is of the type <U4"),
    "act_std": (np.ones((60, 9)), r"act_std has the shape \(60, 9\), .* layers 10\)"),
    "valid": (np.zeros(0, int), "valid must have one image or more"),
    "final/9.1.odd": (np.zeros(2), r"init/ and final/ must have .* got 9\.1\.odd"),
    "final/0.0.bias": (
        np.zeros(3),
        r"0\.0\.bias must be real numbers of one shape, .* \(3,\) in fin",
    ),
}


@pytest.mark.parametrize(("name", "array", "message"), [(n, *case) for n, case in WRONG.items()])
def test_read_rejects_wrong_fields(name, array, message, request, tmp_path):
    path = altered(request, tmp_path, **{name: array})
    with pytest.raises(TrajectoryError, match=rf"FILE .*altered\.npz is not a traj.*: {message}"):
        read(path)


@pytest.mark.parametrize(
    ("name", "array", "message"),
    [
        ("order", np.full(3840, 5000), "order must be indices from 0 to 4999, got 5000 to 5000"),
        ("valid", np.full(3, -1), "valid must be indices from 0 to 4999, got -1 to -1"),
        ("9.0.weight", np.zeros(2), r"the chapter's network has no 9\.0\.weight"),
        ("0.0.bias", np.zeros(3), r"init/0\.0\.bias must have the shape of the chapter's network"),
    ],
)
def test_replay_rejects_other_networks_and_images(name, array, message, request, tmp_path):
    tensor = name[0].isdigit()
    names = (f"init/{name}", f"final/{name}") if tensor else (name,)
    path = altered(request, tmp_path, **dict.fromkeys(names, array))
    with pytest.raises(TrajectoryError, match=rf"FILE .*altered\.npz: {message}"):
        replay(path)


def test_parity_command_reports_errors_without_traceback(tmp_path):
    result = CliRunner().invoke(app, ["parity", str(tmp_path / "none.npz")])
    assert result.exit_code == 2
    assert result.stderr.startswith("error: FILE")
