import jax.numpy as jnp
import numpy as np
import pytest

from convjax.data import load
from convjax.train import _arguments as arguments

IMAGES, LABELS = np.zeros((3, 4, 4, 1), np.uint8), np.arange(3, dtype=np.int32)


def test_check_images_accepts_arrays_of_jax_and_numpy():
    arguments.check_images(jnp.asarray(IMAGES), jnp.asarray(LABELS))
    arguments.check_images(IMAGES, LABELS)


@pytest.mark.parametrize(
    ("images", "labels", "error", "message"),
    [
        (
            IMAGES.astype(np.uint16),
            LABELS,
            TypeError,
            r"uint8 .* or of floating.* got uint16.*astype",
        ),
        (
            np.ones(3),
            LABELS,
            ValueError,
            r"an axis beside that of the examples, got the shape \(3,\)",
        ),
        (IMAGES[..., 0], LABELS, ValueError, r"the shape \(3, 4, 4\).*\.\.\., None"),
        (IMAGES, LABELS[:2], ValueError, r"as many labels as images, got the shapes \(2,\) and"),
        (IMAGES, np.int32(3), ValueError, r"as many labels as images, got the shapes \(\) and"),
        (IMAGES, [0, 1, 2], TypeError, r"data\.labels must be an array, got list: \[0, 1, 2\]"),
    ],
)
def test_check_images_rejects_other_arrays(images, labels, error, message):
    with pytest.raises(error, match=message):
        arguments.check_images(images, labels)


def test_check_images_names_the_argument():
    with pytest.raises(ValueError, match=r"test must hold as many labels as images"):
        arguments.check_images(IMAGES, LABELS[:2], "test")


def test_check_split_rejects_what_has_no_images_and_labels():
    dataset = load("mnist5k")
    arguments.check_split(dataset.train)
    for value in (dataset, (IMAGES, LABELS), None):
        with pytest.raises(TypeError, match=r"split must have images and labels, got .*\.train or"):
            arguments.check_split(value)
