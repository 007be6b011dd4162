"""Run folders for the tests of reports, and a reader of the numbers of a page."""

import base64
import json
import re
from dataclasses import replace

import numpy as np

from convjax.runs.folder import RunFolder
from convjax.runs.predictions import Predictions
from convjax.stats.record import Record
from tests.helpers import make_record

NAMES = ("nought", "<b>one</b>", "two & more")
TYPES = {"f4": "<f4", "f8": "<f8", "i4": "<i4"}


def left_run(path, *, steps=30, layers=3, record=None, metrics=True, predictions=True, **config):
    """Writes a run into a folder; files that are None or False are left out."""
    with RunFolder(path, {"data": "mnist5k", "seed": 0, "steps": steps, **config}) as folder:
        if metrics:
            folder.write_metrics([row(steps // 2), row(steps)])
        if record is None:
            record = make_record(steps=steps, layers=layers)
        if record:
            folder.write_record(record)
    if predictions:
        some_predictions().save(path / "predictions.npz")
    return path


def row(step):
    """The metrics of an evaluation after a number of steps."""
    return {
        "epoch": step,
        "step": step,
        "train_loss": 2.5 - step / 100,
        "valid_loss": 2.0 - step / 100,
        "accuracy": step / 100,
        "seconds": 1.25,
        "compile_seconds": 0.5,
    }


def some_predictions():
    """Six answers, of which 1, 3 and 4 are wrong; the images of 3 and 4 are stored."""
    images = np.random.default_rng(0).integers(0, 256, (2, 4, 3, 1), np.uint8)
    return Predictions(
        np.array([0, 0, 1, 2, 2, 2], np.int32),
        np.array([0, 1, 1, 0, 1, 2], np.int32),
        np.array([0.1, 0.9, 0.1, 3.0, 2.0, 0.2], np.float32),
        np.array([3, 4], np.int32),
        images,
        np.array([0.05, 0.135], np.float32),
        np.array([0.9, 0.75], np.float32),
        NAMES,
    )


def rough(record: Record, seed=0) -> Record:
    """The record with losses and statistics that fluctuate as those of a training do."""
    rng = np.random.default_rng(seed)
    bins = rng.multinomial(500, np.full(40, 1 / 40), record.mean.shape).astype(np.int32)
    under = rng.integers(0, 300, record.mean.shape).astype(np.int32)
    return replace(
        record,
        loss=rng.uniform(0.5, 3, len(record.loss)).astype(np.float32),
        mean=rng.normal(size=record.mean.shape).astype(np.float32),
        hist=bins,
        under=under,
        over=(record.sizes - 500 - under).astype(np.int32),
    )


class Numbers:
    """The numbers of a page's charts, decoded by NumPy."""

    def __init__(self, page):
        text = re.search(r'<script type="application/json" id="data">(.*?)</script>', page, re.S)
        data = json.loads(text.group(1))
        self.charts = data["charts"]
        self.arrays = [
            np.frombuffer(base64.b64decode(a["data"]), TYPES[a["type"]]).reshape(a["shape"])
            for a in data["arrays"]
        ]

    def of(self, reference):
        array = self.arrays[reference["array"]]
        return array[reference["row"]] if "row" in reference else array

    def trace(self, chart, name, variant=0):
        """x and y of a line."""
        (found,) = (t for t in self.charts[chart][variant]["traces"] if t["name"] == name)
        return self.of(found["x"]), self.of(found["y"])


def without_scripts(page):
    """The page without scripts and data."""
    return re.sub(r"<script.*?</script>", "", page, flags=re.S)
