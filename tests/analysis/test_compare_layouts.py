"""Layouts compared: on the CPU at hand, by invented programs, and for chips that are not there."""

import importlib.util
import warnings

import jax
import jax.numpy as jnp
import pytest
from flax import linen, nnx

import convjax
from convjax import compare_layouts
from convjax.analysis import LayoutComparison, LayoutProgram
from convjax.analysis.hlo import CompiledProgram, HloConvolution
from convjax.analysis.step_programs import seconds_in_turns
from convjax.nn import Conv
from convjax.ops import max_pool

IMAGES = jnp.ones((2, 8, 8, 3))
on_cpu = pytest.mark.skipif(jax.default_backend() != "cpu", reason="is about the CPU's programs")


def make_conv(layout):
    return Conv(3, 4, 3, layout=layout, method="lax", rngs=nnx.Rngs(0))


def program(**fields):
    convolution = HloConvolution("__cudnn$convForward", "", "NHWC", "(8,128)")
    values = dict.fromkeys(("products", "transposes", "copies", "moved_bytes"), 0)
    return CompiledProgram(
        **({"convolutions": (convolution,), "flops": None, "bytes": 2.0**21} | values | fields)
    )


# Recommendations, by hand.


def compared(*rows):
    return LayoutComparison((2, 8, 8, 3), True, True, tuple(rows))


def test_time_decides_where_it_was_measured():
    fast = LayoutProgram("cpu", "CHWN", "", program(moved_bytes=2**20, copies=1), 1.0, 0.1)
    slow = LayoutProgram("cpu", "NHWC", "", program(bytes=1.0, copies=3), 2.5, 0.1)
    assert compared(slow, fast).recommended() == {
        "cpu": "CHWN, which moves 1.0 MiB in 1 operation; time 2.50 times in NHWC, which moves "
        "0.0 MiB in 3 operations"
    }


def test_cycles_decide_on_a_tpu_and_bytes_on_a_gpu():
    rows = [
        LayoutProgram("v5e", "NHWC", "", program(cycles=100.0, bytes=9.0), None, 0.1),
        LayoutProgram("v5e", "NCHW", "", program(cycles=101.0, bytes=1.0), None, 0.1),
        LayoutProgram("h100", "NHWC", "", program(bytes=100.0), None, 0.1),
        LayoutProgram("h100", "NHWC", "nchw", program(bytes=50.0), None, 0.1),
        LayoutProgram("h100", "NCHW", "", program(bytes=110.0), None, 0.1),
    ]
    assert compared(*rows).recommended() == {
        "v5e": "any of NHWC, NCHW, cycles within 2%",
        "h100": "NHWC, which moves 0.0 MiB in 0 operations; bytes 1.10 times in NCHW, which moves "
        "0.0 MiB in 0 operations; NHWC, nchw forced has 0.50 times its bytes "
        "(XLA_FLAGS=--xla_gpu_force_conv_nchw=true)",
    }


def test_table_by_hand():
    made = program(launches=1234, memory_bytes=2**22, copies=2)
    free, forced = (LayoutProgram("h100", "NCHW", f, made, None, 0.1) for f in ("", "nhwc"))
    text = str(compared(free, forced, LayoutProgram("cpu", "NHWC", "", program(), 0.002, 0.1)))
    first, head, rule, _, chip, cpu, *advice = text.splitlines()
    assert first == (
        "images (2, 8, 8, 3), forward and backward, in a loop; without ms: compiled, not run"
    )
    assert head.split()[:4] == ["target", "layout", "ms", "cycles"]
    assert set(rule) == {"-"}
    assert " ".join(chip.split()) == (
        "h100 NCHW, nhwc forced - - 1,234 2.0 4.0 2 0.0 1 NHWC 1 convForward"
    )
    assert cpu.split()[:4] == ["cpu", "NHWC", "2.000", "-"]
    assert len(advice) == 2
    assert repr(compared(free, forced)) == "LayoutComparison(2 programs for h100)"


# On the CPU at hand.


