"""Batches of the watched loops, as NumPy arrays.

The vectors have 8 numbers: XLA's matrix products on CPU round by the alignment of their operands
in memory, which moves with any change of a program if rows are not multiples of 16 bytes.
"""

import numpy as np
import optax

from tests.stats.watched.cases import STEPS

RANDOM = np.random.default_rng(0)
IMAGES = RANDOM.standard_normal((STEPS, 6, 8, 8, 1)).astype(np.float32)
VECTORS = RANDOM.standard_normal((STEPS, 6, 8)).astype(np.float32)
SERIES = RANDOM.standard_normal((STEPS, 6, 4, 8)).astype(np.float32)
TOKENS = RANDOM.integers(0, 11, (STEPS, 6, 4)).astype(np.int32)
LABELS = RANDOM.integers(0, 3, (STEPS, 6)).astype(np.int32)

IMAGE_BATCHES = list(zip(IMAGES, LABELS, strict=True))
VECTOR_BATCHES = list(zip(VECTORS, LABELS, strict=True))
SERIES_BATCHES = list(zip(SERIES, LABELS, strict=True))
IMAGE_DICTS = [({"image": x, "label": y},) for x, y in IMAGE_BATCHES]


def cross_entropy(logits, labels):
    return optax.softmax_cross_entropy_with_integer_labels(logits, labels).mean()
