import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx

from convjax import ConvNet, digits_net
from convjax.nn.weights import WeightsError, load_weights, save_weights
from convjax.ops.layout import KERNEL_AXES, permutation

LAYOUTS = tuple(KERNEL_AXES)


def network(seed, **settings):
    return digits_net(rngs=nnx.Rngs(seed), **settings)


@pytest.mark.parametrize("norm", [None, "batch"])
def test_load_weights_restores_a_network(norm, tmp_path):
    saved, other = network(0, norm=norm), network(1, norm=norm)
    images = np.random.default_rng(0).random((8, 28, 28, 1), np.float32)
    saved(images)  # moves the running statistics
    save_weights(tmp_path / "model.npz", saved)
    loaded = load_weights(tmp_path / "model.npz", other)
    for model in (saved, other, loaded):
        model.eval()
    np.testing.assert_array_equal(loaded(images), saved(images))
    assert np.abs(other(images) - saved(images)).max() > 1e-3  # and it is a copy


def test_load_weights_restores_half_precision(tmp_path):
    saved, other = network(0, param_dtype=jnp.bfloat16), network(1, param_dtype=jnp.bfloat16)
    save_weights(tmp_path / "model.npz", saved)
    found = load_weights(tmp_path / "model.npz", other).blocks[0].conv.kernel[...]
    assert isinstance(found, jax.Array)
    assert found.dtype == jnp.bfloat16
    np.testing.assert_array_equal(found, saved.blocks[0].conv.kernel[...])


def test_save_weights_names_arrays_by_path(tmp_path):
    save_weights(tmp_path / "model.npz", network(0, norm="batch"))
    with np.load(tmp_path / "model.npz") as file:
        assert file["blocks.0.conv.kernel"].size == 200
        assert file["blocks.0.norm.mean"].shape == (8,)


def test_save_weights_omits_random_state(tmp_path):
    class Dropping(nnx.Module):
        def __init__(self, rngs):
            self.linear = nnx.Linear(2, 2, rngs=rngs)
            self.dropout = nnx.Dropout(0.5, rngs=rngs)

    save_weights(tmp_path / "model.npz", Dropping(nnx.Rngs(0)))
    with np.load(tmp_path / "model.npz") as file:
        assert set(file.files) == {"linear.kernel", "linear.bias", "kernel_axes"}
    load_weights(tmp_path / "model.npz", Dropping(nnx.Rngs(1)))


@pytest.mark.parametrize("written", LAYOUTS)
@pytest.mark.parametrize("channels", [(1, 8, 10), (3, 3, 3)])  # the second has equal shapes
def test_weights_mean_the_same_in_every_layout(written, channels, tmp_path):
    def net(layout, seed):
        return ConvNet(channels, layout=layout, rngs=nnx.Rngs(seed))

    saved = net(written, 0)
    images = np.random.default_rng(0).random((4, 4, 4, channels[0]), np.float32)
    save_weights(tmp_path / "model.npz", saved)
    for layout in LAYOUTS:
        loaded = load_weights(tmp_path / "model.npz", net(layout, 1))
        # Sums of 72 products of order 0.1 in float32, in another order.
        np.testing.assert_allclose(loaded(images), saved(images), atol=1e-6)


def write_as_version_0_1(path, model):
    """Writes kernels in the order of the model's layout, and does not say so."""
    save_weights(path, model)
    with np.load(path) as file:
        arrays = {name: file[name] for name in file.files if name != "kernel_axes"}
    axes = permutation("HWIO", KERNEL_AXES[model.layout])
    np.savez(path, **{n: x.transpose(axes) if x.ndim == 4 else x for n, x in arrays.items()})


@pytest.mark.parametrize("layout", LAYOUTS)
@pytest.mark.parametrize("written", LAYOUTS)
def test_load_weights_opens_files_that_name_no_order(written, layout, tmp_path):
    saved, other = network(0, layout=written), network(1, layout=layout)
    write_as_version_0_1(tmp_path / "model.npz", saved)
    loaded = load_weights(tmp_path / "model.npz", other)
    for one, two in zip(loaded.blocks, saved.blocks, strict=True):
        np.testing.assert_array_equal(one.conv.kernel[...], two.conv.kernel[...])


def test_load_weights_says_which_order_it_takes_where_shapes_do_not(tmp_path):
    saved = ConvNet((3, 3, 3), layout="CHWN", rngs=nnx.Rngs(0))
    write_as_version_0_1(tmp_path / "model.npz", saved)
    with pytest.warns(
        UserWarning, match="does not name the order .* CHWN, NHWC, NCHW.* those of C"
    ):
        loaded = load_weights(tmp_path / "model.npz", saved)
    for one, two in zip(loaded.blocks, saved.blocks, strict=True):
        np.testing.assert_array_equal(one.conv.kernel[...], two.conv.kernel[...])


def test_load_weights_rejects_another_order(tmp_path):
    save_weights(tmp_path / "model.npz", network(0))
    with np.load(tmp_path / "model.npz") as file:
        np.savez(tmp_path / "other.npz", **{**file, "kernel_axes": np.array("OIHW")})
    with pytest.raises(WeightsError, match="axes 'OIHW', and those of this version are 'HWIO'"):
        load_weights(tmp_path / "other.npz", network(0))


@pytest.mark.parametrize(
    ("other", "message"),
    [
        ({"norm": "batch"}, r"without blocks\.0\.norm\.bias"),
        ({"first_kernel": 3}, r"blocks\.0\.conv\.kernel of shape .*, but the network's has"),
    ],
)
def test_load_weights_rejects_another_network(other, message, tmp_path):
    save_weights(tmp_path / "model.npz", network(0))
    with pytest.raises(WeightsError, match=message):
        load_weights(tmp_path / "model.npz", network(0, **other))


def test_load_weights_rejects_damaged_files(tmp_path):
    file = tmp_path / "model.npz"
    with pytest.raises(FileNotFoundError):
        load_weights(file, network(0))
    save_weights(file, network(0))
    for content in (b"", b"PK not a zip", file.read_bytes()[:1000]):
        file.write_bytes(content)
        with pytest.raises(WeightsError, match="not a complete weights file"):
            load_weights(file, network(0))
    np.savez(file, x=np.array([{}], object))
    with pytest.raises(WeightsError, match="not a complete weights file"):
        load_weights(file, network(0))
