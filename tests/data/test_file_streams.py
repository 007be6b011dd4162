"""Streams of files: the pixels and the checks of `load`, and trainings whose files are damaged."""

import struct

import jax
import numpy as np
import pytest
from flax import nnx
from PIL import Image

from convjax.data import DataError, epoch_order, load, stream_folder, stream_idx
from convjax.nn import LinearNet
from convjax.optim import one_cycle
from convjax.optim.optimizers import adam
from convjax.runs import Checkpoints, Keeping, RunFolder
from convjax.train import Callback, Plan, Trainer, fit

from .conftest import SMALL_SETS, write_idx_set


def same(found, wanted):
    for name in ("train", "test"):
        stream, split = getattr(found, name), getattr(wanted, name)
        everything = stream.read(np.arange(len(stream)))
        np.testing.assert_array_equal(everything, split.images, strict=True)
        np.testing.assert_array_equal(stream.labels, split.labels, strict=True)
    assert (found.name, found.class_names) == (wanted.name, wanted.class_names)


def test_stream_idx_equals_load(tmp_path):
    write_idx_set(tmp_path, compress=False)
    same(stream_idx("mnist", tmp_path), load("mnist", data_dir=tmp_path))


def test_stream_idx_rejects(tmp_path):
    with pytest.raises(DataError, match="must hold the four IDX files of mnist, but has none"):
        stream_idx("mnist", tmp_path)
    with pytest.raises(
        DataError, match=r"name must be one of mnist, fashion_mnist, .*, got 'cifar10'"
    ):
        stream_idx("cifar10", tmp_path)
    write_idx_set(tmp_path / "packed")
    with pytest.raises(DataError, match=r"idx3-ubyte.gz is compressed.*gunzip"):
        stream_idx("mnist", tmp_path / "packed")
    write_idx_set(tmp_path, compress=False)
    images = tmp_path / "t10k-images-idx3-ubyte"
    whole = images.read_bytes()
    for content, message in (
        (whole[:-1], "must hold 10 × 5 × 5 = 250 bytes as its header declares, got fewer"),
        (whole + b"0", "must hold 10 × 5 × 5 = 250 bytes as its header declares, got more"),
        (whole[:15], "ends within the IDX header"),
        (b"\0\0\x08\x01" + whole[4:], "must start with 00 00 08 03, .* got 00 00 08 01"),
        (whole[:4] + bytes(4) + whole[8:], "got 0 × 5 × 5 in its header"),
    ):
        images.write_bytes(content)
        with pytest.raises(DataError, match=f"{images.name} .*{message}"):
            stream_idx("mnist", tmp_path)


HEADER = bytes((0, 0, 8, 3))
IDX_DAMAGES = {
    "trailing bytes": ("train-images", lambda c: c + b"00", "= 500 bytes .* got more"),
    "a byte too few": ("train-images", lambda c: c[:-1], "= 500 bytes .* got fewer"),
    "a smaller size": (
        "train-images",
        lambda c: HEADER + struct.pack(">3I", 20, 5, 4) + c[16:],
        "20 × 5 × 4 = 400 bytes as its header declares, got more",
    ),
    "a larger size": (
        "train-images",
        lambda c: HEADER + struct.pack(">3I", 20, 5, 6) + c[16:],
        "20 × 5 × 6 = 600 bytes as its header declares, got fewer",
    ),
    "a gigantic size": (
        "train-images",
        lambda c: HEADER + struct.pack(">3I", 2**31, 2**31, 6) + c[16:],
        "as its header declares, got fewer",
    ),
    "floats": (
        "train-images",
        lambda c: bytes((0, 0, 13, 3)) + c[4:16] + np.ones(500, ">f4").tobytes(),
        "00 00 0d 03. It has 32-bit floats, whose scale is not known: write pixels from 0 to 255",
    ),
    "integers": ("train-images", lambda c: bytes((0, 0, 11, 3)) + c[4:], "has 16-bit integers"),
    "labels of 200": (
        "train-labels",
        lambda c: c[:8] + bytes([200] * 20),
        "must hold labels from 0 to 9, got 200",
    ),
    "labels from 1": (
        "train-labels",
        lambda c: c[:8] + bytes(range(1, 11)) * 2,
        "must hold labels from 0 to 9, got 10",
    ),
    "a label too few": (
        "train-labels",
        lambda c: c[:7] + bytes([19]) + c[9:],
        "must hold one label for each of the 20 images of .*train-images.*, got 19 labels",
    ),
    "another size in the test": (
        "t10k-images",
        lambda c: HEADER + struct.pack(">3I", 10, 1, 25) + c[16:],
        "test images must be 5×5×1 .* like the training images, got 1×25×1 in mnist",
    ),
}


@pytest.mark.parametrize("name", IDX_DAMAGES)
@pytest.mark.parametrize(
    "open_set",
    [
        lambda folder: load("mnist", data_dir=folder),
        lambda folder: stream_idx("mnist", folder),
        lambda folder: stream_idx("mnist", folder, check=False),
    ],
    ids=["load", "stream", "stream of headers"],
)
def test_damaged_idx_files_are_refused(tmp_path, name, open_set):
    write_idx_set(tmp_path, compress=False)
    stem, damage, message = IDX_DAMAGES[name]
    (path,) = tmp_path.glob(f"{stem}*")
    path.write_bytes(damage(path.read_bytes()))
    with pytest.raises(DataError, match=message):
        open_set(tmp_path)


