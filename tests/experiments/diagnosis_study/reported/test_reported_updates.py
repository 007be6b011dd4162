"""The reported faults of updates, rates, normalisation, initialisation and evaluation."""

from collections import Counter
from urllib.parse import urlparse

import jax
import numpy as np
import pytest

from experiments.diagnosis_study.reported import (
    evaluation,
    initialisation,
    initialisation_of_relu,
    initialisation_too_large,
    normalisation,
    rates,
    rates_and_spikes,
    rates_of_decay_and_dropout,
    updates,
    updates_frozen,
    updates_not_finite,
)
from experiments.diagnosis_study.reported.evaluation_tasks import (
    accuracy,
    binary_accuracy,
    centres,
    digits,
    explained,
    heat_maps,
    measurements,
    next_letters,
    rings,
    series,
    species,
    strokes,
    tagged_words,
)

MODULES = (
    evaluation,
    initialisation,
    initialisation_of_relu,
    initialisation_too_large,
    normalisation,
    rates,
    rates_and_spikes,
    rates_of_decay_and_dropout,
    updates,
    updates_frozen,
    updates_not_finite,
)
REPORTED = [fault for module in MODULES for fault in module.REPORTED]
CAUSES = {
    "update not applied",
    "parameters frozen",
    "gradients accumulate",
    "weight decay too strong",
    "dropout too strong",
    "evaluation of other parameters",
    "batch-norm statistics",
    "running statistics used in training",
    "zero weights",
    "saturation",
    "exploding activations",
    "vanishing gradients",
    "update too large",
    "parameters not finite",
    "learning rate too high",
    "learning rate too low",
    "exploding gradients",
    "dead layer",
    "collapse",
}
TASKS = (
    centres,
    digits,
    heat_maps,
    measurements,
    next_letters,
    rings,
    series,
    species,
    strokes,
    tagged_words,
)


def test_reported_has_unique_names_and_trainings():
    assert len({fault.name for fault in REPORTED}) == len(REPORTED)
    assert len({fault.train for fault in REPORTED}) == len(REPORTED)


def test_reported_has_two_or_more_of_each_cause():
    counts = Counter(fault.cause for fault in REPORTED)
    assert set(counts) == CAUSES
    assert min(counts.values()) >= 2


def test_reported_has_half_of_its_loops_in_nnx():
    counts = Counter(fault.library for fault in REPORTED)
    assert set(counts) == {"nnx", "linen", "optax"}
    assert counts["nnx"] >= 0.4 * len(REPORTED)
    assert min(counts["linen"], counts["optax"]) >= 0.2 * len(REPORTED)


@pytest.mark.parametrize("fault", REPORTED, ids=lambda fault: fault.name)
def test_reported_source_is_an_address_of_one_page(fault):
    address = urlparse(fault.source)
    assert address.scheme in ("http", "https")
    assert "." in address.netloc
    assert len(address.path) > 1


@pytest.mark.parametrize("task", TASKS, ids=lambda task: task.__wrapped__.__name__)
def test_tasks_have_as_many_targets_as_inputs(task):
    for x, y in task():
        assert len(x) == len(y) >= 200
        assert x.dtype in (np.float32, np.int32)
        assert y.dtype in (np.float32, np.int32)
        assert np.isfinite(x).all()
        assert np.isfinite(y).all()


@pytest.mark.parametrize("task", [centres, measurements, series, heat_maps])
def test_tasks_of_regression_have_normalised_targets(task):
    (_, y), _ = task()
    assert y.std() == pytest.approx(1, abs=0.25)
    assert abs(y.mean()) < 0.35


def test_centres_are_those_of_the_spots():
    (x, y), _ = centres()
    brightest = np.stack(np.unravel_index(x[..., 0].reshape(len(x), -1).argmax(1), (12, 12)), 1)
    assert np.abs(brightest - (y * 2.02 + 5.5)).mean() < 0.6


def test_figures_of_what_is_reached_by_hand():
    logits = np.array([[1.0, 2.0], [3.0, 0.0], [0.0, 1.0]])
    assert accuracy(logits, np.array([1, 0, 0])) == pytest.approx(2 / 3)
    assert binary_accuracy(np.array([2.0, -1.0, -3.0, 1.0]), np.array([1, 1, 0, 1])) == 0.75
    targets = np.array([1.0, -1.0])
    assert explained(np.zeros(2), targets) == 0
    assert explained(targets / 2, targets) == 0.75


# A few of them: `python -m experiments diagnosis-sets` runs all.
@pytest.mark.slow
@pytest.mark.parametrize("fault", REPORTED[::12], ids=lambda fault: fault.name)
def test_control_of_a_reported_fault_is_healthy(fault):
    try:
        assert fault.train(False, 0).reached >= fault.healthy
    finally:
        jax.clear_caches()
