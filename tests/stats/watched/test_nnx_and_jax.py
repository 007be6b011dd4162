"""Loops of Flax NNX and of JAX alone, watched.

Models are tiny: what matters is the way in which they are written.
"""

import warnings
from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from flax import linen, nnx
from jax.ad_checkpoint import checkpoint_name
from jax.sharding import NamedSharding
from jax.sharding import PartitionSpec as P

import convjax
from tests.stats.watched import nnx_models as models
from tests.stats.watched.cases import STEPS, Case, check, returned_state, run_watched

RANDOM = np.random.default_rng(0)


def floats(*shape):
    return [jnp.asarray(RANDOM.standard_normal(shape), jnp.float32) for _ in range(STEPS)]


IMAGES, VECTORS, SERIES = floats(4, 8, 8, 1), floats(4, 6), floats(4, 5, 6)
LABELS = [jnp.asarray(RANDOM.integers(0, 3, 4)) for _ in range(STEPS)]
TOKENS = [jnp.asarray(RANDOM.integers(0, 7, (4, 5))) for _ in range(STEPS)]
IMAGE_BATCHES = list(zip(IMAGES, LABELS, strict=True))
VECTOR_BATCHES = list(zip(VECTORS, LABELS, strict=True))
SERIES_BATCHES = list(zip(SERIES, LABELS, strict=True))
TOKEN_BATCHES = [(tokens,) for tokens in TOKENS]
MLP = ("input", "labels", "hidden", "head")


def cross_entropy(logits, y):
    return optax.softmax_cross_entropy_with_integer_labels(logits, y).mean()


def classifier(make_model, optimizer=None, *, wrt=nnx.Param, jit=nnx.jit):
    """Returns the usual loop of NNX for a model that `make_model` returns."""

    def make():
        model = make_model(nnx.Rngs(0))
        state = nnx.Optimizer(model, optimizer or optax.adam(1e-2), wrt=wrt)

        def train_step(model, optimizer, x, y):
            def loss_fn(model):
                return cross_entropy(model(x), y)

            loss, grads = nnx.value_and_grad(loss_fn, argnums=nnx.DiffState(0, wrt))(model)
            optimizer.update(model, grads)
            return loss

        return (model, state), train_step, jit

    return make


def unlabelled(make_model, loss_of_batch):
    """Returns a loop of NNX whose loss is a function of the model and x alone."""

    def make():
        model = make_model(nnx.Rngs(0))
        state = nnx.Optimizer(model, optax.adam(1e-2), wrt=nnx.Param)

        def train_step(model, optimizer, x):
            loss, grads = nnx.value_and_grad(lambda model: loss_of_batch(model, x))(model)
            optimizer.update(model, grads)
            return loss

        return (model, state), train_step, nnx.jit

    return make


def variant(step, make_model=models.Mlp, optimizer=None, *, jit=nnx.jit, state=None):
    """Returns a loop of NNX with a step of its own."""

    def make():
        model = make_model(nnx.Rngs(0))
        tx = nnx.Optimizer(model, optimizer or optax.adam(1e-2), wrt=nnx.Param)
        return (model, tx) if state is None else state(model, tx), step, jit

    return make


def language_loss(model, tokens):
    return cross_entropy(model(tokens[:, :-1]), tokens[:, 1:])


# --- kinds of models ---------------------------------------------------------------------------

# A few last bits of losses near 1; sums over a batch are rounded in another order of fusions.
ROUNDING = 5e-7