@pytest.fixture
def folder(tmp_path):
    """Two classes; in the first all images are grey."""
    rng = np.random.default_rng(0)
    for split in ("train", "test"):
        for name, mode in (("a", "L"), ("b", "RGB")):
            (tmp_path / "set" / split / name).mkdir(parents=True)
            for i in (1, 2, 10):
                image = Image.fromarray(rng.integers(0, 256, (4, 5, 3), np.uint8)).convert(mode)
                image.save(tmp_path / "set" / split / name / f"{i}.png")
    return tmp_path / "set"


@pytest.mark.parametrize("grey", [False, True])
def test_stream_folder_equals_load(folder, grey):
    if grey:
        for path in folder.glob("*/b/*.png"):
            Image.open(path).convert("L").save(path)
    found = stream_folder(folder)
    assert found.train.images.shape == (6, 4, 5, 1 if grey else 3)
    same(found, load(folder))


@pytest.mark.parametrize(
    "options",
    [
        {"resize": 7},
        {"resize": (3, 9), "resize_method": "squash", "background": 0},
        {"background": (1, 2, 3)},
    ],
)
def test_stream_folder_equals_load_with_options(folder, options):
    if "resize" in options:
        Image.new("RGBA", (9, 30), (1, 2, 3, 99)).save(folder / "test/b/2.png")
    else:
        Image.new("LA", (5, 4), (1, 99)).save(folder / "test/b/2.png")
    same(stream_folder(folder, **options), load(folder, **options))


@SMALL_SETS
def test_stream_folder_equals_load_with_labels_and_a_share(folder):
    options = {"labels": lambda name: name.split(".")[0], "test_share": 0.5, "split_seed": 3}
    found = stream_folder(folder / "train", **options)
    assert found.class_names == ("1", "2", "10")
    same(found, load(folder / "train", **options))


def test_stream_folder_finds_a_damaged_picture_at_once(folder):
    damaged = folder / "test/b/2.bmp"
    with Image.open(folder / "test/b/2.png") as image:
        image.save(damaged)
    (folder / "test/b/2.png").unlink()
    damaged.write_bytes(damaged.read_bytes()[:60])
    with pytest.raises(DataError, match=r"2\.bmp cannot be decoded .*truncated"):
        stream_folder(folder)
    streams = stream_folder(folder, check=False)  # its header is right
    with pytest.raises(DataError, match=r"2\.bmp cannot be decoded"):
        streams.test.read(np.arange(6))


def test_stream_folder_rejects(folder):
    with pytest.raises(DataError, match="nowhere is not a folder"):
        stream_folder(folder / "nowhere")
    odd = folder / "test/b/2.png"
    Image.new("L", (6, 4)).save(odd)
    with pytest.raises(DataError, match=r"2\.png must be 4×5 .* like .*1\.png, got 4×6"):
        stream_folder(folder)
    odd.write_bytes(b"not an image")
    with pytest.raises(DataError, match=r"2\.png cannot be decoded"):
        stream_folder(folder)
    for path in (folder / "test/b").iterdir():
        path.unlink()
    (folder / "test/b").rmdir()
    with pytest.raises(DataError, match="same classes in both splits, got b only in training"):
        stream_folder(folder)


# --- damaged during a training -------------------------------------------------------------------


def test_reading_names_the_step_that_needs_a_damaged_picture(folder):
    pictures = stream_folder(folder, check=False)
    (damaged := folder / "train/b/2.png").write_bytes(damaged_png(damaged))
    batches = np.array([[0, 1], [2, 3], [5, 4], [4, 0]])
    for first_step, message in (
        (
            10,
            r"\. Step 12 of the training needs it\. Then train again: a training that keeps check",
        ),
        (None, r"or remove the file\.$"),
    ):
        with (
            pytest.raises(DataError, match=rf"2\.png cannot be decoded .*{message}"),
            pictures.train.reading(batches, ahead=4, first_step=first_step) as steps,
        ):
            list(steps)


def damaged_png(path):
    content = path.read_bytes()
    return content[:-20] + bytes([content[-20] ^ 1]) + content[-19:]


def test_fit_resumes_after_a_damaged_file_was_mended(folder, tmp_path):
    model = LinearNet((60, 2), rngs=nnx.Rngs(0))
    trainer = Trainer(model, adam(), watch=None)
    steps = 6 * 3
    plan = Plan(
        6, lambda epoch: epoch_order(6, 2, seed=0, epoch=epoch), one_cycle(steps, 0.01).table(steps)
    )
    streams = stream_folder(folder, check=False)
    whole = fit(trainer, model, streams.train, streams.test, plan)
    picture = folder / "train/b/2.png"
    good, bad = picture.read_bytes(), damaged_png(picture)

    class Damage(Callback):
        def on_evaluation(self, metrics):
            if metrics["epoch"] == 2:
                picture.write_bytes(bad)

    def train(callback, *, resume=False):
        with (
            RunFolder(tmp_path / "run", {}, resume=resume) as run,
            Checkpoints(tmp_path / "checkpoints") as saved,
        ):
            keeping = Keeping(run, saved, 0.0)
            return fit(
                trainer,
                model,
                streams.train,
                streams.test,
                plan,
                keeping=keeping,
                callback=callback,
            )

    with pytest.raises(DataError, match=r"2\.png cannot be decoded .* Step (9|10|11) of the"):
        train(Damage())
    picture.write_bytes(good)
    steps_taken = []

    class Count(Callback):
        def on_restore(self, steps, metrics):
            steps_taken.append(steps)

    resumed = train(Count(), resume=True)
    assert steps_taken == [9]  # the training did not begin anew
    jax.tree.map(
        np.testing.assert_array_equal,
        jax.tree.map(np.asarray, resumed.state),
        jax.tree.map(np.asarray, whole.state),
    )
