import json
import shutil

import numpy as np
import pytest
from flax import nnx

from convjax.io.lock import holds_files
from convjax.runs.checkpoints import Checkpoints
from convjax.runs.config import RunError, check_config
from convjax.runs.environment import environment
from convjax.runs.folder import RunFolder
from convjax.runs.persistence import Keeping
from convjax.runs.run import load_run
from convjax.stats.record_file import RecordError
from convjax.train.persistence import Checkpoint
from tests.helpers import make_record


def test_load_run_reads_a_run_in_progress(tmp_path):
    folder = RunFolder(tmp_path / "run", {"lr": 0.06})
    with pytest.raises(RunError, match="holds no complete epoch"):
        load_run(tmp_path / "run")
    rows = []
    for epoch in range(2):
        rows.append({"epoch": epoch, "accuracy": 0.9})
        folder.write_metrics(rows)
        folder.write_record(make_record(steps=3 * (epoch + 1), layers=2))
        run = load_run(tmp_path / "run")
        assert run.metrics[-1] == {"epoch": epoch, "accuracy": 0.9}
        assert run.record.steps == 3 * (epoch + 1)
    folder.write_metrics([*rows, {"epoch": 2, "valid_loss": np.nan}, {"epoch": 3}])
    assert np.isnan(load_run(tmp_path / "run").metrics[2]["valid_loss"])
    assert len(load_run(tmp_path / "run").metrics) == 4
    assert run.config["lr"] == 0.06
    assert run.config["environment"] == environment()
    np.testing.assert_array_equal(run.record.loss, make_record(steps=6, layers=2).loss)


def test_run_folder_rejects_a_second_run(tmp_path):
    RunFolder(tmp_path, {})
    with pytest.raises(RunError, match=r"already holds a run\. Choose another folder"):
        RunFolder(tmp_path, {})


def test_run_folder_removes_partial_files(tmp_path):
    """A process was killed while it wrote config.json, and another during its run."""
    (tmp_path / ".config.json.12.partial").touch()
    assert not holds_files(tmp_path)
    RunFolder(tmp_path, {}).close()
    (tmp_path / "plots").mkdir()
    for name in (".record.npz.12.partial", "plots/.loss.png.12.partial"):
        (tmp_path / name).touch()
    RunFolder(tmp_path, {}, resume=True).close()
    assert sorted(path.name for path in tmp_path.rglob("*")) == ["config.json", "plots"]


