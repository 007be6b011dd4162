"""Pickles of plain data are read, others are refused, and nothing in them is called."""

import contextlib
import os
import pickle
import struct
import tempfile
import tracemalloc
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from convjax.data import DataError
from convjax.data.plain_pickle import read_pickle

NUMBERS = st.sampled_from(["u1", "<i4", ">i4", "<f8", ">f2", "?"])


@given(hnp.arrays(NUMBERS, hnp.array_shapes(min_dims=0, max_dims=3)), st.integers(0, 4))
@settings(max_examples=60, deadline=None)
def test_read_pickle_gives_the_array(array, protocol):
    for given_array in (array, np.asfortranarray(array)):
        found = read_pickle(pickle.dumps(given_array, protocol), "here")
        np.testing.assert_array_equal(found, given_array, strict=True)


plain = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | st.text(),
    lambda inner: st.lists(inner) | st.tuples(inner) | st.dictionaries(st.text(), inner),
    max_leaves=20,
)


@given(plain, st.integers(0, 4))
def test_read_pickle_gives_plain_data(value, protocol):
    assert read_pickle(pickle.dumps(value, protocol), "here") == value


def test_read_pickle_of_python_2():
    # {'data': array([7, 8], uint8), 'labels': [3]} as Python 2 writes it, with its text as bytes.
    content = (
        b"\x80\x02}(U\x04datacnumpy.core.multiarray\n_reconstruct\ncnumpy\nndarray\nK\x00\x85"
        b"U\x01b\x87R(K\x01K\x02\x85cnumpy\ndtype\nU\x02u1K\x00K\x01\x87R(K\x03U\x01|NNN"
        b"J\xff\xff\xff\xffJ\xff\xff\xff\xffK\x00tb\x89U\x02\x07\x08tbU\x06labels]K\x03au."
    )
    found = read_pickle(content, "here")
    assert found["data"].tolist() == [7, 8]
    assert found["data"].dtype == np.uint8
    assert found["labels"] == [3]


# Made by the pickles below, if anything called what they name.
MARK = Path(tempfile.mkdtemp()) / "called"


def test_pickles_below_would_leave_a_mark():
    pickle.loads(pickle.dumps(Calls(os.mkdir, str(MARK))))
    MARK.rmdir()


class Calls:
    def __init__(self, function, *args):
        self.reduced = function, args

    def __reduce__(self):
        return self.reduced


@pytest.mark.parametrize("protocol", range(6))
@pytest.mark.parametrize(
    "value",
    [
        Calls(os.system, f"touch {MARK}"),
        Calls(eval, f"open({str(MARK)!r}, 'w')"),
        Calls(getattr, int, "mro"),
        {"data": [Calls(os.mkdir, str(MARK))]},
        np.array([1, "a"], object),
        np.array(["a"]),
        np.float64(3),
        {1, 2},
        bytearray(b"x"),
        os.system,
        Calls,
    ],
)
def test_read_pickle_refuses_everything_else(value, protocol):
    content = pickle.dumps(value, protocol)
    with pytest.raises(DataError, match=r"here must be a pickle of arrays and plain data, got .*"):
        read_pickle(content, "here")
    assert not MARK.exists()


@given(st.binary(max_size=200) | st.binary(max_size=60).map(lambda b: b"\x80\x05" + b + b"."))
def test_read_pickle_of_arbitrary_bytes(content):
    try:
        read_pickle(content, "here")
    except DataError as error:
        assert "here" in str(error)  # noqa: PT017


@given(st.data())
@settings(max_examples=200, deadline=None)
def test_read_pickle_of_damaged_bytes(data):
    content = bytearray(pickle.dumps({"data": np.arange(6, dtype=np.uint8), "labels": [1]}, 2))
    for _ in range(data.draw(st.integers(1, 3))):
        content[data.draw(st.integers(0, len(content) - 1))] = data.draw(st.integers(0, 255))
    try:
        read_pickle(bytes(content), "here")
    except DataError as error:
        assert "here" in str(error)  # noqa: PT017


@pytest.mark.parametrize(
    "content",
    [
        b"\x80\x05\x96" + struct.pack("<Q", 1 << 33) + b".",  # a bytearray of 8 GiB
        b"\x80\x02N" + b"r" + struct.pack("<I", (1 << 32) - 1) + b".",  # the last memo
        b"\x80\x04\x8e" + struct.pack("<Q", 1 << 40) + b"x.",  # bytes that do not follow
        pickle.dumps(np.zeros(4), 2).replace(b"K\x04\x85", b"J\xff\xff\xff\x7f\x85"),  # a shape
    ],
)
def test_read_pickle_takes_no_memory_that_is_only_declared(content):
    tracemalloc.start()
    with contextlib.suppress(DataError):
        read_pickle(content, "here")
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < 1 << 20
