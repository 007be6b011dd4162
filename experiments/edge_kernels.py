"""edge-values, edge-formula, edge-maps: what a kernel computes at one place, and on the whole grid.

Predictions of the chapter:
  edge-values: the top-edge kernel [[-1,-1,-1],[0,0,0],[1,1,1]] gives 0, 762 and −29 at three
    centres (row, column) of one three, training image 12 of MNIST (image 1502 of the embedded
    sample is the same).
  edge-formula: this computes a1+a2+a3−a7−a8−a9, for the nine pixels a1 to a9 in reading order.
  edge-maps: four kernels make maps of 26×26, by hand and for a batch of 64 images at once.

Rules:
  edge-values: the three numbers are equal.
  edge-formula: the formula gives the kernel's number at all three centres.
  edge-maps: the maps of `conv2d`, in every layout and by every method, equal those made by hand to
    the last bit (sums of a few integers below 2²⁴ are exact in float32, and the factors, pixels up
    to 255 and ±1, in the TF32 of a GPU and the bfloat16 of a TPU, too).

Command: python -m experiments run edge-values edge-formula edge-maps
"""

import jax
import jax.numpy as jnp
import numpy as np

from convjax import conv2d
from convjax.chapter.chapter_data import CENTRES, KERNELS, TOP_EDGE, embedded_three
from convjax.ops import reference
from convjax.ops.layout import KERNEL_AXES, permutation
from convjax.plots import images
from experiments.harness.claim import Claim, Published
from experiments.harness.lab import Lab
from experiments.harness.rules import Decision, Measured, Rule, exactly, on_digits


def chapter_image(lab: Lab) -> np.ndarray:
    """Returns the chapter's three, 28×28 pixels from 0 to 255."""
    if lab.data == "mnist":
        return lab.dataset.train.images[12, :, :, 0].astype(int)
    return embedded_three()


def edge_values(lab: Lab) -> Measured:
    """Applies the top-edge kernel at the three centres."""
    image = chapter_image(lab)
    return {
        name: [reference.apply_kernel(image, row, column, TOP_EDGE)]
        for name, (row, column) in CENTRES.items()
    }


def edge_formula(lab: Lab) -> Measured:
    """Evaluates the formula and the kernel at the three centres."""
    image = chapter_image(lab)
    found = {}
    for name, (row, column) in CENTRES.items():
        a = image[row - 1 : row + 2, column - 1 : column + 2].ravel()
        found[f"formula {name}"] = [a[:3].sum() - a[6:].sum()]
        found[f"kernel {name}"] = [reference.apply_kernel(image, row, column, TOP_EDGE)]
    return found


def formula_is_the_kernel(measured: Measured) -> Decision:
    """Decides whether the formula gives the kernel's numbers."""
    formula, kernel = (
        [measured[f"{what} {name}"][0] for name in CENTRES] for what in ("formula", "kernel")
    )
    opposite = formula == [-value for value in kernel]
    return Decision(
        formula == kernel,
        f"the formula gives {', '.join(f'{v:g}' for v in formula)} where the kernel gives "
        f"{', '.join(f'{v:g}' for v in kernel)}"
        + (": its sign is the other way round" if opposite else ""),
        "the signs are the other way round" if opposite else "",
    )


def edge_maps(lab: Lab) -> Measured:
    """Compares the maps of `conv2d` with maps made by hand."""
    batch = lab.dataset.train.images[:64, :, :, :1].astype(np.float32)
    by_hand = np.stack(
        [[reference.kernel_map(image, kernel) for kernel in KERNELS] for image in batch[..., 0]]
    )  # (64, 4, H − 2, W − 2)
    kernels = KERNELS[:, None].astype(np.float32)  # OIHW
    convolve = jax.jit(conv2d, static_argnames=("layout", "method"))
    deviation = 0.0
    for layout, kernel_axes in KERNEL_AXES.items():
        for method in ("lax", "matmul"):
            maps = convolve(
                jnp.asarray(batch.transpose(permutation("NHWC", layout))),
                jnp.asarray(kernels.transpose(permutation("OIHW", kernel_axes))),
                layout=layout,
                method=method,
            )
            in_nchw = np.asarray(maps).transpose(permutation(layout, "NCHW"))
            deviation = max(deviation, float(np.abs(in_nchw - by_hand).max()))
    three = chapter_image(lab).astype(np.float32)
    drawn = np.stack([reference.kernel_map(three, kernel) for kernel in KERNELS], -1)[None]
    lab.picture("edge-maps", images.show_feature_maps(drawn, "NHWC"))
    names = ("images", "kernels", "height", "width")
    return {
        "max_deviation": [deviation],
        **{name: [size] for name, size in zip(names, in_nchw.shape, strict=True)},
    }


CLAIMS = (
    Claim(
        id="edge-values",
        statement="the top-edge kernel on the chapter's three gives 0, 762 and −29",
        published=Published(figures={"(1,1)": 0, "(5,7)": 762, "(8,18)": -29}),
        measure=edge_values,
        rules={"any": exactly(**{"(1,1)": 0, "(5,7)": 762, "(8,18)": -29})},
    ),
    Claim(
        id="edge-formula",
        statement="that kernel computes a1+a2+a3−a7−a8−a9",
        published=Published(figures={"formula": "a1+a2+a3−a7−a8−a9"}),
        measure=edge_formula,
        rules={
            "any": Rule(
                "the formula gives the kernel's number at all three centres",
                formula_is_the_kernel,
                expected="refuted",
            )
        },
    ),
    Claim(
        id="edge-maps",
        statement="64 images and 4 kernels give 64×4×26×26 maps, equal to the hand-made ones",
        published=Published(figures={"images": 64, "kernels": 4, "height": 26, "width": 26}),
        measure=edge_maps,
        rules=on_digits(exactly(images=64, kernels=4, height=26, width=26, max_deviation=0)),
    ),
)

if __name__ == "__main__":
    from experiments.cli.app import script

    script(__file__)
