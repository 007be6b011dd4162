"""Features made by hand, as before deep learning: edges, blobs, textures and their histograms.

Sobel, Laplacian and Gabor filters are convolutions like the chapter's edge kernels, with weights
that someone thought out; what they answer is averaged over cells of 4×4 pixels. They read grey
images: images in colour give their luma. HOG, the histograms of oriented gradients, is
scikit-image's and takes at each pixel the channel with the steepest gradient.

Reference: Dalal and Triggs 2005, https://doi.org/10.1109/CVPR.2005.177 (HOG).
"""

from collections.abc import Callable, Sequence

import jax
import jax.numpy as jnp
import numpy as np
import numpy.typing as npt

from convjax import conv2d
from experiments.features.colour_encodings import luma

Features = npt.NDArray[np.float32]  # (N, D)

CELL = 4  # pixels a side

SOBEL = np.array([[-1, 0, 1], [-2, 0, 2], [-1, 0, 1]])
LAPLACIAN = np.array([[0, 1, 0], [1, -4, 1], [0, 1, 0]])

# Gabor filters: four directions, two wavelengths in pixels; the wave fades within about one of its
# lengths, and the longer one still fits in 9×9 pixels.
DIRECTIONS, WAVELENGTHS, GABOR_SIDE = 4, (3.0, 6.0), 9

# Images that are filtered at a time: 16 maps of each take 25 MB.
AT_ONCE = 500


def gabor_pairs() -> npt.NDArray[np.float64]:
    """Returns cosine and sine waves under a Gaussian, (2, 8, 9, 9), each of length 1, mean 0."""
    rows, columns = np.mgrid[:GABOR_SIDE, :GABOR_SIDE] - GABOR_SIDE // 2
    pairs = []
    for wavelength in WAVELENGTHS:
        window = np.exp(-(rows**2 + columns**2) / (2 * (wavelength / 2) ** 2))
        for turn in range(DIRECTIONS):
            angle = np.pi * turn / DIRECTIONS
            phase = 2 * np.pi * (columns * np.cos(angle) + rows * np.sin(angle)) / wavelength
            even = window * np.cos(phase)
            # Without its mean, so that an even brightness gives nothing.
            even -= window * even.sum() / window.sum()
            pairs.append([wave / np.linalg.norm(wave) for wave in (even, window * np.sin(phase))])
    return np.array(pairs).swapaxes(0, 1)


def filtered(images: jax.Array, kernels: npt.ArrayLike) -> jax.Array:
    """Returns what each kernel answers at each pixel, (N, H, W, kernels).

    Beyond the border the image goes on as it ends: zeros there would be an edge.

    Args:
      images: (N, H, W).
      kernels: (kernels, side, side), of an odd side.
    """
    weights = jnp.asarray(kernels, jnp.float32).transpose(1, 2, 0)[:, :, jnp.newaxis]
    margin = weights.shape[0] // 2
    padded = jnp.pad(images, ((0, 0), (margin, margin), (margin, margin)), mode="edge")
    # On CPU ten times faster to compile than patches times matrix, and as fast to run.
    return conv2d(padded[..., jnp.newaxis], weights, method="lax")


def pooled(maps: jax.Array) -> jax.Array:
    """Averages over cells of 4×4 pixels, (N, H, W, C) to (N, H//4 · W//4 · C).

    Rows and columns that fill no cell are left out.
    """
    count, height, width, channels = maps.shape
    rows, columns = height // CELL, width // CELL
    cells = maps[:, : rows * CELL, : columns * CELL].reshape(
        count, rows, CELL, columns, CELL, channels
    )
    return cells.mean((2, 4)).reshape(count, -1)


def both_signs(maps: jax.Array) -> jax.Array:
    """Returns positive answers, then negative ones made positive: the mean would cancel them."""
    return jnp.concatenate([jnp.maximum(maps, 0), jnp.maximum(-maps, 0)], -1)


def sobel(images: jax.Array) -> jax.Array:
    """Edges from dark to bright and from bright to dark, across and down."""
    return pooled(both_signs(filtered(images, np.stack([SOBEL, SOBEL.T]))))


def laplacian(images: jax.Array) -> jax.Array:
    """Spots darker and brighter than what is around them."""
    return pooled(both_signs(filtered(images, LAPLACIAN[np.newaxis])))


def gabor(images: jax.Array) -> jax.Array:
    """How strong each wave is, wherever its crests lie."""
    even, odd = gabor_pairs()
    return pooled(jnp.hypot(filtered(images, even), filtered(images, odd)))


def hog(images: npt.NDArray[np.uint8]) -> Features:
    """Histograms of nine directions in cells of 4×4 pixels, normalised over 2×2 cells."""
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


def pixels(images: npt.NDArray[np.uint8]) -> Features:
    """The pixels as they are, of all channels: what the features are to improve on."""
    return np.divide(images.reshape(len(images), -1), 255, dtype=np.float32)


def _by_filter(
    features: Callable[[jax.Array], jax.Array],
) -> Callable[[npt.NDArray[np.uint8]], Features]:
    """Makes features of uint8 images (N, H, W, C) out of those of grey images (N, H, W)."""
    compiled = jax.jit(features)

    def of_images(images: npt.NDArray[np.uint8]) -> Features:
        def grey(part: npt.NDArray[np.uint8]) -> Features:
            one = part[..., 0] if part.shape[-1] == 1 else luma(part)
            return np.divide(one, 255, dtype=np.float32)

        parts: Sequence[int] = range(0, len(images), AT_ONCE)
        return np.concatenate([np.asarray(compiled(grey(images[i : i + AT_ONCE]))) for i in parts])

    return of_images


# By name, what makes the features (N, D) of uint8 images (N, H, W, C).
HAND_MADE: dict[str, Callable[[npt.NDArray[np.uint8]], Features]] = {
    "sobel": _by_filter(sobel),
    "laplacian": _by_filter(laplacian),
    "gabor": _by_filter(gabor),
    "hog": hog,
}
