import dataclasses

import jax
import numpy as np
import pytest
from flax import nnx

from convjax.capture import capture, has_parameters
from convjax.models import LinearNet
from convjax.stats import ActivationStats, activation_stats
from convjax.watch import Watch

X = np.random.default_rng(0).standard_normal((5, 8)).astype(np.float32)


def model():
    return LinearNet((8, 4, 3), rngs=nnx.Rngs(0))


def test_the_default_watches_every_layer_at_every_step_with_histograms():
    assert Watch() == Watch(select=has_parameters, every=1, histogram=True)
    with pytest.raises(dataclasses.FrozenInstanceError):
        Watch().every = 2


def test_every_setting_is_documented():
    described = [line.split(":")[0].strip() for line in Watch.__doc__.splitlines()]
    for field in dataclasses.fields(Watch):
        assert field.name in described


@pytest.mark.parametrize("every", [0, -3, 2.5])
def test_watch_rejects(every):
    message = f"every must be a whole number of steps, at least 1, got {every}. To .* watch=None"
    with pytest.raises(ValueError, match=message):
        Watch(every=every)


def test_outputs_are_those_of_capture():
    output, outputs = Watch().outputs(model(), X)
    wanted, layers = capture(model(), X)
    # The same operations outside jit: bit for bit.
    np.testing.assert_array_equal(output, wanted)
    assert list(outputs) == list(layers) == ["layers.0", "layers.1"]
    for name, layer in layers.items():
        np.testing.assert_array_equal(outputs[name], layer)


def test_select_chooses_the_layers():
    for by in (
        lambda name, module: name == "layers.1",
        lambda name, module: has_parameters(name, module) and module.kernel.shape == (4, 3),
    ):
        assert list(Watch(select=by).outputs(model(), X)[1]) == ["layers.1"]
    with pytest.raises(ValueError, match=r"select matches no layer of LinearNet.*layers\.0"):
        Watch(select=lambda name, module: False).outputs(model(), X)


def test_stats_are_those_of_each_output_in_order():
    outputs = Watch().outputs(model(), X)[1]
    stats = Watch().stats(outputs.values())
    assert len(stats) == 2
    for found, output in zip(stats, outputs.values(), strict=True):
        for actual, wanted in zip(found, activation_stats(output), strict=True):
            np.testing.assert_array_equal(actual, wanted)
    assert Watch().stats([]) == ()


def test_without_histogram_the_counts_are_none():
    stats = Watch(histogram=False).stats([X])
    (found,) = stats
    assert (found.hist, found.under, found.over) == (None, None, None)
    assert len(jax.tree.leaves(stats)) == len(ActivationStats._fields) - 3
    assert all(count is not None for count in Watch().stats([X])[0])
