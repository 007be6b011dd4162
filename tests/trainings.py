"""Small trainings for the tests of the step, its loops and the trainer."""

import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx

from convjax.nn.layers import BatchNorm, Linear
from convjax.nn.models import ConvNet
from convjax.optim.optimizers import adam
from convjax.optim.schedules import one_cycle
from convjax.train.device_data import Images
from convjax.train.losses import cross_entropy
from convjax.train.trainer import Trainer

STEPS, BATCH, EXAMPLES, CLASSES = 9, 5, 23, 3
MEAN, STD = (0.4, 0.6), (0.3, 0.2)  # one per channel


def pixels(examples=EXAMPLES, seed=0):
    return np.random.default_rng(seed).integers(0, 256, (examples, 4, 4, 2), np.uint8)


def normalised(images):
    return (images.astype(np.float64) / 255 - MEAN) / STD


def split(examples=EXAMPLES, seed=0):
    labels = np.random.default_rng(seed + 1).integers(0, CLASSES, examples)
    return Images(jnp.asarray(pixels(examples, seed)), jnp.asarray(labels, jnp.int32))


def batches(steps=STEPS, seed=0):
    return np.random.default_rng(seed).integers(0, EXAMPLES, (steps, BATCH))


def conv_net(seed=0, **settings):
    """Returns a network from 4×4 pixels to 2×2, then to one per class."""
    return ConvNet((2, 3, CLASSES), norm="batch", rngs=nnx.Rngs(seed), **settings)


def table(steps=STEPS, lr_max=0.05):
    return one_cycle(steps, lr_max).table(steps)


class Counting:
    """A loss that counts how often it is traced."""

    def __init__(self):
        self.traces = 0

    def __call__(self, logits, labels):
        self.traces += 1
        return cross_entropy(logits, labels)


class Run:
    """One training in float32, shared by many tests."""

    def __init__(self):
        self.model = conv_net()
        self.before = jax.tree.map(np.array, nnx.state(self.model))
        self.loss = Counting()
        self.trainer = Trainer(self.model, adam(), mean=MEAN, std=STD, loss=self.loss)
        self.data, self.order, self.table = split(), batches(), table()
        self.arrived = []
        self.state, self.record = self.trainer.run(
            self.trainer.start(self.model),
            self.data,
            self.order,
            self.table,
            on_steps=self.arrived.append,
        )


class Normed(nnx.Module):
    """Batch norm and a linear layer in float64: quick to compile, and no gradient is nearly 0."""

    def __init__(self):
        self.norm = BatchNorm(2, param_dtype=jnp.float64)
        self.linear = Linear(32, CLASSES, param_dtype=jnp.float64, rngs=nnx.Rngs(0))

    def __call__(self, x):
        return self.linear(self.norm(x).reshape(len(x), -1))