KINDS = [
    Case(
        "NNX: ConvNet with batch norm, CHWN",
        classifier(lambda rngs: convjax.ConvNet((1, 4, 3), norm="batch", layout="CHWN", rngs=rngs)),
        IMAGE_BATCHES,
        ("input", "labels", "blocks.0.conv", "blocks.0.norm", "blocks.1.conv", "blocks.1.norm"),
        rounding=ROUNDING,
    ),
    Case("NNX: MLP", classifier(models.Mlp), VECTOR_BATCHES, MLP),
    Case(
        "NNX: ResNet, batch norm, dropout",
        classifier(models.ResNet),
        IMAGE_BATCHES,
        (
            "input",
            "labels",
            "stem",
            *(f"blocks.{i}.{name}" for i in range(2) for name in ("conv1", "bn1", "conv2", "bn2")),
            "head",
        ),
        rounding=ROUNDING,
    ),
    Case(
        "NNX: ViT",
        classifier(models.ViT),
        IMAGE_BATCHES,
        (
            *("input", "labels", "patch", "block.norm1"),
            *(f"block.attention.{name}" for name in ("query", "key", "value", "out")),
            *("block.norm2", "block.mlp.hidden", "block.mlp.head", "norm", "head", "ViT"),
        ),
        rounding=ROUNDING,
    ),
    Case(
        "NNX: autoencoder, ConvTranspose",
        unlabelled(models.Autoencoder, lambda model, x: jnp.mean((model(x) - x) ** 2)),
        [(x,) for x in IMAGES],
        ("input", "down", "up"),
    ),
    *(
        Case(
            f"NNX: RNN of {cell.__name__}",
            classifier(partial(models.Recurrent, cell)),
            SERIES_BATCHES,
            {"input", "labels", "head"} | {f"rnn.cell.{name}" for name in inner},
        )
        for cell, inner in (
            (nnx.LSTMCell, ("ii", "hf")),
            (nnx.GRUCell, ("dense_h",)),
            (nnx.SimpleCell, ("dense_i", "dense_h")),
        )
    ),
    Case(
        "NNX: VAE, methods and rngs",
        unlabelled(models.Vae, models.vae_loss),
        [(x,) for x in VECTORS],
        ("input", "encoder", "mean", "deviation", "decoder"),
    ),
    Case(
        "NNX: layer that returns a tuple and a dict",
        classifier(models.Tuples),
        VECTOR_BATCHES,
        ("input", "labels", "mixer:0", "mixer:1:state", "head"),
    ),
    Case(
        "NNX: model with parameters of its own",
        classifier(models.Owner),
        VECTOR_BATCHES,
        ("input", "labels", "Owner"),
    ),
    Case(
        "NNX: shared layer",
        classifier(models.Shared),
        VECTOR_BATCHES,
        ("input", "labels", "shared", "shared#2", "head"),
    ),
    Case(
        "NNX: tokens, Embed and attend",
        unlabelled(models.Language, language_loss),
        TOKEN_BATCHES,
        ("labels", "embed", "hidden", "embed.attend"),
        labels=lambda tokens: tokens[:, 1:],
    ),
    Case(
        "NNX: LoRA, base frozen",
        classifier(models.LoRA, wrt=nnx.LoRAParam),
        VECTOR_BATCHES,
        ("input", "labels", "hidden.lora", "hidden", "head.lora", "head"),
        params=lambda state: nnx.state(state[0], nnx.LoRAParam),
    ),
    Case(
        "NNX: bridge.ToNNX of Linen",
        classifier(
            lambda rngs: nnx.bridge.ToNNX(models.LinenMlp(), rngs=rngs).lazy_init(VECTORS[0])
        ),
        VECTOR_BATCHES,
        ("input", "labels", "hidden", "head"),
    ),
    Case("NNX: sown Intermediate", classifier(models.Sowing), VECTOR_BATCHES, MLP),
    Case("NNX: counter of calls, an int", classifier(models.Counting), VECTOR_BATCHES, MLP),
    Case("NNX: cache Variable", classifier(models.Caching), VECTOR_BATCHES, MLP),
    Case(
        "NNX: bfloat16",
        classifier(partial(models.Mlp, dtype=jnp.bfloat16, param_dtype=jnp.bfloat16)),
        [(x.astype(jnp.bfloat16), y) for x, y in VECTOR_BATCHES],
        MLP,
    ),
]

# --- transforms --------------------------------------------------------------------------------

DEPTHS = tuple(f"layers[{i}].linear" for i in range(3))


