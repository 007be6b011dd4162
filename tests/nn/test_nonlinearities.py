"""Non-linearities that are recognised after layers, in programs and through captures."""

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from flax import linen, nnx
from jax.ad_checkpoint import checkpoint_name

from convjax.nn._capture import capture
from convjax.nn._harvest import Tag, tagged
from convjax.nn._nonlinearities import nonlinearities
from convjax.nn.outputs import LayerKind

X = np.linspace(-2, 2, 8, dtype=np.float32).reshape(2, 4)


def layer(name, x, level=0, kind="layer"):
    """The tagged output of a layer."""
    return tagged(x, Tag(name, kind, level))


def found_in(function, *args, level=0):
    return nonlinearities(jax.make_jaxpr(function)(*args).jaxpr, level)


# --- recognised operations -----------------------------------------------------------------------

FUNCTIONS = {
    "relu": [
        jax.nn.relu,
        lambda x: jnp.maximum(x, 0),
        lambda x: jnp.maximum(0.0, x),
        lambda x: jax.lax.max(x, 0.0),
    ],
    "tanh": [jnp.tanh, jax.nn.tanh, jax.lax.tanh],
    "sigmoid": [jax.nn.sigmoid, jax.lax.logistic],
    "gelu": [
        jax.nn.gelu,
        lambda x: jax.nn.gelu(x, approximate=False),
        lambda x: x * (1 + jax.lax.erf(x / np.sqrt(2))) / 2,
        lambda x: 0.5 * x * (1 + jnp.tanh(np.sqrt(2 / np.pi) * (x + 0.044715 * x**3))),
    ],
    "silu": [jax.nn.silu, jax.nn.swish, lambda x: x * jax.nn.sigmoid(x)],
    "leaky_relu": [jax.nn.leaky_relu],
    "elu": [jax.nn.elu],
    "selu": [jax.nn.selu],
    "celu": [jax.nn.celu],
    "relu6": [jax.nn.relu6],
    "softplus": [jax.nn.softplus],
    "squareplus": [jax.nn.squareplus],
    "mish": [jax.nn.mish],
    "glu": [jax.nn.glu],
    "hard_tanh": [jax.nn.hard_tanh],
    "hard_sigmoid": [jax.nn.hard_sigmoid],
    "hard_silu": [jax.nn.hard_silu, jax.nn.hard_swish],
    "log_sigmoid": [jax.nn.log_sigmoid],
    "log_softmax": [jax.nn.log_softmax],
    # What is none, or none that is known.
    "": [
        lambda x: x,
        lambda x: 3 - 2 * x,
        jnp.sin,
        lambda x: x @ jnp.ones((4, 4)),
        lambda x: jnp.maximum(x, 1.0),
        lambda x: jnp.minimum(x, 0.0),
        lambda x: jnp.maximum(x, -x),
        lambda x: x - jnp.max(x),
    ],
}
CASES = [(name, f) for name, functions in FUNCTIONS.items() for f in functions]
IDS = [f"{name or 'none'} {i}" for name, fs in FUNCTIONS.items() for i in range(len(fs))]


@pytest.mark.parametrize(("name", "function"), CASES, ids=IDS)
def test_nonlinearities_recognises(name, function):
    wanted = {"a": name} if name else {}
    assert found_in(lambda x: function(layer("a", x)), X) == wanted
    # The gradient's program has it too, and further operations.
    of_gradient = jax.grad(lambda x: (function(layer("a", x)) ** 2).sum())
    assert found_in(of_gradient, X) == wanted


BETWEEN = {
    "a bias and a scale": lambda x: 2 * x / 3 + jnp.arange(4.0) - 1,
    "another shape": lambda x: x.reshape(4, 2).T[:, 1:],
    "another type": lambda x: x.astype(jnp.bfloat16),
    "a mean": lambda x: x.mean(0),
    "a normalisation without parameters": lambda x: jax.nn.standardize(x),
    "a shortcut": lambda x: x + X,
    "maximum pooling": lambda x: nnx.max_pool(x[..., None], (2,)),
    "average pooling": lambda x: nnx.avg_pool(x[..., None], (2,)),
    "the maximum": lambda x: x.max(0),
    "dropout": lambda x: nnx.Dropout(0.5, rngs=nnx.Rngs(0))(x),
    "padding": lambda x: jnp.pad(x, 1),
    "a name": lambda x: checkpoint_name(x, "kept"),
}


