"""The active and the dead channels of a layer."""

import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from convjax.nn._capture import capture, channel_axes
from convjax.nn.models import ConvNet
from convjax.stats.activations import ActivationStats, activation_stats
from convjax.stats.record_builder import from_steps
from convjax.stats.watch import Watch
from tests.helpers import make_record, without_layers


def recorded(*layers, every=1):
    """The record of layers whose channels were active so at each watched step: (S, C) each."""
    zeros = np.zeros(len(layers[0]))
    stats = [ActivationStats(*[zeros] * 4, None, None, None, np.asarray(x, bool)) for x in layers]
    steps = np.zeros(len(zeros) * every)
    watched = np.arange(0, len(steps), every)
    names = [f"layer{i}" for i in range(len(layers))]
    return from_steps(names, [1] * len(layers), steps, steps, steps, watched, stats)


def test_activation_stats_active_channels_by_hand():
    x = jnp.array([[[0.0, -1], [0, 2]], [[0, -3], [jnp.nan, 0]]])
    assert activation_stats(x, channel_axis=-1).active.tolist() == [False, True]
    assert activation_stats(x, channel_axis=0).active.tolist() == [True, False]
    assert activation_stats(x).active is None


def test_dead_by_hand():
    active = [[1, 0, 0], [0, 0, 0], [0, 1, 0], [0, 0, 0], [0, 0, 0]]
    record = recorded(np.ones((5, 9)), active)
    # Of the last two steps: in steps 1 and 2 the second channel lived, in 2 and 3, too.
    np.testing.assert_allclose(record.dead("layer1", steps=2), [np.nan, 2 / 3, 2 / 3, 2 / 3, 1])
    np.testing.assert_allclose(record.dead(1, steps=4), [np.nan] * 3 + [1 / 3, 2 / 3])
    np.testing.assert_allclose(record.dead(0, steps=1), np.zeros(5))
    np.testing.assert_array_equal(record.active_channels(1), np.array(active, bool))


@given(arrays(bool, st.tuples(st.integers(1, 20), st.integers(1, 11))), st.integers(1, 8))
def test_dead_equals_a_window_over_the_steps(active, steps):
    found = recorded(active).dead(0, steps=steps)
    for i, share in enumerate(found):
        if i + 1 < steps:
            assert np.isnan(share)
        else:
            window = active[i + 1 - steps : i + 1]
            assert share == pytest.approx(1 - window.any(0).mean())


def test_dead_counts_steps_that_are_not_watched():
    active = np.eye(4, dtype=bool)[:, :3]
    found = recorded(active, every=10).dead(0, steps=20)
    np.testing.assert_allclose(found, [np.nan, 1 / 3, 1 / 3, 2 / 3])


def test_active_channels_of_merged_rows():
    active = np.random.default_rng(0).random((8, 13)) < 0.2
    merged = recorded(active).merged(2)
    np.testing.assert_array_equal(merged.active_channels(0), [active[:4].any(0), active[4:].any(0)])


def test_dead_needs_units():
    for record in (without_layers(make_record(steps=3, layers=1)), recorded_without()):
        with pytest.raises(ValueError, match=r"record must hold units, got none.*units=True"):
            record.dead(0)
    with pytest.raises(ValueError, match=r"steps must be at least 1, got 0"):
        make_record(steps=3, layers=1).dead(0, steps=0)


def recorded_without():
    row = np.zeros(2)
    stats = ActivationStats(row, row, row, row, None, None, None)
    return from_steps(["a"], [1], row, row, row, np.arange(2), [stats])


@pytest.mark.parametrize("layout", ["NHWC", "NCHW", "CHWN"])
@pytest.mark.parametrize("norm", ["batch", "group"])
def test_channel_axes_are_the_channels_in_every_layout(layout, norm):
    model = ConvNet((1, 4, 6, 3), norm=norm, layout=layout, rngs=nnx.Rngs(0))
    x = np.random.default_rng(0).normal(size=(5, 8, 8, 1)).astype(np.float32)
    _, outputs = capture(model, x, select="*")
    axes = channel_axes(model, outputs)
    sizes = {name: outputs[name].shape[axis] for name, axis in axes.items()}
    for i, channels in enumerate((4, 6, 3)):
        for part in ("", ".conv", ".norm"):
            assert sizes[f"blocks.{i}{part}"] == channels


def test_watch_stats_has_active_channels():
    watch = Watch(units=True)
    model = ConvNet((1, 4, 3), layout="CHWN", rngs=nnx.Rngs(0))
    model.blocks[0].conv.bias[...] = jnp.array([-1e3, 0, 0, 1e3])
    _, outputs, axes = watch.outputs(model, jnp.ones((2, 4, 4, 1)), jnp.arange(2))
    first = watch.stats(outputs, axes)[0]
    assert first.active.shape == (4,)
    assert (first.active[0], first.active[3]) == (False, True)
