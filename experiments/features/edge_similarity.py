"""How much of a kernel is an edge: the share of its energy that the best of many edges explains."""

from functools import cache
from itertools import product

import numpy as np
import numpy.typing as npt

Kernels = npt.NDArray[np.floating]  # (H, W, C, N), as layout NHWC has them

ORIENTATIONS = 12
SHIFTS = (-1, 0, 1)  # of the edge's centre, in pixels, down and across
WIDTHS = (1 / 6, 1 / 4)  # standard deviation of the edge's Gaussian, in sides of the kernel


@cache
def edges(side: int) -> npt.NDArray[np.float64]:
    """Returns derivatives of Gaussians in all directions, (edges, side·side), each of length 1.

    Their mean is 0: a kernel of one sign has no edge in it.
    """
    rows, columns = np.mgrid[:side, :side] - (side - 1) / 2
    found = []
    for turn, down, right, width in product(range(ORIENTATIONS), SHIFTS, SHIFTS, WIDTHS):
        angle, spread = np.pi * turn / ORIENTATIONS, width * side
        y, x = rows - down, columns - right
        across = x * np.cos(angle) + y * np.sin(angle)
        edge = (across * np.exp(-(x**2 + y**2) / (2 * spread**2))).ravel()
        edge -= edge.mean()
        found.append(edge / np.linalg.norm(edge))
    return np.array(found)


def edge_shares(kernels: Kernels) -> npt.NDArray[np.float64]:
    """Returns for each kernel the largest share of its energy that one edge explains, (N,).

    The edge may have any colour: one number per channel, the best ones. Share 1 is an edge, of a
    kernel without any weight it is 0; random weights have a small share, by chance.

    Raises:
      ValueError: if the kernels are not square with at least 3 pixels a side.
    """
    height, width, channels, count = kernels.shape
    if height != width or height < 3:
        raise ValueError(
            f"kernels must be square, with 3 pixels a side or more, got {height}×{width}."
        )
    weights = np.asarray(kernels, np.float64).reshape(height * width, channels * count)
    on_edges = (edges(height) @ weights).reshape(-1, channels, count)
    energy = (weights**2).reshape(-1, channels, count).sum((0, 1))
    return (on_edges**2).sum(1).max(0) / np.where(energy > 0, energy, 1)


def noise_like(kernels: Kernels, seed: int) -> Kernels:
    """Returns random kernels as smooth and as colourful as the given ones, of the same shape.

    Smooth weights look more like an edge than rough ones, and so do weights of one colour. In the
    noise two weights are as alike as those at the same distance are in all kernels on average, in
    any direction, and each kernel keeps the relations between its channels; where its lines run is
    chance.

    Args:
      kernels: at least as many pixels each as channels.
    """
    height, width, channels, count = kernels.shape
    weights = np.asarray(kernels, np.float64).reshape(height * width, channels * count)
    places = np.indices((height, width)).reshape(2, -1)
    distances = ((places[:, :, np.newaxis] - places[:, np.newaxis]) ** 2).sum(0)  # squared
    pairs = np.bincount(distances.ravel(), (weights @ weights.T).ravel())
    alike = (pairs / np.maximum(np.bincount(distances.ravel()), 1))[distances]
    # The averages may be no covariance, by a little: negative parts are left out.
    sizes, directions = np.linalg.eigh(alike)
    white = np.random.default_rng(seed).standard_normal(weights.shape)
    smooth = directions * np.sqrt(np.maximum(sizes, 0)) @ white
    by_kernel = weights.reshape(-1, channels, count).transpose(2, 0, 1)
    _, strengths, colours = np.linalg.svd(by_kernel, full_matrices=False)
    tinted = np.einsum(
        "pcn,nc,ncd->pdn", smooth.reshape(-1, channels, count), strengths, colours, optimize=True
    )
    return np.asarray(tinted.reshape(kernels.shape), np.float64)


def colour_shares(kernels: Kernels) -> npt.NDArray[np.float64]:
    """Returns for each kernel the share of its energy that sees differences between the channels.

    It is 0 where all channels have the same weights, which see the brightness alone, and 1 where
    the weights of the channels cancel. (N,)
    """
    weights = np.asarray(kernels, np.float64)
    energy = (weights**2).sum((0, 1, 2))
    grey = weights.shape[2] * (weights.mean(2) ** 2).sum((0, 1))
    return 1 - grey / np.where(energy > 0, energy, 1)
