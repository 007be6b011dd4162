"""What is unlikely in a whole data set is said by `load` and by streams, and nothing else is."""

import warnings

import numpy as np
import pytest

from convjax.data import load, stream_folder, stream_idx
from convjax.data.set_checks import ImageFacts

from .conftest import idx_bytes, write_idx_set

Image = pytest.importorskip("PIL.Image", reason="Pillow is not installed")


def images(number, seed=0):
    return np.random.default_rng(seed).integers(0, 256, (number, 5, 5), np.uint8)


IMAGES = "train-images-idx3-ubyte", "t10k-images-idx3-ubyte"
LABELS = "train-labels-idx1-ubyte", "t10k-labels-idx1-ubyte"
# Which file has which entries, and what is said.
UNLIKELY = {
    "zeros": (IMAGES[0], np.zeros((20, 5, 5)), "every pixel of the 20 training images .* is 0"),
    "white": (IMAGES[0], np.full((20, 5, 5), 255), "every pixel .* is 255: .* nothing to learn"),
    "0 to 1": (IMAGES[0], images(20) > 99, "no pixel of the 20 training .* above 1, of 255"),
    "4 bits": (IMAGES[0], images(20) % 16, "no pixel of the 20 training images .* above 15"),
    "no class 0": (LABELS[0], np.arange(20) % 9 + 1, "no training image .* of the classes 0"),
    "one class": (LABELS[0], np.full(20, 8), "no training image .* 0, 1, 2, 3, 4 and 4 more"),
    "no class 9": (LABELS[1], np.arange(10) % 9, "no test image of mnist is of the classes 9"),
}


@pytest.mark.parametrize("name", UNLIKELY)
@pytest.mark.parametrize(
    "open_set",
    [lambda folder: load("mnist", data_dir=folder), lambda folder: stream_idx("mnist", folder)],
    ids=["load", "stream"],
)
def test_what_is_unlikely_in_idx_files_is_said(tmp_path, name, open_set):
    write_idx_set(tmp_path, compress=False)
    file, entries, message = UNLIKELY[name]
    (tmp_path / file).write_bytes(idx_bytes(entries))
    with pytest.warns(UserWarning, match=message) as said:
        open_set(tmp_path)
    assert len(said) == 1
    assert said[0].filename == __file__
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        stream_idx("mnist", tmp_path, check=False)


@pytest.mark.parametrize("open_set", [load, stream_folder])
@pytest.mark.parametrize("linked", [False, True])
def test_test_images_that_are_training_images_are_counted(tmp_path, open_set, linked):
    root = tmp_path / "set"
    for number, place in enumerate(("train/a", "train/b", "test/a", "test/b")):
        (root / place).mkdir(parents=True)
        for i in range(60):
            Image.fromarray(images(1, 60 * number + i)[0]).save(root / place / f"{i}.png")
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        open_set(root)
    # The same pixels in files that differ: 1 of 120 is below a hundredth, 2 are above.
    for i in range(2):
        with Image.open(root / f"train/a/{i}.png") as image:
            image.save(root / f"test/b/{i}.bmp")
        (root / f"test/b/{i}.png").unlink()
        if i == 0:
            with warnings.catch_warnings():
                warnings.simplefilter("error")
                open_set(root)
    if linked:
        (root / "test").rename(tmp_path / "moved")
        (root / "test").symlink_to(root / "train")
    count = 120 if linked else 2
    with pytest.warns(
        UserWarning, match=f"{count} of the 120 test images of set are also training"
    ):
        open_set(root)


def test_a_published_set_is_likely(real_mnist):
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        load("mnist", data_dir=real_mnist)
        load("mnist5k")


def test_image_facts_by_hand():
    pixels = np.array([[3, 9], [0, 0], [3, 9]], np.uint8).reshape(3, 2, 1, 1)
    whole = ImageFacts.of(pixels)
    assert whole.lowest.tolist() == [3, 0, 3]
    assert whole.highest.tolist() == [9, 0, 9]
    assert whole.digests[0] == whole.digests[2] != whole.digests[1]
    joined = ImageFacts.join([ImageFacts.of(pixels[:1]), ImageFacts.of(pixels[1:])])
    for found, wanted in zip(joined, whole, strict=True):
        np.testing.assert_array_equal(found, wanted)