@pytest.mark.parametrize("between", BETWEEN.values(), ids=BETWEEN)
def test_nonlinearities_sees_through(between):
    assert found_in(lambda x: jax.nn.relu(between(layer("a", x))), X) == {"a": "relu"}


@pytest.mark.parametrize(
    "between",
    [lambda x: x @ jnp.ones((4, 4)), jnp.sin, lambda x: layer("b", 2 * x, kind="layer")],
    ids=["a product", "another function", "another layer"],
)
def test_nonlinearities_ends_at(between):
    assert "a" not in found_in(lambda x: jax.nn.relu(between(layer("a", x))), X)


# --- structure of programs -----------------------------------------------------------------------


def test_nonlinearities_of_a_chain_are_each_the_first():
    def chain(x):
        x = jnp.tanh(layer("a", x))
        x = jax.nn.relu(layer("b", x @ jnp.ones((4, 4))))
        x = jax.nn.sigmoid(x)  # the second after b
        return layer("c", x)

    assert found_in(chain, X) == {"a": "tanh", "b": "relu"}


def test_nonlinearities_of_layers_that_are_added():
    def block(x):
        first = jax.nn.relu(layer("first", x))
        return jnp.tanh(layer("second", 2 * first) + layer("shortcut", x) + first)

    assert found_in(block, X) == {"first": "relu", "second": "tanh", "shortcut": "tanh"}


def test_nonlinearities_of_a_gate_of_another_layer_are_its_own():
    def gated(x):  # as of squeeze and excitation
        return layer("value", x) * jax.nn.sigmoid(layer("gate", x))

    assert found_in(gated, X) == {"gate": "sigmoid"}


def test_nonlinearities_of_a_layer_called_again_are_of_its_first_call():
    def twice(x):
        return jnp.tanh(layer("a", jax.nn.relu(layer("a", x))))

    assert found_in(twice, X) == {"a": "relu"}


def with_own_derivative(function):
    function = jax.custom_jvp(function)
    function.defjvps(lambda tangent, output, x: tangent)
    return function


TRANSFORMS = {
    "jit": lambda f: jax.jit(f),
    "checkpoint": lambda f: jax.checkpoint(f),
    "vmap": lambda f: jax.vmap(f),
    "scan": lambda f: lambda x: jax.lax.scan(lambda c, x: (c, f(x)), 0, x)[1],
    "map": lambda f: lambda x: jax.lax.map(f, x),
    "cond": lambda f: lambda x: jax.lax.cond(x[0, 0] > 0, f, f, x),
    "loop": lambda f: lambda x: jax.lax.fori_loop(0, x.shape[0], lambda i, x: f(x), x),
    "custom_jvp": with_own_derivative,
    "grad": lambda f: jax.grad(lambda x: f(x).sum()),
}


@pytest.mark.parametrize("transform", TRANSFORMS.values(), ids=TRANSFORMS)
def test_nonlinearities_inside_transforms(transform):
    inside = transform(lambda x: jax.nn.relu(2 * layer("a", x)))
    assert found_in(inside, X) == {"a": "relu"}


@pytest.mark.parametrize("name", ["jit", "checkpoint", "vmap", "scan", "cond"])
def test_nonlinearities_of_what_enters_and_leaves_transforms(name):
    transform = TRANSFORMS[name]
    enters = transform(lambda x: jnp.tanh(x + 1))
    assert found_in(lambda x: enters(layer("a", x)), X) == {"a": "tanh"}
    leaves = transform(lambda x: layer("a", x) + 1)
    assert found_in(lambda x: jnp.tanh(leaves(x)), X) == {"a": "tanh"}


def test_nonlinearities_of_other_tags_and_levels_are_not_theirs():
    def outer(x):
        inner = layer("inner", layer("a", x), level=1)
        return jax.nn.relu(layer("output", inner, kind="output"))

    assert found_in(outer, X) == {"a": "relu"}
    assert found_in(outer, X, level=1) == {"inner": "relu"}
    assert found_in(outer, X, level=2) == {}


def test_nonlinearities_of_programs_without_values():
    assert found_in(lambda: 1.0) == found_in(lambda x: (x, 2.0), X) == {}


# --- through captures ----------------------------------------------------------------------------


