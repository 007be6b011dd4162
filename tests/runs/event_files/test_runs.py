"""Event files of a run's folder."""

import pytest

from convjax.plots import plot_loss
from convjax.runs.config import RunError
from convjax.runs.folder import RunFolder
from convjax.runs.tensorboard import EventWriter, write_events
from convjax.stats.record_file import RecordError
from tests.helpers import make_record
from tests.runs.event_files.reading import scalars, single

RECORD = make_record(steps=7, layers=3)


@pytest.fixture
def run(tmp_path):
    """A run's folder with two evaluations and a plot."""
    folder = RunFolder(tmp_path / "run", {})
    rows = {"epoch": 0, "step": 4, "accuracy": 0.5}, {"epoch": 1, "step": 7, "accuracy": 0.75}
    folder.write_metrics(rows)
    folder.write_record(RECORD)
    folder.add_plot("loss", plot_loss(RECORD))
    return folder.path


def test_event_writer_locks_its_folder(run):
    with EventWriter(run / "tensorboard") as events:
        with pytest.raises(ValueError, match=r"another process is writing into .*tensorboard"):
            EventWriter(run / "tensorboard")
        with pytest.raises(ValueError, match=r"another process is writing into .*tensorboard"):
            write_events(run)
        events.add_record(RECORD, 0)
    assert len(list((run / "tensorboard").glob("events*"))) == 1
    EventWriter(run / "tensorboard").close()
    write_events(run)
    assert len(list((run / "tensorboard").glob("events*"))) == 1


def test_write_events_of_a_run(run, read):
    assert write_events(run) == run / "tensorboard"
    found = read(run / "tensorboard")
    assert scalars(found, "evaluation/accuracy") == ([4, 7], [0.5, 0.75])
    assert scalars(found, "training/loss") == (list(range(7)), single(RECORD.loss))
    (image,) = found.Images("plots/loss")
    assert image.step == 7
    assert image.encoded_image_string == (run / "plots" / "loss.png").read_bytes()


def test_write_events_replaces_event_files(run, read, tmp_path):
    out = tmp_path / "elsewhere"
    for steps in (3, 5):
        make_record(steps=steps, layers=1).save(run / "record.npz")
        assert write_events(run, out) == out
        assert scalars(read(out), "training/loss")[0] == list(range(steps))
    assert sorted(path.name for path in tmp_path.iterdir()) == ["elsewhere", "run"]
    assert len(list(out.glob("events*"))) == 1


def test_write_events_does_not_remove_other_files(run, tmp_path):
    (tmp_path / "file").write_text("precious")
    before = sorted(tmp_path.rglob("*"))
    with pytest.raises(
        ValueError, match=r"which holds '.*', which is not an event file\. Move it away"
    ):
        write_events(run, run)
    with pytest.raises(ValueError, match=r"got .*file, which is not a folder"):
        write_events(run, tmp_path / "file")
    assert sorted(tmp_path.rglob("*")) == before


def test_write_events_of_damaged_runs_leaves_no_files(run):
    def fails(error, message):
        before = sorted(run.rglob("*"))
        with pytest.raises(error, match=message):
            write_events(run)
        assert sorted(run.rglob("*")) == before

    (run / "plots" / "loss.png").write_bytes(b"half")
    fails(RunError, r"loss\.png is damaged: png must be .* Remove it")
    (run / "plots" / "loss.png").unlink()
    (run / "metrics.jsonl").write_text('{"accuracy": 1}\n')
    fails(RunError, r'metrics\.jsonl is not that of a run: row must have a "step"')
    (run / "record.npz").write_bytes(b"PK")
    fails(RecordError, "not a complete record")
    (run / "record.npz").unlink()
    fails(RunError, r"holds no steps yet: record\.npz is missing")
    (run / "config.json").unlink()
    fails(RunError, "holds no run")


def test_write_events_before_the_first_evaluation(run, read):
    (run / "metrics.jsonl").unlink()
    found = read(write_events(run))
    assert scalars(found, "training/loss")[0] == list(range(7))
    assert not any(tag.startswith("evaluation/") for tag in found.Tags()["scalars"])
