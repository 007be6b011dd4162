"""The whole training ends with the same bits wherever it was interrupted."""

import math
import os
import random
import shutil
import subprocess
import sys
import time
from dataclasses import replace

import jax
import numpy as np
import pytest

from convjax.runs.checkpoints import Checkpoints
from convjax.runs.config import RunError
from convjax.runs.folder import RunFolder
from convjax.runs.persistence import Keeping
from convjax.runs.run import load_run
from convjax.stats.nonfinite import NonFiniteError
from convjax.train._fit import Callback, TrainingStopped, fit
from convjax.train.device_data import Images
from convjax.train.persistence import Checkpoint
from convjax.train.tree_arrays import CheckpointError
from tests import trainings
from tests.train import fits

# Lines tell what was restored and each piece. The second piece's checkpoint waits for the first's:
# after the third piece there is one to resume from.
LINES_BEFORE_KILLS = 6, 0, 1, 4, 3, 2


@pytest.fixture(scope="module")
def trainer():
    return fits.trainer()


@pytest.fixture(scope="module")
def untouched(trainer):
    """An uninterrupted training."""
    return fits.run(trainer)


def after(pieces):
    """Returns a `stop` that asks to stop after this many pieces."""
    asked = iter(range(1, 10**6))
    return lambda: next(asked) >= pieces


def test_fit_equals_trainer_run(trainer, untouched):
    """Compares with `Trainer.run` of all steps at once."""
    order = np.concatenate([fits.plan().order(epoch) for epoch in range(fits.EPOCHS)])
    start = trainer.start(trainings.conv_net())
    state, record = trainer.run(start, trainings.split(), order, fits.plan().table, rows=fits.ROWS)
    for left, right in zip(jax.tree.leaves(state), jax.tree.leaves(untouched.state), strict=True):
        np.testing.assert_array_equal(left, right)
    np.testing.assert_array_equal(record.hist, untouched.record.hist)
    last = untouched.metrics[-1]
    assert last["accuracy"] == trainer.evaluate(state, trainings.split(11, seed=5)).accuracy
    assert last["train_accuracy"] == trainer.evaluate(state, trainings.split()).accuracy
    assert [row["step"] for row in untouched.metrics] == list(
        range(10, fits.EPOCHS * fits.PER_EPOCH + 1, 10)
    )


def test_fit_stopped_repeatedly_ends_with_the_same_bits(trainer, untouched, tmp_path):
    programs, stops = trainer.chunks.resident.programs, []
    for number in range(1, 100):
        try:
            fitted = fits.run(trainer, tmp_path, resume=number > 1, stop=after(number))
            break
        except TrainingStopped as stopped:
            stops.append((stopped.step, load_run(tmp_path).record.steps))
    assert len(stops) > 5
    assert all(step == recorded for step, recorded in stops)
    fits.assert_same(fitted, untouched)
    run = load_run(tmp_path)
    assert fits.untimed(run.metrics) == fits.untimed(untouched.metrics)
    fits.assert_same_records(run.record, untouched.record)
    assert trainer.chunks.resident.programs == programs  # none for states from a file
    # Resumed once more, it has no step left to take.
    fits.assert_same(fits.run(trainer, tmp_path, resume=True), untouched)


def test_fit_keeps_the_newest_and_the_best_checkpoint(trainer, untouched, tmp_path):
    fits.run(trainer, tmp_path)
    accuracies = {row["step"]: row["accuracy"] for row in untouched.metrics}
    best = max(accuracies, key=lambda step: (accuracies[step], step))
    with Checkpoints(tmp_path / "checkpoints") as checkpoints:
        assert checkpoints.best() == best
        # The newest two, one of which is within an epoch, and the best.
        assert set(checkpoints.steps()) == {317, 320, best}


@pytest.mark.slow
def test_fit_killed_at_random_moments_ends_with_the_same_bits(untouched, tmp_path):
    """Sends SIGKILL between the first import and the last write, then lets the training end."""
    chance = random.Random(7)
    printed = [start_and_kill(tmp_path, chance, lines) for lines in LINES_BEFORE_KILLS]
    with started(tmp_path) as process:
        assert process.communicate(timeout=300)[0].endswith("done\n")
    # Most hit a running training, which was then resumed from a checkpoint.
    restored = printed[-1][0]
    assert restored.startswith("restored"), printed
    assert restored != "restored 0\n", printed
    run = load_run(tmp_path / "run")
    assert fits.untimed(run.metrics) == fits.untimed(untouched.metrics)
    fits.assert_same_records(run.record, untouched.record)
    fits.assert_same(fits.run(fits.trainer(), tmp_path / "run", resume=True), untouched)


