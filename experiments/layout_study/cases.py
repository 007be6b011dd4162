"""The cases of the comparison of layouts: convolutions of nine shapes, and the chapter's network.

Every case is one step of a training: it takes images and parameters and returns slightly changed
images and parameters, so that it can be repeated. Called alone, a step is the entry computation of
a program; repeated on the device, it is the body of a loop, which XLA compiles differently.
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx

from convjax import conv2d, digits_net
from convjax.ops.layout import KERNEL_AXES, images_to, kernel_to, permutation
from convjax.train.losses import cross_entropy

# Factor of the changes: tiny, but the compiler cannot remove them.
TINY = 1e-9

CaseStep = Callable[[Any], Any]  # takes and returns the state: arrays of one layout


@dataclass(frozen=True)
class Shape:
    """One convolution of `size`×`size` pixels with a square kernel and padding kernel // 2."""

    name: str
    batch: int
    size: int
    inputs: int
    outputs: int
    kernel: int
    stride: int = 1
    groups: int = 1

    def __str__(self) -> str:
        text = f"{self.name}: {self.batch}×{self.size}², {self.inputs}→{self.outputs}"
        text += f", {self.kernel}×{self.kernel}"
        text += f"/{self.stride}" if self.stride > 1 else ""
        return text + (f", {self.groups} groups" if self.groups > 1 else "")


SHAPES = (
    Shape("chapter 1", 64, 28, 1, 8, 5, 2),
    Shape("chapter 2", 64, 14, 8, 16, 3, 2),
    Shape("chapter 4", 64, 4, 32, 64, 3, 2),
    Shape("small colour", 64, 32, 3, 32, 3),
    Shape("ResNet early", 1, 56, 64, 64, 3),
    Shape("ResNet late", 1, 14, 256, 256, 3),
    Shape("1×1", 1, 28, 256, 64, 1),
    Shape("grouped", 1, 28, 128, 128, 3, 1, 32),
    Shape("depthwise", 1, 56, 64, 64, 3, 1, 64),
)
NETWORK = "chapter's network"


@dataclass(frozen=True)
class Variant:
    """One way to compute the same thing.

    Attributes:
      layout, method: arguments of `convjax.conv2d`.
      force: "" or, on GPU, "nchw" or "nhwc": the physical layout that XLA must give every
        convolution. Without it, XLA chooses the physical layout, whatever the logical one.
    """

    layout: str
    method: str
    force: str = ""

    def __str__(self) -> str:
        return f"{self.layout} by {self.method}" + (f", {self.force} forced" * bool(self.force))


def variants(backend: str) -> list[Variant]:
    """Returns the variants to compare on a backend."""
    if backend == "gpu":
        # "matmul" needs much memory there and is never chosen; cuDNN has two physical layouts.
        return [
            Variant(layout, "lax", force)
            for layout in ("NHWC", "NCHW")
            for force in ("", "nchw", "nhwc")
        ]
    methods = ("lax", "matmul") if backend == "cpu" else ("lax",)
    return [Variant(layout, method) for method in methods for layout in KERNEL_AXES]


def convolution(
    shape: Shape, variant: Variant, dtype: Any, backward: bool
) -> tuple[CaseStep, Any, CaseStep]:
    """Returns (step, initial state, results) of one convolution.

    Results are the map and, with `backward`, the gradients of images and kernel for a random normal
    cotangent, in the order NHWC and HWIO.

    Args:
      shape: of the convolution.
      variant: layout and method.
      dtype: of images and kernel.
      backward: whether the step computes the gradients.
    """
    rng = np.random.default_rng(0)
    layout, axes = variant.layout, KERNEL_AXES[variant.layout]
    fan_in = shape.inputs // shape.groups * shape.kernel**2

    def normal(sizes: tuple[int, ...], scale: float) -> jax.Array:
        return jnp.asarray(scale * rng.standard_normal(sizes), dtype)

    def conv(x: jax.Array, kernel: jax.Array) -> jax.Array:
        return conv2d(
            x,
            kernel,
            stride=shape.stride,
            padding=shape.kernel // 2,
            groups=shape.groups,
            layout=layout,
            method=variant.method,
        )

    size = (shape.kernel, shape.kernel, shape.inputs // shape.groups, shape.outputs)
    x = images_to(normal((shape.batch, shape.size, shape.size, shape.inputs), 1), layout)
    kernel = kernel_to(normal(size, fan_in**-0.5), layout, source="NHWC")
    wide = -(-shape.size // shape.stride)
    cotangent = images_to(normal((shape.batch, wide, wide, shape.outputs), 1), layout)

    def passes(x: jax.Array, kernel: jax.Array) -> tuple[jax.Array, ...]:
        if not backward:
            return (conv(x, kernel),)
        y, pull = jax.vjp(conv, x, kernel)
        return (y, *pull(cotangent))

    def step(state: Any) -> Any:
        x, kernel = state
        y, *gradients = passes(x, kernel)
        # The state depends on the map, or the compiler would remove the forward pass.
        kernel = kernel + TINY * y[0, 0, 0, 0]
        return (x - TINY * gradients[0], kernel - TINY * gradients[1]) if backward else (x, kernel)

    def results(state: Any) -> Any:
        y, *gradients = passes(*state)
        back = permutation(layout, "NHWC")
        return [
            y.transpose(back),
            *(g.transpose(back) for g in gradients[:1]),
            *(g.transpose(permutation(axes, "HWIO")) for g in gradients[1:]),
        ]

    return step, (x, kernel), results


def network(variant: Variant, dtype: Any, backward: bool) -> tuple[CaseStep, Any, CaseStep]:
    """Returns (step, initial state, results) of the chapter's network on 64 images.

    Results are the loss or, with `backward`, its gradient with respect to the images.

    Args:
      variant: layout and method.
      dtype: of images and parameters.
      backward: whether the step computes the gradients.
    """
    rng = np.random.default_rng(0)
    model = digits_net(layout=variant.layout, method=variant.method, rngs=nnx.Rngs(0))
    graphdef, drawn = nnx.split(model)
    # Rounded from float32: another dtype would draw other random numbers.
    params = jax.tree.map(lambda p: p.astype(dtype), drawn)
    images = jnp.asarray(rng.standard_normal((64, 28, 28, 1)), dtype)
    labels = jnp.asarray(rng.integers(0, 10, 64))

    def loss(params: Any, images: jax.Array) -> jax.Array:
        return cross_entropy(nnx.merge(graphdef, params)(images), labels).mean()

    def step(state: Any) -> Any:
        params, images = state
        if not backward:
            return params, images + (TINY * loss(params, images)).astype(dtype)
        gradients = jax.grad(loss)(params, images)
        return jax.tree.map(lambda p, g: p - (TINY * g).astype(dtype), params, gradients), images

    def results(state: Any) -> Any:
        return [jax.grad(loss, argnums=1)(*state) if backward else loss(*state)]

    return step, (params, images), results
