"""Decoding of single pictures: orientation, transparency, palettes, formats and sizes."""

import warnings

import numpy as np
import pytest

from convjax.data import DataError
from convjax.data.picture_files import FORMATS, SUFFIXES
from convjax.data.pictures import (
    PictureOptions,
    picture_options,
    picture_shape,
    read_picture,
)

Image = pytest.importorskip("PIL.Image", reason="Pillow is not installed")
ImageOps = pytest.importorskip("PIL.ImageOps")

BLACK = PictureOptions(background=(0, 0, 0))
TINTED = PictureOptions(background=(10, 20, 30))


def pixels(*shape, seed=0):
    return np.random.default_rng(seed).integers(0, 256, shape, np.uint8)


def read(path, options=PictureOptions()):  # noqa: B008
    """Reads a picture without a warning; the header must tell its shape."""
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        found = read_picture(path, options)
        assert picture_shape(path, options) == found.shape
    assert found.dtype == np.uint8
    assert found.flags.c_contiguous
    return found


# --- orientation ---------------------------------------------------------------------------------

# The letters a b c / d e f as cameras store them for each orientation: 1 upright, 6 turned so that
# the camera's right side is up.
STORED = {
    1: ["abc", "def"], 2: ["cba", "fed"], 3: ["fed", "cba"], 4: ["def", "abc"],
    5: ["ad", "be", "cf"], 6: ["cf", "be", "ad"], 7: ["fc", "eb", "da"], 8: ["da", "eb", "fc"],
}  # fmt: skip


@pytest.mark.parametrize("orientation", STORED)
@pytest.mark.parametrize("suffix", ["png", "tif", "webp"])
def test_read_picture_turns_pictures_upright(tmp_path, orientation, suffix):
    stored = np.array([[ord(letter) for letter in row] for row in STORED[orientation]], np.uint8)
    exif = Image.Exif()
    exif[0x0112] = orientation
    path = tmp_path / f"turned.{suffix}"
    lossless = {"lossless": True} if suffix == "webp" else {}
    image = Image.fromarray(stored)
    image.convert("RGB" if lossless else "L").save(path, exif=exif, **lossless)
    letters = ["".join(map(chr, row)) for row in read(path)[..., 0]]
    assert letters == ["abc", "def"]


@pytest.mark.parametrize("orientation", range(1, 9))
def test_read_picture_turns_as_pillow_does(tmp_path, orientation):
    path = tmp_path / "photograph.jpg"
    exif = Image.Exif()
    exif[0x0112] = orientation
    Image.fromarray(pixels(16, 24, 3)).save(path, exif=exif)
    expected = np.asarray(ImageOps.exif_transpose(Image.open(path)))
    np.testing.assert_array_equal(read(path), expected)


@pytest.mark.parametrize("value", [0, 9, 77])
def test_read_picture_ignores_an_orientation_without_meaning(tmp_path, value):
    exif = Image.Exif()
    exif[0x0112] = value
    Image.fromarray(pixels(4, 5)).save(tmp_path / "a.png", exif=exif)
    np.testing.assert_array_equal(read(tmp_path / "a.png")[..., 0], pixels(4, 5))


# --- transparency --------------------------------------------------------------------------------


def composed(colours, opacity, background):
    """The definition, in exact fractions rounded to the nearest, halves downwards."""
    exact = colours.astype(int) * opacity + np.array(background) * (255 - opacity.astype(int))
    return (exact + 127) // 255


@pytest.mark.parametrize("options", [PictureOptions(), BLACK, TINTED])
@pytest.mark.parametrize("mode", ["LA", "RGBA"])
@pytest.mark.parametrize("suffix", ["png", "tif"])
def test_read_picture_composes_over_the_background(tmp_path, options, mode, suffix):
    stored = pixels(6, 7, len(mode))
    path = tmp_path / f"transparent.{suffix}"
    Image.fromarray(stored).save(path)
    found = read(path, options)
    background = options.background
    if mode == "LA" and options is not TINTED:
        background = background[:1]
    np.testing.assert_array_equal(found, composed(stored[..., :-1], stored[..., -1:], background))


