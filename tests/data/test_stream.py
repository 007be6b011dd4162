"""Streams give the same pixels as loaded data, and the same training."""

from dataclasses import fields
from functools import cache

import jax
import numpy as np
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from convjax.data import (
    DataError,
    Split,
    Stream,
    normalization,
)
from convjax.data.sources import ArraySource, FileSource
from convjax.optim.optimizers import adam
from convjax.stats.watch import Watch
from convjax.train import device_data, scan_loop
from convjax.train.device_data import Images
from convjax.train.scan_loop import bounded_length
from convjax.train.trainer import Trainer
from tests import trainings

STEPS, BATCH = 13, 8


@pytest.fixture
def pixels():
    return np.random.default_rng(0).integers(0, 256, (7, 4, 5, 3), np.uint8)


LABELS = np.arange(7) % 3


# --- sources -------------------------------------------------------------------------------------


def test_file_source_by_hand(tmp_path):
    file = tmp_path / "pixels"
    file.write_bytes(bytes([99, 99, 0, 1, 2, 3, 4, 5, 6, 7]))
    rows = FileSource(file, 2, (4, 1, 2, 1))
    assert rows.read(np.array([3, 0, 3]))[:, 0, :, 0].tolist() == [[6, 7], [0, 1], [6, 7]]


@pytest.mark.parametrize(
    "view", [np.s_[:], np.s_[2:], np.s_[1::2], np.s_[::-1], np.s_[:, 1:], np.s_[3:4, :, :, :1]]
)
@pytest.mark.parametrize("raw", [False, True])
def test_stream_of_a_memory_map_and_its_views(tmp_path, pixels, view, raw):
    if raw:  # after a header of an odd length
        (tmp_path / "a").write_bytes(b"x" * 5001 + pixels.tobytes())
        mapped = np.memmap(tmp_path / "a", np.uint8, "r", 5001, pixels.shape)
    else:
        np.save(tmp_path / "a.npy", pixels)
        mapped = np.load(tmp_path / "a.npy", mmap_mode="r")
    wanted = pixels[view]
    stream = Stream(mapped[view], np.zeros(len(wanted), int))
    order = np.random.default_rng(0).integers(0, len(wanted), (2, 3))
    np.testing.assert_array_equal(stream.read(order), wanted[order])
    # From the file, unless an image lies in pieces or the order is reversed.
    contiguous = wanted[0].flags.c_contiguous and view != np.s_[::-1]
    assert isinstance(stream.images, FileSource if contiguous else ArraySource)


class Library:
    """An array of a library for files: a shape, a dtype, and one row at a time."""

    def __init__(self, pixels):
        self.shape, self.dtype, self._pixels = pixels.shape, pixels.dtype, pixels

    def __getitem__(self, index):
        assert type(index) is int
        return self._pixels[index]


@settings(max_examples=25, deadline=None)
@given(order=st.lists(st.lists(st.integers(-1, 6), min_size=3, max_size=3), min_size=1))
@example(order=[[-1, -1, -1]])
@example(order=np.zeros((0, 3), int))
def test_stream_read_is_indexing(order):
    pixels = np.random.default_rng(0).integers(0, 256, (7, 2, 2, 1), np.uint8)
    order = np.array(order)
    wanted = pixels[order] * (order >= 0)[..., None, None, None].astype(np.uint8)
    for images in (pixels, Library(pixels)):
        np.testing.assert_array_equal(Stream(images, LABELS).read(order), wanted)


@pytest.mark.parametrize("ahead", [1, 2, 50])
@pytest.mark.parametrize("group", [1, 2 * 60 * 3, 1 << 20])
def test_stream_reading_keeps_the_order(pixels, ahead, group, monkeypatch):
    monkeypatch.setattr("convjax.data.stream._ELEMENT_BYTES", group)
    order = np.random.default_rng(0).integers(0, 7, (11, 3))
    with Stream(pixels, LABELS).reading(order, ahead=ahead) as steps:
        np.testing.assert_array_equal(np.stack(list(steps)), pixels[order])


def test_stream_normalization_equals_that_of_the_array(pixels):
    for found, wanted in zip(
        Stream(Library(pixels), LABELS).normalization(), normalization(pixels), strict=True
    ):
        np.testing.assert_array_equal(found, wanted)


