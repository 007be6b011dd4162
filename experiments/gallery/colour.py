"""The gallery's pictures of colour: the channels of a photograph, and a kernel on them."""

import numpy as np

from convjax.chapter.chapter_data import TOP_EDGE
from convjax.ops import reference
from convjax.plots import chapter
from convjax.stats.record import Array
from experiments.gallery.page import Picture, signed

# Red responds to dark above bright, green to the same in one column, blue to the opposite.
COLOUR_KERNEL = np.array([TOP_EDGE, [[0, -1, 0], [0, 0, 0], [0, 1, 0]], -TOP_EDGE])
COLOUR_BIAS = 10
ROOF = slice(40, 112), slice(140, 248)  # rows and columns of part of the roof in the photograph
TILES = (100, 200)  # a pixel on the roof


def photograph() -> Array:
    """Returns the photograph of a pagoda in scikit-learn, uint8 (427, 640, 3).

    Raises:
      ImportError: if scikit-learn is not installed.
    """
    try:
        from sklearn.datasets import load_sample_image
    except ImportError as error:
        raise ImportError(
            "scikit-learn must be installed, because it contains the photograph. Run: "
            'pip install "convjax[experiments]"'
        ) from error
    return np.asarray(load_sample_image("china.jpg"))


def colour_pictures() -> list[Picture]:
    """Returns the channels of a photograph, and a colour kernel on a part of it."""
    photo = photograph()
    roof = photo[ROOF]
    planes = roof.transpose(2, 0, 1).astype(int)
    pairs = zip(planes, COLOUR_KERNEL, strict=True)
    maps = [reference.kernel_map(plane, layer) for plane, layer in pairs]
    total = np.sum(maps, axis=0) + COLOUR_BIAS
    # Where the response is largest. The map begins at the centre (1, 1).
    row, column = (int(i) + 1 for i in np.unravel_index(np.argmax(total), total.shape))
    red, green, blue = photo[TILES]
    return [
        Picture(
            "Three channels",
            chapter.colour_channels(photo, TILES),
            "A photograph of a pagoda, and its red, green and blue channels.",
            "A colour image has three numbers per pixel. The orange tile at the mark has "
            f"({red}, {green}, {blue}); the sky is bright in all channels, most of all in blue. "
            "Photograph: danielbuechele, CC BY 2.0, as scikit-learn ships it.",
        ),
        Picture(
            "A kernel with three layers",
            chapter.colour_kernel(roof, COLOUR_KERNEL, COLOUR_BIAS, (row, column)),
            "Part of the roof in three channels, each with its own weights and its own map, and "
            "the sum of the three maps with the bias.",
            "A kernel has a layer for each channel. The three results and one bias are added: "
            "yR + yG + yB + b. This kernel was made by hand. It responds to places below which red "
            "increases and blue does not. The mark shows its largest result, "
            f"{signed(total.max())}, computed in whole numbers. The map of the sum keeps edges of "
            "the roof between different colours; where all channels change alike, red and blue "
            "cancel.",
            (12, 13),
        ),
    ]
