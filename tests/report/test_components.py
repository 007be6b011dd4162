"""The parts of pages: images, names, arrays and lines."""

import base64
import re
from io import BytesIO
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image

from convjax.report import components
from convjax.report.named_run import short_names
from convjax.report.predictions import data_url
from convjax.report.typed_arrays import TypedArrays


@pytest.mark.parametrize("channels", [1, 2, 3])
def test_data_url_is_the_image(channels):
    image = np.random.default_rng(0).integers(0, 256, (5, 4, channels), np.uint8)
    start, _, data = data_url(image).partition(",")
    assert start == "data:image/png;base64"
    with Image.open(BytesIO(base64.b64decode(data))) as picture:
        found = np.asarray(picture)
    np.testing.assert_array_equal(found, image if channels == 3 else image[..., 0])


def test_short_names_tell_folders_apart():
    paths = [Path("/a/x/one/seed-0"), Path("/a/y/one/seed-0"), Path("/a/y/two/seed-0")]
    assert short_names(paths) == ["x/one/seed-0", "y/one/seed-0", "y/two/seed-0"]
    assert short_names(paths[1:]) == ["one/seed-0", "two/seed-0"]
    assert short_names([paths[0]] * 2) == ["one/seed-0"] * 2


@given(st.lists(st.lists(st.sampled_from("ab"), min_size=1, max_size=4), min_size=1, max_size=6))
def test_short_names_are_equal_for_the_same_folder_only(parts):
    paths = [Path("/", *of) for of in parts]
    names = short_names(paths)
    assert len(set(names)) == len(set(paths))
    assert all(str(path).endswith(name) for path, name in zip(paths, names, strict=True))


@given(st.lists(st.one_of(st.integers(), st.floats(width=32)), max_size=5))
def test_typed_arrays_keep_their_numbers(values):
    for dtype in (np.float32, np.float64, None):
        given_values = np.array(values, dtype or object)
        if dtype is None:
            given_values = np.array([int(v) for v in values if v == v and abs(v) < 2**52], np.int64)
        with np.errstate(over="ignore"):
            arrays = TypedArrays()
            first, second = arrays.add(given_values), arrays.add(given_values.copy())
        assert first == second == {"array": 0}
        (plain,) = arrays.plain()
        found = np.frombuffer(base64.b64decode(plain["data"]), "<" + plain["type"])
        np.testing.assert_array_equal(found.reshape(plain["shape"]), given_values)


def luminance(colour):
    """WCAG's relative luminance of #rrggbb."""
    share = np.frombuffer(bytes.fromhex(colour[1:]), np.uint8) / 255
    linear = np.where(share <= 0.04045, share / 12.92, ((share + 0.055) / 1.055) ** 2.4)
    return float(linear @ [0.2126, 0.7152, 0.0722])


@pytest.mark.parametrize("lines", [components.distinct_lines, components.ordered_lines])
def test_lines_are_visible_on_both_backgrounds(lines):
    names = [f"{i}" for i in range(33)]
    found = lines(names)
    assert [line.name for line in found] == names
    assert len({(line.colour, line.dash) for line in found}) >= 32
    for line in found:
        for colour, ground in zip(
            re.findall("#[0-9a-f]{6}", line.colour), ("#ffffff", "#16181c"), strict=True
        ):
            dark, light = sorted((luminance(colour), luminance(ground)))
            # WCAG 2.1, level AA, for graphics.
            assert (light + 0.05) / (dark + 0.05) > 3, line
