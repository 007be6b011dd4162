"""Weights of PyTorch networks: against PyTorch where it is installed, and against NumPy."""

import re

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx

from convjax import ConvNet, LinearNet, ResNet, cifar_resnet
from convjax.nn.weights import WeightsError, load_torch_state
from tests.helpers import LAYOUTS
from tests.nn.test_residual_blocks import convolved

forward = nnx.jit(lambda model, x: model(x))

# Two stages, of which the second begins with stride 2 and a projection.
DEPTHS, WIDTHS, CLASSES = (2, 1), (4, 6), 5


def network(block, layout="NHWC", **settings):
    model = ResNet(
        DEPTHS, WIDTHS, block=block, classes=CLASSES, layout=layout, rngs=nnx.Rngs(0), **settings
    )
    model.eval()
    return model


def shapes(block):
    """The names and shapes of torchvision, written out."""
    expansion = 4 if block == "bottleneck" else 1
    found = {"conv1": (4, 3, 7, 7), "bn1": 4}
    inputs = 4
    for stage, (depth, width) in enumerate(zip(DEPTHS, WIDTHS, strict=True), 1):
        for i in range(depth):
            at, outputs = f"layer{stage}.{i}", expansion * width
            kernels = [3, 3] if block == "basic" else [1, 3, 1]
            sizes = [inputs, *[width] * (len(kernels) - 1), outputs]
            for k, kernel in enumerate(kernels):
                found[f"{at}.conv{k + 1}"] = (sizes[k + 1], sizes[k], kernel, kernel)
                found[f"{at}.bn{k + 1}"] = sizes[k + 1]
            if inputs != outputs or (stage > 1 and i == 0):
                found[f"{at}.downsample.0"] = (outputs, inputs, 1, 1)
                found[f"{at}.downsample.1"] = outputs
            inputs = outputs
    all_shapes = {}
    for name, shape in found.items():
        if isinstance(shape, tuple):
            all_shapes[f"{name}.weight"] = shape
        else:
            for leaf in ("weight", "bias", "running_mean", "running_var"):
                all_shapes[f"{name}.{leaf}"] = (shape,)
            all_shapes[f"{name}.num_batches_tracked"] = ()
    return {**all_shapes, "fc.weight": (CLASSES, inputs), "fc.bias": (CLASSES,)}


def random_state(block, seed=0):
    """Random weights that keep the values of order 1; variances are positive."""
    rng = np.random.default_rng(seed)
    state = {}
    for name, shape in shapes(block).items():
        x = rng.standard_normal(shape)
        if len(shape) > 1:
            x = x / np.sqrt(np.prod(shape[1:]))
        elif name.endswith("running_var"):
            x = 0.5 + np.abs(x)
        elif name.endswith("weight"):
            x = 1 + 0.3 * x
        state[name] = np.asarray(x)
    return state


