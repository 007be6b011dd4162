"""`python -m experiments fields`: published receptive fields, by formula and by measurement.

The formula is `convjax.receptive_fields`. The measurement is the support of the gradient of two
neighbouring cells in the middle of the map with respect to the pixels of tall images
(`convjax.effective_field`). All weights are positive, in float64: behind a hundred layers, the
gradient of the outermost pixel is about 1e-60. A quick run measures AlexNet only.
"""

from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import typer
from rich.console import Console

from convjax.analysis._effective_field import effective_field
from convjax.analysis.receptive_field import receptive_fields
from convjax.runs.environment import environment
from convjax.terminal.command import measure_to_file
from convjax.terminal.tables import TextTable
from experiments.receptive_fields.published import IMAGE, NETWORKS, PublishedField

# Max pooling passes the gradient to a single pixel. In this many rows of random images, the
# outermost pixel is chosen at least once.
ROWS = 50_000

# Narrow, because fields are square; a network without padding needs about 75 pixels.
WIDTH = 96


def by_formula(name: str) -> PublishedField:
    """Returns the receptive field of a published network by formula."""
    model, images = NETWORKS[name][0](), jax.ShapeDtypeStruct((1, IMAGE, IMAGE, 1), jnp.float32)
    zeros = jnp.zeros(images.shape)
    variables = jax.eval_shape(lambda: model.init(jax.random.key(0), zeros))
    found = receptive_fields(model, variables, images)["(output)"]
    if found.size is None or found.stride is None or found.padding is None:
        raise AssertionError(f"{name}: {found.reason}")
    return PublishedField(int(found.size[0]), int(found.stride[0]), int(found.padding[0]))


def measured(name: str) -> PublishedField:
    """Returns the receptive field of a published network by the gradients of two cells."""
    make, published = NETWORKS[name]
    # A multiple of 224, so that "same" pads equally; large enough for both fields.
    height = -(-(2 * published.size) // IMAGE) * IMAGE
    with jax.enable_x64(True):
        model = make()
        images = jax.random.uniform(
            jax.random.key(0), (ROWS // height, height, WIDTH, 1), jnp.float64, 0.5, 1.5
        )
        kernels = jax.jit(model.init)(jax.random.key(1), images[:1])
        # Each kernel sums to 1, so that values neither grow nor vanish.
        kernels = jax.tree.map(lambda k: jnp.abs(k) / jnp.abs(k).sum(), kernels)
        output = jax.eval_shape(model.apply, kernels, images).shape
        middle = output[1] // 2
        first, second = (
            effective_field(
                model, kernels, images, layer="(output)", cell=(row, output[2] // 2)
            ).support[0]
            for row in (middle, middle + 1)
        )
    stride = second.start - first.start
    return PublishedField(first.stop - first.start, stride, middle * stride - first.start)


def run_fields(quick: bool, out: Path) -> None:
    """Compares published receptive fields with formula and measurement, and writes fields.json."""

    def measure(_console: Console) -> dict[str, Any]:
        rows = []
        for i, (name, (_, published)) in enumerate(NETWORKS.items()):
            row: dict[str, Any] = {"network": name, "published": published}
            row["formula"] = by_formula(name)
            row["measured"] = measured(name) if i == 0 or not quick else None
            rows.append(row)
        return {"environment": environment(), "fields": rows}

    report = measure_to_file(out, measure, lambda report: [markdown_fields(report["fields"])])
    agree = all(
        row[source] in (None, row["published"])
        for row in report["fields"]
        for source in ("formula", "measured")
    )
    raise typer.Exit(0 if agree else 1)


def markdown_fields(rows: list[dict[str, Any]]) -> str:
    """Returns the table of networks, with size / stride / padding from each source."""
    cells = []
    for row in rows:
        fields = [row[source] for source in ("published", "formula", "measured")]
        texts = [" / ".join(map(str, field)) if field else "" for field in fields]
        cells.append((row["network"], *texts))
    return TextTable(("network", "published", "by formula", "measured"), cells).markdown()