@pytest.mark.parametrize("mode", ["RGBA", "LA"])
def test_read_picture_of_black_on_transparent_is_not_all_black(tmp_path, mode):
    stored = np.zeros((4, 5, len(mode)), np.uint8)
    stored[1, 2, -1] = 255
    Image.fromarray(stored).save(tmp_path / "a.png")
    found = read(tmp_path / "a.png")[..., 0]
    assert found[1, 2] == 0
    assert found.sum() == 255 * 19


@pytest.mark.parametrize("suffix", ["png", "gif"])
def test_read_picture_of_a_palette(tmp_path, suffix):
    image = Image.fromarray(np.array([[0, 1], [2, 1]], np.uint8), "P")
    image.putpalette([255, 0, 0, 0, 255, 0, 1, 2, 3])
    image.save(tmp_path / f"opaque.{suffix}")
    assert read(tmp_path / f"opaque.{suffix}").tolist() == [
        [[255, 0, 0], [0, 255, 0]],
        [[1, 2, 3], [0, 255, 0]],
    ]
    image.save(tmp_path / f"transparent.{suffix}", transparency=1)
    assert read(tmp_path / f"transparent.{suffix}", TINTED)[:, 1].tolist() == [[10, 20, 30]] * 2


@pytest.mark.parametrize(
    ("stored", "transparency"),
    [
        (np.array([[5, 9]], np.uint8), 9),
        (np.array([[5, 9]], np.uint16) << 8, 9 << 8),
        (np.array([[[5, 5, 5], [9, 9, 9]]], np.uint8), (9, 9, 9)),
    ],
)
def test_read_picture_of_a_single_transparent_colour(tmp_path, stored, transparency):
    Image.fromarray(stored).save(tmp_path / "a.png", transparency=transparency)
    assert read(tmp_path / "a.png")[0, :, 0].tolist() == [5, 255]
    assert read(tmp_path / "a.png", TINTED)[0].tolist() == [[5, 5, 5], [10, 20, 30]]


# --- formats -------------------------------------------------------------------------------------


@pytest.mark.parametrize("suffix", SUFFIXES)
def test_read_picture_reads_every_suffix(tmp_path, suffix):
    grey = suffix in (".pgm", ".pbm")
    image = Image.new("L" if grey else "RGB", (16, 12), 255 if grey else (250, 128, 4))
    if suffix == ".pbm":
        image = image.convert("1")
    path = tmp_path / f"a{suffix}"
    try:
        image.save(path, {".apng": "PNG", ".pnm": "PPM"}.get(suffix))
    except (KeyError, OSError) as error:
        pytest.skip(f"this Pillow does not write it: {error}")
    with Image.open(path) as opened:
        assert opened.format in (*FORMATS, "MPO")
    expected = 255 if grey else (250, 128, 4)
    np.testing.assert_allclose(read(path).astype(int), np.broadcast_to(expected, read(path).shape),
                               atol=4)  # of lossy formats  # fmt: skip


def test_read_picture_takes_the_first_frame(tmp_path):
    frames = [Image.new("RGB", (4, 4), colour) for colour in ("red", "blue")]
    for suffix in ("gif", "webp", "tif"):
        path = tmp_path / f"a.{suffix}"
        lossless = {"lossless": True} if suffix == "webp" else {}
        frames[0].save(path, save_all=True, append_images=frames[1:], **lossless)
        assert read(path)[0, 0].tolist() == [255, 0, 0]


def test_read_picture_converts_cmyk(tmp_path):
    Image.new("CMYK", (4, 4), (0, 255, 255, 0)).save(tmp_path / "a.tif")
    assert read(tmp_path / "a.tif")[0, 0].tolist() == [255, 0, 0]


