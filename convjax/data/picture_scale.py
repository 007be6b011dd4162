"""The scale of pixels with more than eight bits: what they are in 0 to 255, if that is known."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from jaxtyping import Integer, UInt8

from convjax.data.dataset import DataError
from convjax.data.picture_files import opened, stored_bits

# Below a sixteenth of white: 12 bits in files of 16 bits.
_DARK = 16

# Tags of TIFF.
_PHOTOMETRIC, _SAMPLE_FORMAT = 262, 339
_WHITE_IS_ZERO, _SIGNED = 0, 2

_CONVERT = (
    "Save it with 8 bits per channel: Image.fromarray(np.uint8(pixels * 255 / white)), where white "
    "is the largest value that a pixel can have."
)


def check_kind(path: Path, image: Any) -> None:
    """Checks that the numbers of a picture have a scale, from its header.

    Raises:
      DataError: for floating-point and for signed numbers of 8 bits, which Pillow takes for
        unsigned.
    """
    if image.mode == "F":
        raise DataError(
            f"{path} must have whole numbers as pixels, got floating-point ones. {_CONVERT}"
        )
    if (
        image.format == "TIFF"
        and image.mode == "L"
        and _SIGNED in image.tag_v2.get(_SAMPLE_FORMAT, ())
    ):
        raise DataError(f"{path} must have pixels from 0 to 255, got signed ones. {_CONVERT}")


def grey_levels(
    path: Path, image: Any, bits: int, values: Integer[np.ndarray, "H W"]
) -> UInt8[np.ndarray, "H W"]:
    """Returns values of up to 16 bits as grey levels: the upper eight bits.

    Pillow's own conversion clips 16 bits at 255 instead of scaling them.

    Raises:
      DataError: for values that do not fit 16 bits, and for those that would all become black.
    """
    lowest, highest = values.min(), values.max()
    if lowest < 0 or highest > 0xFFFF:
        raise DataError(
            f"{path} must have pixels from 0 to 65535, got {lowest} to {highest}. {_CONVERT}"
        )
    bits = 12 if bits == 12 else 16  # numbers of 32 bits are taken for those of 16
    levels = (values >> (bits - 8)).astype(np.uint8)
    if highest and not levels.any():
        raise DataError(
            f"{path} must use the range of its {bits} bits, 0 to {2**bits - 1}, got {lowest} to "
            f"{highest}, which would all be black. {_CONVERT}"
        )
    if image.format == "TIFF" and image.tag_v2.get(_PHOTOMETRIC) == _WHITE_IS_ZERO:
        levels = 255 - levels  # Pillow inverts eight bits only
    return levels


def check_upper_bits(path: Path, image: Any, bits: int) -> None:
    """Checks that something is left of a decoded colour picture, of which Pillow keeps 8 bits.

    Args:
      path: for messages.
      image: decoded.
      bits: as stored in its file.

    Raises:
      DataError: if the file has more bits, and the upper eight are 0 in all colours.
    """
    if bits <= 8:
        return
    colours = np.asarray(image)
    if image.mode == "RGBA" and np.ptp(colours[..., 3]) > 0:
        return  # black of some transparency is a shape
    if image.mode == "RGBA":
        colours = colours[..., :3]
    # Of PPM, Pillow rounds to the nearest level, which for 255 of 65535 is 1.
    if colours.max() <= (image.format == "PPM"):
        raise DataError(
            f"{path} must use the range of its {bits} bits, got upper eight bits that are all 0: "
            f"values up to 255 would all be black. {_CONVERT}"
        )


def check_brightness(paths: Sequence[Path], highest: Sequence[int]) -> None:
    """Checks that the files of more than eight bits in a set use them.

    A single dark picture is taken as it is where another of more than eight bits is not dark.

    Args:
      paths: of the pictures.
      highest: the highest level of each, as decoded.

    Raises:
      DataError: if all such files stay below a sixteenth of white, as with 12 bits in 16.
    """

    def deep(path: Path) -> bool:
        with opened(path, checksums=False) as image:
            return stored_bits(image) > 8

    pairs = list(zip(paths, highest, strict=True))
    dark = [path for path, level in pairs if 0 < level < _DARK and deep(path)]
    if dark and not any(level >= _DARK and deep(path) for path, level in pairs):
        more = f", nor do {len(dark) - 1} more files" * (len(dark) > 1)
        raise DataError(
            f"{dark[0]} must use the range of its bits, but has no pixel of a sixteenth of white "
            f"or more{more}: it would be nearly black. {_CONVERT} For 12 bits in 16 it is 4095."
        )
