import dataclasses

import numpy as np
import pytest
from flax import nnx

from convjax.nn._capture import capture
from convjax.nn.models import LinearNet
from convjax.nn.selection import has_parameters
from convjax.stats.activations import ActivationStats, activation_stats
from convjax.stats.bins import Bins
from convjax.stats.watch import Watch

X = np.random.default_rng(0).standard_normal((5, 8)).astype(np.float32)
LABELS = np.arange(5)


def model():
    return LinearNet((8, 4, 3), rngs=nnx.Rngs(0))


def test_watch_defaults():
    assert Watch() == Watch(select=has_parameters, every=1, histogram=True)
    with pytest.raises(dataclasses.FrozenInstanceError):
        Watch().every = 2


def test_watch_documents_every_setting():
    described = [line.split(":")[0].strip() for line in Watch.__doc__.splitlines()]
    for field in dataclasses.fields(Watch):
        assert field.name in described


@pytest.mark.parametrize("every", [0, -3, 2.5])
def test_watch_rejects_every(every):
    message = f"every must be a whole number of steps, at least 1, got {every}. To .* watch=None"
    with pytest.raises(ValueError, match=message):
        Watch(every=every)


def test_watch_outputs_are_those_of_capture():
    output, outputs, axes = Watch().outputs(model(), X, LABELS)
    wanted, layers = capture(model(), X)
    # The same operations outside jit: bit for bit.
    np.testing.assert_array_equal(output, wanted)
    assert list(outputs) == list(layers) == ["layers.0", "layers.1"]
    assert axes == {"layers.0": -1, "layers.1": -1}
    for name, layer in layers.items():
        np.testing.assert_array_equal(outputs[name], layer)


def test_watch_select_chooses_the_layers():
    for by in (
        lambda name, module: name == "layers.1",
        lambda name, module: has_parameters(name, module) and module.kernel.shape == (4, 3),
    ):
        assert list(Watch(select=by).outputs(model(), X, LABELS)[1]) == ["layers.1"]
    with pytest.raises(ValueError, match=r"select must match a layer of LinearNet.*layers\.0"):
        Watch(select=lambda name, module: False).outputs(model(), X, LABELS)


def test_watch_stats_are_those_of_each_output():
    _, outputs, axes = Watch().outputs(model(), X, LABELS)
    stats = Watch().stats(outputs, axes)
    assert len(stats) == 2
    for found, output in zip(stats, outputs.values(), strict=True):
        for actual, wanted in zip(found, activation_stats(output), strict=True):
            np.testing.assert_array_equal(actual, wanted)
    assert Watch().stats({}, {}) == ()


def test_watch_stats_are_none_where_off():
    def fields(watch):
        (stats,) = watch.stats({"x": X}, {"x": -1})
        return {name for name, value in stats._asdict().items() if value is not None}

    counts, units = {"hist", "under", "over"}, {"active"}
    every = set(ActivationStats._fields)
    assert fields(Watch(units=True)) == every
    assert fields(Watch()) == every - units
    assert fields(Watch(histogram=False, units=True)) == every - counts


def test_watch_stats_have_its_bins():
    (found,) = Watch(bins=Bins(-1.0, 1.0, 4)).stats({"x": X}, {"x": -1})
    wanted = np.histogram(X, 4, (-1, 1))[0]
    np.testing.assert_array_equal(found.hist, wanted)
    with pytest.raises(TypeError):
        Watch("*", 1, True, True, False, False, False, False, False, "symmetric")
    with pytest.raises(ValueError, match=r"bins must be 'fastai', 'symmetric' or a Bins, got 'g"):
        Watch(bins="gelu")


def test_watch_outputs_begin_with_the_inputs():
    outputs = Watch(inputs=True).outputs(model(), X, LABELS)[1]
    assert list(outputs) == ["input", "labels", "layers.0", "layers.1"]
    np.testing.assert_array_equal(outputs["input"], X)
    assert list(Watch(inputs=True, activations=False).outputs(model(), X, LABELS)[1]) == [
        "input",
        "labels",
    ]


def test_watch_outputs_rejects_a_layer_with_the_name_of_the_inputs():
    class Model(nnx.Module):
        def __init__(self):
            self.labels = nnx.Linear(8, 2, rngs=nnx.Rngs(0))

        def __call__(self, x):
            return self.labels(x)

    with pytest.raises(ValueError, match=r"inputs must be False .* the name 'labels'.* Rename"):
        Watch(inputs=True).outputs(Model(), X, LABELS)


def test_watch_needs_a_quantity():
    with pytest.raises(ValueError, match=r"one quantity or more .* got none.*watch=None"):
        Watch(activations=False)
    with pytest.raises(ValueError, match=r"units=True must go with activations=True"):
        Watch(activations=False, units=True, gradients=True)
    assert Watch(activations=False, evaluation=True).evaluation


def test_watch_parameter_stats_are_none_where_off():
    params = {"w": X}
    assert Watch().parameter_stats(params, params, params) is None
    grads = Watch(gradients=True).parameter_stats(params, params, params)
    assert (grads.update_norm, grads.update_hist) == (None, None)
    updated = {"w": X.copy()}
    updates = Watch(updates=True, histogram=False).parameter_stats(params, None, updated)
    assert (updates.grad_norm, updates.update_hist) == (None, None)
    assert updates.update_norm.tolist() == [0]


def test_watch_everything_turns_all_quantities_on():
    on = {f.name for f in dataclasses.fields(Watch)} - {"select", "every"}
    assert all(getattr(Watch.everything(), name) for name in on)
    assert Watch.everything("*.0", every=5).every == 5
