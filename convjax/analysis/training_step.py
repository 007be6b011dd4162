"""A step of a training of any network, as a function of arrays that can be repeated."""

from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from flax import nnx

from convjax._checks import describe_value
from convjax.analysis.model_variables import is_array

# Factor of the changes: tiny, but the compiler cannot remove them.
TINY = 1e-9

# An NNX module, a function of images, or (function of parameters and images, parameters).
Network = Any

State = Any  # parameters, other variables and images


class TrainingStep(NamedTuple):
    """A step that takes and returns a state, so that it can be repeated.

    Called alone, the step is the entry computation of a program; repeated on the device, it is the
    body of a loop, which XLA compiles differently.

    Attributes:
      state: parameters, other variables and images.
      forward: maps a state to the output of the network.
      step: maps a state to the next.
    """

    state: State
    forward: Callable[[State], Any]
    step: Callable[[State], State]


def training_step(
    network: Network, images: jax.Array, *, backward: bool, images_gradient: bool
) -> TrainingStep:
    """Returns the training step of a network; its loss is the mean square of the output.

    Args:
      network, backward, images_gradient: as for `convjax.compare_layouts`.
      images: as the network takes them.

    Raises:
      TypeError: if the network is none.
    """
    params, rest, call = _split(network)

    def loss(params: Any, rest: Any, images: jax.Array) -> tuple[jax.Array, Any]:
        output, rest = call(params, rest, images)
        leaves = [x.astype(jnp.float32) for x in jax.tree.leaves(output)]
        return sum((jnp.mean(jnp.square(x)) for x in leaves), jnp.float32(0)), rest

    def step(state: State) -> State:
        params, rest, images = state
        if not backward:
            value, rest = loss(params, rest, images)
            # The next step depends on this one, or a loop would compute it once.
            return params, rest, images + (TINY * value).astype(images.dtype)
        # Without parameters that of the images is all there is; else the step would be empty.
        inputs = (0, 2) if images_gradient or not jax.tree.leaves(params) else (0,)
        gradient: Any = jax.grad(loss, inputs, has_aux=True)
        (of_params, *others), rest = gradient(params, rest, images)
        params = jax.tree.map(lambda p, g: p - (TINY * g).astype(p.dtype), params, of_params)
        for of_images in others:
            images = images - (TINY * of_images).astype(images.dtype)
        return params, rest, images

    def forward(state: State) -> Any:
        params, rest, images = state
        return call(params, rest, images)[0]

    return TrainingStep((params, rest, images), forward, step)


def _split(network: Network) -> tuple[Any, Any, Callable[[Any, Any, jax.Array], tuple[Any, Any]]]:
    """Returns what is trained, what else the network stores, and its call, which returns both."""
    if isinstance(network, nnx.Module):
        parts: Any = nnx.split(network, nnx.Param, ...)
        graph, params, rest = parts

        def call_module(params: Any, rest: Any, images: jax.Array) -> tuple[Any, Any]:
            module: Any = nnx.merge(graph, params, rest, copy=True)  # which may change
            output = module(images)
            return output, nnx.state(module, nnx.Not(nnx.Param))

        return params, rest, call_module
    if isinstance(network, tuple) and len(network) == 2 and callable(network[0]):
        function, stored = network
    elif callable(network):
        function, stored = (lambda _, images: network(images)), ()
    else:
        raise TypeError(
            "make_network must return an NNX module, a function of images, or a pair (function, "
            f"parameters), got {describe_value(network)}."
        )
    leaves, structure = jax.tree.flatten(stored)
    trained = [hasattr(x, "dtype") and jnp.issubdtype(x.dtype, jnp.inexact) for x in leaves]
    params = [jnp.asarray(x) for x, of in zip(leaves, trained, strict=True) if of]
    fixed = [x for x, of in zip(leaves, trained, strict=True) if not of]
    rest = [x for x in fixed if is_array(x)]

    def call(params: Any, rest: Any, images: jax.Array) -> tuple[Any, Any]:
        new, others = iter(params), iter(rest)
        values = [
            next(new) if of else next(others) if is_array(x) else x
            for x, of in zip(leaves, trained, strict=True)
        ]
        return function(jax.tree.unflatten(structure, values), images), rest

    return params, rest, call
