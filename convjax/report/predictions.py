"""The predictions of a network: the worst mistakes with their images, and the confused classes."""

import base64
import struct
import zlib

import numpy as np
from jaxtyping import UInt8

from convjax.report.components import Block, Confusion, Mistake, Mistakes, Text
from convjax.report.table import Table
from convjax.runs.predictions import Predictions

MAX_CLASSES = 64  # of a readable confusion matrix
MAX_PAIRS = 32  # largest entries that replace a matrix of more classes


def blocks(predictions: Predictions) -> list[Block]:
    """Returns the mistakes and the confusion matrix, each with an explanation."""
    examples, wrong = len(predictions.labels), len(predictions.labels) - predictions.correct
    found: list[Block] = [
        Text(f"{predictions.correct:,} of {examples:,} answers are right, {wrong:,} are wrong.")
    ]
    if len(predictions.worst):
        found += [
            Text(
                "The wrong answers with the largest loss, worst first: label → answer, and the "
                "probability of each according to the network. Look for images that are cut off, "
                "mislabelled, or difficult for a human as well."
            ),
            Mistakes(_mistakes(predictions)),
        ]
    elif wrong:
        found.append(Text("Their images were not stored."))
    if len(predictions.class_names) > MAX_CLASSES:
        return [*found, _confused(predictions)]
    found += [
        Text(
            "Each row of the confusion matrix is a label and each column an answer. Right answers "
            "are on the diagonal. The shade is the share of the row."
        ),
        Confusion(predictions.class_names, predictions.confusion.tolist()),
    ]
    return found


def _confused(predictions: Predictions) -> Table:
    """Returns the pairs of classes that are confused most often."""
    counts, names = predictions.confusion, predictions.class_names
    np.fill_diagonal(counts, 0)
    most = np.argsort(-counts, axis=None, kind="stable")[:MAX_PAIRS]
    pairs = [divmod(int(cell), len(names)) for cell in most]
    rows = [(names[a], names[b], counts[a, b]) for a, b in pairs if counts[a, b]]
    caption = f"Confused most often, of {len(names):,} classes"
    return Table(caption, ("label", "answer", "images"), rows)


def _mistakes(predictions: Predictions) -> list[Mistake]:
    names = predictions.class_names
    return [
        Mistake(
            data_url(image),
            int(index),
            names[predictions.labels[index]],
            names[predictions.answers[index]],
            f"{100 * right:.1f} %",
            f"{100 * answered:.1f} %",
        )
        for image, index, right, answered in zip(
            predictions.images,
            predictions.worst,
            predictions.label_probabilities,
            predictions.answer_probabilities,
            strict=True,
        )
    ]


def data_url(image: UInt8[np.ndarray, "H W C"]) -> str:
    """Returns an image as the data URL of a PNG image.

    The encoder is part of this module so that reports need neither Pillow nor matplotlib. An image
    that is neither grey nor RGB is reduced to its first channel.

    Args:
      image: one image.

    Examples:
      >>> import numpy as np
      >>> from convjax.report.predictions import data_url
      >>> data_url(np.zeros((2, 2, 1), np.uint8))[:26]
      'data:image/png;base64,iVBO'
    """
    height, width, channels = image.shape
    if channels not in (1, 3):
        image, channels = image[..., :1], 1
    # Each row begins with the number of its filter, 0 for none.
    rows = np.zeros((height, 1 + width * channels), np.uint8)
    rows[:, 1:] = image.reshape(height, -1)
    colour = 2 if channels == 3 else 0
    png = b"\x89PNG\r\n\x1a\n" + b"".join(
        struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))
        for kind, data in (
            (b"IHDR", struct.pack(">IIBBBBB", width, height, 8, colour, 0, 0, 0)),
            (b"IDAT", zlib.compress(rows.tobytes())),
            (b"IEND", b""),
        )
    )
    return "data:image/png;base64," + base64.b64encode(png).decode("ascii")
