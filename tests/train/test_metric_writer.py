"""Writers get the metrics of a training: the values and steps of its record and its evaluations."""

from dataclasses import replace

import numpy as np
import pytest

from convjax import Learner
from convjax.runs.run import load_run
from convjax.train._fit import TrainingStopped
from convjax.train.metric_writer import MetricOutput, evaluation_scalars, record_scalars
from tests import trainings
from tests.helpers import make_record, without_layers
from tests.learner.test_learner import DATA, LIGHT, net
from tests.train import fits


class KeptScalars:
    """A writer that keeps what it gets, and fails at a step."""

    def __init__(self, failing_step=None):
        self.rows, self.flushed, self.closed = [], 0, False
        self.failing_step = failing_step

    def write_scalars(self, step, scalars):
        if step == self.failing_step:
            raise ConnectionError("the server is gone")
        self.rows.append((step, dict(scalars)))

    def flush(self):
        self.flushed += 1

    def close(self):
        self.closed = True

    def column(self, name):
        return [(step, row[name]) for step, row in self.rows if name in row]


@pytest.fixture(scope="module")
def trainer():
    return fits.trainer()


def stopped(trainer, *arguments, pieces, **options):
    """Takes some pieces of the training: steps 0 to 7, to 10, an evaluation, to 17, …."""
    asked = iter(range(1, 100))
    with pytest.raises(TrainingStopped):
        fits.run(trainer, *arguments, stop=lambda: next(asked) >= pieces, **options)


def test_record_scalars_by_hand():
    (first, row), *_ = rows = list(record_scalars(make_record(steps=3, layers=1, every=2)))
    assert [step for step, _ in rows] == [0, 1, 2]
    assert first == 0
    assert row["training/loss"] == np.float32(2.3)
    assert row["activations/blocks.0.conv/std"] == 1
    assert row["gradients/conv.kernel/norm"] == 4
    assert rows[1][1].keys() == {"training/loss", "training/learning_rate", "training/momentum"}
    assert rows[2][1]["activations/blocks.0.conv/mean"] == 2
    assert row.keys() == rows[2][1].keys()


def test_record_scalars_of_merged_rows_are_at_their_first_steps():
    merged = make_record(steps=7, layers=1).merged(2)  # four steps, and three
    rows = dict(record_scalars(merged))
    assert list(rows) == [0, 4]
    assert [row["activations/blocks.0.conv/mean"] for row in rows.values()] == [1.5, 5]


def test_record_scalars_leave_out_what_was_not_recorded():
    record = make_record(steps=2, layers=1)
    lost = replace(record, eval_loss=np.array([np.nan, 2.0], np.float32))
    rows = dict(record_scalars(lost))
    assert "training/evaluation_mode_loss" not in rows[0]
    assert rows[1]["training/evaluation_mode_loss"] == 2
    assert len(dict(record_scalars(replace(without_layers(record), parameters=None)))[0]) in (3, 4)


def test_evaluation_scalars_are_the_results():
    row = {"epoch": 1, "step": 8, "valid_loss": 0.5, "top5": np.float32(0.75), "seconds": 1.0}
    assert evaluation_scalars({**row, "note": "mine", "kept": True}) == {
        "evaluation/valid_loss": 0.5,
        "evaluation/top5": 0.75,
    }


def test_run_writes_each_step_once_as_the_chunks_arrive(run):
    kept, arrived = KeptScalars(), []
    _, record = run.trainer.run(
        run.trainer.start(run.model),
        run.data,
        run.order,
        run.table,
        first_step=100,
        writer=kept,
        on_steps=lambda steps: arrived.append((steps, len(kept.rows))),
    )
    assert arrived == [(4, 4), (4, 8), (1, 9)]  # written before the next chunk arrives
    assert kept.flushed == 1
    assert kept.column("training/loss") == list(
        zip(range(100, 109), record.loss.tolist(), strict=True)
    )
    for column, layer in enumerate(record.layers):
        written = [value for _, value in kept.column(f"activations/{layer}/mean")]
        assert written == record.mean[:, column].tolist()


