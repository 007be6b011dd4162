"""The reported faults that were collected after the thresholds were set."""

from urllib.parse import urlparse

import jax
import numpy as np
import pytest

from convjax.diagnosis.symptoms import SYMPTOMS
from experiments.diagnosis_study.reported import FURTHER, REPORTED


def test_further_faults_are_none_of_the_others():
    assert len(FURTHER) >= 30
    for field in ("name", "source", "train"):
        found = [getattr(fault, field) for fault in FURTHER]
        assert len(set(found)) == len(found)
        assert not set(found) & {getattr(fault, field) for fault in REPORTED}


def test_further_faults_have_causes_that_the_diagnosis_knows():
    assert {fault.cause for fault in FURTHER} <= {symptom.name for symptom in SYMPTOMS}
    assert len({fault.cause for fault in FURTHER}) >= 20
    assert {fault.library for fault in FURTHER} == {"nnx", "linen", "optax"}
    assert all(urlparse(fault.source).scheme == "https" for fault in FURTHER)


# A few of them: `python -m experiments diagnosis-sets` runs all.
@pytest.mark.slow
@pytest.mark.parametrize("fault", FURTHER[::8], ids=lambda fault: fault.name)
def test_control_of_a_further_fault_is_healthy(fault):
    try:
        record, reached = fault.train(False, 0)
        assert np.isfinite(record.loss).all()
        assert reached >= fault.healthy
    finally:
        jax.clear_caches()