def by_numpy(state, images, block):
    """The network in evaluation mode, from PyTorch's names alone."""

    def conv(x, name, stride=1):
        kernel = state[f"{name}.weight"].transpose(2, 3, 1, 0)
        return convolved(x, kernel, stride, kernel.shape[0] // 2)

    def norm(x, name):
        mean, var = (state[f"{name}.running_{word}"] for word in ("mean", "var"))
        scale = state[f"{name}.weight"] / np.sqrt(var + 1e-5)
        return (x - mean) * scale + state[f"{name}.bias"]

    x = np.maximum(norm(conv(images, "conv1", 2), "bn1"), 0)
    rows, columns = ((n + 1) // 2 for n in x.shape[1:3])
    padded = np.pad(x, [(0, 0), (1, 1), (1, 1), (0, 0)])  # after ReLU, 0 is below every value
    x = np.max(
        [
            padded[:, i : i + 2 * rows : 2, j : j + 2 * columns : 2][:, :rows, :columns]
            for i in range(3)
            for j in range(3)
        ],
        axis=0,
    )
    last, strided = ("conv2", "conv1") if block == "basic" else ("conv3", "conv2")
    for stage, depth in enumerate(DEPTHS, 1):
        for i in range(depth):
            at, y, stride = f"layer{stage}.{i}", x, 2 if stage > 1 and i == 0 else 1
            for name in [f"conv{k}" for k in range(1, int(last[-1]) + 1)]:
                y = conv(y, f"{at}.{name}", stride if name == strided else 1)
                y = norm(y, f"{at}.{name.replace('conv', 'bn')}")
                y = y if name == last else np.maximum(y, 0)
            if f"{at}.downsample.0.weight" in state:
                x = norm(conv(x, f"{at}.downsample.0", stride), f"{at}.downsample.1")
            x = np.maximum(x + y, 0)
    return x.mean((1, 2)) @ state["fc.weight"].T + state["fc.bias"]


def draw(*shape, seed=9):
    return np.random.default_rng(seed).standard_normal(shape)


@pytest.mark.parametrize("layout", LAYOUTS)
@pytest.mark.parametrize("block", ["basic", "bottleneck"])
def test_logits_equal_those_of_numpy(block, layout, x64):
    state, images = random_state(block), draw(3, 23, 18, 3)
    model = load_torch_state(network(block, layout, param_dtype=jnp.float64), state)
    expected = by_numpy(state, images, block)
    assert expected.std() > 0.1  # the images matter
    # Ten layers of sums of at most 150 products of order 1 in float64.
    np.testing.assert_allclose(forward(model, images), expected, atol=1e-12)


@pytest.mark.parametrize("block", ["basic", "bottleneck"])
def test_single_precision_of_double(block):
    state, images = random_state(block), draw(3, 23, 18, 3)
    model = load_torch_state(network(block), state)
    assert {leaf.dtype for leaf in jax.tree.leaves(nnx.state(model))} == {np.dtype("float32")}
    # The same in float32, whose ε is 1.2e-7.
    found = forward(model, images.astype(np.float32))
    np.testing.assert_allclose(found, by_numpy(state, images, block), atol=2e-5)


@pytest.mark.parametrize("block", ["basic", "bottleneck"])
def test_logits_equal_those_of_pytorch(block, x64):
    torch = pytest.importorskip("torch")
    nn = torch.nn

    class Residual(nn.Module):
        def __init__(self, inputs, width, stride):
            super().__init__()
            kernels = [3, 3] if block == "basic" else [1, 3, 1]
            outputs = width * (1 if block == "basic" else 4)
            sizes = [inputs, *[width] * (len(kernels) - 1), outputs]
            self.count, strided = len(kernels), kernels.index(3)
            for k, kernel in enumerate(kernels):
                step = stride if k == strided else 1
                conv = nn.Conv2d(sizes[k], sizes[k + 1], kernel, step, kernel // 2, bias=False)
                setattr(self, f"conv{k + 1}", conv)
                setattr(self, f"bn{k + 1}", nn.BatchNorm2d(sizes[k + 1]))
            self.downsample = None
            if stride > 1 or inputs != outputs:
                self.downsample = nn.Sequential(
                    nn.Conv2d(inputs, outputs, 1, stride, bias=False), nn.BatchNorm2d(outputs)
                )

        def forward(self, x):
            y = x
            for k in range(1, self.count + 1):
                y = getattr(self, f"bn{k}")(getattr(self, f"conv{k}")(y))
                y = y if k == self.count else torch.relu(y)
            return torch.relu(y + (x if self.downsample is None else self.downsample(x)))

    class Net(nn.Module):
        def __init__(self):
            super().__init__()
            self.conv1, self.bn1 = nn.Conv2d(3, 4, 7, 2, 3, bias=False), nn.BatchNorm2d(4)
            inputs = 4
            for stage, (depth, width) in enumerate(zip(DEPTHS, WIDTHS, strict=True), 1):
                blocks = []
                for i in range(depth):
                    blocks.append(Residual(inputs, width, 2 if stage > 1 and i == 0 else 1))
                    inputs = width * (1 if block == "basic" else 4)
                setattr(self, f"layer{stage}", nn.Sequential(*blocks))
            self.fc = nn.Linear(inputs, CLASSES)

        def forward(self, x):
            x = nn.functional.max_pool2d(torch.relu(self.bn1(self.conv1(x))), 3, 2, 1)
            for stage in range(1, len(DEPTHS) + 1):
                x = getattr(self, f"layer{stage}")(x)
            return self.fc(x.mean((2, 3)))

    theirs = Net().double().eval()
    state = {name: torch.from_numpy(x) for name, x in random_state(block).items()}
    theirs.load_state_dict(state)
    images = draw(3, 23, 18, 3)
    with torch.no_grad():
        expected = theirs(torch.from_numpy(images.transpose(0, 3, 1, 2).copy())).numpy()
    for layout in LAYOUTS:
        ours = network(block, layout, param_dtype=jnp.float64)
        model = load_torch_state(ours, theirs.state_dict())
        # Ten layers of sums of at most 150 products of order 1 in float64, in another order.
        np.testing.assert_allclose(forward(model, images), expected, atol=1e-12)
    # One step of training moves the running statistics alike.
    theirs.train()
    model.train()
    theirs(torch.from_numpy(images.transpose(0, 3, 1, 2).copy()))
    forward(model, images)
    for ours, name in ((model.stem, "bn1"), (model.stages[1][0].projection, "downsample")):
        other = theirs.bn1 if name == "bn1" else theirs.layer2[0].downsample[1]
        np.testing.assert_allclose(ours.norm.mean[...], other.running_mean, atol=1e-12)
        np.testing.assert_allclose(ours.norm.var[...], other.running_var, atol=1e-12)


def test_every_parameter_is_set_and_the_model_unchanged():
    model = network("bottleneck")
    before = nnx.to_flat_state(nnx.state(nnx.clone(model)))
    loaded = load_torch_state(model, random_state("bottleneck"))
    for (path, old), (_, given), (_, new) in zip(
        before,
        nnx.to_flat_state(nnx.state(model)),
        nnx.to_flat_state(nnx.state(loaded)),
        strict=True,
    ):
        np.testing.assert_array_equal(old[...], given[...])
        assert (old[...] != new[...]).all(), path
    assert loaded.stem.norm.use_running_average  # still in evaluation mode


def test_other_networks_take_their_own_paths():
    weight, bias = draw(4, 2, 3, 3), draw(4)
    model = ConvNet((2, 4), layout="CHWN", rngs=nnx.Rngs(0))
    loaded = load_torch_state(model, {"blocks.0.conv.weight": weight, "blocks.0.conv.bias": bias})
    x = draw(3, 1, 1, 2).astype(np.float32)
    # Only the kernel's centre meets the pixel. Sums of two products of order 1 in float32.
    np.testing.assert_allclose(loaded(x), x[:, 0, 0] @ weight[:, :, 1, 1].T + bias, atol=1e-5)


def changed(**changes):
    state = {**random_state("basic"), **{n.replace("__", "."): x for n, x in changes.items()}}
    return {name: x for name, x in state.items() if x is not None}


@pytest.mark.parametrize(
    ("state", "message"),
    [
        (changed(conv1__weight=None), "another network: without conv1.weight (4, 3, 7, 7)."),
        (changed(fc2__bias=np.ones(3)), "another network: with fc2.bias (3,)."),
        (
            changed(fc__bias=None, head__bias=np.ones(5)),
            "without fc.bias (5,); with head.bias (5,).",
        ),
        ({}, "without bn1.bias (4,), bn1.running_mean (4,), bn1.running_var (4,), bn1.weight (4,)"),
        (
            changed(conv1__weight=np.ones((7, 7, 3, 4))),
            "state contains conv1.weight of shape (7, 7, 3, 4), but the network's has the shape "
            "(4, 3, 7, 7).",
        ),
        (changed(fc__bias=np.ones(5) * 1j), "fc.bias of complex128, which are not real numbers"),
        (changed(fc__bias=[[1], [1, 2]]), "state contains fc.bias, which NumPy cannot read"),
    ],
    ids=["missing", "left over", "both", "empty", "shape", "complex", "ragged"],
)
def test_rejects_other_states(state, message):
    model = network("basic")
    with pytest.raises(WeightsError, match=re.escape(message)):
        load_torch_state(model, state)


def test_rejects_other_arguments_and_variables():
    with pytest.raises(TypeError, match="state must map names to arrays, got list"):
        load_torch_state(network("basic"), [])
    with pytest.raises(TypeError, match="model must be Module, got str"):
        load_torch_state("resnet", {})

    class Scaled(nnx.Module):
        def __init__(self):
            self.factor = nnx.Param(jnp.ones(1))

    with pytest.raises(WeightsError, match=r"no variables but kernel, scale, .*got factor"):
        load_torch_state(Scaled(), {})
    # The network for CIFAR has no projections: torchvision's names without them.
    names = [f"layer{i}.0.downsample.0.weight" for i in (2, 3)]
    state = {name: np.ones((1, 1, 1, 1)) for name in names}
    with pytest.raises(WeightsError, match=r"with layer2\.0\.downsample\.0\.weight"):
        load_torch_state(cifar_resnet(8, rngs=nnx.Rngs(0)), state)
    with pytest.raises(WeightsError, match=r"without layers\.0\.bias \(2,\)"):
        load_torch_state(LinearNet((4, 2), rngs=nnx.Rngs(0)), {})


def test_transposed_convolutions_that_do_not_flip_are_refused():
    """The shapes of a square kernel fit, and the outputs would be others."""
    settings = {"rngs": nnx.Rngs(0)}
    with pytest.raises(WeightsError, match="transposed convolutions with transpose_kernel"):
        load_torch_state(nnx.ConvTranspose(2, 2, (3, 3), **settings), {})
    right = nnx.ConvTranspose(2, 2, (3, 3), transpose_kernel=True, **settings)
    state = {"weight": np.ones((2, 2, 3, 3)), "bias": np.zeros(2)}
    assert (load_torch_state(right, state).kernel[...] == 1).all()