@pytest.mark.parametrize(
    ("stored", "message"),
    [
        (np.ones((2, 2), np.float32), "whole numbers as pixels, got floating-point"),
        (np.full((2, 2), 1 << 20, np.int32), "pixels from 0 to 65535, got 1048576 to 1048576"),
    ],
)
def test_read_picture_rejects_pixels_without_a_scale(tmp_path, stored, message):
    Image.fromarray(stored).save(tmp_path / "a.tif")
    with pytest.raises(DataError, match=rf"a\.tif must .*{message}.*8 "):
        read_picture(tmp_path / "a.tif", PictureOptions())


# --- sizes ---------------------------------------------------------------------------------------


def test_read_picture_crops_the_middle(tmp_path):
    # Columns 0 to 5 of 4 rows: the square in the middle has columns 1 to 4.
    stored = np.tile(np.arange(6, dtype=np.uint8) * 10, (4, 1))
    for name, picture in (("wide", stored), ("tall", stored.T)):
        Image.fromarray(np.ascontiguousarray(picture)).save(tmp_path / f"{name}.png")
        found = read(tmp_path / f"{name}.png", picture_options(4, "crop", 0))[..., 0]
        assert (found if name == "wide" else found.T)[0].tolist() == [10, 20, 30, 40]


def test_read_picture_squashes(tmp_path):
    stored = np.tile(np.array([0, 0, 100, 100], np.uint8), (2, 1))
    Image.fromarray(stored).save(tmp_path / "a.png")
    # Squashed, the left half is black. The middle two columns are one black, one not.
    squashed = read(tmp_path / "a.png", picture_options(2, "squash", 0))[..., 0]
    assert squashed[0, 0] < 20
    assert squashed[0, 1] > 80
    whole = read(tmp_path / "a.png", picture_options((2, 4), "squash", 0))[..., 0]
    np.testing.assert_array_equal(whole, stored)


@pytest.mark.parametrize("method", ["crop", "squash"])
@pytest.mark.parametrize("shape", [(40, 60), (60, 40, 3), (7, 9, 3), (30, 30)])
def test_read_picture_resizes_about_as_the_mean_over_areas(tmp_path, method, shape):
    Image.fromarray(pixels(*shape)).save(tmp_path / "a.png")
    for size in (8, (5, 11), 64):
        found = read(tmp_path / "a.png", picture_options(size, method, 0))
        height, width = (size, size) if isinstance(size, int) else size
        assert found.shape == (height, width, shape[2] if len(shape) == 3 else 1)
        # A picture of noise keeps its mean under any average; 127 ± 74/sqrt(number of pixels).
        assert found.mean() == pytest.approx(127, abs=4 * 74 / np.sqrt(np.prod(shape) / 2))


def test_read_picture_resizes_what_is_upright_and_composed(tmp_path):
    exif = Image.Exif()
    exif[0x0112] = 6
    Image.new("RGBA", (40, 20), (0, 0, 0, 0)).save(tmp_path / "a.png", exif=exif)
    found = read(tmp_path / "a.png", PictureOptions((4, 2), "crop", (9, 9, 9)))
    np.testing.assert_array_equal(found, np.full((4, 2, 3), 9))


def test_read_picture_takes_larger_pictures_only_where_it_resizes(tmp_path):
    Image.new("1", (4096, 4097)).save(tmp_path / "a.png")
    with pytest.raises(DataError, match=r"at most 16777216 pixels, got 4097×4096 .*Pass resize="):
        read_picture(tmp_path / "a.png", PictureOptions())
    assert read(tmp_path / "a.png", picture_options(32, "crop", 0)).shape == (32, 32, 1)
    Image.new("1", (32, 4096)).save(tmp_path / "a.png")
    with pytest.raises(DataError, match=r"must be 4×4 .* like .*b\.png, got 4096×32.*pass resize="):
        read_picture(tmp_path / "a.png", PictureOptions(), tmp_path / "b.png", (4, 4))
