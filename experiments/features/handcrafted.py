"""Handcrafted features, as before deep learning: edges, blobs, textures, gradient histograms.

Sobel, Laplacian and Gabor filters are convolutions like the chapter's edge kernels, with designed
weights; their responses are averaged over cells of 4×4 pixels. They read grey images, and the luma
of images in colour. HOG, the histograms of oriented gradients, is scikit-image's; at each pixel it
takes the channel with the steepest gradient.

References:
  Dalal and Triggs 2005, https://doi.org/10.1109/CVPR.2005.177 (HOG).
"""

from collections.abc import Callable, Sequence

import jax
import jax.numpy as jnp
import numpy as np
import numpy.typing as npt
from jaxtyping import Array, Float, Float32

from convjax import conv2d
from convjax.chapter.colour_encodings import Pixels, luma

Features = Float32[np.ndarray, "N D"]

CELL = 4  # pixels a side

SOBEL = np.array([[-1, 0, 1], [-2, 0, 2], [-1, 0, 1]])
LAPLACIAN = np.array([[0, 1, 0], [1, -4, 1], [0, 1, 0]])

# Gabor filters: four directions and two wavelengths in pixels. The wave fades within about one
# wavelength, and the longer one still fits in 9×9 pixels.
DIRECTIONS, WAVELENGTHS, GABOR_SIDE = 4, (3.0, 6.0), 9

# Number of images filtered at a time: 16 maps of each take 25 MB.
AT_ONCE = 500


def gabor_pairs() -> Float[np.ndarray, "2 8 9 9"]:
    """Returns cosine and sine waves under a Gaussian, (2, 8, 9, 9), of length 1 and mean 0."""
    rows, columns = np.mgrid[:GABOR_SIDE, :GABOR_SIDE] - GABOR_SIDE // 2
    pairs = []
    for wavelength in WAVELENGTHS:
        window = np.exp(-(rows**2 + columns**2) / (2 * (wavelength / 2) ** 2))
        for turn in range(DIRECTIONS):
            angle = np.pi * turn / DIRECTIONS
            phase = 2 * np.pi * (columns * np.cos(angle) + rows * np.sin(angle)) / wavelength
            even = window * np.cos(phase)
            # Without its mean, so that constant brightness gives no response.
            even -= window * even.sum() / window.sum()
            pairs.append([wave / np.linalg.norm(wave) for wave in (even, window * np.sin(phase))])
    return np.array(pairs).swapaxes(0, 1)


def filtered(
    images: Float[Array | np.ndarray, "N H W"], kernels: npt.ArrayLike
) -> Float[Array, "N H W K"]:
    """Returns the response of each kernel at each pixel, (N, H, W, kernels).

    The border pixels are repeated beyond the border, where zeros would form an edge.

    Args:
      images: (N, H, W).
      kernels: (kernels, side, side), with an odd side.
    """
    weights = jnp.asarray(kernels, jnp.float32).transpose(1, 2, 0)[:, :, jnp.newaxis]
    margin = weights.shape[0] // 2
    padded = jnp.pad(images, ((0, 0), (margin, margin), (margin, margin)), mode="edge")
    # On CPU "lax" compiles ten times faster than patches times matrix, and runs as fast.
    return conv2d(padded[..., jnp.newaxis], weights, method="lax")


def pooled(maps: Float[Array | np.ndarray, "N H W C"]) -> Float[Array, "N D"]:
    """Returns the averages over cells of 4×4 pixels, (N, H//4 · W//4 · C).

    Rows and columns that do not fill a cell are omitted.
    """
    count, height, width, channels = maps.shape
    rows, columns = height // CELL, width // CELL
    inside = jnp.asarray(maps)[:, : rows * CELL, : columns * CELL]
    cells = inside.reshape(count, rows, CELL, columns, CELL, channels)
    return cells.mean((2, 4)).reshape(count, -1)


def both_signs(maps: Float[Array | np.ndarray, "N H W C"]) -> Float[Array, "N H W C2"]:
    """Returns the positive parts, then those of the negated maps: a mean would cancel the signs."""
    return jnp.concatenate([jnp.maximum(maps, 0), jnp.maximum(-maps, 0)], -1)


def sobel(images: Float[Array, "N H W"]) -> Float[Array, "N D"]:
    """Returns the strength of edges, by sign, in horizontal and vertical direction."""
    return pooled(both_signs(filtered(images, np.stack([SOBEL, SOBEL.T]))))


def laplacian(images: Float[Array, "N H W"]) -> Float[Array, "N D"]:
    """Returns the strength of spots that are darker or brighter than their surroundings."""
    return pooled(both_signs(filtered(images, LAPLACIAN[np.newaxis])))


def gabor(images: Float[Array, "N H W"]) -> Float[Array, "N D"]:
    """Returns the amplitude of each wave, whatever its phase."""
    even, odd = gabor_pairs()
    return pooled(jnp.hypot(filtered(images, even), filtered(images, odd)))


def hog(images: Pixels) -> Features:
    """Returns histograms of nine directions in cells of 4×4 pixels, normalised over 2×2 cells."""
    from skimage.feature import hog as histograms

    grey = images.shape[-1] == 1
    return np.stack(
        [
            histograms(
                image[..., 0] if grey else image,
                orientations=9,
                pixels_per_cell=(CELL, CELL),
                cells_per_block=(2, 2),
                channel_axis=None if grey else -1,
            )
            for image in images / np.float32(255)
        ]
    ).astype(np.float32)


def pixels(images: Pixels) -> Features:
    """Returns the pixels of all channels, for comparison."""
    return np.divide(images.reshape(len(images), -1), 255, dtype=np.float32)


def _by_filter(
    features: Callable[[jax.Array], jax.Array],
) -> Callable[[Pixels], Features]:
    """Returns the function of uint8 images (N, H, W, C) for one of grey images (N, H, W)."""
    compiled = jax.jit(features)

    def of_images(images: Pixels) -> Features:
        def grey(part: Pixels) -> Float32[np.ndarray, "N H W"]:
            one = part[..., 0] if part.shape[-1] == 1 else luma(part)
            return np.divide(one, 255, dtype=np.float32)

        parts: Sequence[int] = range(0, len(images), AT_ONCE)
        return np.concatenate([np.asarray(compiled(grey(images[i : i + AT_ONCE]))) for i in parts])

    return of_images


# Each function maps uint8 images (N, H, W, C) to features (N, D).
HAND_MADE: dict[str, Callable[[Pixels], Features]] = {
    "sobel": _by_filter(sobel),
    "laplacian": _by_filter(laplacian),
    "gabor": _by_filter(gabor),
    "hog": hog,
}
