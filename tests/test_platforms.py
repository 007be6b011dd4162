"""Every program of the library can be made for every platform, in a process that has only a CPU."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx

import convjax
from convjax import Trainer, Watch, adam
from convjax.parallel.mesh import REPLICATED, SPLIT_SECOND, on_devices
from tests.trainings import MEAN, STD, batches, conv_net, split, table

PLATFORMS = ("cpu", "cuda", "tpu")

# A network of NHWC has no choice left but those that the platform makes.
SETTINGS = {"mean": MEAN, "std": STD}


def trainer(**settings):
    return Trainer(conv_net(layout="NHWC"), adam(), **{**SETTINGS, **settings})


def chunk(made):
    state, data, order = made.start(conv_net(layout="NHWC")), split(), batches(6)
    rates = {name: np.asarray(column, np.float32) for name, column in table(6).items()}
    return made.chunks.take, (state, data, order, rates, np.int32(4))


def of_step():
    made = trainer(watch=Watch.everything())
    images, labels = (x[:5] for x in split())
    state = made.start(conv_net(layout="NHWC"))
    return made.step, (state, images, labels, jnp.float32(0.1), jnp.float32(0.9))


def of_evaluation():
    made = trainer()
    order = np.arange(20, dtype=np.int32).reshape(4, 5)
    return made._scoring.sums, (made.start(conv_net(layout="NHWC")), split(), order)


def of_statistics():
    def statistics(model_state, x):
        model = nnx.merge(GRAPH, model_state)
        _, outputs = convjax.capture(model, x)
        layers = convjax.layer_stats({"input": x} | outputs, units=True)
        grads = jax.grad(lambda s: nnx.merge(GRAPH, s)(x).sum())(model_state)
        return layers, convjax.parameter_stats(model_state, grads=grads)

    return statistics, (STATE, jnp.ones((5, 4, 4, 2)))


def of_sweep():
    made = trainer(watch=None)
    starts = [made.start(conv_net(seed, layout="NHWC")) for seed in range(2)]
    states = made.vmapped_runs.start(starts)
    order = np.stack([batches(4)] * 2, 1)
    rates = {n: np.stack([np.asarray(c, np.float32)] * 2, 1) for n, c in table(4).items()}
    over_runs = jax.vmap(made.chunks.take, (0, None, 1, 1, None), (0, 1))
    return over_runs, (states, split(), order, rates, np.int32(4))


def of_devices():
    made = trainer(watch=Watch.everything(), devices=jax.devices()[:2])
    function, arguments = chunk(made)
    mesh = made._placement.mesh
    given = REPLICATED, REPLICATED, SPLIT_SECOND, REPLICATED, REPLICATED
    order = arguments[2][:, :4]  # a batch that two devices can share
    state, data, _, *rest = arguments
    return on_devices(function, mesh, given, REPLICATED), (state, data, order, *rest)


GRAPH, STATE = nnx.split(conv_net(layout="NHWC"))
PROGRAMS = {
    "step": of_step,
    "chunk": lambda: chunk(trainer(watch=Watch.everything())),
    "chunk, every third step": lambda: chunk(trainer(watch=Watch.everything(every=3))),
    "evaluation": of_evaluation,
    "statistics": of_statistics,
    "sweep": of_sweep,
    "several devices": of_devices,
}


@pytest.mark.parametrize("name", PROGRAMS)
def test_programs_are_made_for_every_platform(name):
    function, arguments = PROGRAMS[name]()
    traced = jax.jit(function).trace(*arguments)
    texts = {p: traced.lower(lowering_platforms=(p,)).as_text() for p in PLATFORMS}
    for platform, text in texts.items():
        # Patches times matrix on CPU and, for maps as small as these, on a GPU.
        assert ("stablehlo.convolution" in text) == (platform == "tpu")
    # Nothing asks the host.
    for word in ("callback", "infeed", "outfeed", "send", "recv"):
        assert not any(f"stablehlo.{word}" in text for text in texts.values())