def transformed(name, model, layers, **options):
    return Case(f"NNX: {name}", classifier(model), VECTOR_BATCHES, layers, **options)


TRANSFORMS = [
    transformed("scan over layers", models.Scanned, ("input", "labels", *DEPTHS, "head")),
    transformed(
        "scan that leaves out variables",
        models.ScannedPart,
        ("input", "labels", *DEPTHS, "head"),
    ),
    transformed("remat", models.Remat, MLP),
    transformed("vmap of an ensemble", models.Ensemble, ("input", "labels", "members.linear")),
    *(
        transformed(
            f"{name} around a layer",
            partial(models.Branching, name),
            ("input", "labels", "head"),
            left_out={"hidden": word},
        )
        for name, word in (
            ("cond", "in cond"),
            ("switch", "in cond"),
            ("while_loop", "in while"),
        )
    ),
    *(
        transformed(f"jax.{name} around a layer", partial(models.Branching, name), layers)
        for name, layers in (
            ("checkpoint", MLP),
            ("vmap", MLP),
            ("lax.scan", MLP),
        )
    ),
    transformed(
        "jax.lax.cond around a layer",
        partial(models.Branching, "lax.cond"),
        ("input", "labels", "head"),
        left_out={"hidden": "in cond"},
    ),
]

# --- steps and optimisers ----------------------------------------------------------------------


def metrics_step(model, optimizer, x, y):
    def loss_fn(model):
        logits = model(x)
        return cross_entropy(logits, y), logits

    (loss, logits), grads = nnx.value_and_grad(loss_fn, has_aux=True)(model)
    optimizer.update(model, grads)
    return {"accuracy": (logits.argmax(-1) == y).mean(), "loss": loss}


def pair_step(model, optimizer, x, y):
    found = metrics_step(model, optimizer, x, y)
    return found["loss"], found["accuracy"]


def accumulating_step(model, optimizer, x, y):
    """Sums the gradients of microbatches in a scan."""
    graph, params, rest = nnx.split(model, nnx.Param, ...)

    def loss_fn(params, x, y):
        return cross_entropy(nnx.merge(graph, params, rest)(x), y)

    def microbatch(total, batch):
        loss, grads = jax.value_and_grad(loss_fn)(params, *batch)
        return jax.tree.map(jnp.add, total, grads), loss

    zeros = jax.tree.map(jnp.zeros_like, params)
    parts = x.reshape(2, -1, x.shape[1]), y.reshape(2, -1)
    grads, losses = jax.lax.scan(microbatch, zeros, parts)
    optimizer.update(model, jax.tree.map(lambda g: g / 2, grads))
    return losses.mean()


def static_step(model, optimizer, x, y, smoothing):
    def loss_fn(model):
        if smoothing == "none":
            return cross_entropy(model(x), y)
        targets = optax.smooth_labels(jax.nn.one_hot(y, 3), 0.1)
        return optax.softmax_cross_entropy(model(x), targets).mean()

    loss, grads = nnx.value_and_grad(loss_fn)(model)
    optimizer.update(model, grads)
    return loss


def dictionary_step(train, batch):
    model, optimizer = train["model"], train["optimizer"]

    def loss_fn(model):
        return cross_entropy(model(batch["image"]), batch["label"])

    loss, grads = nnx.value_and_grad(loss_fn)(model)
    optimizer.update(model, grads)
    return loss


def eager_step(model, optimizer, x, y):
    def loss_fn(model):
        return cross_entropy(model(x), y)

    loss, grads = nnx.value_and_grad(loss_fn)(model)
    if loss < 1e3:  # needs the value
        optimizer.update(model, grads)
    return loss


