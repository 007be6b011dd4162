import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx

from convjax import cifar_resnet
from convjax.nn import BatchNorm
from experiments.residual.ghost_batch_norm import GhostBatchNorm, use_ghost_batch_norm
from tests.helpers import LAYOUTS, reorder

MAPS = np.random.default_rng(0).normal(1.0, 2.0, (12, 4, 5, 3)).astype(np.float32)


def gradient(norm, x):
    structure, state = nnx.split(norm)

    def loss(x):
        return jnp.sum(jnp.sin(nnx.merge(structure, state, copy=True)(x)))

    return jax.grad(loss)(x)


def test_ghost_batch_norm_by_hand():
    norm = GhostBatchNorm(1, 2, layout="NHWC")
    images = jnp.array([1.0, 3.0, 10.0, 20.0]).reshape(4, 1, 1, 1)
    np.testing.assert_allclose(norm(images).ravel(), [-1, 1, -1, 1], atol=1e-4)
    # Of the whole batch: mean 8.5, unbiased variance (7.5² + 5.5² + 1.5² + 11.5²)/3 = 221/3.
    assert float(norm.mean[0]) == pytest.approx(0.1 * 8.5)
    assert float(norm.var[0]) == pytest.approx(0.9 + 0.1 * 221 / 3, rel=1e-6)


@pytest.mark.parametrize("layout", LAYOUTS)
def test_ghost_batch_norm_equals_batch_norm_of_each_group(layout):
    ghost, x = GhostBatchNorm(3, 4, layout=layout), jnp.asarray(reorder(MAPS, "NHWC", layout))
    parts = [
        BatchNorm(3, layout=layout)(reorder(MAPS[i : i + 4], "NHWC", layout)) for i in (0, 4, 8)
    ]
    wanted = jnp.concatenate(parts, layout.index("N"))
    np.testing.assert_allclose(ghost(x), wanted, rtol=1e-5, atol=1e-5)
    whole = BatchNorm(3, layout=layout)
    whole(x)
    np.testing.assert_allclose(ghost.mean[...], whole.mean[...], rtol=1e-5)
    np.testing.assert_allclose(ghost.var[...], whole.var[...], rtol=1e-5)
    ghost.eval(), whole.eval()
    # The running statistics differ by their rounding.
    np.testing.assert_allclose(ghost(x[:7]), whole(x[:7]), rtol=1e-5, atol=1e-6)


def test_ghost_batch_norm_of_one_group_is_batch_norm_with_its_gradient():
    x = jnp.asarray(MAPS)
    found = gradient(GhostBatchNorm(3, 12, layout="NHWC"), x)
    wanted = gradient(BatchNorm(3), x)
    np.testing.assert_allclose(found, wanted, rtol=1e-4, atol=1e-6)
    other = gradient(GhostBatchNorm(3, 4, layout="NHWC"), x)
    assert np.abs(other - wanted).max() > 1e-2


def test_ghost_batch_norm_rejects_a_part_of_a_group():
    norm = GhostBatchNorm(3, 5, layout="NHWC")
    before = np.asarray(norm.mean[...])
    with pytest.raises(
        ValueError, match=r"groups of 5 images .*got 12 .*batch size that 5 divides"
    ):
        norm(MAPS)
    np.testing.assert_array_equal(norm.mean[...], before)
    with pytest.raises(ValueError, match="group must be at least 1, got 0"):
        GhostBatchNorm(3, 0, layout="NHWC")


def test_use_ghost_batch_norm_replaces_every_batch_norm():
    network = cifar_resnet(8, widths=(2, 3, 4), layout="NCHW", rngs=nnx.Rngs(0))
    before = jax.tree.leaves(nnx.state(network))  # among them the scales that begin at 0
    use_ghost_batch_norm(network, 4)
    norms = [m for _, m in nnx.iter_modules(network) if isinstance(m, BatchNorm)]
    assert len(norms) == 7
    assert {(type(m), m.group, m.layout) for m in norms} == {(GhostBatchNorm, 4, "NCHW")}
    after = jax.tree.leaves(nnx.state(network))
    assert all(np.array_equal(a, b) for a, b in zip(before, after, strict=True))
