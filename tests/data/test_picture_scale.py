"""Pictures of other scales than 0 to 255: scaled by what their format says, or refused."""

import struct
import zlib

import numpy as np
import pytest
from PIL import Image

from convjax.data import DataError, load, read_image, stream_folder

RAMP = np.arange(256).reshape(16, 16)
CONVERT = r"Save it with 8 bits per channel: Image\.fromarray\(np\.uint8\(pixels \* 255 / white\)\)"


def png_of_16_bits(path, values):
    """Writes colours (H, W, 3 or 4), which Pillow cannot, independently of the reader."""

    def chunk(kind, content):
        checksum = struct.pack(">I", zlib.crc32(kind + content))
        return struct.pack(">I", len(content)) + kind + content + checksum

    height, width, channels = values.shape
    header = struct.pack(">IIBBBBB", width, height, 16, {3: 2, 4: 6}[channels], 0, 0, 0)
    rows = b"".join(b"\0" + row.astype(">u2").tobytes() for row in values)
    chunks = chunk(b"IHDR", header) + chunk(b"IDAT", zlib.compress(rows)) + chunk(b"IEND", b"")
    path.write_bytes(b"\x89PNG\r\n\x1a\n" + chunks)


def tiff(path, content, bits, *, photometric=1, sample_format=1):
    """Writes grey levels 16×16 of any kind: black is zero with `photometric` 1, white with 0."""
    tags = [(256, 16), (257, 16), (258, bits), (259, 1), (262, photometric), (273, 8 + 2 + 120 + 4),
            (277, 1), (278, 16), (279, len(content)), (339, sample_format)]  # fmt: skip
    entries = b"".join(struct.pack("<HHII", tag, 4, 1, value) for tag, value in tags)
    start = b"II" + struct.pack("<HIH", 42, 8, len(tags))
    path.write_bytes(start + entries + bytes(4) + content)


def twelve_bits(values):
    """Packs pairs of numbers into three bytes, the upper bits first."""
    first, second = values.ravel()[::2], values.ravel()[1::2]
    packed = first >> 4, (first & 15) << 4 | second >> 8, second & 255
    return np.stack(packed, -1).astype(np.uint8).tobytes()


# --- what the format says ------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("suffix", "dtype"), [("png", "<u2"), ("tif", "<u2"), ("tif", ">u2"), ("tif", "<i4")]
)
def test_16_bits_keep_the_upper_eight(tmp_path, suffix, dtype):
    Image.fromarray((RAMP * 256 + 99).astype(dtype)).save(tmp_path / f"a.{suffix}")
    np.testing.assert_array_equal(read_image(tmp_path / f"a.{suffix}")[..., 0], RAMP)


def test_colours_of_16_bits_keep_the_upper_eight(tmp_path):
    colours = np.stack([RAMP, RAMP[::-1], RAMP.T], -1)
    png_of_16_bits(tmp_path / "a.png", colours * 257)
    np.testing.assert_array_equal(read_image(tmp_path / "a.png"), colours)


def test_12_bits_of_tiff_are_scaled_from_4095(tmp_path):
    tiff(tmp_path / "a.tif", twelve_bits(RAMP * 16 + 15), 12)
    np.testing.assert_array_equal(read_image(tmp_path / "a.tif")[..., 0], RAMP)


@pytest.mark.parametrize(("dtype", "bits", "factor"), [(np.uint8, 8, 1), ("<u2", 16, 257)])
def test_tiff_whose_white_is_zero_is_inverted(tmp_path, dtype, bits, factor):
    tiff(tmp_path / "a.tif", (RAMP * factor).astype(dtype).tobytes(), bits, photometric=0)
    np.testing.assert_array_equal(read_image(tmp_path / "a.tif")[..., 0], 255 - RAMP)


@pytest.mark.parametrize("white", [255, 4095, 65535])
def test_pgm_is_scaled_by_its_own_white(tmp_path, white):
    values = (RAMP * (white / 255)).round().astype(">u2" if white > 255 else np.uint8)
    (tmp_path / "a.pgm").write_bytes(f"P5 16 16 {white}\n".encode() + values.tobytes())
    # Pillow rounds 4095 to 65535, of which the upper bits are kept.
    np.testing.assert_allclose(read_image(tmp_path / "a.pgm")[..., 0].astype(int), RAMP, atol=1)


def test_black_stays_black(tmp_path):
    for dtype in (np.uint16, np.int32):
        Image.fromarray(np.zeros((4, 4), dtype)).save(tmp_path / "a.tif")
        assert not read_image(tmp_path / "a.tif").any()


# --- what nobody can mean ------------------------------------------------------------------------


def colours(values, *, opaque=False):
    stacked = np.repeat(values[..., np.newaxis], 3, -1)
    if opaque:
        stacked = np.concatenate([stacked, np.full((16, 16, 1), 65535)], -1)
    return stacked


