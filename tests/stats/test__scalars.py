"""The flat dictionary of a record or a step, against the arrays it comes from."""

import dataclasses
import math

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from convjax.stats import Recorder, layer_stats, parameter_stats, scalars
from tests.helpers import make_record, without_histograms, without_layers

PARAMS = {"w": jnp.array([3.0, 4.0]), "zero": jnp.zeros(2)}


@pytest.mark.parametrize(
    "record", [make_record(steps=205, layers=3), make_record(steps=7, layers=2)]
)
def test_scalars_of_a_record_are_those_of_its_last_rows(record):
    wanted = {name: getattr(record, name)[-1] for name in ("loss", "learning_rate", "momentum")}
    wanted["eval_loss"] = record.eval_loss[-1]
    for column, layer in enumerate(record.layers):
        for name in ("mean", "std", "near_zero"):
            wanted[f"layers/{layer}/{name}"] = getattr(record, name)[-1, column]
        if record.steps >= 100:
            wanted[f"layers/{layer}/dead"] = record.dead(layer)[-1]
    for column, parameter in enumerate(record.parameters.names):
        for name in ("weight_norm", "grad_norm", "update_ratio"):
            value = getattr(record.parameters, name)[-1, column]
            wanted[f"parameters/{parameter}/{name}"] = value
    found = scalars(record)
    assert found == {name: pytest.approx(value) for name, value in wanted.items()}
    assert all(type(value) is float for value in found.values())


def test_scalars_by_hand():
    recorder = Recorder()
    recorder.add(1.0, layer_stats({"a": jnp.zeros(4)}), momentum=0.75, eval_loss=2.0)
    recorder.add(math.nan)
    found = scalars(recorder.record())
    # The loss of the last step, which is NaN because it diverged, and what the step before has.
    assert math.isnan(found.pop("loss"))
    assert found == {
        "eval_loss": 2,
        "layers/a/mean": 0,
        "layers/a/std": 0,
        "layers/a/near_zero": 1,
    }


def test_scalars_leave_out_what_is_not_known():
    record = make_record(steps=3, layers=1)
    unknown = np.full(3, np.nan)
    record = dataclasses.replace(record, learning_rate=unknown, eval_loss=unknown, parameters=None)
    assert not {"learning_rate", "eval_loss"} & set(scalars(record))
    assert list(scalars(without_layers(record))) == ["loss", "momentum"]
    assert scalars(without_histograms(record)).keys() == scalars(record).keys()


@pytest.mark.parametrize("merged", [None, 16, 3])
def test_scalars_have_the_dead_channels_of_the_record(merged):
    rng = np.random.default_rng(0)
    recorder = Recorder() if merged is None else Recorder(rows=merged)
    for i in range(130):
        x = rng.normal(size=(2, 6)) * (rng.random(6) < 0.02) if i > 40 else np.ones((2, 6))
        outputs = {"a": jnp.asarray(x), "b": jnp.asarray(x[:, :2])}
        recorder.add(1.0, layer_stats(outputs, histogram=False, units=True) if i % 3 == 0 else None)
    record = recorder.record()
    for layer in "ab":
        assert scalars(record)[f"layers/{layer}/dead"] == pytest.approx(record.dead(layer)[-1])


def test_scalars_of_a_step():
    stats = layer_stats({"a": jnp.array([1.0, 3.0])})
    assert scalars(jax.jit(lambda s: s)(stats)) == {
        "layers/a/mean": 2,
        "layers/a/std": pytest.approx(2**0.5),
        "layers/a/near_zero": 0,
    }
    found = scalars(parameter_stats(PARAMS, updated=jax.tree.map(lambda x: x + 1, PARAMS)))
    assert found["parameters/w/weight_norm"] == 5
    assert found["parameters/w/update_ratio"] == pytest.approx(2**0.5 / 5)
    assert found["parameters/zero/update_ratio"] == math.inf
    assert "parameters/w/grad_norm" not in found


def test_scalars_of_an_ensemble_are_of_all_members():
    x = jnp.array([[1.0, 3.0], [5.0, 7.0]])
    assert scalars(jax.vmap(lambda x: layer_stats({"a": x}))(x))["layers/a/mean"] == 4


def test_scalars_reject_other_things():
    with pytest.raises(TypeError, match=r"found must be a Record or .* got dict"):
        scalars({})
    with pytest.raises(TypeError, match=r"got Recorder.* Recorder\.record\(\) returns"):
        scalars(Recorder())
    with pytest.raises(TypeError, match="found must have values, got a tracer"):
        jax.jit(lambda s: scalars(s))(layer_stats({"a": jnp.ones(2)}))
