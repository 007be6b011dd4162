"""One picture file: recognised by its content, decoded, turned upright, flattened and resized."""

import operator
import os
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from jaxtyping import UInt8

from convjax._checks import describe_value
from convjax.data.dataset import DataError
from convjax.data.paths import expanded
from convjax.data.picture_files import FORMATS, check_pillow, opened, stored_bits
from convjax.data.picture_scale import (
    check_brightness,
    check_kind,
    check_upper_bits,
    grey_levels,
)

RESIZE_METHODS = ("crop", "squash")
_GREY_MODES = ("L", "1", "LA", "La")

# An image of 4096×4096. A file of a few kilobytes may unfold to thousands of times as many.
_MAX_PIXELS = 1 << 24
# Photographs are larger, and only one of them is in memory at a time where they are resized.
_MAX_RESIZED_PIXELS = 1 << 27

_ORIENTATION = 0x0112  # the tag of Exif


@dataclass(frozen=True)
class PictureOptions:
    """How pictures become arrays of one shape.

    Attributes:
      size: height and width; None keeps the size of the files, which must all have the same.
      method: "crop" scales the picture until it just covers the size and keeps its middle, "squash"
        scales height and width each by its own factor.
      background: red, green and blue of what shows through transparent pixels.
    """

    size: tuple[int, int] | None = None
    method: str = "crop"
    background: tuple[int, int, int] = (255, 255, 255)

    @property
    def grey_background(self) -> bool:
        """Whether a grey picture stays grey on this background."""
        return len(set(self.background)) == 1

    @property
    def max_pixels(self) -> int:
        """The most pixels that a file may declare."""
        return _MAX_PIXELS if self.size is None else _MAX_RESIZED_PIXELS


