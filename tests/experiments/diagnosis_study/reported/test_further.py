"""The two collections of reported faults that were made after the thresholds were set."""

from urllib.parse import urlparse

import jax
import numpy as np
import pytest

from convjax.diagnosis.symptoms import SYMPTOMS
from experiments.diagnosis_study.reported import FURTHER, LAST, REPORTED

COLLECTIONS = {"further": (FURTHER, REPORTED), "last": (LAST, REPORTED + FURTHER)}


@pytest.mark.parametrize(("collection", "before"), COLLECTIONS.values(), ids=COLLECTIONS)
def test_faults_of_a_later_collection_are_none_of_the_others(collection, before):
    assert len(collection) >= 30
    for field in ("name", "source", "train"):
        found = [getattr(fault, field) for fault in collection]
        assert len(set(found)) == len(found)
        assert not set(found) & {getattr(fault, field) for fault in before}


@pytest.mark.parametrize(("collection", "before"), COLLECTIONS.values(), ids=COLLECTIONS)
def test_faults_of_a_later_collection_have_causes_that_the_diagnosis_knows(collection, before):
    assert {fault.cause for fault in collection} <= {symptom.name for symptom in SYMPTOMS}
    assert len({fault.cause for fault in collection}) >= 20
    assert {fault.library for fault in collection} >= {"nnx", "linen", "optax"}
    assert all(urlparse(fault.source).scheme == "https" for fault in collection)


# A few of them: `python -m experiments diagnosis-sets` runs all.
@pytest.mark.slow
@pytest.mark.parametrize("fault", (FURTHER + LAST)[::10], ids=lambda fault: fault.name)
def test_control_of_a_later_fault_is_healthy(fault):
    try:
        record, reached = fault.train(False, 0)
        assert np.isfinite(record.loss).all()
        assert reached >= fault.healthy
    finally:
        jax.clear_caches()