def gan():
    generator, critic = models.Mlp(nnx.Rngs(0), 6, 6), models.Mlp(nnx.Rngs(1), 6, 1)

    def train_step(generator, critic, generator_optimizer, critic_optimizer, real):
        def critic_loss(critic):
            return jnp.mean(jax.nn.softplus(critic(generator(real))) - critic(real))

        def generator_loss(generator):
            return -jnp.mean(critic(generator(real)))

        critic_value, grads = nnx.value_and_grad(critic_loss)(critic)
        critic_optimizer.update(critic, grads)
        loss, grads = nnx.value_and_grad(generator_loss)(generator)
        generator_optimizer.update(generator, grads)
        return {"critic": critic_value, "loss": loss}

    first, second = (nnx.Optimizer(m, optax.adam(1e-2), wrt=nnx.Param) for m in (generator, critic))
    return (generator, critic, first, second), train_step, nnx.jit


def functional():
    """A loop of split state that donates its memory, as for speed."""
    graph, params = nnx.split(models.Mlp(nnx.Rngs(0)))
    transform = optax.adam(1e-2)

    def train_step(params, opt_state, x, y):
        loss, grads = jax.value_and_grad(lambda p: cross_entropy(nnx.merge(graph, p)(x), y))(params)
        updates, opt_state = transform.update(grads, opt_state, params)
        return optax.apply_updates(params, updates), opt_state, loss

    return (params, transform.init(params)), train_step, partial(jax.jit, donate_argnums=(0, 1))


TRAINABLE = nnx.All(nnx.Param, nnx.PathContains("head"))
SCHEDULED = optax.chain(
    optax.clip_by_global_norm(1.0),
    optax.inject_hyperparams(optax.adam)(optax.cosine_decay_schedule(1e-2, 10)),
)

STEP_CASES = [
    Case(
        "NNX: step returns (loss, accuracy)",
        variant(pair_step),
        VECTOR_BATCHES,
        MLP,
        loss=lambda result: result[0],
    ),
    Case("NNX: step returns a dict of metrics", variant(metrics_step), VECTOR_BATCHES, MLP),
    Case(
        "NNX: MultiSteps",
        variant(metrics_step, optimizer=optax.MultiSteps(optax.adam(1e-2), 2)),
        [*VECTOR_BATCHES, VECTOR_BATCHES[0]],
        MLP,
        updates_at=(1, 3),
    ),
    Case(
        "NNX: microbatches in lax.scan",
        variant(accumulating_step),
        VECTOR_BATCHES,
        MLP,
    ),
    Case(
        "NNX: smaller last batch",
        classifier(models.Mlp),
        [*VECTOR_BATCHES[:2], (VECTORS[2][:3], LABELS[2][:3])],
        MLP,
    ),
    Case(
        "NNX: static argument",
        variant(static_step, jit=partial(nnx.jit, static_argnames="smoothing")),
        [(x, y, "none") for x, y in VECTOR_BATCHES],
        MLP,
    ),
    Case(
        "NNX: model and optimizer in a dict",
        variant(dictionary_step, state=lambda m, o: ({"model": m, "optimizer": o},)),
        [({"image": x, "label": y},) for x, y in VECTOR_BATCHES],
        MLP,
        params=lambda state: nnx.state(state[0]["model"], nnx.Param),
        images=lambda batch: batch["image"],
        labels=lambda batch: batch["label"],
    ),
    Case(
        "NNX: frozen parameters",
        classifier(models.Mlp, wrt=TRAINABLE),
        VECTOR_BATCHES,
        MLP,
        params=lambda state: nnx.state(state[0], TRAINABLE),
    ),
    Case(
        "NNX: clipping, schedule, inject_hyperparams",
        classifier(models.Mlp, SCHEDULED),
        VECTOR_BATCHES,
        MLP,
    ),
    Case(
        "NNX: GAN",
        gan,
        [(x,) for x in VECTORS],
        {"generator.hidden", "critic.hidden", "critic.head"},
        params=lambda state: {0: nnx.state(state[1], nnx.Param), 1: nnx.state(state[0], nnx.Param)},
        # The critic's gradients are sums over two calls. XLA for CPUs makes one loop of a product
        # of one output and its sum over the batch where the sum of both also leaves the program,
        # and two where it does not: a last bit of numbers below 0.1 differs.
        rounding=ROUNDING,
    ),
    Case(
        "NNX: split state, donated",
        functional,
        VECTOR_BATCHES,
        MLP,
        next_state=returned_state,
    ),
    Case(
        "NNX: eager step that needs values",
        variant(eager_step, jit=lambda step: step),
        VECTOR_BATCHES,
        {"labels"},
        left_out={
            "hidden (in a transform), head (in a transform)": "exist only there",
            "the loss in evaluation mode": "TracerBoolConversionError",
        },
    ),
    Case(
        "NNX: step that is already jitted",
        variant(nnx.jit(metrics_step), jit=lambda step: step),
        VECTOR_BATCHES,
        MLP,
        watch=lambda recorder, step, jit: recorder.watch(step),
    ),
]