def test_fit_writes_evaluations_at_the_steps_before_them(trainer, tmp_path):
    kept = KeptScalars()
    stopped(trainer, tmp_path, pieces=4, writer=kept)
    steps = [step for step, _ in kept.rows]
    assert steps == [*range(10), 10, *range(10, 20), 20]  # the evaluations come before the step
    evaluated = load_run(tmp_path).metrics
    assert kept.column("evaluation/accuracy") == [
        (row["step"], row["accuracy"]) for row in evaluated
    ]
    assert [row["step"] for row in evaluated] == [10, 20]
    assert "evaluation/seconds" not in kept.rows[10][1]


def test_resumed_fit_goes_on_from_its_checkpoint(trainer, tmp_path):
    whole, first, second = KeptScalars(), KeptScalars(), KeptScalars()
    stopped(trainer, tmp_path / "whole", pieces=4, writer=whole)
    stopped(trainer, tmp_path / "parts", pieces=2, writer=first)
    stopped(trainer, tmp_path / "parts", resume=True, pieces=2, writer=second)
    assert second.rows[0] == first.rows[-1]  # the evaluation at the checkpoint
    assert first.rows + second.rows[1:] == whole.rows


def test_a_writer_that_fails_leaves_a_run_that_resumes_bit_for_bit(trainer, tmp_path):
    stopped(trainer, tmp_path / "whole", pieces=4)
    with pytest.raises(ConnectionError, match="the server is gone") as caught:
        fits.run(trainer, tmp_path / "failed", writer=KeptScalars(failing_step=12))
    assert caught.value.__notes__ == [
        "KeptScalars.write_scalars raised it at step 12: the writer that the training was given. "
        "What the training saved before is complete."
    ]
    assert load_run(tmp_path / "failed").record.steps == 10
    kept = KeptScalars()
    stopped(trainer, tmp_path / "failed", resume=True, pieces=2, writer=kept)
    assert [step for step, _ in kept.rows] == [10, *range(10, 20), 20]
    whole, failed = (load_run(tmp_path / name) for name in ("whole", "failed"))
    fits.assert_same_records(failed.record, whole.record)
    assert fits.untimed(failed.metrics) == fits.untimed(whole.metrics)


def test_learner_counts_the_steps_of_all_its_trainings():
    kept = KeptScalars()
    learn = Learner(DATA, net(), batch_size=12, show=False, watch=LIGHT, writer=kept)
    for _ in range(2):
        learn.fit(1, 0.01)
    assert [step for step, _ in kept.column("training/loss")] == list(range(8))
    assert [step for step, _ in kept.column("evaluation/accuracy")] == [4, 8]
    assert kept.column("training/loss")[4][1] == learn.recorder.record.loss[0]


@pytest.mark.parametrize(
    ("writer", "message"),
    [
        (print, r"got builtin_function_or_method: .*\. Give a CLU writer, or an object"),
        (KeptScalars, r"got type: <class '.*KeptScalars'>\. Make an instance\."),
        ("wandb", "got str: 'wandb'"),
    ],
)
def test_what_is_no_writer_is_rejected_before_any_work(run, trainer, tmp_path, writer, message):
    rule = r"writer must have a method write_scalars\(step, scalars\), "
    with pytest.raises(TypeError, match=rule + message):
        run.trainer.run(None, run.data, run.order, run.table, writer=writer)
    with pytest.raises(TypeError, match=rule + message):
        fits.run(trainer, tmp_path / "run", writer=writer)
    assert not list(tmp_path.glob("run/*.npz"))
    with pytest.raises(TypeError, match=rule + message):
        Learner(DATA, net(), writer=writer)


def test_no_writer_does_nothing():
    output = MetricOutput.of(None)
    output.record(make_record(steps=2, layers=1), 0)
    output.evaluation({"step": 1})
    output.flush()
    assert MetricOutput.of(output) is output


def test_writers_of_clu_are_writers(run):
    writers = pytest.importorskip("clu.metric_writers")
    kept = KeptScalars()
    several = writers.MultiWriter([writers.LoggingWriter(), writers.AsyncWriter(kept)])
    run.trainer.run(run.trainer.start(run.model), run.data, run.order, run.table, writer=several)
    assert [step for step, _ in kept.rows] == list(range(trainings.STEPS))  # flushed
    assert [value for _, value in kept.column("training/loss")] == run.record.loss.tolist()
    assert not kept.closed  # by the training
    several.close()
