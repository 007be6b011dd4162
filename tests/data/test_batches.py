import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from convjax.data import epoch_order


def test_epoch_order_is_pinned():
    # Runs of an earlier version must be repeatable with a later NumPy.
    assert epoch_order(10, 5, seed=0, epoch=0).tolist() == [[6, 3, 8, 1, 4], [5, 9, 2, 7, 0]]
    assert epoch_order(10, 5, seed=0, epoch=1).tolist() == [[1, 3, 8, 6, 2], [0, 7, 5, 4, 9]]


def test_epoch_order_shapes_and_dtype():
    assert epoch_order(10, 4, seed=0, epoch=0).shape == (2, 4)
    padded = epoch_order(10, 4, seed=0, epoch=0, drop_last=False)
    assert padded.shape == (3, 4)
    assert padded.dtype == np.int32
    assert padded[-1, 2:].tolist() == [-1, -1]
    np.testing.assert_array_equal(padded[:2], epoch_order(10, 4, seed=0, epoch=0))
    assert (epoch_order(8, 4, seed=0, epoch=0, drop_last=False) >= 0).all()


@given(st.integers(1, 200), st.data(), st.integers(0, 2**64), st.integers(0, 2**40), st.booleans())
def test_epoch_order_visits_each_example_at_most_once(num_examples, data, seed, epoch, drop_last):
    batch_size = data.draw(st.integers(1, num_examples))
    order = epoch_order(num_examples, batch_size, seed=seed, epoch=epoch, drop_last=drop_last)
    seen = order[order >= 0]
    assert len(np.unique(seen)) == len(seen)
    assert seen.max() < num_examples
    expected = num_examples // batch_size * batch_size if drop_last else num_examples
    assert len(seen) == expected
    again = epoch_order(num_examples, batch_size, seed=seed, epoch=epoch, drop_last=drop_last)
    np.testing.assert_array_equal(order, again)


def test_epoch_order_differs_for_each_seed_and_epoch():
    pairs = [(0, 0), (0, 1), (1, 0), (1, 1), (2**32, 0), (0, 2**32), (2**32, 1), (1, 2**32)]
    orders = {epoch_order(50, 50, seed=s, epoch=e).tobytes() for s, e in pairs}
    assert len(orders) == len(pairs)


def test_epoch_order_is_uniform():
    # 4000 draws over 5 positions: 800 expected, standard deviation 25; 6 of them is 152.
    first = [epoch_order(5, 5, seed=3, epoch=e)[0, 0] for e in range(4000)]
    assert np.abs(np.bincount(first, minlength=5) - 800).max() < 152


def test_epoch_order_accepts_numpy_integers():
    order = epoch_order(np.int64(6), np.int32(3), seed=np.uint8(1), epoch=np.int64(2))
    np.testing.assert_array_equal(order, epoch_order(6, 3, seed=1, epoch=2))


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"num_examples": 0}, "num_examples must be at least 1, got 0"),
        ({"num_examples": 2**31}, "num_examples must be at most 2147483647, .* got 2147483648"),
        ({"batch_size": 0}, "batch_size must be at least 1, got 0"),
        ({"batch_size": -2}, "batch_size must be at least 1, got -2"),
        ({"batch_size": 11}, "batch_size must be at most the number of examples, 10, got 11"),
        ({"batch_size": 2.0}, r"batch_size must be a whole number, got float: 2\.0"),
        ({"seed": -1}, "seed must be at least 0, got -1"),
        ({"epoch": -1}, "epoch must be at least 0, got -1"),
    ],
)
def test_epoch_order_rejects(arguments, message):
    given_arguments = {"num_examples": 10, "batch_size": 5, "seed": 0, "epoch": 0} | arguments
    with pytest.raises((TypeError, ValueError), match=message):
        epoch_order(**given_arguments)