# --- JAX alone ---------------------------------------------------------------------------------

OPTIMIZER = optax.adam(1e-2)


def init(seed):
    keys = jax.random.split(jax.random.key(seed))
    return {
        "first": jax.random.normal(keys[0], (6, 8)) / 3,
        "second": jax.random.normal(keys[1], (8, 3)) / 3,
    }


def named_loss(params, x, y):
    hidden = checkpoint_name(jax.nn.relu(x @ params["first"]), "hidden")
    logits = checkpoint_name(hidden @ params["second"], "logits")
    # Indexing by labels has no rule for an explicit mesh.
    return optax.softmax_cross_entropy(logits, jax.nn.one_hot(y, 3)).mean()


def jax_step(params, opt_state, x, y):
    loss, grads = jax.value_and_grad(named_loss)(params, x, y)
    updates, opt_state = OPTIMIZER.update(grads, opt_state, params)
    return optax.apply_updates(params, updates), opt_state, loss


def of_jax(step=jax_step, *, sharding=None, params=None, start=OPTIMIZER.init):
    def make():
        first = params() if params else init(0)
        if sharding is not None:
            first = jax.device_put(first, sharding())
        return (first, start(first)), step, jax.jit

    return make


def mesh(kind):
    types = {"explicit": jax.sharding.AxisType.Explicit, "auto": jax.sharding.AxisType.Auto}
    return jax.make_mesh((4,), ("data",), axis_types=(types[kind],))


def sharded(kind):
    """Returns batches whose examples are spread over four devices."""
    if len(jax.devices()) < 4:
        return VECTOR_BATCHES
    over = mesh(kind)
    return [
        (
            jax.device_put(x, NamedSharding(over, P("data"))),
            jax.device_put(y, NamedSharding(over, P("data"))),
        )
        for x, y in VECTOR_BATCHES
    ]


def mapped_step(params, opt_state, x, y):
    def of_shard(params, opt_state, x, y):
        loss, grads = jax.value_and_grad(named_loss)(params, x, y)
        loss, grads = jax.lax.pmean((loss, grads), "data")
        updates, opt_state = OPTIMIZER.update(grads, opt_state, params)
        return optax.apply_updates(params, updates), opt_state, loss

    return jax.shard_map(
        of_shard,
        mesh=mesh("auto"),
        in_specs=(P(), P(), P("data"), P("data")),
        out_specs=P(),
        check_vma=False,
    )(params, opt_state, x, y)


def epoch(params, opt_state, xs, ys):
    """Takes several steps in one program."""

    def body(state, batch):
        *state, loss = jax_step(*state, *batch)
        return tuple(state), loss

    state, losses = jax.lax.scan(body, (params, opt_state), (xs, ys))
    return *state, losses.mean()


def watched_epoch(recorder, step, jit):
    """Watches each step of an epoch: `watch_step` inside, `Recorder.add` outside."""

    def body(state, batch):
        (*state, loss), stats = convjax.watch_step(jax_step)(*state, *batch)
        return tuple(state), (loss, stats)

    @jax.jit
    def epoch(params, opt_state, xs, ys):
        state, (losses, stats) = jax.lax.scan(body, (params, opt_state), (xs, ys))
        return (*state, losses.mean()), stats

    def call(*args):
        result, stats = epoch(*args)
        recorder.add(**stats, steps=True)
        return result

    return call


