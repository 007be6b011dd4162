"""Reported faults that leave a part of the parameters as it was."""

from typing import Any

import jax
import jax.numpy as jnp
import optax
from flax import linen, nnx

from experiments.diagnosis_study.reported.evaluation_tasks import (
    accuracy,
    binary_accuracy,
    binary_cross_entropy,
    cross_entropy,
    dense,
    dense_params,
    explained,
    linen_state,
    linen_step,
    measurements,
    nnx_step,
    optax_step,
    squared_error,
    strokes,
    tagged_words,
)
from experiments.diagnosis_study.reported.reported_fault import ReportedFault
from experiments.diagnosis_study.user_loops import Trained, batches_of, run_nnx, run_pure


class SkipNet(nnx.Module):
    """An encoder and a decoder of maps, which a skip connection joins.

    Args:
      detached: whether no gradient passes the skip connection.
    """

    def __init__(self, detached: bool, rngs: nnx.Rngs):
        self.detached = detached
        self.skip = nnx.Conv(1, 8, (3, 3), rngs=rngs)
        self.down = nnx.Conv(1, 16, (3, 3), strides=2, rngs=rngs)
        self.middle = nnx.Conv(16, 16, (3, 3), rngs=rngs)
        self.up = nnx.ConvTranspose(16, 8, (2, 2), strides=2, rngs=rngs)
        self.mask = nnx.Conv(16, 1, (3, 3), rngs=rngs)

    def __call__(self, x: jax.Array) -> jax.Array:
        """Maps images (N, H, W, 1) to logits of the same shape."""
        skipped = nnx.relu(self.skip(x))
        if self.detached:
            skipped = jax.lax.stop_gradient(skipped)
        x = nnx.relu(self.up(nnx.relu(self.middle(nnx.relu(self.down(x))))))
        return self.mask(jnp.concatenate([x, skipped], -1))


def detached_skip(faulty: bool, seed: int) -> Trained:
    """Stops the gradient in a skip connection, beside which its layer has no other path."""
    train, test = strokes()
    model = SkipNet(faulty, nnx.Rngs(seed))
    batches = batches_of(train, size=32, steps=150, seed=seed)
    record = run_nnx(nnx_step(binary_cross_entropy), model, optax.adam(3e-3), batches)
    return Trained(record, binary_accuracy(model(test[0]), test[1]))


class Tagger(linen.Module):
    """Tags each word by itself and the word before."""

    @linen.compact
    def __call__(self, words: jax.Array) -> jax.Array:
        """Maps words (N, T) to logits (N, T, 2)."""
        x = linen.Embed(30, 8, name="embed")(words)
        before = jnp.pad(x, ((0, 0), (1, 0), (0, 0)))[:, :-1]
        x = linen.relu(linen.Dense(32, name="hidden")(jnp.concatenate([x, before], -1)))
        return linen.Dense(2, name="tag")(x)


def not_in_the_groups(faulty: bool, seed: int) -> Trained:
    """Lists the parameters of the optimiser by layer, and forgets to append the last layers."""
    listed = ("embed",) if faulty else ("embed", "hidden", "tag")

    def group(params: Any) -> Any:
        return {
            name: jax.tree.map(lambda _, name=name: "on" if name in listed else "off", layer)
            for name, layer in params.items()
        }

    tx = optax.multi_transform({"on": optax.adam(1e-2), "off": optax.set_to_zero()}, group)
    train, test = tagged_words()
    state = linen_state(Tagger(), train[0], tx, seed)
    batches = batches_of(train, size=50, steps=200, seed=seed)
    record, (state,) = run_pure(linen_step(cross_entropy), (state,), batches)
    return Trained(record, accuracy(state.apply_fn({"params": state.params}, test[0]), test[1]))


def rate_of_zero(faulty: bool, seed: int) -> Trained:
    """Chains an optimiser for each layer, whose rate is 0 unless the layer is on a list."""
    params = dense_params((8, 48, 48, 1), seed)
    listed = ("dense2",) if faulty else tuple(params)
    tx = optax.chain(
        *(
            optax.masked(
                optax.adam(5e-3 if name in listed else 0.0),
                {other: other == name for other in params},
            )
            for name in params
        )
    )
    train, test = measurements()
    step = optax_step(dense, squared_error, tx)
    batches = batches_of(train, size=64, steps=200, seed=seed)
    record, (params, _) = run_pure(step, (params, tx.init(params)), batches)
    return Trained(record, explained(dense(params, jnp.asarray(test[0])), test[1]))


_FROZEN = "parameters frozen"

REPORTED: tuple[ReportedFault, ...] = (
    ReportedFault(
        "no gradient passes the skip connection",
        "https://github.com/PRBonn/lidar-bonnetal/issues/99",
        _FROZEN,
        detached_skip,
        "nnx",
        0.92,
    ),
    ReportedFault(
        "layers not appended to the optimiser's groups",
        "https://github.com/zjunlp/HVPNeT/issues/5",
        _FROZEN,
        not_in_the_groups,
        "linen",
        0.8,
    ),
    ReportedFault(
        "masked optimisers with a rate of zero",
        "https://github.com/google-deepmind/optax/issues/1101",
        _FROZEN,
        rate_of_zero,
        "optax",
        0.7,
    ),
)
