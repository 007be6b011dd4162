import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx

from convjax import broken_net, capture, conv2d, digits_net
from convjax.explored import Relu, layers_of
from convjax.models import LinearNet


def evaluated(layers, image):
    """The layers by `conv2d` in float64, on an image (C, H, W)."""
    x = jnp.asarray(image)[None]
    for layer in layers:
        settings = {name: getattr(layer, name) for name in ("stride", "padding", "dilation")}
        x = conv2d(x, jnp.asarray(layer.kernel), jnp.asarray(layer.bias), layout="NCHW", **settings)
        for step in layer.steps:
            if isinstance(step, Relu):
                x = nnx.relu(x)
            else:
                x = x * step.scale[:, None, None] + step.shift[:, None, None]
    return np.asarray(x[0])


@pytest.mark.parametrize("layout", ["NHWC", "NCHW", "CHWN"])
@pytest.mark.parametrize(
    "settings",
    [
        {},
        {"norm": "batch"},
        {"norm": "batch", "activate_first": True},
        {"norm": "batch", "norm_last": False},
    ],
)
def test_layers_of_a_network_compute_the_network(layout, settings, x64):
    model = digits_net(
        in_features=3, layout=layout, param_dtype=np.float64, rngs=nnx.Rngs(0), **settings
    )
    rng = np.random.default_rng(1)
    for _, module in nnx.iter_modules(model):
        if isinstance(getattr(module, "mean", None), nnx.BatchStat):
            for variable in (module.mean, module.bias):
                variable[...] = rng.normal(size=variable.shape)
            for variable in (module.var, module.scale):
                variable[...] = rng.uniform(0.5, 2, variable.shape)
    model.eval()
    image = rng.normal(size=(3, 28, 28))
    logits, outputs = capture(model, jnp.asarray(image.transpose(1, 2, 0)[None]))
    assert len(outputs) >= 5
    found = evaluated(layers_of(model), image)
    # Float64 in both, in another order.
    np.testing.assert_allclose(found.ravel(), logits[0], rtol=1e-10, atol=1e-10)
    assert [layer.name for layer in layers_of(model)] == [f"conv {i}" for i in range(1, 6)]


def test_networks_that_cannot_be_traced():
    for norm in ("layer", "group", "instance"):
        model = digits_net(norm=norm, norm_last=False, rngs=nnx.Rngs(0))
        with pytest.raises(ValueError, match=r"no norm but batch norm, got GroupNorm in blocks\.0"):
            layers_of(model)
    with pytest.raises(TypeError, match=r"chain of convolutions \(ConvNet\), got LinearNet"):
        layers_of(LinearNet(rngs=nnx.Rngs(0)))
    model = broken_net(rngs=nnx.Rngs(0))
    model.blocks[1].conv.groups = 2
    with pytest.raises(ValueError, match=r"got groups=2 in blocks\.1"):
        layers_of(model)


def test_networks_without_numbers():
    model = nnx.eval_shape(lambda: broken_net(layout="NHWC", rngs=nnx.Rngs(0)))
    message = r"model must hold numbers, got a Param with nothing but its shape, \(3, 3, 1, "
    with pytest.raises(TypeError, match=message):
        layers_of(model)
