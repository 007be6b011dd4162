"""Loops of Flax Linen, as people write them."""

from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax
from flax.training.dynamic_scale import DynamicScale
from flax.training.train_state import TrainState
from jax.sharding import Mesh
from jax.sharding import PartitionSpec as P

from tests.stats.watched import linen_models as models
from tests.stats.watched.cases import Case, returned_state
from tests.stats.watched.data import (
    IMAGE_DICTS,
    IMAGES,
    LABELS,
    SERIES,
    SERIES_BATCHES,
    TOKENS,
    VECTOR_BATCHES,
    VECTORS,
    cross_entropy,
)


class StatsState(TrainState):
    batch_stats: Any = None
    dynamic_scale: Any = None


def initial(model, x, tx=None, kind=TrainState, **fields):
    variables = model.init(jax.random.key(0), x)
    params = variables.pop("params")
    stats = {name: variables[name] for name in ("batch_stats",) if name in variables}
    tx = tx or optax.sgd(0.1, 0.9)
    return kind.create(apply_fn=model.apply, params=params, tx=tx, **stats, **fields)


def classifier(model, tx=None, x=VECTORS[0]):
    """Returns the usual loop with a `TrainState`."""

    def make():
        def train_step(state, x, y):
            def loss_fn(params):
                return cross_entropy(state.apply_fn({"params": params}, x), y)

            loss, grads = jax.value_and_grad(loss_fn)(state.params)
            return state.apply_gradients(grads=grads), loss

        return (initial(model, x, tx),), train_step, jax.jit

    return make


def mnist():
    def train_step(state, batch):
        def loss_fn(params):
            logits = state.apply_fn({"params": params}, batch["image"])
            one_hot = jax.nn.one_hot(batch["label"], 3)
            return jnp.mean(optax.softmax_cross_entropy(logits=logits, labels=one_hot)), logits

        (loss, logits), grads = jax.value_and_grad(loss_fn, has_aux=True)(state.params)
        state = state.apply_gradients(grads=grads)
        accuracy = jnp.mean(jnp.argmax(logits, -1) == batch["label"])
        return state, {"accuracy": accuracy, "loss": loss}

    return (initial(models.CNN(), IMAGES[0]),), train_step, jax.jit


def imagenet():
    def train_step(state, batch):
        def loss_fn(params):
            logits, new_model_state = state.apply_fn(
                {"params": params, "batch_stats": state.batch_stats},
                batch["image"],
                mutable=["batch_stats"],
            )
            loss = cross_entropy(logits, batch["label"])
            weights = [w for w in jax.tree.leaves(params) if w.ndim > 1]
            penalty = 1e-4 * 0.5 * sum(jnp.sum(w**2) for w in weights)
            return loss + penalty, (new_model_state, logits)

        grad_fn = jax.value_and_grad(loss_fn, has_aux=True)
        (loss, (new_model_state, logits)), grads = grad_fn(state.params)
        accuracy = jnp.mean(jnp.argmax(logits, -1) == batch["label"])
        metrics = {"accuracy": accuracy, "learning_rate": jnp.float32(0.1), "loss": loss}
        state = state.apply_gradients(grads=grads, batch_stats=new_model_state["batch_stats"])
        return state, metrics

    return (initial(models.ResidualNet(), IMAGES[0], kind=StatsState),), train_step, jax.jit


def scaled(scale):
    """Returns the loop of half precision, whose loss is scaled."""

    def make():
        def train_step(state, x, y):
            def loss_fn(params):
                return cross_entropy(state.apply_fn({"params": params}, x), y)

            grad_fn = state.dynamic_scale.value_and_grad(loss_fn)
            dynamic_scale, finite, loss, grads = grad_fn(state.params)
            new = state.apply_gradients(grads=grads)
            kept = partial(jnp.where, finite)
            new = new.replace(
                opt_state=jax.tree.map(kept, new.opt_state, state.opt_state),
                params=jax.tree.map(kept, new.params, state.params),
                dynamic_scale=dynamic_scale,
            )
            return new, {"loss": loss, "scale": dynamic_scale.scale}

        dynamic_scale = DynamicScale(fin_steps=2, scale=scale)
        state = initial(models.MLP(), VECTORS[0], None, StatsState, dynamic_scale=dynamic_scale)
        return (state,), train_step, jax.jit

    return make


