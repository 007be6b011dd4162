"""What compilers make of a network in each layout of its images, for chips present and absent."""

import warnings
from collections.abc import Callable, Mapping, Sequence
from itertools import product
from time import perf_counter
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx

from convjax._checks import check_function, check_whole
from convjax.analysis.chips import CHIPS, is_present, shapes_on
from convjax.analysis.hlo import describe
from convjax.analysis.layout_programs import LayoutComparison, LayoutProgram
from convjax.analysis.products import count_products
from convjax.analysis.step_programs import compile_step, runner, seconds_in_turns
from convjax.analysis.training_step import Network, TrainingStep, training_step
from convjax.ops.layout import KERNEL_AXES, check_layout, images_to


def compare_layouts(
    make_network: Callable[[str], Network],
    images: Any,
    targets: Sequence[str] = ("cpu",),
    *,
    layouts: Sequence[str] = tuple(KERNEL_AXES),
    images_in: str | None = "NHWC",
    backward: bool = True,
    images_gradient: bool = False,
    in_loop: bool = False,
    rounds: int = 5,
) -> LayoutComparison:
    """Compares what compilers make of a network in several layouts of its images.

    One training step is compiled for each layout and target: the forward pass, the gradients of the
    mean square of the output, and a small change of the parameters. Where the target is the
    device of this process, or its CPU, the programs are run in turns, too. For a chip that is not
    there they are compiled by the chip's own compiler, which the extra `targets` installs; without
    a device there is no autotuning, so that cuDNN's algorithms are not chosen.

    For a GPU each layout is compiled three times: as the compiler likes, and with the order in
    memory of all convolutions forced to NCHW and to NHWC.

    Args:
      make_network: maps a layout, "NHWC", "NCHW" or "CHWN", to the network in it: an NNX module, a
        function of images, or a pair (function, parameters) whose function takes both, such as
        (module.apply, variables) of Linen.
      images: (N, H, W, C), or their shape, for which random normal numbers are drawn; of another
        dtype than float32 a `jax.ShapeDtypeStruct`.
      targets: "cpu", "a100", "h100", "h200", "v5e" or "v6e".
      layouts: of the networks.
      images_in: the order in which all networks take their images; None if each takes them in its
        own layout.
      backward: False leaves out the gradients.
      images_gradient: whether the gradient of the images is computed, too, as in a layer that is
        not the first; of a function without parameters it is computed in any case.
      in_loop: whether the step is compiled as the body of a loop, as under `jax.lax.scan`, which
        XLA compiles differently on CPU.
      rounds: measurements of each program on a device.

    Returns:
      The programs, with a recommendation by target; `print` shows the table.

    Raises:
      TypeError: if make_network is not a function, or makes no network.
      ValueError: for an unknown target or layout, no target or layout, or images without four axes.
      ImportError: if the compiler of a target is not installed.

    Warns:
      UserWarning: if the networks of two layouts have different numbers of multiplications, as
        after a pooling or a reshape that does not know the layout, or if those of all layouts are
        the same network.

    Examples:
      >>> import convjax, jax, jax.numpy as jnp
      >>> from flax import nnx
      >>> def make_network(layout):
      ...     return convjax.ConvNet((1, 4, 2), layout=layout, rngs=nnx.Rngs(0))
      >>> found = convjax.compare_layouts(make_network, jnp.ones((2, 8, 8, 1)), rounds=1)
      >>> [row.layout for row in found.rows]
      ['NHWC', 'NCHW', 'CHWN']
      >>> len(found.rows[0].program.convolutions) + found.rows[0].program.products > 0
      True
    """
    if isinstance(make_network, nnx.Module):
        raise TypeError(
            "make_network must be a function of a layout, got a network. Pass a function that "
            "makes it: lambda layout: convjax.digits_net(layout=layout, rngs=nnx.Rngs(0))."
        )
    check_function("make_network", make_network, "of a layout")
    if isinstance(images, tuple) and all(isinstance(size, int) for size in images):
        images = jax.ShapeDtypeStruct(images, jnp.float32)
    shape = tuple(getattr(images, "shape", ()))
    if len(shape) != 4 or 0 in shape:
        raise ValueError(
            f"images must have the four axes NHWC, none of them empty, got shape {shape}."
        )
    for name, given in (("targets", targets), ("layouts", layouts)):
        if isinstance(given, str) or not given:
            raise ValueError(f"{name} must be a sequence of one name or more, got {given!r}.")
    for layout in layouts:
        check_layout(layout)
    if images_in is not None:
        check_layout(images_in)
    check_whole("rounds", rounds, 1)
    for target in targets:
        if target != "cpu" and target not in CHIPS:
            raise ValueError(f"target must be one of cpu, {', '.join(CHIPS)}, got {target!r}.")
        if target != "cpu" and not is_present(target):
            shapes_on((), target)  # raises where a compiler is missing, before the first is used
    if isinstance(images, jax.ShapeDtypeStruct):
        drawn = np.random.default_rng(0).standard_normal(shape)
        images = jnp.asarray(drawn).astype(images.dtype)
    steps = {
        layout: training_step(
            make_network(layout),
            images_to(images, images_in or layout),
            backward=backward,
            images_gradient=images_gradient,
        )
        for layout in layouts
    }
    _check_equal_work(steps)
    rows = [
        row
        for target in targets
        for row in _compiled_for(target, steps, in_loop=in_loop, rounds=rounds)
    ]
    return LayoutComparison(shape, backward, in_loop, tuple(rows))


