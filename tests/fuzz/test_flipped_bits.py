"""Single bits flipped in the files of a run's folder: named, or without any effect."""

import random
import warnings

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx

from convjax.nn.weights import WeightsError, load_weights
from convjax.runs.checkpoints import Checkpoints
from convjax.runs.config import RunError
from convjax.runs.folder import RunFolder
from convjax.runs.persistence import Keeping
from convjax.runs.predictions import PredictionsError
from convjax.runs.run import load_run
from convjax.stats.record_file import RecordError
from convjax.train.persistence import Checkpoint
from convjax.train.tree_arrays import CheckpointError, arrays_by_path
from tests.fuzz.test_records import PREDICTIONS
from tests.helpers import make_record

CONFIG = {"setting": {"network": "digits", "lr": 0.06}, "layers": ["a", "b"], "text": "of a run"}
STATE = {"w": jnp.arange(12.0).reshape(3, 4), "key": jax.random.key(3)}
NAMED = (RunError, RecordError, CheckpointError, PredictionsError, WeightsError)
FLIPS = 6  # of each file of a checkpoint; of the others twenty times as many


def network():
    return nnx.Linear(4, 3, rngs=nnx.Rngs(0))


@pytest.fixture
def run(tmp_path):
    """The folder of a run with two checkpoints."""
    rows = [{"epoch": epoch, "step": 3 * epoch, "loss": 2.3 / (epoch + 1)} for epoch in range(3)]
    with RunFolder(tmp_path, CONFIG) as folder, Checkpoints(tmp_path / "checkpoints") as kept:
        keeping = Keeping(folder, kept)
        for step, score in ((3, 0.5), (6, 0.25)):
            progress = {"steps": step, "average": 0.25 * step, "metrics": rows}
            keeping.save(
                Checkpoint(step, STATE, make_record(steps=step, layers=2), progress), score=score
            )
        keeping.wait()
        keeping.write(rows, make_record(steps=9, layers=2))
        folder.write_model(network())
        folder.write_predictions(PREDICTIONS)
    return tmp_path


def read(path):
    """Returns all that is read of a run: by those who look at it, and by those who resume it."""
    found = load_run(path)
    weights = load_weights(path / "model.npz", network())
    with (
        RunFolder(path, CONFIG, resume=True) as folder,
        Checkpoints(path / "checkpoints") as kept,
    ):
        newest = Keeping(folder, kept).restore(STATE)
        restored = [newest, kept.restore(STATE, 3, config=folder.config)]
        best, moved = kept.best(), folder.moved
    arrays = [
        *(arrays_by_path(checkpoint.state) for checkpoint in restored),
        arrays_by_path(nnx.state(weights)),
        {name: getattr(found.predictions, name) for name in vars(found.predictions)},
    ]
    return (
        repr((found.config, found.metrics, moved, best, [c.progress for c in restored])),
        [c.record.to_bytes() for c in (found, *restored) if c.record],
        [{n: (np.asarray(a).shape, np.asarray(a).tobytes()) for n, a in x.items()} for x in arrays],
    )


# TensorStore's threads find their loop closed where the first of several errors has ended it.
@pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")
@pytest.mark.slow
def test_a_flipped_bit_is_named_or_without_effect(run):
    whole, randoms, counts = read(run), random.Random(0), {"named": 0, "same": 0}
    for path in sorted(path for path in run.rglob("*") if path.is_file()):
        content = path.read_bytes()
        of_checkpoint = "checkpoints" in path.parts
        bits = range(8 * len(content))
        some = randoms.sample(bits, min(len(bits), FLIPS if of_checkpoint else 20 * FLIPS))
        for bit in some:
            flipped = bytearray(content)
            flipped[bit // 8] ^= 1 << bit % 8
            path.write_bytes(flipped)
            with warnings.catch_warnings():
                warnings.simplefilter("ignore")
                try:
                    assert read(run) == whole, (path, bit)
                    counts["same"] += 1
                except NAMED as error:
                    assert str(run) in str(error), (path, bit)  # noqa: PT017  # counted above
                    counts["named"] += 1
        path.write_bytes(content)
    assert min(counts.values()) > 50