def picture_options(resize: Any, method: Any, background: Any) -> PictureOptions:
    """Returns the checked options of `convjax.data.load`.

    Raises:
      DataError: for another size, method or background than that function describes.
    """
    size = None
    if resize is not None:
        found = _whole_numbers(resize)
        if len(found) not in (1, 2) or min(found) < 1:
            raise DataError(
                "resize must be a whole number from 1 for squares, or a pair (height, width), got "
                f"{describe_value(resize)}. Pass resize=64, for example."
            )
        size = (found[0], found[-1])
    if method not in RESIZE_METHODS:
        raise DataError(
            f"resize_method must be one of {', '.join(RESIZE_METHODS)}, got "
            f"{describe_value(method)}. Choose one of them."
        )
    levels = _whole_numbers(background)
    if len(levels) not in (1, 3) or not 0 <= min(levels) <= max(levels) <= 255:
        raise DataError(
            "background must be a grey level from 0 to 255, or (red, green, blue) of such, got "
            f"{describe_value(background)}. Pass 255 for white, or 0 for black."
        )
    return PictureOptions(size, method, (levels[0], levels[len(levels) // 2], levels[-1]))


def _whole_numbers(value: Any) -> tuple[int, ...]:
    """Returns a whole number or several as a tuple; (-1,), which no rule admits, for others."""
    try:
        return tuple(map(operator.index, value if isinstance(value, tuple | list) else (value,)))
    except TypeError:
        return (-1,)


def read_image(
    path: str | os.PathLike[str],
    *,
    resize: int | Sequence[int] | None = None,
    resize_method: str = "crop",
    background: int | Sequence[int] = 255,
) -> UInt8[np.ndarray, "H W C"]:
    """Returns the pixels of a picture of one's own, as `convjax.data.load` reads it.

    Args:
      path: of any format that Pillow knows.
      resize, resize_method, background: as for `load`.

    Raises:
      DataError: if it cannot be read, or an argument breaks its rule.

    Examples:
      >>> import convjax, numpy as np, tempfile
      >>> from PIL import Image
      >>> file = tempfile.NamedTemporaryFile(suffix=".png")
      >>> Image.fromarray(np.zeros((40, 30), np.uint8)).save(file.name)
      >>> convjax.data.read_image(file.name, resize=28).shape
      (28, 28, 1)
    """
    path = expanded(path)
    check_pillow(path)
    pixels = read_picture(path, picture_options(resize, resize_method, background))
    check_brightness([path], [int(pixels.max())])
    return pixels


def read_picture(
    path: Path,
    options: PictureOptions,
    first: Path | None = None,
    size: tuple[int, int] | None = None,
) -> UInt8[np.ndarray, "H W C"]:
    """Returns the pixels of a picture, with one channel or three.

    Of a file with several frames or pages it is the first. An orientation in Exif data is applied.

    Args:
      path: the picture.
      options: what to make of it.
      first: the picture whose size this one must have, for messages.
      size: height and width of `first`; None if they are not yet known.

    Raises:
      DataError: if the picture cannot be decoded, is too large, or has another size.
    """
    from PIL import Image

    try:
        with opened(path, checksums=True) as image:
            check_kind(path, image)
            bits = stored_bits(image)  # before anything is decoded
            _check_size(path, _upright_size(path, image, options), options, first, size)
            pixels = _upright(_flattened(path, image, bits, options), _orientation(image))
            return np.ascontiguousarray(pixels if options.size is None else _fit(pixels, options))
    except (DataError, MemoryError):
        raise
    except Image.DecompressionBombError as error:  # raised before `_check_size` is called
        raise DataError(f"{path} is too large an image ({error}). Resize it.") from error
    # Decoders of damaged files raise many kinds of errors, even SyntaxError.
    except Exception as error:
        raise _undecodable(path, error) from error


def picture_shape(
    path: Path,
    options: PictureOptions,
    first: Path | None = None,
    size: tuple[int, int] | None = None,
) -> tuple[int, int, int]:
    """Returns the shape that `read_picture` would give, from the file's header alone.

    Raises:
      DataError: as that function, where the header shows it.
    """
    from PIL import Image

    try:
        with opened(path, checksums=False) as image:
            check_kind(path, image)
            found = _upright_size(path, image, options)
            _check_size(path, found, options, first, size)
            return *(options.size or found), 1 if _stays_grey(image, options) else 3
    except DataError:
        raise
    except Image.DecompressionBombError as error:
        raise DataError(f"{path} is too large an image ({error}). Resize it.") from error
    except Exception as error:  # many kinds, as in `read_picture`
        raise _undecodable(path, error) from error


def _stays_grey(image: Any, options: PictureOptions) -> bool:
    if image.mode not in _GREY_MODES and not image.mode.startswith("I"):
        return False
    return options.grey_background or not image.has_transparency_data


def _flattened(
    path: Path, image: Any, bits: int, options: PictureOptions
) -> UInt8[np.ndarray, "H W C"]:
    """Returns the pixels as stored, with transparent ones on the background."""
    deep = image.mode.startswith("I")
    kind = "L" if deep or image.mode in _GREY_MODES else "RGB"
    background: Any = options.background
    if kind == "L" and options.grey_background:
        background = background[:1]
    if deep:
        values = np.asarray(image).astype(np.int64)
        levels = grey_levels(path, image, bits, values)[..., np.newaxis]
        if not image.has_transparency_data:
            return levels
        transparent = (values == image.info["transparency"])[..., np.newaxis]
        return np.where(transparent, np.array(background, np.uint8), levels)
    check_upper_bits(path, image, bits)
    if not image.has_transparency_data:
        pixels = np.asarray(image.convert(kind))
        return pixels[..., np.newaxis] if kind == "L" else pixels
    # Palettes and single transparent colours get their alpha here.
    pixels = np.asarray(image.convert("LA" if kind == "L" else "RGBA"))
    opacity = pixels[..., -1:].astype(np.uint16)
    above, below = pixels[..., :-1] * opacity, np.array(background, np.uint16) * (255 - opacity)
    return ((above + below + 127) // 255).astype(np.uint8)  # at most 255² + 127, below 2^16


def _orientation(image: Any) -> int:
    """Returns the orientation of Exif, 1 to 8; 1 where there is none that can be read."""
    try:
        found = image.getexif().get(_ORIENTATION, 1)
    except Exception:  # damaged metadata, of which Pillow otherwise warns
        return 1
    return found if found in range(1, 9) else 1


def _upright_size(path: Path, image: Any, options: PictureOptions) -> tuple[int, int]:
    """Returns height and width after `_upright`."""
    if image.format == "TIFF":
        # Pillow turns these itself, when they are decoded.
        _check_pixels(path, image.height, image.width, options)
        image.load()
    if _orientation(image) >= 5:  # those that exchange rows and columns
        return image.width, image.height
    return image.height, image.width


def _upright(pixels: np.ndarray, orientation: int) -> np.ndarray:
    """Undoes the orientation: where the first row and the first column of the file belong."""
    if orientation >= 5:
        pixels = pixels.swapaxes(0, 1)
    down = orientation in (3, 4, 7, 8)
    right = orientation in (2, 3, 6, 7)
    return pixels[:: -1 if down else 1, :: -1 if right else 1]


def _fit(pixels: np.ndarray, options: PictureOptions) -> np.ndarray:
    """Returns resized pixels: bilinear, over the whole area of a smaller pixel."""
    from PIL import Image, ImageOps

    assert options.size is not None
    height, width = options.size
    if pixels.shape[:2] == options.size:
        return pixels
    grey = pixels.shape[2] == 1
    image = Image.fromarray(np.ascontiguousarray(pixels[..., 0] if grey else pixels))
    if options.method == "crop":
        image = ImageOps.fit(image, (width, height), Image.Resampling.BILINEAR)
    else:
        image = image.resize((width, height), Image.Resampling.BILINEAR)
    found = np.asarray(image)
    return found[..., np.newaxis] if grey else found


def _undecodable(path: Path, error: Exception) -> DataError:
    return DataError(
        f"{path} cannot be decoded ({type(error).__name__}: {error}). Replace it with a readable "
        f"picture ({', '.join(FORMATS)}), or remove the file."
    )


def _check_size(
    path: Path,
    found: tuple[int, int],
    options: PictureOptions,
    first: Path | None,
    size: tuple[int, int] | None,
) -> None:
    """Checks the height and width that a file declares, before anything is decoded.

    Raises:
      DataError: if they are too large, or differ from `size`, those of `first`.
    """
    height, width = found
    _check_pixels(path, height, width, options)
    if options.size is None and size is not None and found != size:
        raise DataError(
            f"{path} must be {size[0]}×{size[1]} (height×width) like {first}, got "
            f"{height}×{width}. Resize it, or pass resize= to load all at one size."
        )


def _check_pixels(path: Path, height: int, width: int, options: PictureOptions) -> None:
    if height * width > options.max_pixels:
        raise DataError(
            f"{path} must have at most {options.max_pixels} pixels, got {height}×{width} "
            f"(height×width). {'Resize it.' if options.size else 'Pass resize=, or resize it.'}"
        )
