import sys

import numpy as np
import pytest

from convjax.runs.run import PartialRun
from tests.helpers import make_record


@pytest.mark.parametrize("every", [1, 3])
def test_to_frame_has_every_step_and_the_statistics_where_they_were_taken(every):
    record = make_record(steps=7, layers=2, every=every)
    frame = record.to_frame()
    assert frame.index.name == "step"
    np.testing.assert_array_equal(frame.index, np.arange(7))
    np.testing.assert_array_equal(frame["loss"], record.loss)
    for i, layer in enumerate(record.layers):
        found = frame[f"layers/{layer}/std"]
        np.testing.assert_array_equal(found[record.watched], record.std[:, i])
        assert found.drop(record.watched).isna().all()
    assert record.parameters is not None
    name = record.parameters.names[0]
    ratio = frame[f"parameters/{name}/update_ratio"][record.parameters.watched]
    np.testing.assert_array_equal(ratio, record.parameters.update_ratio[:, 0])


def test_to_frame_of_a_run_has_its_evaluations():
    metrics = [{"step": 3, "accuracy": 0.5}, {"step": 6, "accuracy": 0.75}]
    frame = PartialRun({}, metrics, None).to_frame()
    assert frame["accuracy"].tolist() == [0.5, 0.75]
    assert frame["step"].tolist() == [3, 6]


def test_to_frame_names_the_package_that_is_missing(monkeypatch):
    monkeypatch.setitem(sys.modules, "pandas", None)
    for found in (make_record(steps=2, layers=1), PartialRun({}, [], None)):
        with pytest.raises(ImportError, match="Run: pip install pandas"):
            found.to_frame()
