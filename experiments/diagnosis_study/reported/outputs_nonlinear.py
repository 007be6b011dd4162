"""Reported faults: a non-linearity at the output that the targets or the loss do not fit."""

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax
from flax import linen, nnx

from experiments.diagnosis_study.reported.data_networks import (
    Conv,
    Linear,
    LinenCnn,
    Mlp,
    cross_entropy,
    dense,
    dense_params,
    fit_nnx,
    fit_pure,
    predict,
    squared_error,
    unchanged,
)
from experiments.diagnosis_study.reported.data_tasks import (
    SEED,
    accuracy,
    digits,
    explained,
    houses,
)
from experiments.diagnosis_study.reported.reported_fault import ReportedFault
from experiments.diagnosis_study.user_loops import Trained, batches_of, run_nnx


def _relu_before_normalising(faulty: bool, seed: int) -> Trained:
    """The last layer of a CNN has a ReLU, and its outputs are divided by their sum in the loss."""
    task = digits()
    options: dict[str, Any] = {"bias_init": nnx.initializers.constant(0.1)}

    class Net(nnx.Module):
        def __init__(self, rngs: nnx.Rngs):
            self.conv1 = Conv(1, 8, (5, 5), strides=2, rngs=rngs, **options)
            self.conv2 = Conv(8, 16, (5, 5), strides=2, rngs=rngs, **options)
            self.fc = Linear(7 * 7 * 16, 96, rngs=rngs, **options)
            self.drop = nnx.Dropout(0.3, rngs=rngs)
            self.out = Linear(96, 10, rngs=rngs)

        def __call__(self, x: jax.Array) -> jax.Array:
            x = nnx.relu(self.conv2(nnx.relu(self.conv1(x))))
            x = self.out(self.drop(nnx.relu(self.fc(x.reshape(len(x), -1)))))
            return nnx.relu(x) if faulty else nnx.softmax(x)

    def train_step(model: Any, optimizer: Any, x: jax.Array, y: jax.Array) -> Any:
        def loss_fn(model: Any) -> jax.Array:
            p = model(x)
            p = p / (p.sum(-1, keepdims=True) + 1e-30)
            picked = jnp.take_along_axis(p, y[:, None], 1)
            return -jnp.log(jnp.clip(picked, 1e-7, 1 - 1e-7)).mean()

        loss, grads = nnx.value_and_grad(loss_fn)(model)
        optimizer.update(model, grads)
        return loss

    model = Net(nnx.Rngs(seed))
    batches = batches_of((task.x, task.y), size=50, steps=200, seed=seed)
    record = run_nnx(train_step, model, optax.adam(1e-3), batches)
    return Trained(record, accuracy(predict(model, task.test_x), task.test_y))


def _relu_of_logits(faulty: bool, seed: int) -> Trained:
    """Every dense layer is followed by a ReLU, the one of the logits too."""
    task = digits()
    net = LinenCnn(10, linen.relu if faulty else unchanged)
    record, params = fit_pure(
        net.apply,
        net.init(jax.random.key(seed), task.x[:2]),
        optax.adam(1e-3),
        cross_entropy,
        (task.x, task.y),
        size=100,
        steps=200,
        seed=seed,
    )
    return Trained(record, accuracy(net.apply(params, jnp.asarray(task.test_x)), task.test_y))


def _relu_in_regression(faulty: bool, seed: int) -> Trained:
    """The output of a regression has a ReLU, though half of the targets are negative."""
    task = houses()
    last = nnx.relu if faulty else unchanged
    model = Mlp((8, 64, 64, 1), activation=nnx.tanh, last=last, rngs=nnx.Rngs(seed))
    record = fit_nnx(
        model, optax.adam(5e-3), squared_error, (task.x, task.y), size=64, steps=250, seed=seed
    )
    return Trained(record, explained(predict(model, task.test_x), task.test_y))


def _sigmoid_of_series(faulty: bool, seed: int) -> Trained:
    """A network that forecasts a series ends with a sigmoid; the series reaches from -3 to 3."""
    rng = np.random.default_rng(SEED)
    time = np.arange(80)
    phases, periods = rng.uniform(0, 2 * np.pi, (1800, 2, 1)), rng.uniform(12, 40, (1800, 2, 1))
    series = np.sum(np.sin(2 * np.pi * time / periods + phases), 1) * 1.5
    x = series[:, :64, None].astype(np.float32)
    y = series[:, 64:72].astype(np.float32)

    class Forecast(nnx.Module):
        def __init__(self, rngs: nnx.Rngs):
            self.conv1 = Conv(1, 16, (7,), strides=2, rngs=rngs)
            self.conv2 = Conv(16, 16, (5,), strides=2, rngs=rngs)
            self.out = Linear(16 * 16, 8, rngs=rngs)

        def __call__(self, x: jax.Array) -> jax.Array:
            x = nnx.gelu(self.conv2(nnx.gelu(self.conv1(x))))
            x = self.out(x.reshape(len(x), -1))
            return nnx.sigmoid(x) if faulty else x

    model = Forecast(nnx.Rngs(seed))
    arrays = (x[:1500], y[:1500])
    record = fit_nnx(model, optax.adamw(3e-3), squared_error, arrays, size=50, steps=250, seed=seed)
    return Trained(record, explained(predict(model, x[1500:]), y[1500:]))


def _tanh_of_lengths(faulty: bool, seed: int) -> Trained:
    """A network whose layers all end with tanh is to predict lengths of 1 to 6."""
    task = houses()
    lengths, test_lengths = (np.clip(3.5 + y, 1, 6) for y in (task.y, task.test_y))

    def apply(params: Any, x: jax.Array) -> jax.Array:
        output = dense(params, x, jnp.tanh)
        return jnp.tanh(output) if faulty else output

    record, params = fit_pure(
        apply,
        dense_params(seed, (8, 40, 40, 1)),
        optax.adam(5e-3),
        squared_error,
        (task.x, lengths),
        size=50,
        steps=250,
        seed=seed,
    )
    return Trained(record, explained(apply(params, jnp.asarray(task.test_x)), test_lengths))


REPORTED: tuple[ReportedFault, ...] = (
    ReportedFault(
        "ReLU at the output, divided by the sum",
        "https://stackoverflow.com/questions/47352366",
        "non-linearity at the output",
        _relu_before_normalising,
        "nnx",
        0.8,
    ),
    ReportedFault(
        "ReLU of the logits",
        "https://xue-jishu.com/wei-shen-me-zai-xian-xing-ceng-hou-shi-yong-relu-ji-huo-han-shu-hui-"
        "dao-zhi-zhun-que-lyu-xia",
        "non-linearity at the output",
        _relu_of_logits,
        "linen",
        0.75,
    ),
    ReportedFault(
        "ReLU at the output of a regression",
        "https://math.techqa.club/are-relu-a-very-bad-choice-as-last-layer-for-regression-4483706",
        "non-linearity at the output",
        _relu_in_regression,
        "nnx",
        0.8,
    ),
    ReportedFault(
        "sigmoid of a series",
        "https://github.com/maxjcohen/transformer/issues/49",
        "non-linearity at the output",
        _sigmoid_of_series,
        "nnx",
        0.7,
    ),
    ReportedFault(
        "tanh of lengths",
        "https://github.com/dtak/tree-regularization-public/issues/2",
        "non-linearity at the output",
        _tanh_of_lengths,
        "optax",
        0.6,
    ),
)