def started(folder):
    # Compiled as in this process, for equal bits, and with JAX's cache, so that compiling does not
    # take most of the time.
    settings = {
        "JAX_DISABLE_MOST_OPTIMIZATIONS": os.environ.get("JAX_DISABLE_MOST_OPTIMIZATIONS", "1"),
        "JAX_COMPILATION_CACHE_DIR": str(folder / "cache"),
        "JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS": "0",
        "JAX_PERSISTENT_CACHE_MIN_ENTRY_SIZE_BYTES": "-1",
    }
    return subprocess.Popen(
        [sys.executable, "-m", "tests.train.fits", str(folder / "run")],
        stdout=subprocess.PIPE,
        text=True,
        env=os.environ | settings,
    )


def start_and_kill(folder, chance, count):
    """Returns the lines that a process printed which is killed a moment after its `count`-th.

    Starting takes most of the time, how much depends on the machine. A delay alone would leave to
    the machine whether any kill hits the training.
    """
    with started(folder) as process:
        lines = [process.stdout.readline() for _ in range(count)]
        time.sleep(chance.uniform(0, 0.1 if count else 4))
        process.kill()
        return lines + process.stdout.readlines()


class TestNonFinite:
    def run(self, trainer, **options):
        table = {name: np.array(column) for name, column in fits.plan().table.items()}
        table["learning_rate"][30:] = 1e38
        plan = replace(fits.plan(), table=table)
        data = trainings.split(), trainings.split(11, seed=5)
        return fit(trainer, trainings.conv_net(), *data, plan, rows=fits.ROWS, **options)

    def test_fit_stops_with_the_record_and_the_checkpoint_before(self, trainer, tmp_path):
        with (
            RunFolder(tmp_path, {}) as folder,
            Checkpoints(tmp_path / "checkpoints") as checkpoints,
            pytest.raises(NonFiniteError, match=r"the loss is nan at step 31; the first") as caught,
        ):
            self.run(trainer, keeping=Keeping(folder, checkpoints, 0.0))
        # After the update of step 30 no parameter is finite, including the first layer's.
        assert caught.value.found.layer == "blocks.0.conv"
        run = load_run(tmp_path)
        assert run.record.steps == 37  # with the piece it happened in
        assert np.isnan(run.record.loss).any()
        assert [row["step"] for row in run.metrics] == [10, 20, 30]
        assert Checkpoints(tmp_path / "checkpoints").steps()[-1] == 30

    def test_fit_continues_without_stop_at_non_finite(self, trainer):
        fitted = self.run(trainer, stop_at_non_finite=False)
        assert fitted.record.steps == 320
        assert np.isnan(fitted.metrics[-1]["train_loss"])


