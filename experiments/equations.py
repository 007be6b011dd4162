"""matrix, colour: a convolution written out as equations.

Predictions of the chapter:
  matrix: a 2×2 kernel on a 3×3 image is four equations for P, Q, R and S, or a product with a
    matrix in which some entries are always zero ("not trained") and some are tied ("must stay
    equal").
  colour: a colour image has a kernel of ch_in×ks×ks, one layer per channel, whose three results are
    added with one bias: yR + yG + yB + b. A layer has ch_out such kernels, ch_out×ch_in×ks×ks, and
    ch_out biases.

Rules, with whole numbers, which float32 adds exactly:
  matrix: the matrix gives what `conv2d` gives, to the last bit; each row has four weights and five
    zeros; the gradient of `jax.grad` is that of the matrix with zeros left out and tied entries
    summed.
  colour: the sum over colours equals `conv2d`.

Command: python -m experiments run matrix colour
"""

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx

from convjax import conv2d
from convjax.nn.layers import Conv
from convjax.ops import reference
from experiments.harness.claim import Claim, Published
from experiments.harness.lab import Lab
from experiments.harness.rules import Measured, exactly


def whole_numbers(rng: np.random.Generator, *shape: int) -> np.ndarray:
    """Returns random whole numbers from −9 to 9 in float32."""
    return rng.integers(-9, 10, shape).astype(np.float32)


def matrix(lab: Lab) -> Measured:
    """Compares the matrix of a convolution, and its gradient, with `conv2d`."""
    rng = np.random.default_rng(0)
    image, kernel = whole_numbers(rng, 1, 1, 3, 3), whole_numbers(rng, 1, 1, 2, 2)
    bias = whole_numbers(rng, 1)
    upstream = whole_numbers(rng, 4)  # gradient of the loss by P, Q, R, S

    def outputs(kernel: Any, bias: Any) -> jax.Array:
        """Returns P, Q, R and S."""
        return conv2d(jnp.asarray(image), kernel, bias, layout="NCHW").ravel()

    dense = reference.conv_matrix(kernel, (1, 3, 3))
    indices = reference.tied_indices(kernel.shape, (1, 3, 3))
    of_entries = np.outer(upstream, image)  # the gradient if all 36 entries were free
    tied = reference.tied_gradient(of_entries, indices, kernel.size)
    gradients = jax.grad(lambda k, b: jnp.sum(outputs(k, b) * upstream), argnums=(0, 1))(
        jnp.asarray(kernel), jnp.asarray(bias)
    )
    weights = (indices >= 0).sum(1)
    return {
        "outputs": [len(dense)],
        "weights_per_row": weights.tolist(),
        "zeros": [(indices < 0).sum()],
        "entries_per_weight": np.bincount(indices[indices >= 0]).tolist(),
        "deviation": [
            np.abs(
                dense @ image.ravel() + bias - outputs(jnp.asarray(kernel), jnp.asarray(bias))
            ).max()
        ],
        "deviation_of_kernel_gradient": [np.abs(tied - gradients[0].ravel()).max()],
        "deviation_of_bias_gradient": [np.abs(upstream.sum() - gradients[1]).max()],
    }


def colour(lab: Lab) -> Measured:
    """Compares a sum over colours by hand with `conv2d`."""
    rng = np.random.default_rng(0)
    images, kernels = whole_numbers(rng, 2, 3, 8, 8), whole_numbers(rng, 4, 3, 3, 3)
    biases = whole_numbers(rng, 4)
    found = conv2d(*map(jnp.asarray, (images, kernels, biases)), layout="NCHW")
    by_hand = np.stack(
        [
            [
                sum(reference.kernel_map(image[c], kernel[c]) for c in range(3)) + bias
                for kernel, bias in zip(kernels, biases, strict=True)
            ]
            for image in images
        ]
    )
    layer = nnx.eval_shape(lambda: Conv(3, 4, 3, layout="NCHW", rngs=nnx.Rngs(0)))
    names = ("height", "width", "ch_in", "ch_out")
    return {
        "deviation": [np.abs(np.asarray(found) - by_hand).max()],
        **{name: [size] for name, size in zip(names, layer.kernel.shape, strict=True)},
        "biases": [0 if layer.bias is None else layer.bias.size],
    }


CLAIMS = (
    Claim(
        id="matrix",
        statement="a convolution is a product with a matrix in which some entries are always zero "
        "and some are tied",
        published=Published(figures={"outputs": 4, "weights_per_row": 4, "zeros": 20}),
        measure=matrix,
        rules={
            "any": exactly(
                outputs=4,
                weights_per_row=4,
                zeros=20,
                entries_per_weight=4,
                deviation=0,
                deviation_of_kernel_gradient=0,
                deviation_of_bias_gradient=0,
            )
        },
    ),
    Claim(
        id="colour",
        statement="a colour kernel is ch_in×ks×ks; the result is yR + yG + yB + b",
        published=Published(picture="kernels ch_out×ch_in×ks×ks, ch_out biases"),
        measure=colour,
        rules={"any": exactly(deviation=0, ch_out=4, ch_in=3, height=3, width=3, biases=4)},
    ),
)

if __name__ == "__main__":
    from experiments.cli.app import script

    script(__file__)