@on_cpu
@pytest.mark.parametrize("in_loop", [False, True])
def test_rows_on_the_cpu(in_loop):
    found = compare_layouts(make_conv, IMAGES, images_in=None, in_loop=in_loop, rounds=2)
    assert [str(row) for row in found.rows] == ["NHWC", "NCHW", "CHWN"]
    for row in found.rows:
        assert row.seconds > 0
        # Forward and the gradient of the kernel; that of the images is not asked for.
        assert len(row.program.convolutions) == 2
        assert row.program.memory_bytes > IMAGES.size * 4
    assert ("own loops" in found.rows[0].implementations) == in_loop


@on_cpu
def test_gradient_of_the_images_and_forward_alone():
    settings = {"images_in": None, "layouts": ("NHWC",), "rounds": 1}
    both = compare_layouts(make_conv, IMAGES, images_gradient=True, **settings)
    assert len(both.rows[0].program.convolutions) == 3
    forward = compare_layouts(make_conv, IMAGES, backward=False, **settings)
    assert len(forward.rows[0].program.convolutions) == 1
    assert str(forward).startswith("images (2, 8, 8, 3), forward, outside of a loop")


@on_cpu
def test_networks_of_other_kinds():
    """Functions, Linen with its variables, batch norm, and images given by their shape."""
    shape = jax.ShapeDtypeStruct((2, 8, 8, 3), jnp.bfloat16)
    module = linen.Conv(4, (3, 3))
    variables = module.init(jax.random.key(0), IMAGES)

    def make_norm(layout):
        return convjax.ConvNet((3, 4, 2), norm="batch", layout=layout, rngs=nnx.Rngs(0))

    for make in (lambda layout: jnp.sin, lambda layout: (module.apply, variables), make_norm):
        with warnings.catch_warnings(record=True) as caught:
            warnings.simplefilter("always")
            found = compare_layouts(make, shape, layouts=("NHWC", "NCHW"), rounds=1)
        # The first two do not depend on the layout.
        assert len(caught) == (0 if make is make_norm else 1)
        assert all(row.seconds > 0 and row.program.launches >= 1 for row in found.rows)


def test_networks_that_differ_are_said():
    """NNX pools images NCHW over channels and rows: the network is another one."""

    def make(pool, layout):
        conv = Conv(3, 4, 3, layout=layout, rngs=nnx.Rngs(0))
        last = Conv(4, 4, 1, layout=layout, rngs=nnx.Rngs(0))
        return lambda x: last(pool(conv(x), layout))

    def right(x, layout):
        return max_pool(x, 2, layout=layout)

    def wrong(x, layout):  # maps of 6 x 6 become 3 x 3 in NHWC, and 3 x 6 of 2 channels in NCHW
        return nnx.max_pool(x, (2, 2), strides=(2, 2))

    settings = {"images_in": None, "rounds": 1, "layouts": ("NHWC", "NCHW")}
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        compare_layouts(lambda layout: make(right, layout), IMAGES, **settings)
    with pytest.raises(ValueError, match="x must have"):  # four channels are expected
        compare_layouts(lambda layout: make(wrong, layout), IMAGES, **settings)
    with pytest.warns(UserWarning, match="make_network makes networks that differ: .* in NCHW"):
        compare_layouts(
            lambda layout: make(right if layout == "NHWC" else lambda x, _: x, layout),
            IMAGES,
            **settings,
        )


def test_networks_that_ignore_the_layout_are_named():
    settings = {"rounds": 1, "layouts": ("NHWC", "NCHW")}
    with pytest.warns(UserWarning, match="makes the same network for NHWC, NCHW: nothing depends"):
        compare_layouts(lambda layout: make_conv("NHWC"), IMAGES, **settings)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        compare_layouts(lambda layout: make_conv("NHWC"), IMAGES, rounds=1, layouts=("NHWC",))


