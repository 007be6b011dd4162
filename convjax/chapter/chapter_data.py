"""The chapter's image of a three and its edge kernels."""

import numpy as np

from convjax.data import mnist5k_unsplit

TOP_EDGE = np.array([[-1, -1, -1], [0, 0, 0], [1, 1, 1]])
LEFT_EDGE = np.array([[-1, 1, 0]] * 3)
DIAGONAL_1 = np.array([[0, -1, 1], [-1, 1, 0], [1, 0, 0]])
DIAGONAL_2 = np.array([[1, -1, 0], [0, 1, -1], [0, 0, 1]])
KERNELS = np.stack([LEFT_EDGE, TOP_EDGE, DIAGONAL_1, DIAGONAL_2])
CENTRES = {"(1,1)": (1, 1), "(5,7)": (5, 7), "(8,18)": (8, 18)}


def embedded_three() -> np.ndarray:
    """Returns the chapter's three from the embedded sample, 28×28 pixels from 0 to 255."""
    return mnist5k_unsplit().images[1502, :, :, 0].astype(int)