def dropout():
    model, tx = models.DroppingMLP(), optax.adam(1e-2)

    def train_step(params, opt_state, key, x, y):
        key, dropout_key = jax.random.split(key)

        def loss_fn(params):
            logits = model.apply(params, x, train=True, rngs={"dropout": dropout_key})
            return cross_entropy(logits, y)

        loss, grads = jax.value_and_grad(loss_fn)(params)
        updates, opt_state = tx.update(grads, opt_state, params)
        return optax.apply_updates(params, updates), opt_state, key, loss

    params = model.init(jax.random.key(0), VECTORS[0], train=False)
    return (params, tx.init(params), jax.random.key(1)), train_step, jax.jit


def transformer():
    def train_step(state, batch):
        def loss_fn(params):
            logits = state.apply_fn({"params": params}, batch["tokens"])
            return cross_entropy(logits[:, :-1], batch["tokens"][:, 1:])

        loss, grads = jax.value_and_grad(loss_fn)(state.params)
        return state.apply_gradients(grads=grads), {"loss": loss}

    state = initial(models.Transformer(), TOKENS[0], optax.adamw(1e-3))
    return (state,), train_step, jax.jit


def methods():
    model, tx = models.AutoEncoder(), optax.sgd(0.1)

    def train_step(params, opt_state, x):
        def loss_fn(params):
            z = model.apply(params, x, method="encode")
            again = model.apply(params, z, method=model.decode)
            return jnp.mean((again - x) ** 2)

        loss, grads = jax.value_and_grad(loss_fn)(params)
        updates, opt_state = tx.update(grads, opt_state)  # sgd needs no parameters
        return optax.apply_updates(params, updates), opt_state, loss

    params = model.init(jax.random.key(0), VECTORS[0])
    return (params, tx.init(params)), train_step, jax.jit


def sowing():
    model, tx = models.Sowing(), optax.sgd(0.1)

    def train_step(state, x, y):
        def loss_fn(params):
            mutable = ["intermediates", "losses"]
            logits, aux = state.apply_fn({"params": params}, x, mutable=mutable)
            (activity,) = aux["losses"]["activity"]
            return cross_entropy(logits, y) + 0.01 * activity, aux["intermediates"]

        (loss, kept), grads = jax.value_and_grad(loss_fn, has_aux=True)(state.params)
        return state.apply_gradients(grads=grads), {"loss": loss, "hidden": kept["hidden"][0]}

    return (initial(model, VECTORS[0], tx),), train_step, jax.jit


def functional(tx, loss_and_grads=None, jit=jax.jit, devices=0):
    """Returns a loop without a `TrainState`; each device may have a copy of its state."""

    def make():
        model = models.MLP()

        def plain(params, x, y):
            return jax.value_and_grad(lambda p: cross_entropy(model.apply(p, x), y))(params)

        found = plain if loss_and_grads is None else loss_and_grads(plain)

        def train_step(params, opt_state, x, y):
            loss, grads = found(params, x, y)
            updates, opt_state = tx.update(grads, opt_state, params)
            return optax.apply_updates(params, updates), opt_state, loss

        params = model.init(jax.random.key(0), VECTORS[0])
        state = params, tx.init(params)
        if devices:
            state = jax.tree.map(lambda x: jnp.stack([x] * devices), state)
        return state, train_step, jit

    return make


def averaged(loss_and_grads):
    return lambda *args: jax.lax.pmean(loss_and_grads(*args), "batch")


def sharded(loss_and_grads):
    return jax.shard_map(
        averaged(loss_and_grads),
        mesh=Mesh(np.array(jax.devices()[:2]), ("batch",)),
        in_specs=(P(), P("batch"), P("batch")),
        out_specs=(P(), P()),
    )


MLP = ("input", "labels", "Dense_0", "Dense_1")
ATTENTION = "block_0.MultiHeadDotProductAttention_0"
FROZEN = optax.multi_transform(
    {"frozen": optax.set_to_zero(), "trained": optax.adam(1e-2)},
    {"Dense_0": "frozen", "Dense_1": "trained"},
)
ACCUMULATED = optax.MultiSteps(optax.adam(1e-2), every_k_schedule=2)
DEVICE_BATCHES = [(x.reshape(2, 3, 8), y.reshape(2, 3)) for x, y in VECTOR_BATCHES]

case = partial(Case, next_state=returned_state)
vectors = partial(case, batches=VECTOR_BATCHES)
images = partial(
    case, batches=IMAGE_DICTS, images=lambda batch: batch["image"], labels=lambda b: b["label"]
)

