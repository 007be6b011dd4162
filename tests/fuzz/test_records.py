"""Files of records and weights: mutated bytes, and whole archives of arrays that fit less well."""

import contextlib
import dataclasses
import io
import warnings
import zipfile

import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx
from hypothesis import given
from hypothesis import strategies as st

from convjax.diagnosis import diagnose
from convjax.io.npz import NpzError, read_npz
from convjax.nn.weights import WeightsError, load_weights, save_weights
from convjax.runs.predictions import Predictions, PredictionsError
from convjax.stats.record import Record
from convjax.stats.record_file import RecordError
from tests.fuzz.mutations import mutated, mutated_array, on_files
from tests.helpers import make_record
from tests.io.archives import npy, write_archive

RECORD = make_record(steps=7, layers=2, every=2)


def bytes_of(save):
    file = io.BytesIO()
    save(file)
    return file.getvalue()


def saved_arrays(tmp_path_factory):
    path = tmp_path_factory.mktemp("saved") / "record.npz"
    RECORD.save(path)
    with np.load(path) as file:
        return dict(file)


@pytest.fixture(scope="module")
def arrays(tmp_path_factory):
    return saved_arrays(tmp_path_factory)


@pytest.fixture
def path(tmp_path):
    return tmp_path / "record.npz"


def use(record):
    """Does with a record what the rest of the project does; its own errors are documented."""
    for of_record in (
        record.nan,
        lambda: record.dead(0, steps=2),
        lambda: record.smoothed_loss(),
        lambda: record.merged(2),
        lambda: record.between(0, record.steps),
        lambda: str(diagnose(record)),
        lambda: repr(record),
        lambda: record.parameters and record.parameters.update_ratio,
    ):
        # IndexError: a record without layers has no layer 0.
        with contextlib.suppress(ValueError, IndexError):
            of_record()


@on_files(300)
@given(data=st.data())
def test_a_record_whose_arrays_do_not_fit(arrays, path, data):
    names = data.draw(st.lists(st.sampled_from(sorted(arrays)), min_size=1, max_size=3))
    changed = dict(arrays)
    for name in names:
        if data.draw(st.integers(0, 9)):
            changed[name] = data.draw(mutated_array(arrays[name]))
        else:
            changed.pop(name, None)
    np.savez(path, **changed)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        try:
            record = Record.load(path)
        except RecordError as error:
            assert str(path) in str(error)  # noqa: PT017  # the alternative is no error
            return
        use(record)


@on_files(150)
@given(data=st.data())
def test_an_archive_with_other_bytes(path, data):
    content = bytes_of(lambda file: np.savez_compressed(file, x=np.arange(30), y=np.array(["a"])))
    path.write_bytes(data.draw(mutated(content)))
    check_archive(path)


@on_files(150)
@given(
    data=st.data(),
    method=st.sampled_from((zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED)),
    array=st.sampled_from((np.arange(30), np.array(["a", "é"]), np.zeros((2, 0)), np.float16(3))),
)
def test_an_array_with_other_bytes_and_a_checksum_that_fits(path, data, method, array):
    write_archive(path, {"x.npy": data.draw(mutated(npy(array)))}, method)
    check_archive(path)


def check_archive(path):
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        try:
            found = read_npz(path)
        except NpzError:
            return
        total = sum(array.nbytes for array in found.values())
        assert total <= 1032 * path.stat().st_size
        str(found)


@pytest.fixture(scope="module")
def network():
    return nnx.Linear(2, 3, rngs=nnx.Rngs(0))


@on_files(60)
@given(data=st.data())
def test_weights_that_do_not_fit(network, path, data):
    save_weights(path, network)
    with np.load(path) as file:
        arrays = dict(file)
    name = data.draw(st.sampled_from(sorted(arrays)))
    arrays[name] = data.draw(mutated_array(arrays[name]))
    np.savez(path, **arrays)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        try:
            loaded = load_weights(path, network)
        except WeightsError as error:
            assert str(path) in str(error)  # noqa: PT017
            return
        assert loaded(jnp.ones((1, 2))).shape == (1, 3)


PREDICTIONS = Predictions(
    labels=np.array([0, 1, 2, 1]),
    answers=np.array([0, 2, 2, 0]),
    losses=np.array([0.1, 2.0, 0.2, 1.5], np.float32),
    worst=np.array([1, 3]),
    images=np.zeros((2, 4, 4, 1), np.uint8),
    label_probabilities=np.array([0.1, 0.2], np.float32),
    answer_probabilities=np.array([0.8, 0.7], np.float32),
    class_names=("a", "b", "c"),
)


@on_files(100)
@given(data=st.data())
def test_predictions_that_do_not_fit(path, data):
    PREDICTIONS.save(path)
    with np.load(path) as file:
        arrays = dict(file)
    for name in data.draw(st.lists(st.sampled_from(sorted(arrays)), min_size=1, max_size=2)):
        arrays[name] = data.draw(mutated_array(arrays[name]))
    np.savez(path, **arrays)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        try:
            found = Predictions.load(path)
        except PredictionsError as error:
            assert str(path) in str(error)  # noqa: PT017
            return
        assert found.confusion.shape == (len(found.class_names),) * 2
        assert 0 <= found.correct <= len(found.labels)
        repr(found)


def test_the_record_that_is_mutated_is_whole(arrays, path):
    np.savez(path, **arrays)
    record = Record.load(path)
    use(record)
    assert dataclasses.fields(record)
