import numpy as np
import pytest

from convjax.data import DataError, Dataset, Split, load, select_classes

from .conftest import small_dataset


def test_select_classes_renumbers_in_the_given_order_and_keeps_file_order():
    dataset = small_dataset()  # labels 0 1 2 0 1 2
    chosen = select_classes(dataset, ("ç", "a"))
    assert chosen.class_names == ("ç", "a")
    assert chosen.train.labels.tolist() == [1, 0, 1, 0]
    np.testing.assert_array_equal(chosen.train.images, dataset.train.images[[0, 2, 3, 5]])
    assert chosen.test.labels.tolist() == [1, 0]
    assert chosen.train.labels.dtype == np.int32


def test_select_classes_of_all_changes_nothing():
    dataset = small_dataset()
    chosen = select_classes(dataset, dataset.class_names)
    np.testing.assert_array_equal(chosen.train.images, dataset.train.images)
    np.testing.assert_array_equal(chosen.train.labels, dataset.train.labels)


def test_select_classes_takes_ints_for_names():
    # They are not indices: the second time "3" has index 1.
    sevens_and_threes = load("mnist5k", classes=(7, np.int64(3)))
    assert sevens_and_threes.class_names == ("7", "3")
    assert select_classes(sevens_and_threes, (3,)).class_names == ("3",)
    assert np.bincount(sevens_and_threes.train.labels).tolist() == [400, 400]
    assert sevens_and_threes.train.labels[0] == 1  # the threes come first in the file


@pytest.mark.parametrize(
    ("classes", "message"),
    [
        ((), "classes must have .* got an empty sequence.*keep all of a, b, ç"),
        (("a", "x"), r"classes must be among a, b, ç in 'small', got 'x'\.$"),
        (("A",), "did you mean 'a'"),
        (("a", "b", "a"), r"classes must be different, got 'a' twice in \('a', 'b', 'a'\)"),
        ("ab", r"classes must be .* got the string 'ab'\. Write classes=\('ab',\)"),
    ],
)
def test_select_classes_rejects(classes, message):
    with pytest.raises(DataError, match=message):
        select_classes(small_dataset(), classes)


def test_select_classes_rejects_a_split_without_the_class():
    train = small_dataset().train
    test = Split(train.images[:1], np.array([0], np.int32))
    dataset = Dataset("x", train, test, ("a", "b", "c"))
    with pytest.raises(DataError, match=r"got \('b',\), of which the test split of 'x' has none"):
        select_classes(dataset, ("b",))
