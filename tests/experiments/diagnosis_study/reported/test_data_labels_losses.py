"""The reported faults about data, labels, losses and outputs, and the bars of their controls."""

from collections import Counter
from urllib.parse import urlsplit

import jax
import numpy as np
import pytest

from experiments.diagnosis_study.reported import (
    data_inputs,
    data_order,
    data_tasks,
    labels,
    labels_fit,
    losses,
    losses_finite,
    losses_gradients,
    outputs_nonlinear,
    outputs_shapes,
    outputs_softmax,
)

MODULES = (
    data_inputs,
    data_order,
    labels,
    labels_fit,
    losses,
    losses_finite,
    losses_gradients,
    outputs_nonlinear,
    outputs_shapes,
    outputs_softmax,
)
FAULTS = {fault.name: fault for module in MODULES for fault in module.REPORTED}
CAUSES = {
    "inputs not normalised",
    "inputs not finite",
    "inputs and labels do not match",
    "labels constant",
    "labels out of range",
    "labels do not fit the loss",
    "batches of one class",
    "target not scaled",
    "shapes of output and target differ",
    "softmax applied twice",
    "non-linearity at the output",
    "loss not finite",
    "gradients not finite",
    "loss summed over the batch",
    "loss independent of the parameters",
}


def test_reported_has_unique_names_sources_and_trainings():
    faults = [fault for module in MODULES for fault in module.REPORTED]
    for values in ("name", "source", "train"):
        assert max(Counter(getattr(fault, values) for fault in faults).values()) == 1


def test_reported_has_addresses_as_sources():
    for fault in FAULTS.values():
        address = urlsplit(fault.source)
        assert address.scheme == "https"
        assert "." in address.netloc
        assert len(address.path) > 1
        assert " " not in fault.source


def test_reported_has_several_faults_of_every_cause():
    found = Counter(fault.cause for fault in FAULTS.values())
    assert set(found) == CAUSES
    assert min(found.values()) >= 3


def test_reported_has_loops_of_every_library():
    found = Counter(fault.library for fault in FAULTS.values())
    assert set(found) == {"nnx", "linen", "optax"}
    assert min(found.values()) >= len(FAULTS) // 5


def test_scores_by_hand():
    labels = np.array([0, 1, 1, 1])
    assert data_tasks.accuracy(np.eye(2)[[0, 1, 0, 1]], labels) == 0.75
    assert data_tasks.binary_accuracy(np.array([[-1], [2], [-3], [4]]), labels) == 0.75
    assert data_tasks.overlap(np.array([1, 1, 1, -1]), labels) == 0.5  # two of four pixels
    targets = np.array([[0.0, 10], [2, 30]])
    assert data_tasks.explained(targets, targets) == 1
    # The first output is right, the second is the mean.
    assert data_tasks.explained(np.array([[0, 20], [2, 20]]), targets) == 0.5


# A few of them: `python -m experiments diagnosis-sets` runs all.
@pytest.mark.slow
@pytest.mark.parametrize("name", list(FAULTS)[::12])
def test_control_is_healthy(name):
    fault = FAULTS[name]
    trained = fault.train(False, 0)
    jax.clear_caches()
    assert np.isfinite(trained.record.loss).all()
    assert trained.reached >= fault.healthy
