"""Reported faults of the losses and their targets, of the last collection."""

from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import optax
from flax import linen, nnx

from experiments.diagnosis_study.reported.data_networks import (
    LinenConv,
    Mlp,
    UNet,
    dense,
    dense_params,
    fit_linen,
    fit_nnx,
    fit_pure,
    predict,
    squared_error,
)
from experiments.diagnosis_study.reported.data_tasks import (
    SEED,
    digits,
    explained,
    recalled,
)
from experiments.diagnosis_study.reported.evaluation_tasks import heat_maps
from experiments.diagnosis_study.reported.reported_fault import ReportedFault
from experiments.diagnosis_study.user_loops import HostArray, Trained, batches_of, run_pure


def _images_from_minus_one(faulty: bool, seed: int) -> Trained:
    """An autoencoder with binary cross entropy has images of -1 to 1 as targets."""
    x, test_x = (
        images.reshape(len(images), 14, 2, 14, 2).mean((2, 4)).reshape(len(images), -1)
        for images in (digits().x, digits().test_x)
    )
    targets = 2 * x - 1 if faulty else x

    def loss(logits: jax.Array, targets: jax.Array) -> jax.Array:
        return optax.sigmoid_binary_cross_entropy(logits, targets).mean()

    model = Mlp((196, 64, 16, 64, 196), rngs=nnx.Rngs(seed))
    arrays = (2 * x - 1, targets)
    record = fit_nnx(model, optax.adam(3e-3), loss, arrays, size=50, steps=200, seed=seed)
    images = np.asarray(jax.nn.sigmoid(predict(model, 2 * test_x - 1)))
    return Trained(record, explained(images.ravel(), test_x.ravel()))


def _molecules() -> tuple[HostArray, HostArray]:
    """Returns atoms of five kinds (N, 9) and energies, most of which are those of the atoms."""
    rng = np.random.default_rng(SEED)
    atoms = rng.integers(5, size=(2000, 9)).astype(np.int32)
    own = np.array([-13.6, -1029.9, -1485.3, -2042.6, -2713.5])
    return atoms, own[atoms].sum(1) + 0.1 * rng.normal(size=2000)


def _energies_in_volts(faulty: bool, seed: int) -> Trained:
    """A sum over atoms fits energies of about -13,000, whose mean and deviation are not removed."""
    atoms, energies = _molecules()
    y = energies if faulty else (energies - energies.mean()) / energies.std()
    y = y.astype(np.float32)
    rng = np.random.default_rng(seed)
    params: Any = {
        "kinds": jnp.asarray(rng.normal(size=(5, 16)), jnp.float32),
        "atom": dense_params(seed, (16, 32, 1)),
    }

    def network(params: Any, atoms: jax.Array) -> jax.Array:
        each = params["kinds"][atoms].reshape(-1, 16)
        return dense(params["atom"], each, jax.nn.softplus).reshape(atoms.shape).sum(1)

    arrays = (atoms[:1600], y[:1600])
    record, params = fit_pure(
        network, params, optax.adam(2e-3), squared_error, arrays, size=50, steps=200, seed=seed
    )
    return Trained(record, explained(network(params, jnp.asarray(atoms[1600:])), y[1600:]))


