"""Loops of Flax NNX and of JAX alone, watched."""

import jax.numpy as jnp
import numpy as np
import optax
import pytest
from flax import nnx

import convjax
from tests.stats.watched.cases import Case, check

RANDOM = np.random.default_rng(0)
IMAGES = [jnp.asarray(RANDOM.standard_normal((4, 8, 8, 1)), jnp.float32) for _ in range(3)]
VECTORS = [jnp.asarray(RANDOM.standard_normal((4, 6)), jnp.float32) for _ in range(3)]
LABELS = [jnp.asarray(RANDOM.integers(0, 3, 4)) for _ in range(3)]
IMAGE_BATCHES = list(zip(IMAGES, LABELS, strict=True))
VECTOR_BATCHES = list(zip(VECTORS, LABELS, strict=True))


def cross_entropy(logits, y):
    return optax.softmax_cross_entropy_with_integer_labels(logits, y).mean()


def classifier(make_model, optimizer=None):
    """Returns the usual loop of NNX for a model that `make_model` returns."""

    def make():
        model = make_model(nnx.Rngs(0))
        state = nnx.Optimizer(model, optimizer or optax.adam(1e-2), wrt=nnx.Param)

        def train_step(model, optimizer, x, y):
            loss, grads = nnx.value_and_grad(lambda model: cross_entropy(model(x), y))(model)
            optimizer.update(model, grads)
            return loss

        return (model, state), train_step, nnx.jit

    return make


CASES = [
    Case(
        "NNX: ConvNet with batch norm, CHWN",
        classifier(lambda rngs: convjax.ConvNet((1, 4, 3), norm="batch", layout="CHWN", rngs=rngs)),
        IMAGE_BATCHES,
        ("input", "labels", "blocks.0.conv", "blocks.0.norm", "blocks.1.conv", "blocks.1.norm"),
    ),
]


@pytest.mark.parametrize("case", CASES, ids=str)
def test_watched_loop_is_the_plain_one(case):
    check(case)