class Net(nnx.Module):
    """conv → norm → ReLU → conv → pool → ReLU → linear → tanh → head."""

    def __init__(self):
        rngs = nnx.Rngs(0)
        self.conv1 = nnx.Conv(1, 2, (3, 3), rngs=rngs)
        self.norm = nnx.BatchNorm(2, rngs=rngs)
        self.conv2 = nnx.Conv(2, 2, (3, 3), rngs=rngs)
        self.drop = nnx.Dropout(0.5, rngs=rngs)
        self.linear = nnx.Linear(8, 4, rngs=rngs)
        self.head = nnx.Linear(4, 3, rngs=rngs)

    def __call__(self, x):
        x = nnx.relu(self.norm(self.conv1(x)))
        x = nnx.relu(nnx.max_pool(self.drop(self.conv2(x)), (2, 2), (2, 2)))
        return self.head(nnx.tanh(self.linear(x.reshape(len(x), -1))))


IMAGES, LABELS = np.ones((2, 4, 4, 1), np.float32), np.array([0, 2])
KINDS = {
    "conv1": LayerKind("Conv"),  # it has none of its own
    "norm": LayerKind("BatchNorm", "relu"),
    "conv2": LayerKind("Conv", "relu"),
    "linear": LayerKind("Linear", "tanh"),
    "head": LayerKind("Linear"),
}


def test_capture_of_nnx_knows_the_kinds():
    output, layers = capture(Net(), IMAGES)
    assert list(layers) == list(KINDS)
    assert layers.kinds == KINDS
    np.testing.assert_array_equal(layers.output, output)


def test_capture_of_a_compiled_training_step_knows_the_kinds():
    def loss(model, images, labels):
        logits = model(images)
        return optax.softmax_cross_entropy_with_integer_labels(logits, labels).mean(), logits

    @nnx.jit
    def step(model, images, labels):
        value_and_grad = nnx.value_and_grad(loss, has_aux=True)
        ((_, logits), _), layers = capture(value_and_grad, model, images, labels)
        return logits, layers.output, layers

    logits, output, layers = step(Net(), IMAGES, LABELS)
    assert layers.kinds == KINDS
    np.testing.assert_array_equal(output, logits)


def test_capture_of_selected_layers_knows_their_kinds():
    # A normalisation that is not captured is among the operations after its convolution.
    _, layers = capture(Net(), IMAGES, select=nnx.Conv)
    assert layers.kinds == {"conv1": LayerKind("Conv", "relu"), "conv2": KINDS["conv2"]}


class LinenNet(linen.Module):
    @linen.compact
    def __call__(self, x):
        shared = linen.Dense(4, name="shared")
        x = linen.gelu(linen.Conv(4, (3, 3), name="conv")(x)).mean((1, 2))
        x = linen.silu(linen.LayerNorm(name="norm")(shared(x)))
        return linen.PReLU(name="prelu")(shared(x))


def test_capture_of_linen_knows_the_kinds():
    model = LinenNet()
    output, layers = capture(model, model.init(jax.random.key(0), IMAGES), IMAGES)
    assert layers.kinds == {
        "conv": LayerKind("Conv", "gelu"),
        "shared": LayerKind("Dense"),
        "norm": LayerKind("LayerNorm", "silu"),
        "shared#2": LayerKind("Dense"),
        "prelu": LayerKind("PReLU"),
    }
    np.testing.assert_array_equal(layers.output, output)


def test_capture_of_scanned_layers_knows_the_kind_of_each():
    class Cell(linen.Module):
        @linen.compact
        def __call__(self, carry, _):
            return jnp.tanh(linen.Dense(4, name="inner")(carry)), None

    class Stack(linen.Module):
        @linen.compact
        def __call__(self, x):
            axes = {"variable_axes": {"params": 0}, "split_rngs": {"params": True}}
            return linen.scan(Cell, length=2, **axes)(name="cells")(x, None)[0]

    variables = Stack().init(jax.random.key(0), X)
    _, layers = capture(Stack(), variables, X)
    kind = LayerKind("Dense", "tanh")
    assert layers.kinds == {"cells[0].inner": kind, "cells[1].inner": kind}


def test_capture_of_a_function_that_names_its_values_knows_their_output_alone():
    output, layers = capture(lambda x: (x.sum(), {"a": jax.nn.relu(x)}), jnp.asarray(X))
    assert layers.kinds == {}
    assert layers.output is output
