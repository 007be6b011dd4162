"""The similarity of a kernel to an edge: the largest share of its energy that an edge explains."""

from functools import cache
from itertools import product

import numpy as np
from jaxtyping import Float

Kernels = Float[np.ndarray, "H W C N"]  # the order of layout NHWC

ORIENTATIONS = 12
SHIFTS = (-1, 0, 1)  # of the edge's centre, in pixels, down and across
WIDTHS = (1 / 6, 1 / 4)  # standard deviation of the edge's Gaussian, in sides of the kernel


@cache
def edges(side: int) -> Float[np.ndarray, "E P"]:
    """Returns derivatives of Gaussians in all directions, (edges, side·side), each of length 1.

    Their mean is 0, so a constant kernel contains no edge.
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


def edge_shares(kernels: Kernels) -> Float[np.ndarray, " N"]:
    """Returns the largest share of each kernel's energy that one edge explains, (N,).

    The edge may have any colour: one factor per channel, chosen optimally. The share is 1 for an
    edge, 0 for a kernel of zeros, and small by chance for random weights.

    Args:
      kernels: (H, W, C, N), square.

    Raises:
      ValueError: if the kernels are not square with at least 3 pixels a side.
    """
    height, width, channels, count = kernels.shape
    if height != width or height < 3:
        raise ValueError(
            f"kernels must be square with 3 pixels a side or more, got {height}×{width}."
        )
    weights = np.asarray(kernels, np.float64).reshape(height * width, channels * count)
    on_edges = (edges(height) @ weights).reshape(-1, channels, count)
    energy = (weights**2).reshape(-1, channels, count).sum((0, 1))
    return (on_edges**2).sum(1).max(0) / np.where(energy > 0, energy, 1)


def noise_like(kernels: Kernels, seed: int) -> Kernels:
    """Returns random kernels as smooth and as colourful as the given ones, of the same shape.

    Smooth weights resemble an edge more than rough ones, and so do weights of one colour. In the
    noise, the covariance of two weights depends on their distance alone, and equals its average
    over all kernels. Each kernel keeps the relations between its channels. The direction of its
    lines is random.

    Args:
      kernels: (H, W, C, N), with at least as many pixels as channels.
      seed: of the noise.
    """
    height, width, channels, count = kernels.shape
    weights = np.asarray(kernels, np.float64).reshape(height * width, channels * count)
    positions = np.indices((height, width)).reshape(2, -1)
    distances = ((positions[:, :, np.newaxis] - positions[:, np.newaxis]) ** 2).sum(0)  # squared
    pairs = np.bincount(distances.ravel(), (weights @ weights.T).ravel())
    covariance = (pairs / np.maximum(np.bincount(distances.ravel()), 1))[distances]
    # The averages may have slightly negative eigenvalues, which are set to 0.
    sizes, directions = np.linalg.eigh(covariance)
    white = np.random.default_rng(seed).standard_normal(weights.shape)
    smooth = directions * np.sqrt(np.maximum(sizes, 0)) @ white
    by_kernel = weights.reshape(-1, channels, count).transpose(2, 0, 1)
    _, strengths, colours = np.linalg.svd(by_kernel, full_matrices=False)
    tinted = np.einsum(
        "pcn,nc,ncd->pdn", smooth.reshape(-1, channels, count), strengths, colours, optimize=True
    )
    return np.asarray(tinted.reshape(kernels.shape), np.float64)


def colour_shares(kernels: Kernels) -> Float[np.ndarray, " N"]:
    """Returns the share of each kernel's energy that distinguishes the channels, (N,).

    The share is 0 if all channels have the same weights, which respond to brightness alone, and 1
    if the weights of the channels cancel.

    Args:
      kernels: (H, W, C, N).
    """
    weights = np.asarray(kernels, np.float64)
    energy = (weights**2).sum((0, 1, 2))
    grey = weights.shape[2] * (weights.mean(2) ** 2).sum((0, 1))
    return 1 - grey / np.where(energy > 0, energy, 1)
