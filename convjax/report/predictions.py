"""What a network answers: the worst mistakes with their images, and who is taken for whom."""

import base64
import struct
import zlib

import numpy as np

from convjax.report.components import Block, Confusion, Mistake, Mistakes, Table, Text
from convjax.runs.predictions import Predictions
from convjax.stats.record import Array

# A matrix of more classes is too large to be read: its largest entries stand for it.
MAX_CLASSES, PAIRS = 64, 32


def blocks(predictions: Predictions) -> list[Block]:
    """Returns the mistakes, the confusion matrix, and a sentence on each."""
    examples, wrong = len(predictions.labels), len(predictions.labels) - predictions.correct
    found: list[Block] = [
        Text(f"{predictions.correct:,} of {examples:,} answers are right, {wrong:,} are wrong.")
    ]
    if len(predictions.worst):
        found += [
            Text(
                "The wrong answers with the largest loss, the worst first: label → answer, and "
                "the probability that the network gives to each. Look for images that are cut "
                "off, mislabelled, or hard to tell for you, too."
            ),
            Mistakes(_mistakes(predictions)),
        ]
    elif wrong:
        found.append(Text("Their images were not kept."))
    if len(predictions.class_names) > MAX_CLASSES:
        return [*found, _confused(predictions)]
    found += [
        Text(
            "Each row of the confusion matrix is a class as it is labelled, each column an answer: "
            "right answers lie on the diagonal, and the shade is the share of the row."
        ),
        Confusion(predictions.class_names, predictions.confusion.tolist()),
    ]
    return found


def _confused(predictions: Predictions) -> Table:
    """Returns the pairs of classes that are confused most often."""
    counts, names = predictions.confusion, predictions.class_names
    np.fill_diagonal(counts, 0)
    most = np.argsort(-counts, axis=None, kind="stable")[:PAIRS]
    pairs = [divmod(int(cell), len(names)) for cell in most]
    rows = [(names[a], names[b], f"{counts[a, b]:,}") for a, b in pairs if counts[a, b]]
    caption = f"Confused most often, of {len(names):,} classes"
    return Table(caption, ("label", "answer", "images"), rows, (False, False, True))


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


def data_url(image: Array) -> str:
    """Returns an image as a PNG in a data URL.

    Written here, because a report shall need neither Pillow nor matplotlib. Of images that are
    neither grey nor RGB the first channel is shown.

    Args:
      image: uint8 (H, W, C).
    """
    height, width, channels = image.shape
    if channels not in (1, 3):
        image, channels = image[..., :1], 1
    # Each row begins with its filter: none.
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
