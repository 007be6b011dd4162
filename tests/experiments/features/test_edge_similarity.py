import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from experiments.features.edge_similarity import colour_shares, edge_shares, edges, noise_like

RNG = np.random.default_rng(0)


def kernel(weights, colours=(1, 1, 1)):
    """One kernel (H, W, 3, 1) of a pattern and a number per channel."""
    return np.einsum("hw,c->hwc", np.asarray(weights, float), np.array(colours))[..., np.newaxis]


def test_edge_shares_is_one_for_an_edge_of_any_colour():
    for edge in edges(7)[::17]:
        found = edge_shares(kernel(edge.reshape(7, 7), (0.2, -3, 1)))
        assert found == pytest.approx([1])  # exact up to rounding in float64


def test_edge_shares_by_hand():
    top_edge = np.array([[-1, -1, -1], [0, 0, 0], [1, 1, 1]])
    assert edge_shares(kernel(top_edge))[0] > 0.8  # its corners differ from a Gaussian's
    assert edge_shares(kernel(np.ones((3, 3))))[0] == pytest.approx(0, abs=1e-12)
    assert edge_shares(kernel(np.zeros((3, 3)))).tolist() == [0]
    # Half of the energy is an edge, half is brightness, which is orthogonal to it.
    edge = edges(5)[0].reshape(5, 5)
    assert edge_shares(kernel(edge + 1 / 5)) == pytest.approx([0.5])
    # The colours of the kernels differ, the edge is the same. Of two crossed edges one is
    # explained.
    two = np.concatenate([kernel(edge, (1, 0, 0)), kernel(edge, (0, 1, 0))], -1)
    np.testing.assert_allclose(edge_shares(two), 1)
    crossed = kernel(edge, (1, 0, 0)) + kernel(edge.T, (0, 1, 0))
    assert 0.45 < edge_shares(crossed)[0] < 0.8


@settings(max_examples=20, deadline=None)
@given(st.integers(3, 9), st.floats(0.01, 100), st.integers(0, 1000))
def test_edge_shares_is_invariant_to_scale_channels_and_rotation(side, scale, seed):
    kernels = np.random.default_rng(seed).standard_normal((side, side, 3, 2))
    found = edge_shares(kernels)
    assert ((found >= 0) & (found <= 1 + 1e-12)).all()
    # Strength, sign and the order of channels do not matter. Neither does a quarter turn, which
    # maps the twelve directions and nine centres to each other.
    np.testing.assert_allclose(edge_shares(-scale * kernels[:, :, ::-1]), found, rtol=1e-9)
    np.testing.assert_allclose(edge_shares(np.rot90(kernels)), found, rtol=1e-9)


def test_edge_shares_is_small_for_random_weights():
    found = edge_shares(RNG.standard_normal((7, 7, 3, 200)))
    assert found.mean() < 0.1


def test_noise_like_keeps_smoothness_and_colour():
    smooth = RNG.standard_normal((7, 7, 1, 400)).cumsum(0).cumsum(1)
    kernels = smooth * np.array([1.0, -0.5, 0.0])[:, np.newaxis]
    found = noise_like(kernels, seed=0)
    assert found.shape == kernels.shape

    def rough(k):
        return (np.diff(k, axis=0) ** 2).sum() / (k**2).sum()

    # Dropping negative eigenvalues costs some smoothness. The ratio of white noise is 12/7.
    assert rough(found) == pytest.approx(rough(kernels), rel=0.2)
    np.testing.assert_allclose(found[:, :, 1], -0.5 * found[:, :, 0], atol=1e-9)
    np.testing.assert_allclose(found[:, :, 2], 0, atol=1e-9)
    assert not np.allclose(found, noise_like(kernels, seed=1))


def test_noise_like_has_no_direction():
    edge = kernel(edges(7)[0].reshape(7, 7), (1, 1, 1)).repeat(300, -1)
    assert edge_shares(edge).mean() == pytest.approx(1)
    found = noise_like(edge, seed=0)
    assert edge_shares(found).mean() < 0.7
    down, across = ((np.diff(found, axis=axis) ** 2).mean() for axis in (0, 1))
    assert down == pytest.approx(across, rel=0.15)  # 300 kernels


def test_colour_shares_by_hand():
    pattern = RNG.standard_normal((5, 5))
    shares = [
        colour_shares(kernel(pattern, colours))[0]
        for colours in ((1, 1, 1), (1, -1, 0), (1, 0, 0), (0, 0, 0))
    ]
    # One channel alone is a third brightness: (1/3)² · 3.
    np.testing.assert_allclose(shares, [0, 1, 2 / 3, 1], atol=1e-12)


@pytest.mark.parametrize("shape", [(3, 5, 3, 1), (2, 2, 3, 1)])
def test_edge_shares_rejects_other_shapes(shape):
    with pytest.raises(ValueError, match=rf"3 pixels a side or more, got {shape[0]}×{shape[1]}"):
        edge_shares(np.ones(shape))