class TestErrors:
    def test_fit_rejects_a_changed_configuration(self, trainer, tmp_path):
        with pytest.raises(TrainingStopped):
            fits.run(trainer, tmp_path, stop=after(2))
        before = load_run(tmp_path)
        with pytest.raises(RunError, match=r"holds a run with seed 0, not 1\. Choose"):
            RunFolder(tmp_path, {"seed": 1}, resume=True)
        assert load_run(tmp_path).metrics == before.metrics

    def test_fit_rejects_a_changed_plan(self, trainer, tmp_path):
        with pytest.raises(TrainingStopped):
            fits.run(trainer, tmp_path, stop=after(2))
        plan = replace(fits.plan(), table=trainings.table(fits.EPOCHS * fits.PER_EPOCH, 0.01))
        data = trainings.split(), trainings.split(11, seed=5)
        with (
            RunFolder(tmp_path, fits.CONFIG, resume=True) as folder,
            Checkpoints(tmp_path / "checkpoints") as checkpoints,
            pytest.raises(
                CheckpointError, match=r"of another plan, with rates \d+, not \d+\. Resume"
            ),
        ):
            fit(trainer, trainings.conv_net(), *data, plan, keeping=Keeping(folder, checkpoints))

    def test_fit_rejects_wrong_arguments(self, trainer, tmp_path):
        model, (train, test) = trainings.conv_net(), (trainings.split(), trainings.split())
        for arguments, message in [
            ((model, train, None, fits.plan()), "test must be Images, got NoneType"),
            ((model, train, test, None), r"plan must be Plan, got NoneType: None\. convjax"),
        ]:
            with pytest.raises(TypeError, match=message):
                fit(trainer, *arguments)
        with pytest.raises(TypeError, match=r"callback must be Callback, got list: \[\]\. Derive"):
            fit(trainer, model, train, test, fits.plan(), callback=[])
        with pytest.raises(TypeError, match=r"folder must be RunFolder, got str: 'my-run'\."):
            Keeping("my-run")
        with RunFolder(tmp_path, {}) as folder:
            with pytest.raises(TypeError, match="seconds must be a number, got str: '30'"):
                Keeping(folder, seconds="30")
            with pytest.raises(ValueError, match="seconds must be at least 0, got nan"):
                Keeping(folder, seconds=math.nan)

    def test_fit_checks_the_test_split_before_the_first_step(self, trainer):
        class RejectingCallback(Callback):
            def on_steps(self, done):
                raise AssertionError("a step was taken")

        train = trainings.split()
        for test, message in [
            (Images(train.images[:0], train.labels[:0]), "test must hold at least one example"),
            (train._replace(images=train.images[:5]), "test must hold as many labels as images"),
            (train._replace(labels=train.labels + 1), "labels must be below the model's 3 logits"),
        ]:
            with pytest.raises(ValueError, match=message):
                fit(
                    trainer,
                    trainings.conv_net(),
                    train,
                    test,
                    fits.plan(),
                    callback=RejectingCallback(),
                )

    def test_run_folder_rejects_resume_without_a_run(self, tmp_path):
        with pytest.raises(RunError, match="holds no run to resume"):
            RunFolder(tmp_path / "new", {}, resume=True)
        assert not (tmp_path / "new").exists()

    def test_run_folder_rejects_a_second_writer(self, tmp_path):
        with RunFolder(tmp_path, {}), pytest.raises(RunError, match="another process is writing"):
            RunFolder(tmp_path, {}, resume=True)


def test_fit_saves_an_evaluation_before_a_callback_fails(trainer, tmp_path):
    """A callback that prints may have lost its reader."""

    class FailingCallback(Callback):
        def on_evaluation(self, metrics):
            raise BrokenPipeError

    with pytest.raises(BrokenPipeError):
        fits.run(trainer, tmp_path, callback=FailingCallback())
    assert Checkpoints(tmp_path / "checkpoints").steps()[-1] == 10  # the first evaluation's
    assert load_run(tmp_path).metrics[-1]["step"] == 10


def test_fit_notifies_the_callback_of_everything(trainer, tmp_path):
    class RecordingCallback(Callback):
        def __init__(self):
            self.found = []

        def on_restore(self, steps, metrics):
            self.found.append(("restored", steps, len(metrics)))

        def on_record(self, record, first):
            self.found.append(("recorded", first, record.steps))

        def on_evaluation(self, metrics):
            self.found.append(("scored", metrics["step"]))

    callback = RecordingCallback()
    with pytest.raises(TrainingStopped):
        fits.run(trainer, tmp_path, stop=after(2), callback=callback)
    with pytest.raises(TrainingStopped):
        fits.run(trainer, tmp_path, resume=True, stop=after(1), callback=callback)
    shutil.rmtree(tmp_path / "checkpoints")
    with pytest.raises(TrainingStopped):
        fits.run(trainer, tmp_path, resume=True, stop=after(1), callback=callback)
    assert callback.found == [
        ("recorded", 0, 7),
        ("recorded", 7, 3),
        ("scored", 10),
        ("restored", 10, 1),
        ("recorded", 10, 7),
        ("restored", 0, 0),
        ("recorded", 0, 7),
    ]


def test_reprs_of_results_and_checkpoints_are_short(untouched):
    assert repr(untouched) == (
        f"FitResult({untouched.record!r}, 32 evaluations, accuracy "
        f"{untouched.metrics[-1]['accuracy']:.4g}, {untouched.state!r})"
    )
    assert len(repr(untouched)) < 300
    assert repr(untouched._replace(metrics=[])).count("0 evaluations, TrainState(") == 1
    assert len(jax.tree.leaves(untouched.state)) == len(jax.tree.leaves(untouched[0]))
    checkpoint = Checkpoint(1200, untouched.state, untouched.record, {"metrics": [{}] * 100})
    assert repr(checkpoint).startswith("Checkpoint(step 1,200, ")
    assert repr(checkpoint).endswith(f" arrays, {untouched.record!r})")
    assert len(repr(checkpoint)) < 200
