"""spreadsheet: the convolutional network of the chapter's Excel file, computed by `conv2d`.

conv-example.xlsx has a digit of 28×28 pixels, two convolutions of two 3×3 filters each, with the
ReLU inside their formulas, a 2×2 max pool and one dense unit, whose value the file stores:
258.73762671075724. The file has two irregularities: the centre of the first filter is 0.0476 and
not 0, and the second convolution has one column too many, which reads an empty column as zeros.

Rule: computed in float64 from the file's pixels and weights, the dense unit is within 1e-12 of the
stored value and of the one above, and every cell of both convolutions and of the pool equals the
stored one.

The file is not part of this project: `--spreadsheet FILE` gives its path.

Command: python -m experiments run spreadsheet --spreadsheet conv-example.xlsx
"""

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx

from convjax import conv2d
from convjax.chapter.spreadsheet import (
    FILTERS_1,
    FILTERS_2,
    IMAGE,
    MAPS_1,
    MAPS_2,
    POOLED,
    PUBLISHED,
    WEIGHTS,
    Sheet,
)
from experiments.harness.claim import Claim, Published
from experiments.harness.lab import Lab
from experiments.harness.rules import Decision, Measured, NotMeasuredError, Rule


def network(sheet: Sheet) -> dict[str, Any]:
    """Computes the sheet's network in float64; images and maps are (1, C, H, W)."""
    with jax.enable_x64(True):
        image = jnp.asarray(sheet.block(IMAGE)[None])
        filters = jnp.asarray(sheet.block(*FILTERS_1)[:, None])
        first = nnx.relu(conv2d(image, filters, layout="NCHW"))
        filters = jnp.stack([sheet.block(*pair) for pair in FILTERS_2])
        # The extra column reads one beyond the maps, which is empty.
        padding = ((0, 0), (0, 1))
        second = nnx.relu(conv2d(first, filters, padding=padding, layout="NCHW"))
        even = jnp.pad(second, ((0, 0), (0, 0), (0, 0), (0, 1)))
        channels_last = even.transpose(0, 2, 3, 1)
        pooled = nnx.max_pool(channels_last, (2, 2), strides=(2, 2)).transpose(0, 3, 1, 2)
        dense = (pooled[0] * sheet.block(*WEIGHTS, step=2)).sum()
        maps = {"maps_1": first[0], "maps_2": second[0], "pooled": pooled[0]}
        return {name: np.asarray(value) for name, value in {**maps, "dense": dense}.items()}


def spreadsheet(lab: Lab) -> Measured:
    """Compares the computed network with the stored values."""
    if lab.spreadsheet is None:
        raise NotMeasuredError("needs the chapter's conv-example.xlsx: --spreadsheet FILE")
    sheet = Sheet(lab.spreadsheet)
    found = network(sheet)
    stored = {
        "maps_1": sheet.block(*MAPS_1),
        "maps_2": sheet.block(*MAPS_2),
        "pooled": sheet.block(*POOLED, step=2),
    }
    return {
        "dense": [float(found["dense"])],
        "stored": [sheet.dense],
        **{f"deviation_{name}": [np.abs(found[name] - stored[name]).max()] for name in stored},
    }


def equals_the_file(measured: Measured) -> Decision:
    """Decides whether the file's numbers are equal, cell by cell."""
    dense, stored = measured["dense"][0], measured["stored"][0]
    worst = max(values[0] for name, values in measured.items() if name.startswith("deviation"))
    apart = max(abs(dense - stored), abs(dense - PUBLISHED)) / PUBLISHED
    # Hundreds of float64 products are summed in another order than in the spreadsheet.
    return Decision(
        apart <= 1e-12 and worst <= 1e-12,
        f"{dense!r}, {apart:.0e} of it from the file; no cell differs by more than {worst:.0e}",
    )


CLAIMS = (
    Claim(
        id="spreadsheet",
        statement="two convolutions, a max pool and a dense unit make 258.74 of the digit in "
        "conv-example.xlsx",
        published=Published(figures={"dense": PUBLISHED}),
        measure=spreadsheet,
        rules={"any": Rule("the file's own numbers, cell by cell", equals_the_file)},
    ),
)

if __name__ == "__main__":
    from experiments.cli.app import script

    script(__file__)
