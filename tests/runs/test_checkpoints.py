"""Checkpoints: restored states, retention, and errors for damaged or foreign ones."""

import errno
import json
import shutil
import subprocess
import sys

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from convjax.runs.checkpoints import Checkpoints
from convjax.train.tree_arrays import CheckpointError, arrays_by_path
from tests.helpers import make_record
from tests.train.fits import assert_same_records

STATE = {
    "weights": [np.arange(6, dtype=np.float32).reshape(2, 3), jnp.ones(3, jnp.bfloat16)],
    "count": np.int32(7),
    "not a number": np.array([np.nan, -0.0, np.inf]),
    "key": jax.random.key(3),
}


def state():
    return jax.tree.map(jnp.asarray, STATE)


def save(folder, *steps, scores=None, **options):
    with Checkpoints(folder, **options) as checkpoints:
        for i, step in enumerate(steps):
            score = None if scores is None else scores[i]
            record = make_record(steps=5, layers=2)
            checkpoints.save(step, state(), record, {"steps": step}, score=score)


@pytest.fixture
def saved(tmp_path):
    save(tmp_path / "checkpoints", 10, 20)
    return tmp_path / "checkpoints"


def test_checkpoints_restore_all_bits(saved):
    with Checkpoints(saved) as checkpoints:
        found = checkpoints.restore(state())
    assert (found.step, found.progress) == (20, {"steps": 20})
    assert jax.tree.structure(found.state) == jax.tree.structure(state())
    for name, array in arrays_by_path(state()).items():
        other = arrays_by_path(found.state)[name]
        assert (other.dtype, other.tobytes()) == (array.dtype, array.tobytes())
    assert jax.random.bits(found.state["key"]) == jax.random.bits(jax.random.key(3))
    assert_same_records(found.record, make_record(steps=5, layers=2))


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ('{"score": 0.7}', "its score, 0.5, differs from that, 0.7, in its metrics. Remove"),
        ('{"scorf": 0.5}', "there is no score (KeyError: 'score') in its metrics. Remove"),
        ("[0.5]", "there is no score (TypeError: "),
        ("{", "there is no score (JSONDecodeError: "),
        ("\xff", "there is no score (UnicodeDecodeError: "),
    ],
)
def test_checkpoints_name_a_changed_score(tmp_path, content, message):
    """Orbax reads it to find which checkpoint is the best, and removes others."""
    save(tmp_path, 10, 20, scores=[0.5, 0.1])
    (tmp_path / "10" / "metrics" / "metrics").write_text(content, "latin-1")
    for ask in (lambda c: c.best(), lambda c: c.restore(state())):
        with Checkpoints(tmp_path) as checkpoints, pytest.raises(CheckpointError) as caught:
            ask(checkpoints)
        assert f"the checkpoint {tmp_path / '10'} is damaged: {message}" in str(caught.value)
    assert Checkpoints(tmp_path).steps() == [10, 20]


def test_checkpoints_save_into_a_folder_that_is_gone(saved, tmp_path):
    record = make_record(steps=5, layers=2)
    with Checkpoints(saved) as checkpoints:
        assert checkpoints.restore(state()).step == 20
        saved.rename(tmp_path / "moved")
        with pytest.raises(OSError, match="was renamed or removed after it was opened"):
            checkpoints.save(30, state(), record, {})
        assert not saved.exists()


def test_checkpoints_restore_without_checkpoint(tmp_path):
    checkpoints = Checkpoints(tmp_path / "none")
    assert checkpoints.restore(state()) is None
    assert checkpoints.steps() == []
    assert not (tmp_path / "none").exists()


@pytest.mark.parametrize(
    ("scores", "stays", "best"),
    [
        ([0.1, 0.9, 0.2, 0.3, None], [2, 4, 5], 2),
        ([0.1, 0.9, 0.2, 0.9, 0.3], [4, 5], 4),  # the last of equal ones
        ([None, None, None, None, None], [4, 5], None),
    ],
)
def test_checkpoints_keep_the_newest_and_the_best(tmp_path, scores, stays, best):
    save(tmp_path, 1, 2, 3, 4, 5, scores=scores)
    with Checkpoints(tmp_path) as checkpoints:
        assert checkpoints.steps() == stays
        assert checkpoints.best() == best
        if best is not None:
            assert checkpoints.restore(state(), best).step == best


