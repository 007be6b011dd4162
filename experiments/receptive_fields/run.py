"""`python -m experiments fields`: published receptive fields, by formula and by measurement.

Formula: `convjax.receptive_fields`. Measurement: the support of the gradient of one cell in the
middle, and of the next, by the pixels of tall images (`convjax.effective_field`), with weights
that are all positive, in float64: behind a hundred layers the gradient of the outermost pixel is of
1e-60.
"""

from pathlib import Path
from typing import Annotated, Any

import jax
import jax.numpy as jnp
import typer

from convjax.analysis._effective_field import effective_field
from convjax.analysis.receptive_field import receptive_fields
from experiments.receptive_fields.published import IMAGE, NETWORKS, PublishedField
from experiments.terminal.options import OutFile, mistakes_reported, prepare_file

# A max pooling passes the gradient on to one pixel alone: in that many rows of random images the
# outermost one is chosen at least once.
ROWS = 50_000

# Narrow, because the field is the same down and across; without padding a network needs about 75.
WIDTH = 96


def by_formula(name: str) -> PublishedField:
    """Returns the field of a published network by formula."""
    model, images = NETWORKS[name][0](), jax.ShapeDtypeStruct((1, IMAGE, IMAGE, 1), jnp.float32)
    zeros = jnp.zeros(images.shape)
    variables = jax.eval_shape(lambda: model.init(jax.random.key(0), zeros))
    found = receptive_fields(model, variables, images)["(output)"]
    if found.size is None or found.stride is None or found.padding is None:
        raise AssertionError(f"{name}: {found.reason}")
    return PublishedField(int(found.size[0]), int(found.stride[0]), int(found.padding[0]))


def measured(name: str) -> PublishedField:
    """Returns the field of a published network by the gradients of two cells."""
    make, published = NETWORKS[name]
    # A multiple of 224, so that "same" pads it alike, with both fields within it.
    height = -(-(2 * published.size) // IMAGE) * IMAGE
    with jax.enable_x64(True):
        model = make()
        images = jax.random.uniform(
            jax.random.key(0), (ROWS // height, height, WIDTH, 1), jnp.float64, 0.5, 1.5
        )
        kernels = jax.jit(model.init)(jax.random.key(1), images[:1])
        # Summing to 1, so that values neither grow nor vanish.
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


def run_fields(
    quick: Annotated[
        bool, typer.Option("--quick", help="Measures AlexNet alone; the formula is for all.")
    ] = False,
    out: OutFile = Path("fields.json"),
) -> None:
    """Compares published receptive fields with formula and measurement, and writes fields.json."""
    from convjax.runs.folder import environment, write_json
    from experiments.terminal.console import console

    shown = console()
    with mistakes_reported("stopped; nothing was written."):
        prepare_file(out)
        rows = []
        for i, (name, (_, published)) in enumerate(NETWORKS.items()):
            row: dict[str, Any] = {"network": name, "published": published}
            row["formula"] = by_formula(name)
            row["measured"] = measured(name) if i == 0 or not quick else None
            rows.append(row)
        write_json(out, {"environment": environment(), "fields": rows})
    shown.print(markdown_fields(rows), highlight=False, markup=False)
    shown.print(f"all figures: {out}", highlight=False, soft_wrap=True)
    agree = all(
        row[of] in (None, row["published"]) for row in rows for of in ("formula", "measured")
    )
    raise typer.Exit(0 if agree else 1)


def markdown_fields(rows: list[dict[str, Any]]) -> str:
    """Returns the table of networks: size, stride and padding, published and found."""
    lines = ["| network | published | by formula | measured |", "|---|---|---|---|"]
    for row in rows:
        found = [row[of] for of in ("published", "formula", "measured")]
        cells = [" / ".join(map(str, field)) if field else "" for field in found]
        lines.append(f"| {row['network']} | {' | '.join(cells)} |")
    return "\n".join(lines)