EPOCHS = [(jnp.stack(VECTORS), jnp.stack(LABELS))]
SEEDS = jax.vmap(jax_step, (0, 0, None, None))

JAX_CASES = [
    Case(
        "JAX: checkpoint_name",
        of_jax(),
        VECTOR_BATCHES,
        ("input", "labels", "hidden", "logits"),
        next_state=returned_state,
    ),
    Case(
        "JAX: explicit mesh",
        of_jax(sharding=lambda: NamedSharding(mesh("explicit"), P())),
        sharded("explicit"),
        ("input", "labels", "hidden", "logits"),
        next_state=returned_state,
    ),
    Case(
        "JAX: data parallel, NamedSharding",
        of_jax(sharding=lambda: NamedSharding(mesh("auto"), P())),
        sharded("auto"),
        ("input", "labels", "hidden", "logits"),
        next_state=returned_state,
    ),
    Case(
        "JAX: shard_map",
        of_jax(mapped_step, sharding=lambda: NamedSharding(mesh("auto"), P())),
        sharded("auto"),
        {"input", "labels"},
        left_out={"gradients and updates": "watch_step"},
        next_state=returned_state,
        params=None,
    ),
    Case(
        "JAX: scan over steps, watch_step inside",
        of_jax(epoch),
        EPOCHS,
        ("input", "labels", "hidden", "logits"),
        lines=5,
        next_state=returned_state,
        watch=watched_epoch,
        checks_updates=False,
    ),
    Case(
        "JAX: scan over steps",
        of_jax(epoch),
        EPOCHS,
        {"hidden", "logits"},
        left_out={"gradients and updates": "watch_step"},
        next_state=returned_state,
        params=None,
    ),
    Case(
        "JAX: vmap over seeds",
        of_jax(SEEDS, params=lambda: jax.vmap(init)(jnp.arange(2)), start=jax.vmap(OPTIMIZER.init)),
        VECTOR_BATCHES,
        ("input", "labels", "hidden", "logits"),
        next_state=returned_state,
        loss=lambda result: result[2].mean(),
        watch=lambda recorder, step, jit: recorder.watch(step, loss=lambda r: r[2].mean()),
    ),
]


@jax.jit
def written_step(params, velocity, x, y):
    """SGD with momentum, without a library, as JAX's own examples have it."""
    loss, grads = jax.value_and_grad(named_loss)(params, x, y)
    velocity = jax.tree.map(lambda v, g: 0.9 * v + g, velocity, grads)
    return jax.tree.map(lambda p, v: p - 0.1 * v, params, velocity), velocity, loss


def written_nnx_step(model, tx, x, y):
    loss, grads = nnx.value_and_grad(lambda model: cross_entropy(model(x), y))(model)
    params = nnx.state(model, nnx.Param)
    nnx.update(model, jax.tree.map(lambda p, g: p - 0.1 * g, params, grads))
    return loss


WRITTEN = [
    Case(
        "JAX: update written out",
        of_jax(written_step, start=partial(jax.tree.map, jnp.zeros_like)),
        VECTOR_BATCHES,
        ("input", "labels", "hidden", "logits"),
        next_state=returned_state,
    ),
    Case("NNX: update written out", variant(written_nnx_step), VECTOR_BATCHES, MLP),
]

CASES = [*KINDS, *TRANSFORMS, *STEP_CASES, *JAX_CASES, *WRITTEN]


# The others take another two minutes, most of it compilation.
QUICK = (
    "MLP",
    "tuple and a dict",
    "shared layer",
    "attend",
    "scan over layers",
    "cond around",
    "jax.checkpoint",
    "MultiSteps",
    "smaller last",
    "GAN",
    "split state",
    "checkpoint_name",
    "explicit mesh",
    "watch_step inside",
    "written out",
)


def marked(case):
    quick = any(name in case.name for name in QUICK)
    return pytest.param(case, marks=() if quick else pytest.mark.slow)


