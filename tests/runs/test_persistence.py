import numpy as np
import pytest

from convjax.train.persistence import Progress
from convjax.stats.record import smooth


def test_progress_smooths_as_the_record_does():
    progress, losses = Progress(), np.random.default_rng(0).random(50)
    progress.take(losses[:20])
    assert progress.score(0, 1.0, 0.5)["train_loss"] == smooth(losses)[19]
    progress.take(losses[20:])
    row = progress.score(1, 2.0, 0.25)
    assert row["train_loss"] == pytest.approx(smooth(losses)[-1], rel=1e-14)
    assert (row["step"], row["epoch"], row["valid_loss"], row["accuracy"]) == (50, 1, 2.0, 0.25)
    assert progress.best == 0.5