def _irradiance_in_watts(faulty: bool, seed: int) -> Trained:
    """Irradiance of up to 1,000 W/m² is predicted from a standardised series."""
    rng = np.random.default_rng(SEED)
    sun = np.sin(np.linspace(0, 300, 2400)) + 0.5 * np.sin(np.linspace(1, 770, 2400))
    series = sun + 0.1 * rng.normal(size=2400)
    windows = np.lib.stride_tricks.sliding_window_view(series, 17).astype(np.float32)
    x, y = windows[:, :16], windows[:, 16]
    y = (480 + 300 * y if faulty else y).astype(np.float32)
    model = eqx.nn.MLP(16, "scalar", 48, 2, key=jax.random.key(seed))
    tx = optax.adam(1e-3)

    def step(model: Any, opt_state: Any, x: jax.Array, y: jax.Array) -> Any:
        def mean_error(model: Any) -> jax.Array:
            return jnp.mean((jax.vmap(model)(x) - y) ** 2)

        loss, grads = eqx.filter_value_and_grad(mean_error)(model)
        weights = eqx.filter(model, eqx.is_inexact_array)
        updates, opt_state = tx.update(grads, opt_state, weights)
        return eqx.apply_updates(model, updates), opt_state, loss

    state = (model, tx.init(eqx.filter(model, eqx.is_inexact_array)))
    batches = batches_of((x[:2000], y[:2000]), size=50, steps=200, seed=seed)
    record, (model, _) = run_pure(step, state, batches)
    return Trained(record, explained(jax.vmap(model)(jnp.asarray(x[2000:])), y[2000:]))


def _initial_condition_of_rows(faulty: bool, seed: int) -> Trained:
    """The loss of the initial condition compares (N, 1) with (N,); the equation is u_t + u = 0."""
    rng = np.random.default_rng(SEED)
    points = rng.uniform((-1, 0), (1, 1), size=(2000, 2)).astype(np.float32)
    starts = rng.uniform(-1, 1, size=2000).astype(np.float32)

    def residual(params: Any, point: jax.Array) -> jax.Array:
        def u(point: jax.Array) -> jax.Array:
            return dense(params, point[None], jnp.tanh)[0, 0]

        return jax.grad(u)(point)[1] + u(point)

    def apply(params: Any, points: jax.Array) -> Any:
        start = jnp.stack([points[:, 0], jnp.zeros(len(points))], 1)
        return jax.vmap(residual, (None, 0))(params, points), dense(params, start, jnp.tanh)

    def loss(outputs: Any, wanted: jax.Array) -> jax.Array:
        inside, start = outputs
        start = start if faulty else start[:, 0]
        return jnp.mean(inside**2) + jnp.mean((start - wanted) ** 2)

    points[:, 0] = starts
    arrays = (points, np.sin(np.pi * starts))
    params = dense_params(seed, (2, 32, 32, 1))
    record, params = fit_pure(
        apply, params, optax.adam(1e-2), loss, arrays, size=100, steps=200, seed=seed
    )
    test = rng.uniform((-1, 0), (1, 1), size=(500, 2)).astype(np.float32)
    exact = np.exp(-test[:, 1]) * np.sin(np.pi * test[:, 0])
    return Trained(record, explained(dense(params, jnp.asarray(test), jnp.tanh), exact))


def _depth_with_a_channel(faulty: bool, seed: int) -> Trained:
    """The network has its channel second, (N, 1, H, W), and the depth has none, (N, H, W)."""
    train, test = heat_maps()
    x, y = train[0], train[1][..., 0]

    def loss(depth: jax.Array, wanted: jax.Array) -> jax.Array:
        depth = jnp.moveaxis(depth, -1, 1)
        return jnp.mean(jnp.abs(depth - (wanted if faulty else wanted[:, None])))

    model = UNet(1, rngs=nnx.Rngs(seed))
    record = fit_nnx(model, optax.adam(5e-3), loss, (x, y), size=32, steps=200, seed=seed)
    return Trained(record, explained(predict(model, test[0]).ravel(), test[1].ravel()))


class Detector(linen.Module):
    """The confidence and the place of an object in each of 4·4 cells.

    Attributes:
      probability: whether the confidence is one already.
    """

    probability: bool

    @linen.compact
    def __call__(self, x: jax.Array) -> jax.Array:
        """Maps maps (N, 12, 12, 1) to confidence and place (N, 4, 4, 3)."""
        x = linen.relu(LinenConv(16, (3, 3))(x))
        x = linen.relu(LinenConv(32, (3, 3), strides=3)(x))
        x = LinenConv(3, (1, 1))(x)
        confidence = jax.nn.sigmoid(x[..., :1]) if self.probability else x[..., :1]
        return jnp.concatenate([confidence, jnp.tanh(x[..., 1:])], -1)


