"""Trainings whose records are kept in a folder, so that a study can be repeated without them."""

import hashlib
import math
from collections.abc import Callable
from pathlib import Path

from convjax.io.json_files import read_object, write_json
from convjax.stats.record import Record
from experiments.diagnosis_study.user_loops import Trained


def kept_training(train: Callable[[], Trained], name: str, records: Path | None) -> Trained:
    """Returns a training, from the folder of records if it is there.

    Args:
      train: runs the training.
      name: of the training, unique in the folder.
      records: the folder, which is made; None for none.
    """
    if records is None:
        return train()
    records.mkdir(parents=True, exist_ok=True)
    stem = hashlib.sha256(name.encode()).hexdigest()[:16]  # names have slashes and commas
    path, beside = records / f"{stem}.npz", records / f"{stem}.json"
    if not beside.exists():
        trained = train()
        trained.record.save(path)
        write_json(beside, {"name": name, "reached": float(trained.reached)})
    reached = read_object(beside)["reached"]  # null for NaN
    return Trained(Record.load(path), math.nan if reached is None else reached)