def test_checkpoints_clean_removes_partial_checkpoints(saved):
    """Another process is writing one checkpoint, and was removing one."""
    (saved / "30.orbax-checkpoint-tmp" / "arrays").mkdir(parents=True)
    (saved / "10" / "_CHECKPOINT_METADATA").unlink()
    (saved / "notes").mkdir()
    (saved / "20.mine").mkdir()
    with Checkpoints(saved) as checkpoints:
        assert checkpoints.steps() == [20]
        assert checkpoints.restore(state()).step == 20
        assert (saved / "30.orbax-checkpoint-tmp").exists()  # of a run that may continue
        checkpoints.clean()
        assert sorted(path.name for path in saved.iterdir()) == ["20", "20.mine", "notes"]


def test_checkpoints_clean_rejects_the_newest_without_metadata(saved):
    """Orbax never removes the newest."""
    (saved / "20" / "_CHECKPOINT_METADATA").unlink()
    with pytest.raises(CheckpointError, match=r"20 is damaged.*Remove .*20, .* from step 10\."):
        Checkpoints(saved).clean()
    assert (saved / "20").exists()


def test_checkpoints_save_copies_the_state(tmp_path):
    """The buffers of the state may be donated as soon as `save` returns."""
    held = {"a": np.zeros(1000)}
    with Checkpoints(tmp_path) as checkpoints:
        checkpoints.save(1, held, make_record(steps=1, layers=1), {})
        held["a"][:] = 1
        checkpoints.wait()
        assert not checkpoints.restore(held).state["a"].any()


def files(folder):
    return sorted(path for path in folder.rglob("*") if path.is_file())


# TensorStore's threads find their loop closed where the first of several errors has ended it.
@pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")
@settings(max_examples=25, deadline=None)
@given(data=st.data())
def test_checkpoints_restore_detects_damage(tmp_path_factory, data):
    """Any file of the newest checkpoint: bytes flipped, cut off, emptied or removed."""
    folder = tmp_path_factory.mktemp("damaged") / "checkpoints"
    shutil.copytree(whole(tmp_path_factory), folder)
    victims = files(folder / "20")
    victim = victims[data.draw(st.integers(0, len(victims) - 1))]
    content = victim.read_bytes()
    kind = data.draw(st.sampled_from(["flip", "cut", "remove"]))
    if kind == "remove" or not content:
        victim.unlink()
    elif kind == "cut":
        victim.write_bytes(content[: data.draw(st.integers(0, len(content) - 1))])
    else:
        at = data.draw(st.integers(0, len(content) - 1))
        victim.write_bytes(content[:at] + bytes([content[at] ^ 0xFF]) + content[at + 1 :])
    with Checkpoints(folder) as checkpoints:
        found, message = None, ""
        try:
            found = checkpoints.restore(state())
        except CheckpointError as error:
            message = str(error)
    if found is None:
        assert "Remove" in message
        assert "step 10" in message
    else:  # the damage does not matter, or makes the checkpoint an incomplete one
        assert found.step in (10, 20)
        for name, array in arrays_by_path(state()).items():
            assert arrays_by_path(found.state)[name].tobytes() == array.tobytes()


_whole = {}


def whole(factory):
    if "folder" not in _whole:
        _whole["folder"] = factory.mktemp("whole") / "checkpoints"
        save(_whole["folder"], 10, 20)
    return _whole["folder"]


@pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")
def test_checkpoints_restore_names_the_fix_for_damage(saved):
    for victim in files(saved / "20" / "arrays" / "d") + files(saved / "20" / "progress"):
        victim.write_bytes(b"\0" * 100)
    with Checkpoints(saved) as checkpoints, pytest.raises(CheckpointError) as caught:
        checkpoints.restore(state())
    assert f"the checkpoint {saved / '20'} is damaged or cannot be read" in str(caught.value)
    assert str(caught.value).endswith("and the run resumes from step 10.")
    shutil.rmtree(saved / "20")
    assert Checkpoints(saved).restore(state()).step == 10


def test_checkpoints_restore_rejects_another_training(saved):
    other = {**state(), "weights": [jnp.zeros((3, 3)), jnp.ones(3)], "more": jnp.zeros(1)}
    with pytest.raises(
        CheckpointError,
        match=r"of another training: \['more'\] missing, not float32 \(1,\), "
        r"\['weights'\]\[0\] float32 \(2, 3\), not float32 \(3, 3\), .*bfloat16.*resume the run",
    ):
        Checkpoints(saved).restore(other)