def _check_equal_work(steps: Mapping[str, TrainingStep]) -> None:
    traced = {layout: jax.make_jaxpr(step.forward)(step.state) for layout, step in steps.items()}
    if len(traced) > 1 and len({str(program) for program in traced.values()}) == 1:
        warnings.warn(
            f"make_network makes the same network for {', '.join(traced)}: nothing depends on the "
            "layout, and differences in time are noise. Pass the layout on to the layers, as in "
            "convjax.nn.Conv(…, layout=layout), or transpose the images within the network.",
            stacklevel=3,
        )
    numbers = {layout: count_products(program).known.total() for layout, program in traced.items()}
    if len(set(numbers.values())) > 1:
        text = ", ".join(f"{number:,} in {layout}" for layout, number in numbers.items())
        warnings.warn(
            f"make_network makes networks that differ: the forward pass has {text} "
            "multiplications. A pooling, a norm or a reshape may not know the layout; "
            "convjax.ops.max_pool and avg_pool do.",
            stacklevel=3,
        )


def _compiled_for(
    target: str, steps: Mapping[str, TrainingStep], *, in_loop: bool, rounds: int
) -> list[LayoutProgram]:
    """Returns the rows of a target, measured in turns where its device is there."""
    chip = CHIPS.get(target)
    platform = "cpu" if chip is None else chip.platform
    here = chip is None or is_present(target)
    device = (jax.devices("cpu") if chip is None else jax.devices())[0]
    forces = ("", "nchw", "nhwc") if platform == "cuda" else ("",)
    rows, runs = [], []
    for (layout, step), force in product(steps.items(), forces):
        state = jax.device_put(step.state, device) if here else shapes_on(step.state, target)
        began = perf_counter()
        compiled = compile_step(step.step, state, platform, in_loop=in_loop, force=force)
        seconds = perf_counter() - began
        backend = {"cuda": "gpu"}.get(platform, platform)
        program = describe(compiled, backend, in_loop=in_loop)
        rows.append(LayoutProgram(target, layout, force, program, None, seconds))
        runs.append(runner(compiled, state, in_loop))
    if not here:
        return rows
    times = seconds_in_turns(runs, rounds)
    return [
        LayoutProgram(row.target, row.layout, row.force, row.program, of, row.compile_seconds)
        for row, of in zip(rows, times, strict=True)
    ]
