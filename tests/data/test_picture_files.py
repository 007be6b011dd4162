"""Damaged picture files: refused by `load` and by streams, with the same message."""

import re
import struct
import warnings
import zlib

import numpy as np
import pytest
from PIL import Image, ImageFile

from convjax.data import DataError, load, read_image, stream_folder
from convjax.data.picture_files import opened, stored_bits

PNG = b"\x89PNG\r\n\x1a\n"


def pixels(seed=0):
    return np.random.default_rng(seed).integers(0, 256, (16, 16, 3), np.uint8)


@pytest.fixture
def folder(tmp_path):
    root = tmp_path / "set"
    for number, place in enumerate(("train/a/1", "train/b/1", "test/a/1", "test/b/2")):
        (root / place).parent.mkdir(parents=True)
        Image.fromarray(pixels(number)).save(root / f"{place}.png")
    return root


def damaged(folder, suffix, damage):
    """Replaces the last picture by a damaged one of another format."""
    path = (folder / "test/b/2.png").rename(folder / f"test/b/2{suffix}")
    lossless = {"lossless": True} if suffix == ".webp" else {}
    Image.fromarray(pixels(3)).save(path, **lossless)
    path.write_bytes(damage(path.read_bytes()))
    return path


def flipped(content):
    """The lowest bit of the middle byte, which lies in the pixels."""
    middle = len(content) // 2
    return content[:middle] + bytes([content[middle] ^ 1]) + content[middle + 1 :]


# The format, the damage, what the message says, and whether the ends of the file show it.
DAMAGES = {
    "png without its end": (".png", lambda c: c[:-12], "ends before the end mark of a PNG", True),
    "png without a byte": (".png", lambda c: c[:-1], "ends before the end mark of a PNG", True),
    "png cut in half": (".png", lambda c: c[: len(c) // 2], "ends before the end mark", True),
    "png with a flipped bit": (".png", flipped, "the checksum of b'IDAT' is wrong", False),
    "png with zeros": (
        ".png",
        lambda c: c[:100] + bytes(len(c) - 112) + c[-12:],
        "the checksum of b'IDAT' is wrong",
        False,
    ),
    "jpeg without its end": (".jpg", lambda c: c[:-2], "lacks the end mark of a JPEG", True),
    "jpeg cut in half": (".jpg", lambda c: c[: len(c) // 2], "the file is truncated", True),
    "jpeg without pixels": (".jpg", lambda c: c[:100], "ends before the pixels of a JPEG", True),
    "webp without a byte": (".webp", lambda c: c[:-1], "shorter than its header declares", True),
    "bmp cut in half": (".bmp", lambda c: c[: len(c) // 2], "truncated", False),
    "empty": (".png", lambda c: b"", "cannot identify image file", True),
}


@pytest.mark.parametrize("name", DAMAGES)
@pytest.mark.parametrize(
    ("open_set", "headers"),
    [
        (load, False),
        (stream_folder, False),
        (lambda folder: stream_folder(folder, check=False), True),
    ],
    ids=["load", "stream", "stream of headers"],
)
def test_damaged_pictures_are_refused(folder, name, open_set, headers):
    suffix, damage, message, at_ends = DAMAGES[name]
    path = damaged(folder, suffix, damage)
    match = rf"2\{suffix} cannot be decoded \(.*{message}.*\)\. Replace it with a readable picture"
    if headers and not at_ends:
        streams = open_set(folder)  # the fault shows when the picture is read
        with pytest.raises(DataError, match=match):
            streams.test.read(np.arange(2))
    else:
        with pytest.raises(DataError, match=match):
            open_set(folder)
    with pytest.raises(DataError, match=match):
        read_image(path)


def test_whole_files_with_more_behind_their_end_are_taken(folder):
    whole = load(folder).test.images
    for suffix, more in ((".png", b"more"), (".png", bytes(1 << 17))):
        damaged(folder, suffix, lambda content, more=more: content + more)
        np.testing.assert_array_equal(load(folder).test.images, whole)
        np.testing.assert_array_equal(
            stream_folder(folder, check=False).test.read(np.arange(2)), whole
        )
    path = damaged(folder, ".jpg", lambda content: content)
    whole = read_image(path)
    path.write_bytes(path.read_bytes() + bytes(1 << 17))  # beyond the tail that is read first
    np.testing.assert_array_equal(read_image(path), whole)


def test_the_end_of_a_thumbnail_is_not_that_of_the_picture(tmp_path):
    path = tmp_path / "photograph.jpg"
    exif = Image.Exif()
    exif[0x010E] = "a thumbnail \xff\xd9".encode("latin1")
    Image.fromarray(pixels()).save(path, exif=exif)
    content = path.read_bytes()
    assert content.index(b"\xff\xd9") < 200
    read_image(path)
    path.write_bytes(content[:-2])
    with pytest.raises(DataError, match="lacks the end mark of a JPEG"):
        read_image(path)


def test_a_wrong_checksum_of_a_chunk_that_is_not_critical_is_taken(tmp_path):
    path = tmp_path / "a.png"
    Image.fromarray(pixels()).save(path)
    content = path.read_bytes()
    text = struct.pack(">I", 4) + b"teXt" + b"note" + bytes(4)
    assert zlib.crc32(b"teXtnote") != 0
    path.write_bytes(content[:-12] + text + content[-12:])
    np.testing.assert_array_equal(read_image(path), pixels())


def test_pillow_must_not_fill_up_truncated_files(folder, monkeypatch):
    monkeypatch.setattr(ImageFile, "LOAD_TRUNCATED_IMAGES", True)
    for call in (load, stream_folder, lambda root: read_image(root / "test/b/2.png")):
        with pytest.raises(DataError, match="LOAD_TRUNCATED_IMAGES must be False, got True"):
            call(folder)


@pytest.mark.parametrize(
    ("suffix", "dtype", "bits"),
    [(".png", np.uint8, 8), (".png", np.uint16, 16), (".tif", np.uint16, 16), (".tif", bool, 1)],
)
def test_stored_bits(tmp_path, suffix, dtype, bits):
    path = tmp_path / f"a{suffix}"
    Image.fromarray(np.ones((2, 2), dtype)).save(path)
    with opened(path, checksums=False) as image:
        assert stored_bits(image) == bits


def test_filters_of_warnings_survive_the_threads_that_decode(folder):
    # In threads, `catch_warnings` would restore the filters that another thread has set.
    for number in range(200):
        Image.fromarray(pixels(100 + number)).save(folder / f"train/a/{number}.png")
    before = [each for each in warnings.filters if each[3] != re.compile(r"PIL\.")]
    for _ in range(3):
        stream_folder(folder)
    assert [each for each in warnings.filters if each[3] != re.compile(r"PIL\.")] == before