STEPS_OF_LINEN = [
    images("Linen: MNIST", mnist, layers=("input", "labels", "Conv_0", "Dense_0", "Dense_1")),
    images(
        "Linen: ImageNet",
        imagenet,
        layers=("input", "labels", "conv_init", "bn_init", "Conv_0", "BatchNorm_0", "Dense_0"),
    ),
    vectors("Linen: dynamic loss scale", scaled(1024.0), layers=MLP),
    vectors("Linen: dropout", dropout, layers=MLP),
    case(
        "Linen: update without params",
        methods,
        [(x,) for x in VECTORS],
        ("input", "encoder", "decoder"),
    ),
    vectors("Linen: sown values", sowing, layers=MLP),
    vectors(
        "Linen: MultiSteps",
        functional(ACCUMULATED),
        layers=MLP,
        updates_at=(1,),
    ),
    vectors(
        "Linen: MultiSteps as a transformation",
        classifier(models.MLP(), ACCUMULATED.gradient_transformation()),
        layers=MLP,
        updates_at=(1,),
    ),
    vectors(
        "Linen: apply_if_finite",
        classifier(models.MLP(), optax.apply_if_finite(optax.sgd(0.1), 5)),
        layers=MLP,
    ),
    vectors("Linen: frozen by multi_transform", classifier(models.MLP(), FROZEN), layers=MLP),
    vectors(
        "Linen: smaller last batch",
        classifier(models.MLP()),
        layers=MLP,
        batches=[*VECTOR_BATCHES[:2], (VECTORS[2][:4], LABELS[2][:4])],
    ),
    vectors(
        "Linen: pmap",
        functional(
            optax.sgd(0.1),
            averaged,
            partial(jax.pmap, axis_name="batch", devices=jax.devices()[:2]),
            devices=2,
        ),
        layers=MLP,
        batches=DEVICE_BATCHES,
        loss=lambda result: result[2].mean(),
        params=lambda state: jax.tree.map(lambda x: x[0], state[0]),
    ),
    vectors(
        "Linen: shard_map",
        functional(optax.sgd(0.1), sharded),
        layers={"labels"},
        left_out={"Dense_0": "shard_map"},
    ),
]

KINDS_OF_LINEN = [
    case(
        "Linen: transformer",
        transformer,
        [({"tokens": tokens},) for tokens in TOKENS],
        (
            "labels",
            "Embed_0",
            "block_0.LayerNorm_0",
            *(f"{ATTENTION}.{part}" for part in ("query", "key", "value", "out")),
            "block_0.LayerNorm_1",
            "block_0.Dense_1",
            "block_0.Dense_0",
            "norm",
            "head",
            "Transformer",
        ),
        labels=lambda batch: batch["tokens"][:, 1:],
    ),
    vectors(
        "Linen: scan over layers",
        classifier(models.ScannedNet()),
        layers=(
            *MLP[:2],
            *(f"layers[{i}].{name}" for i in range(3) for name in ("norm", "dense")),
            "head",
        ),
    ),
    vectors(
        "Linen: remat",
        classifier(models.RematNet()),
        layers=(
            *MLP[:2],
            *(f"CheckpointLayer_{i}.{name}" for i in range(2) for name in ("norm", "dense")),
            "head",
        ),
    ),
    vectors(
        "Linen: remat_scan",
        classifier(models.RematScanNet()),
        layers=(*MLP[:2], *(f"stack[{i}][{j}].dense" for i in (0, 1) for j in (0, 1)), "head"),
    ),
    vectors(
        "Linen: vmap over members",
        classifier(models.Ensemble()),
        layers=(*MLP[:2], "members.Dense_0", "members.Dense_1"),
    ),
    case(
        "Linen: LSTM",
        classifier(models.Recurrent(), x=SERIES[0]),
        SERIES_BATCHES,
        (
            *MLP[:2],
            *(f"LSTMCell_0.{side}{gate}" for gate in "ifgo" for side in "ih"),
            "Dense_0",
        ),
    ),
    vectors(
        "Linen: cond and switch",
        classifier(models.Branches()),
        layers=(*MLP[:2], "head"),
        left_out={"one (in cond)": "right (in cond)"},
    ),
    vectors("Linen: own parameters", classifier(models.Owner()), layers=(*MLP[:2], "Owner")),
    vectors(
        "Linen: shared layer, masked head",
        classifier(
            models.Shared(), optax.masked(optax.scale(0.5), {"shared": True, "head": False})
        ),
        layers=(*MLP[:2], "shared", "shared#2", "head"),
    ),
    vectors("Linen: boxed parameters", classifier(models.Boxed(), optax.adam(1e-2)), layers=MLP),
]
CASES = [*STEPS_OF_LINEN, *KINDS_OF_LINEN]