def test_run_folder_rejects_a_path_below_a_file(tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(RunError, match="cannot be written"):
        RunFolder(tmp_path / "file" / "run", {})


def test_load_run_rejects_damaged_files(tmp_path):
    folder = RunFolder(tmp_path, {})
    folder.write_metrics([{"epoch": 0}])
    (tmp_path / "record.npz").write_bytes(b"PK not a zip")
    with pytest.raises(RecordError, match="not a complete record"):
        load_run(tmp_path)
    (tmp_path / "metrics.jsonl").write_text("{half")
    with pytest.raises(RunError, match="damaged"):
        load_run(tmp_path)


def test_check_config_compares_configurations(tmp_path):
    RunFolder(tmp_path, {"setting": {"lr": 0.06, "sizes": (1, 2)}, "seed": 0})
    check_config(tmp_path, {"setting": {"lr": 0.06, "sizes": [1, 2]}, "seed": 0})
    with pytest.raises(RunError, match=r"with seed 0, not 1; setting\.lr 0\.06, not 0\.1\. Choose"):
        check_config(tmp_path, {"setting": {"lr": 0.1, "sizes": (1, 2)}, "seed": 1})
    file = tmp_path / "config.json"
    moved = {**json.loads(file.read_text()), "environment": {**environment(), "jax": "0.1"}}
    del moved["checksums"]  # a file of the first version
    file.write_text(json.dumps(moved))
    with pytest.raises(RunError, match=r"environment\.jax '0\.1', not "):
        check_config(tmp_path, {"setting": {"lr": 0.06, "sizes": (1, 2)}, "seed": 0})
    for damaged in ("[1]", "{half", None):
        file.unlink() if damaged is None else file.write_text(damaged)
        with pytest.raises(RunError, match="cannot be read"):
            check_config(tmp_path, {})


def test_environment_is_json():
    found = json.loads(json.dumps(environment()))
    assert found["jax"]
    assert found["devices"]


def test_repr_is_the_path(tmp_path):
    path = tmp_path / "run"
    with RunFolder(path, {"lr": 0.06}) as folder:
        assert repr(folder) == f"RunFolder('{path}')"
    with RunFolder(path, {"lr": 0.06}, resume=True) as folder:
        assert repr(folder) == f"RunFolder('{path}', resumed)"


def test_run_folder_names_what_was_changed_in_its_files(tmp_path):
    with RunFolder(tmp_path, {"lr": 0.06, "text": "é"}) as folder:
        folder.write_metrics([{"epoch": 0, "loss": 2.5}, {"epoch": 1, "loss": np.nan}])
        folder.write_record(make_record(steps=3, layers=1))
    assert load_run(tmp_path).metrics[0] == {"epoch": 0, "loss": 2.5}
    for name, before, after, message in (
        ("config.json", '"lr": 0.06', '"lr": 0.6', "config.json was changed .*: lr is now 0.6"),
        ("config.json", '"text": "é"', '"test": "é"', "test is now 'é'; text is missing"),
        ("config.json", '"cpu_count"', '"cpu_counu"', "environment.cpu_count is missing"),
        ("config.json", '"checksums"', '"checksumz"', "the name of checksums is now 'checksumz'"),
        ("metrics.jsonl", "2.5", "2.4", "line 1 of metrics.jsonl was changed .* its checksum"),
        ("metrics.jsonl", "null", "0.125", "line 2 of metrics.jsonl was changed"),
    ):
        file = tmp_path / name
        content = file.read_text()
        file.write_text(content.replace(before, after, 1))
        with pytest.raises(RunError, match=message):
            load_run(tmp_path)
        if name == "config.json":
            with pytest.raises(RunError, match=message):
                RunFolder(tmp_path, {"lr": 0.06, "text": "é"}, resume=True)
        file.write_text(content)


def test_run_folder_of_the_first_version_opens(tmp_path):
    with RunFolder(tmp_path, {"lr": 0.06}) as folder:
        folder.write_record(make_record(steps=3, layers=1))
    config = json.loads((tmp_path / "config.json").read_text())
    del config["checksums"]
    (tmp_path / "config.json").write_text(json.dumps(config))
    (tmp_path / "metrics.jsonl").write_text('{"epoch": 0, "step": 3, "loss": null}\n')
    RunFolder(tmp_path, {"lr": 0.06}, resume=True).close()
    run = load_run(tmp_path)
    assert (run.config["lr"], run.metrics[0]["step"]) == (0.06, 3)


def test_run_folder_rejects_a_configuration_that_cannot_be_read_again(tmp_path):
    with pytest.raises(ValueError, match="must have no entry 'checksums'"):
        RunFolder(tmp_path / "run", {"checksums": 1})
    with pytest.raises(ValueError, match=r"config must have less than 1048576 bytes .* got 1\d+\."):
        RunFolder(tmp_path / "run", {"names": ["x" * 100] * 10_000})
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("kept", ["renamed", "removed"])
def test_run_folder_stops_where_it_is_gone(tmp_path, kept):
    path = tmp_path / "run"
    with RunFolder(path, {}) as folder, Checkpoints(path / "checkpoints") as checkpoints:
        keeping = Keeping(folder, checkpoints)
        keeping.check()
        record = make_record(steps=3, layers=1)
        path.rename(tmp_path / "renamed") if kept == "renamed" else shutil.rmtree(path)
        for write in (
            lambda: folder.write_metrics([]),
            lambda: folder.write_record(record),
            lambda: folder.write_model(nnx.Linear(2, 2, rngs=nnx.Rngs(0))),
            lambda: folder.add_plot("a", None),
            lambda: keeping.save(Checkpoint(3, {}, record, {}), score=None),
            keeping.check,
        ):
            with pytest.raises(RunError, match=f"{path} was {kept}"):
                write()
    assert [p.name for p in tmp_path.iterdir()] == (["renamed"] if kept == "renamed" else [])