@pytest.mark.parametrize("case", [marked(case) for case in CASES], ids=str)
def test_watched_loop_is_the_plain_one(case):
    check(case)


def test_watched_step_raises_its_own_error_once():
    (model, optimizer), _, _ = classifier(models.Mlp)()

    def train_step(model, optimizer, x, y):
        raise KeyError("of the step")

    recorder = convjax.Recorder()
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        with pytest.raises(KeyError, match="of the step") as raised:
            recorder.watch(train_step)(model, optimizer, *VECTOR_BATCHES[0])
    assert raised.value.__context__ is raised.value.__cause__ is None


def test_watched_step_does_not_change_inner_jitted_functions():
    """JAX keeps the traces of inner functions: none may be those of evaluation mode."""

    class Net(linen.Module):
        @linen.compact
        def __call__(self, x):
            x = linen.Dense(32, name="hidden")(x)
            x = linen.Dropout(0.5, deterministic=False)(x)
            return linen.Dense(3, name="head")(x)

    net, key = Net(), jax.random.key(1)
    params = net.init({"params": key, "dropout": key}, VECTORS[0])

    def loops():
        apply = jax.jit(lambda params, x: net.apply(params, x, rngs={"dropout": key}))

        def step(params, opt_state, x, y):
            loss, grads = jax.value_and_grad(lambda p: cross_entropy(apply(p, x), y))(params)
            updates, opt_state = OPTIMIZER.update(grads, opt_state, params)
            return optax.apply_updates(params, updates), opt_state, loss

        return step

    arguments = params, OPTIMIZER.init(params), *VECTOR_BATCHES[0]
    plain = jax.jit(loops())(*arguments)
    recorder, step = convjax.Recorder(), loops()
    found = recorder.watch(step)(*arguments)
    after = jax.jit(step)(*arguments)
    for result in (found, after):
        jax.tree.map(np.testing.assert_array_equal, result, plain)
    # The other order: the trace without tags is the first.
    recorder = convjax.Recorder()
    watched = recorder.watch(step)
    for _ in range(3):
        watched(*arguments)
    record = recorder.record()
    assert record.layers == MLP
    assert np.isnan(record.eval_loss[:2]).all()
    assert record.eval_loss[2] != record.loss[2]


def test_watched_step_records_rates_of_a_schedule():
    case = next(case for case in CASES if "inject_hyperparams" in case.name)
    record = run_watched(case).record
    wanted = [optax.cosine_decay_schedule(1e-2, 10)(i) for i in range(STEPS)]
    np.testing.assert_allclose(record.learning_rate, wanted, rtol=1e-6)


def test_watched_step_has_split_state_of_two_models():
    def make(rngs):
        return nnx.split((models.Mlp(rngs), models.Owner(rngs)))

    graph, state = make(nnx.Rngs(0))

    def step(state, x, y):
        def loss_fn(state):
            first, second = nnx.merge(graph, state)
            return cross_entropy(first(x) + second(x), y)

        loss, grads = jax.value_and_grad(loss_fn)(state)
        return jax.tree.map(lambda w, g: w - 0.1 * g, state, grads), loss

    recorder = convjax.Recorder()
    merge = nnx.merge
    watched, (x, y) = recorder.watch(step), VECTOR_BATCHES[0]
    state, _ = watched(state, x, y)
    assert nnx.merge is merge
    record = recorder.record()
    assert record.layers == (*MLP, "Owner.Owner")
    np.testing.assert_allclose(
        record.parameters.update_norm, 0.1 * record.parameters.grad_norm, rtol=1e-4
    )


def test_watched_step_of_no_update_says_so():
    def step(params, x, y):
        return named_loss(params, x, y)

    recorder = convjax.Recorder()
    with pytest.warns(UserWarning, match="gradients and updates.*: the step calls no Optax optim"):
        recorder.watch(step)(init(0), *VECTOR_BATCHES[0])
    assert recorder.record().parameters is None