REFUSED = {
    "grey 0 to 255": (
        lambda path: Image.fromarray(RAMP.astype(np.uint16)).save(path),
        "png",
        "range of its 16 bits, 0 to 65535, got 0 to 255, which would all be black",
    ),
    "32 bits 0 to 255": (
        lambda path: Image.fromarray(RAMP.astype(np.int32)).save(path),
        "tif",
        "0 to 65535, got 0 to 255, which would all be black",
    ),
    "jpeg2000 0 to 255": (
        lambda path: Image.fromarray(RAMP.astype(np.uint16)).save(path),
        "jp2",
        "0 to 65535, got 0 to 255, which would all be black",
    ),
    "pgm 0 to 255": (
        lambda path: path.write_bytes(b"P5 16 16 65535\n" + RAMP.astype(">u2").tobytes()),
        "pgm",
        "0 to 65535, got 0 to 255, which would all be black",
    ),
    "ppm 0 to 255": (
        lambda path: path.write_bytes(b"P6 16 16 65535\n" + colours(RAMP).astype(">u2").tobytes()),
        "ppm",
        "got upper eight bits that are all 0",
    ),
    "colours 0 to 255": (
        lambda path: png_of_16_bits(path, colours(RAMP)),
        "png",
        "range of its 16 bits, got upper eight bits that are all 0",
    ),
    "opaque colours 0 to 255": (
        lambda path: png_of_16_bits(path, colours(RAMP, opaque=True)),
        "png",
        "range of its 16 bits, got upper eight bits that are all 0",
    ),
    "12 bits in 16": (
        lambda path: Image.fromarray((RAMP * 16).astype(np.uint16)).save(path),
        "png",
        "range of its bits, but has no pixel of a sixteenth of white or more: it would be nearly",
    ),
    "floats": (
        lambda path: Image.fromarray((RAMP / 255).astype(np.float32)).save(path),
        "tif",
        "whole numbers as pixels, got floating-point ones",
    ),
    "signed bytes": (
        lambda path: tiff(path, (RAMP - 128).astype(np.int8).tobytes(), 8, sample_format=2),
        "tif",
        "pixels from 0 to 255, got signed ones",
    ),
    "signed 16 bits": (
        lambda path: tiff(path, (RAMP - 128).astype("<i2").tobytes(), 16, sample_format=2),
        "tif",
        "pixels from 0 to 65535, got -128 to 127",
    ),
}


def folder_with(root, write, suffix):
    """Makes a set whose only picture that is not of 8 bits is the last."""
    for number, place in enumerate(("train/a/1", "train/b/1", "test/a/1", "test/b/2")):
        (root / place).parent.mkdir(parents=True)
        Image.fromarray(np.roll(RAMP, number).astype(np.uint8)).save(root / f"{place}.png")
    (root / "test/b/2.png").unlink()
    write(root / f"test/b/2.{suffix}")
    return root


@pytest.mark.parametrize("name", REFUSED)
@pytest.mark.parametrize(
    "call", [load, stream_folder, lambda root: read_image(next(root.glob("test/b/2.*")))]
)
def test_pictures_of_an_unknown_scale_are_refused(tmp_path, name, call):
    write, suffix, message = REFUSED[name]
    root = folder_with(tmp_path / "set", write, suffix)
    with pytest.raises(DataError, match=rf"2\.{suffix} must .*{message}.*{CONVERT}"):
        call(root)


@pytest.mark.parametrize("name", ["floats", "signed bytes"])
def test_the_header_shows_pictures_of_an_unknown_scale(tmp_path, name):
    write, suffix, message = REFUSED[name]
    root = folder_with(tmp_path / "set", write, suffix)
    with pytest.raises(DataError, match=message):
        stream_folder(root, check=False)


@pytest.mark.parametrize("call", [load, stream_folder])
def test_a_dark_picture_is_taken_beside_a_bright_one_of_as_many_bits(tmp_path, call):
    root = folder_with(tmp_path / "set", *REFUSED["12 bits in 16"][:2])
    Image.fromarray((RAMP * 257).astype(np.uint16)).save(root / "train/a/3.png")
    found = call(root)
    images = found.test.read(np.arange(2)) if call is stream_folder else found.test.images
    np.testing.assert_array_equal(images[1, ..., 0], RAMP >> 4)


def test_a_transparent_black_shape_of_16_bits_is_taken(tmp_path):
    shape = np.zeros((16, 16, 4), int)
    shape[..., 3] = RAMP * 257
    png_of_16_bits(tmp_path / "a.png", shape)
    np.testing.assert_array_equal(read_image(tmp_path / "a.png")[..., 0], 255 - RAMP)