def _confidence_of_cells(faulty: bool, seed: int) -> Trained:
    """The head of a detector applies a sigmoid, and so does the loss of its confidence."""
    (x, maps), (test_x, test_maps) = heat_maps()

    def cells(maps: HostArray) -> HostArray:
        flat = maps.reshape(len(maps), -1).argmax(1)
        row, column = flat // 12, flat % 12
        y = np.zeros((len(maps), 4, 4, 3), np.float32)
        place = np.stack([np.ones(len(maps)), row % 3 - 1, column % 3 - 1], 1)
        y[np.arange(len(maps)), row // 3, column // 3] = place
        return y

    def loss(outputs: jax.Array, y: jax.Array) -> jax.Array:
        confidence = optax.sigmoid_binary_cross_entropy(outputs[..., 0], y[..., 0]).mean()
        errors = y[..., :1] * (outputs[..., 1:] - y[..., 1:]) ** 2
        return confidence + jnp.sum(errors) / jnp.sum(y[..., 0])

    record, net = fit_linen(
        Detector(faulty), optax.adam(3e-3), loss, (x, cells(maps)), size=32, steps=200, seed=seed
    )
    found = net(test_x)[..., 0] - (0.5 if faulty else 0)
    return Trained(record, recalled(found, cells(test_maps)[..., 0]))


def _columns_without_negatives(faulty: bool, seed: int) -> Trained:
    """An autoencoder of standardised columns ends with ReLU, so that it has no negative output."""
    rng = np.random.default_rng(SEED)
    x = np.tanh(rng.normal(size=(2400, 4)) @ rng.normal(size=(4, 24)))
    x = ((x - x.mean(0)) / x.std(0)).astype(np.float32)
    last = nnx.relu if faulty else (lambda x: x)
    model = Mlp((24, 32, 8, 32, 24), activation=nnx.tanh, last=last, rngs=nnx.Rngs(seed))
    arrays = (x[:2000], x[:2000])
    record = fit_nnx(model, optax.adam(5e-3), squared_error, arrays, size=50, steps=200, seed=seed)
    return Trained(record, explained(predict(model, x[2000:]), x[2000:]))


_GITHUB = "https://github.com/"

REPORTED: tuple[ReportedFault, ...] = (
    ReportedFault(
        "binary loss of images of -1 to 1",
        _GITHUB + "keras-team/keras/issues/6476",
        "labels do not fit the loss",
        _images_from_minus_one,
        "nnx",
        0.5,
    ),
    ReportedFault(
        "energies of molecules",
        _GITHUB + "atomistic-machine-learning/schnetpack/issues/336",
        "target not scaled",
        _energies_in_volts,
        "optax",
        0.8,
    ),
    ReportedFault(
        "irradiance in watts",
        _GITHUB + "gitbooo/CrossViVit/issues/5",
        "target not scaled",
        _irradiance_in_watts,
        "equinox",
        0.8,
    ),
    ReportedFault(
        "initial condition, (N, 1) and (N,)",
        _GITHUB + "Photon-AI-Research/NeuralSolvers/issues/20",
        "shapes of output and target differ",
        _initial_condition_of_rows,
        "optax",
        0.8,
    ),
    ReportedFault(
        "depth, (N, 1, H, W) and (N, H, W)",
        _GITHUB + "jiwei0921/CoNet/issues/3",
        "shapes of output and target differ",
        _depth_with_a_channel,
        "nnx",
        0.6,
    ),
    ReportedFault(
        "sigmoid of the confidence of cells",
        _GITHUB + "argusswift/YOLOv4-pytorch/issues/89",
        "softmax applied twice",
        _confidence_of_cells,
        "linen",
        0.8,
    ),
    ReportedFault(
        "ReLU at the end of an autoencoder",
        _GITHUB + "curiousily/Credit-Card-Fraud-Detection-using-Autoencoders-in-Keras/issues/1",
        "non-linearity at the output",
        _columns_without_negatives,
        "nnx",
        0.7,
    ),
)
