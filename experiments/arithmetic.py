"""output-size, receptive-field, multiplications, broken-cnn: what follows from sizes alone.

Predictions of the chapter:
  output-size: a map has (n + 2·pad − ks)//stride + 1 pixels a side. A 5×5 image, a 4×4 kernel and
    padding 2 make 6×6; 3×3 with padding 1 and stride 2 makes (h + 1)//2; an odd kernel with padding
    ks//2 keeps the size; an even kernel needs different padding on two sides.
  receptive-field: a cell behind two 3×3 convolutions of stride 2 sees 7×7 pixels.
  multiplications: layers 2 and 3 of the first network cost 14·14·(296 − 8) = 7·7·(1168 − 16) =
    56,448 multiplications each, so that "the amount of computation does not change".
  broken-cnn: two convolutions of stride 1, 1→30→1, give a map of 28×28 and no class.

Rules:
  output-size: the sizes equal those of `conv2d` and of loops by hand, for every setting tried.
  receptive-field: the gradient of one cell reaches 7×7 pixels.
  multiplications: the two layers cost the same.
  broken-cnn: the output of the network for 64 images is 64×1×28×28.

Command: python -m experiments run output-size receptive-field multiplications broken-cnn
"""

from itertools import product
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx

from convjax import broken_net, conv2d, effective_field, receptive_fields, threes_sevens_net
from convjax.analysis import summary
from convjax.ops import geometry, reference
from experiments.harness.claim import Claim, Published
from experiments.harness.lab import Lab
from experiments.harness.rules import Decision, Measured, Rule, exactly


def sizes(n: int, ks: int, pad: int, stride: int) -> set[int]:
    """Returns the sizes by the formula, by `conv2d` and by loops by hand: one if they agree.

    Args:
      n: pixels a side of the image.
      ks: pixels a side of the kernel.
      pad: padding on each side.
      stride: of the kernel.
    """
    settings: dict[str, Any] = {"stride": stride, "padding": pad, "layout": "NCHW"}
    image, kernel = np.zeros((1, 1, n, n)), np.zeros((1, 1, ks, ks))
    traced = jax.eval_shape(lambda x, k: conv2d(x, k, **settings), image, kernel)
    by_hand = reference.conv2d_loops(image, kernel, **settings)
    return {(n + 2 * pad - ks) // stride + 1, *traced.shape[2:], *by_hand.shape[2:]}


def output_size(lab: Lab) -> Measured:
    """Counts the settings in which the formula, `conv2d` and the loops disagree."""
    found = {
        (n, ks, pad, stride): sizes(n, ks, pad, stride)
        for n, ks, pad, stride in product(range(1, 9), range(1, 6), range(3), range(1, 4))
        if ks <= n + 2 * pad
    }
    halves = [found[n, 3, 1, 2] == {(n + 1) // 2} for n in range(1, 9)]
    keeps = [found[n, ks, ks // 2, 1] == {n} for n in range(1, 9) for ks in (1, 3, 5)]
    even = [geometry.same_padding(n, ks) for n in range(4, 9) for ks in (2, 4)]
    return {
        "settings": [len(found)],
        "disagree": [sum(len(found_sizes) > 1 for found_sizes in found.values())],
        "size_of_the_example": [max(found[5, 4, 2, 1])],
        "not_halved": [halves.count(False)],
        "not_kept_by_odd_kernels": [keeps.count(False)],
        "kept_by_even_kernels_with_equal_padding": [sum(a == b for a, b in even)],
    }


def receptive_field(lab: Lab) -> Measured:
    """Measures the receptive field of two 3×3 convolutions of stride 2."""
    ones = jnp.ones((3, 3, 1, 1))  # positive weights, so that no two products cancel

    def two_layers(image: jax.Array) -> tuple[jax.Array, dict[str, jax.Array]]:
        first = conv2d(image, ones, stride=2, padding=1)
        second = conv2d(first, ones, stride=2, padding=1)
        return second, {"first": first, "second": second}

    image = jnp.zeros((1, 32, 32, 1))
    field = receptive_fields(two_layers, image)["second"]
    effective = effective_field(two_layers, image, layer="second")
    return {
        "by_formula": [field.rows.size if field.rows else 0],
        "rows": [effective.size[0]],
        "columns": [effective.size[1]],
        "pixels": [(effective.magnitude > 0).sum()],
    }


def multiplications(lab: Lab) -> Measured:
    """Counts the multiplications of layers 2 and 3 of the first network."""
    network = nnx.eval_shape(lambda: threes_sevens_net(rngs=nnx.Rngs(0), layout="NHWC"))
    second, third = summary(network).rows[1:3]
    return {
        # The chapter's figure is weights × positions of the input; a stride of 2 skips some.
        "weights_times_input_positions_2": [14 * 14 * (second.parameters - 8)],
        "weights_times_input_positions_3": [7 * 7 * (third.parameters - 16)],
        "multiplications_2": [second.multiplications or 0],
        "multiplications_3": [third.multiplications or 0],
    }


def amount_does_not_change(measured: Measured) -> Decision:
    """Decides whether both layers cost the same."""
    second, third = measured["multiplications_2"][0], measured["multiplications_3"][0]
    return Decision(
        second == third,
        f"at stride 2 layer 2 computes 7·7·288 = {second:,.0f} products and layer 3 4·4·1152 = "
        f"{third:,.0f}; 56,448 counts every position of the input",
        f"{second:,.0f} and {third:,.0f} at stride 2",
    )


def broken_cnn(lab: Lab) -> Measured:
    """Measures the shape of the output of the chapter's broken network."""
    maps = nnx.eval_shape(
        lambda images: broken_net(rngs=nnx.Rngs(0), layout="NCHW").features(images),
        jnp.zeros((64, 28, 28, 1)),
    )
    names = ("images", "features", "height", "width")
    return {name: [size] for name, size in zip(names, maps.shape, strict=True)}


CLAIMS = (
    Claim(
        id="output-size",
        statement="a map has (n + 2·pad − ks)//stride + 1 pixels a side",
        published=Published(figures={"size_of_the_example": 6}),
        measure=output_size,
        rules={
            "any": exactly(
                disagree=0,
                size_of_the_example=6,
                not_halved=0,
                not_kept_by_odd_kernels=0,
                kept_by_even_kernels_with_equal_padding=0,
            )
        },
    ),
    Claim(
        id="receptive-field",
        statement="behind two 3×3 convolutions of stride 2 one cell sees 7×7 pixels",
        published=Published(figures={"rows": 7, "columns": 7}),
        measure=receptive_field,
        rules={"any": exactly(by_formula=7, rows=7, columns=7, pixels=49)},
    ),
    Claim(
        id="multiplications",
        statement="layers 2 and 3 of the first network cost 56,448 multiplications each: the "
        "amount of computation does not change",
        published=Published(figures={"multiplications_2": 56_448, "multiplications_3": 56_448}),
        measure=multiplications,
        rules={
            "any": Rule("both layers cost the same", amount_does_not_change, expected="refuted")
        },
    ),
    Claim(
        id="broken-cnn",
        statement="two convolutions of stride 1, 1→30→1, give a map and not a class",
        published=Published(figures={"images": 64, "features": 1, "height": 28, "width": 28}),
        measure=broken_cnn,
        rules={"any": exactly(images=64, features=1, height=28, width=28)},
    ),
)

if __name__ == "__main__":
    from experiments.cli.app import script

    script(__file__)