@pytest.mark.parametrize(
    ("images", "labels", "message"),
    [
        (
            np.zeros((7, 2, 2), np.uint8),
            LABELS,
            r"images must be uint8 .* got uint8 of shape \(7, 2, 2\)",
        ),
        (np.zeros((7, 2, 2, 1)), LABELS, "images must be uint8 .* got float64 of shape"),
        (np.zeros((0, 2, 2, 1), np.uint8), LABELS[:0], r"got uint8 of shape \(0, 2, 2, 1\)"),
        ([1], LABELS, "images must be uint8 .* got list"),
        (
            np.zeros((7, 2, 2, 1), np.uint8),
            LABELS[:6],
            r"labels must be one .* of the 7 images, got int64 of shape \(6,\)",
        ),
        (np.zeros((7, 2, 2, 1), np.uint8), LABELS / 2, "labels must be .* got float64"),
        (
            np.zeros((7, 2, 2, 1), np.uint8),
            LABELS - 1,
            "labels must be class indices from 0, got -1 to 1. Renumber them",
        ),
    ],
)
def test_stream_rejects(images, labels, message):
    with pytest.raises(DataError, match=message):
        Stream(images, labels)


# --- training ------------------------------------------------------------------------------------


def order():
    return np.random.default_rng(0).integers(0, trainings.EXAMPLES, (STEPS, BATCH))


def labels():
    return np.asarray(trainings.split().labels)


class Trained:
    """A training in float64, in chunks of at most four steps, and its evaluation."""

    def __init__(self, data, every, count, most, trainer=None):
        devices = None if count is None else jax.devices("cpu")[:count]
        with jax.enable_x64(True), pytest.MonkeyPatch.context() as patch:
            patch.setattr(scan_loop, "CHUNK_STEPS", 4)
            patch.setattr(device_data, "CHUNK_BYTES", most * BATCH * 4 * 4 * 2)
            self.trainer = trainer or Trainer(
                trainings.Normed(),
                adam(),
                mean=trainings.MEAN,
                std=trainings.STD,
                watch=Watch(every=every),
                devices=devices,
            )
            if isinstance(data, Split):
                data = Images.put(data, devices)
            start = self.trainer.start(trainings.Normed())
            state, self.record = self.trainer.run(start, data, order(), trainings.table(STEPS))
            self.scores = self.trainer.evaluate(state, data, batch_size=7)
            self.state = jax.tree.map(np.array, state)


@cache
def resident(every, count):
    return Trained(Split(trainings.pixels(), labels().astype(np.int32)), every, count, 99)


@pytest.mark.parametrize(
    ("every", "count", "most"),
    # Chunks of two steps instead of four, and of three instead of six, every other one unwatched.
    [(1, 4, 2), (6, 2, 3), (6, None, 3)],
)
@pytest.mark.slow
def test_trainer_gives_equal_bits_for_a_stream_and_resident_data(every, count, most):
    wanted = resident(every, count)
    found = Trained(Stream(trainings.pixels(), labels()), every, count, most, wanted.trainer)
    jax.tree.map(np.testing.assert_array_equal, found.state, wanted.state)
    for column in fields(found.record):
        actual, expected = (getattr(each.record, column.name) for each in (found, wanted))
        np.testing.assert_array_equal(actual, expected, err_msg=column.name)
    assert found.scores.correct == wanted.scores.correct
    # Partial sums of float64 numbers of order 1.
    assert found.scores.loss == pytest.approx(wanted.scores.loss, rel=1e-14)
    # The last chunk is short, and uses the same program.
    kinds = 1 if count else 2  # one device runs the same program on resident data
    assert found.trainer.chunks.streamed.programs <= kinds
    assert found.trainer.chunks.streamed_unwatched.programs == (most < every <= STEPS)


def test_trainer_reports_a_file_that_is_truncated_or_removed(tmp_path):
    for damage in (lambda file: file.write_bytes(b"short"), lambda file: file.unlink()):
        file = tmp_path / "images.npy"
        np.save(file, trainings.pixels())
        stream = Stream(np.load(file, mmap_mode="r"), labels())
        damage(file)
        with pytest.raises(DataError, match=r"images\.npy (must hold 23 images|cannot be read)"):
            Trained(stream, 6, None, 99, resident(6, None).trainer)


@pytest.mark.parametrize(
    ("length", "every", "most", "wanted"),
    [
        (128, 1, 1000, 128),
        (128, 1, 50, 50),
        (128, 1, 1, 2),  # a chunk of one step would be another program
        (129, 3, 50, 48),
        (100, 100, 30, 25),  # a divisor of `every`
        (97, 97, 30, 97),  # a prime has no divisor
        (6, 6, 1, 2),
    ],
)
def test_bounded_length_by_hand(length, every, most, wanted):
    assert bounded_length(length, every, most) == wanted


@given(st.integers(1, 300), st.integers(1, 5), st.integers(1, 400))
def test_bounded_length_aligns_watched_steps(every, times, most):
    length = bounded_length(every * times, every, most)
    assert length % every == 0 or every % length == 0
    assert 2 <= max(length, 2) <= max(every * times, 2)
