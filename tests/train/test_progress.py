import numpy as np
import pytest

from convjax.stats.smoothing import smooth
from convjax.train.progress import Progress


def test_progress_smooths_as_the_record_does():
    progress, losses = Progress(), np.random.default_rng(0).random(50)
    progress.take(losses[:20])
    assert progress.score(0, 1.0, {"accuracy": 0.5})["train_loss"] == smooth(losses)[19]
    progress.take(losses[20:])
    row = progress.score(1, 2.0, {"accuracy": 0.25})
    assert row["train_loss"] == pytest.approx(smooth(losses)[-1], rel=1e-14)
    assert (row["step"], row["epoch"], row["valid_loss"], row["accuracy"]) == (50, 1, 2.0, 0.25)


def test_progress_counts_seconds_between_evaluations_without_compiling():
    progress = Progress()
    progress.take(np.ones(1))
    progress.spend(3.0, 1.0)
    progress.spend(0.5, 0.0)
    row = progress.score(0, 1.0, {"accuracy": 0.5})
    assert (row["seconds"], row["compile_seconds"]) == (2.5, 1.0)
    progress.take(np.ones(1))
    assert progress.score(0, 1.0, {"accuracy": 0.5})["seconds"] == 0


def test_best_is_the_highest_accuracy_or_the_lowest_loss():
    progress = Progress()
    progress.take(np.ones(1))
    assert progress.is_best(2.0, {})
    progress.score(0, 2.0, {})
    assert progress.is_best(1.0, {"error": 9.0})
    assert not progress.is_best(2.0, {})
    progress = Progress()
    progress.take(np.ones(1))
    progress.score(0, 2.0, {"accuracy": 0.5})
    assert progress.is_best(9.0, {"accuracy": 0.6})
    assert not progress.is_best(1.0, {"accuracy": 0.5})
    assert not progress.is_best(1.0, {"accuracy": float("nan")})
