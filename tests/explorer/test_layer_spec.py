import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx

from convjax import broken_net, digits_net
from convjax.explorer.layer_spec import ReluSpec, layer_specs
from convjax.nn.models import LinearNet
from convjax.ops.reference import conv2d_patches


def evaluated(layers, image):
    """The output of the layers on an image (C, H, W), by the reference of `conv2d` in float64."""
    x = image[None]
    for layer in layers:
        settings = {name: getattr(layer, name) for name in ("stride", "padding", "dilation")}
        x = conv2d_patches(x, layer.kernel, layer.bias, layout="NCHW", **settings)
        for step in layer.steps:
            if isinstance(step, ReluSpec):
                x = np.maximum(x, 0)
            else:
                x = x * step.scale[:, None, None] + step.shift[:, None, None]
    return x[0]


@pytest.mark.parametrize(
    ("layout", "settings"),
    [
        ("NHWC", {}),
        ("NHWC", {"norm": "batch", "activate_first": True}),
        ("NCHW", {"norm": "batch", "norm_last": False}),
        ("CHWN", {"norm": "batch"}),
    ],
)
def test_layer_specs_compute_the_network(layout, settings, x64):
    # eval_shape avoids the compilation of the initial values, which are replaced below.
    model = nnx.eval_shape(
        lambda: digits_net(
            in_features=3, layout=layout, param_dtype=np.float64, rngs=nnx.Rngs(0), **settings
        )
    )
    rng = np.random.default_rng(1)
    for name, variable in nnx.to_flat_state(nnx.state(model)):
        shape = variable.shape
        positive = name[-1] in ("var", "scale")
        values = rng.uniform(0.5, 2, shape) if positive else rng.normal(scale=0.2, size=shape)
        variable.set_value(jnp.asarray(values))
    model.eval()
    image = rng.normal(size=(3, 28, 28))
    pixels = jnp.asarray(image.transpose(1, 2, 0)[None])
    logits = nnx.jit(lambda model, pixels: model(pixels))(model, pixels)
    found = evaluated(layer_specs(model), image)
    # Both are float64; the order of the sums differs.
    np.testing.assert_allclose(found.ravel(), logits[0], rtol=1e-10, atol=1e-10)
    assert [layer.name for layer in layer_specs(model)] == [f"conv {i}" for i in range(1, 6)]


@pytest.mark.parametrize("norm", ["layer", "group", "instance"])
def test_layer_specs_rejects_norms_that_depend_on_the_image(norm):
    model = nnx.eval_shape(lambda: digits_net(norm=norm, norm_last=False, rngs=nnx.Rngs(0)))
    with pytest.raises(
        ValueError, match=r"no norm but batch norm, got layer, group or instance norm in blocks\.0"
    ):
        layer_specs(model)


def test_layer_specs_rejects_other_networks():
    with pytest.raises(TypeError, match=r"chain of convolutions \(ConvNet\), got LinearNet"):
        layer_specs(nnx.eval_shape(lambda: LinearNet(rngs=nnx.Rngs(0))))
    model = broken_net(rngs=nnx.Rngs(0))
    model.blocks[1].conv.groups = 2
    with pytest.raises(ValueError, match=r"got groups=2 in blocks\.1"):
        layer_specs(model)


def test_layer_specs_rejects_networks_without_numbers():
    model = nnx.eval_shape(lambda: broken_net(layout="NHWC", rngs=nnx.Rngs(0)))
    message = r"model must hold numbers, got a Param with only a shape, \(3, 3, 1, "
    with pytest.raises(TypeError, match=message):
        layer_specs(model)