def test_checkpoints_reject_invalid_arguments(saved):
    with pytest.raises(ValueError, match="keep must be at least 1, got 0"):
        Checkpoints(saved, keep=0)
    for keep in ("2", 1.5):
        with pytest.raises(TypeError, match=f"keep must be a whole number, got .*{keep}"):
            Checkpoints(saved, keep=keep)
    with pytest.raises(CheckpointError, match=r"no checkpoint of step 15; it has 10, 20\."):
        Checkpoints(saved).restore(state(), 15)


def test_checkpoints_save_rejects_earlier_steps_and_other_data(saved):
    record = make_record(steps=5, layers=2)
    with Checkpoints(saved) as checkpoints:
        with pytest.raises(ValueError, match=r"step must be above 20, .* got 20"):
            checkpoints.save(20, state(), record, {})
        with pytest.raises(TypeError, match="not JSON serializable"):
            checkpoints.save(30, state(), record, {"a": object()})
        assert checkpoints.steps() == [10, 20]


def test_checkpoints_save_rejects_earlier_steps_while_writing(saved):
    record = make_record(steps=5, layers=2)
    with Checkpoints(saved) as checkpoints:
        checkpoints.save(30, state(), record, {})
        for step in (25, 30):
            with pytest.raises(ValueError, match=rf"step must be above 30, .* got {step}"):
                checkpoints.save(step, state(), record, {})
        assert checkpoints.steps() == [20, 30]


@pytest.mark.parametrize("error", [OSError(errno.EMFILE, "Too many open files"), MemoryError()])
def test_checkpoints_restore_raises_errors_of_the_machine(saved, monkeypatch, error):
    with Checkpoints(saved) as checkpoints:

        def fails(step):
            raise error

        monkeypatch.setattr(checkpoints, "_read", fails)
        with pytest.raises(type(error)) as caught:
            checkpoints.restore(state())
    assert caught.value is error


def test_checkpoints_keep_the_first_of_two_errors(saved, monkeypatch):
    def fails(self):
        raise OSError("the disk is full")

    monkeypatch.setattr(Checkpoints, "close", fails)
    with pytest.raises(KeyError, match="first"), Checkpoints(saved):
        raise KeyError("first")
    with pytest.raises(OSError, match="full"), Checkpoints(saved):
        pass


NOISE = """
import logging, sys
from pathlib import Path
from tests.runs.test_checkpoints import *
for name in ("absl", "asyncio"):
    logging.getLogger(name).setLevel(logging.CRITICAL)
for file in files(Path(sys.argv[1]) / "20" / "arrays" / "d"):
    file.write_bytes(file.read_bytes()[: file.stat().st_size // 2])
try:
    Checkpoints(sys.argv[1]).restore(state())
except CheckpointError as error:
    print(error, file=sys.stderr)
"""


@pytest.mark.slow
def test_checkpoints_restore_damage_without_other_messages(saved):
    ended = subprocess.run(
        [sys.executable, "-c", NOISE, str(saved)], capture_output=True, text=True, timeout=120
    )
    assert ended.returncode == 0, ended.stderr
    (line,) = ended.stderr.splitlines()
    assert line.startswith(f"the checkpoint {saved / '20'} is damaged or cannot be read (")


def test_checkpoints_save_below_a_file(tmp_path):
    (tmp_path / "checkpoints").write_text("")
    with pytest.raises(OSError, match="checkpoints"):
        save(tmp_path / "checkpoints", 1)


FULL = """
import resource, sys
from tests.runs.test_checkpoints import *
checkpoints = Checkpoints(sys.argv[1])
resource.setrlimit(resource.RLIMIT_FSIZE, (1 << 16, resource.RLIM_INFINITY))
big = {**state(), "big": np.random.default_rng(0).random(100_000)}
try:
    checkpoints.save(30, big, make_record(steps=5, layers=2), {"steps": 30})
    checkpoints.wait()
except OSError as error:
    print(json.dumps([str(error.strerror), str(error.filename)]))
"""


def test_checkpoints_save_on_a_full_disk(saved):
    """A limit on the size of files stands for a full disk."""
    ended = subprocess.run(
        [sys.executable, "-c", FULL, str(saved)], capture_output=True, text=True, timeout=120
    )
    assert ended.returncode == 0, ended.stderr
    reason, where = json.loads(ended.stdout.splitlines()[-1])
    assert "no checkpoint could be written" in reason
    assert "MiB are free" in reason
    assert where == str(saved)
    # Earlier checkpoints are intact, and the partial one does not count.
    with Checkpoints(saved) as checkpoints:
        assert checkpoints.restore(state()).step == 20