@pytest.mark.parametrize(
    ("changes", "error", "text"),
    [
        ({"make_network": 3}, TypeError, "make_network must be a function of a layout"),
        ({"make_network": lambda layout: 3}, TypeError, "make_network must return an NNX module"),
        ({"images": jnp.ones((8, 8, 3))}, ValueError, "images must have the four axes NHWC"),
        ({"images": "mnist"}, ValueError, "images must have the four axes NHWC"),
        ({"targets": ("tpu",)}, ValueError, "target must be one of cpu, a100, h100"),
        ({"targets": "cpu"}, ValueError, "targets must be a sequence of one name or more"),
        ({"targets": ()}, ValueError, "targets must be a sequence of one name or more"),
        ({"layouts": ("HWCN",)}, ValueError, "layout must be one of"),
        ({"layouts": "NHWC"}, ValueError, "layouts must be a sequence"),
        ({"images_in": "CHW"}, ValueError, "layout must be one of"),
        ({"rounds": 0}, ValueError, "rounds must be at least 1"),
    ],
)
def test_errors(changes, error, text):
    arguments = {"make_network": make_conv, "images": IMAGES} | changes
    with pytest.raises(error, match=text):
        compare_layouts(**arguments)


def test_missing_compiler_is_said_before_any_work(monkeypatch):
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    with pytest.raises(ImportError, match="libtpu must be installed to compile for v6e"):
        compare_layouts(make_conv, IMAGES, ("cpu", "v6e"))


def test_programs_are_measured_in_turns():
    calls = []
    runs = [lambda count, name=name: calls.append((name, count)) for name in "ab"]
    times = seconds_in_turns(runs, 3)
    assert len(times) == 2
    # Each once to warm up, once to find how many steps fit, then in turns.
    assert [name for name, _ in calls] == [*"aabb", *"ababab"]
    assert all(count > 1 for _, count in calls[4:])


# Chips that are not there.


@pytest.mark.skipif(
    importlib.util.find_spec("jax_cuda13_plugin") is None, reason="needs the extra targets"
)
def test_layouts_on_a_gpu_that_is_not_there():
    found = compare_layouts(make_conv, IMAGES, ("h100",), images_in=None, in_loop=True)
    assert [str(row) for row in found.rows[:3]] == [
        "NHWC",
        "NHWC, nchw forced",
        "NHWC, nhwc forced",
    ]
    assert len(found.rows) == 9
    by_name = {str(row): row for row in found.rows}
    for row in found.rows:
        assert row.seconds is None
        assert sum(row.program.library_calls.values()) == len(row.program.convolutions) == 2
    # What is forced is what lies in memory, whatever the network's layout.
    for layout in ("NHWC", "NCHW", "CHWN"):
        assert by_name[f"{layout}, nchw forced"].physical == "2 NCHW"
        assert by_name[f"{layout}, nhwc forced"].physical == "2 NHWC"


@pytest.mark.skipif(importlib.util.find_spec("libtpu") is None, reason="needs the extra targets")
def test_layouts_on_a_tpu_that_is_not_there():
    settings = {"images_in": None, "in_loop": True, "layouts": ("NHWC", "NCHW")}
    found = compare_layouts(make_conv, IMAGES, ("v5e",), **settings)
    assert [str(row) for row in found.rows] == ["NHWC", "NCHW"]
    for row in found.rows:
        assert row.program.cycles > 0
        assert len(row.program.convolutions) == 2
        assert all(of.tiling for of in row.program.convolutions)


def test_the_same_program_is_said_to_be_the_same():
    """Measured times of one program differ on a busy machine; a recommendation would be noise."""
    rows = [LayoutProgram("cpu", name, "", program(), 1.0 + i, 0.1) for i, name in enumerate("ab")]
    assert compared(*rows).recommended() == {
        "cpu": "any of a, b: the compiler made the same program"
    }


def test_a_network_is_no_function_of_a_layout():
    with pytest.raises(TypeError, match="make_network must be a function of a layout, got a netw"):
        compare_layouts(convjax.ConvNet((3, 4, 2), rngs=nnx.Rngs(0)), IMAGES)


@on_cpu
def test_images_by_their_shape():
    found = compare_layouts(make_conv, (2, 8, 8, 3), images_in=None, layouts=("NHWC",), rounds=1)
    assert found.images == (2, 8, 8, 3)
