"""What a network consists of: shapes, parameters, multiplications and receptive fields."""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from flax import nnx

from convjax import geometry
from convjax.capture import capture, layer_names
from convjax.layers import BatchNorm, Conv, Linear
from convjax.layout import KERNEL_AXES, axis_of, spatial_shape


@dataclass(frozen=True)
class Row:
    """One call of one layer.

    Attributes:
      name: path in the model with dots; the second call of a layer is "name#2".
      kind: class of the layer.
      output_shape: in the layer's own layout, the batch included.
      parameters: the layer's own, 0 for a further call of the same layer.
      multiplications: per example, see `summary`; None for a kind that is not known.
      receptive_field: (height, width) in pixels of the input image, or None.
    """

    name: str
    kind: str
    output_shape: tuple[int, ...]
    parameters: int
    multiplications: int | None
    receptive_field: geometry.Pair | None


@dataclass(frozen=True)
class Summary:
    """A model's layers in the order of their calls, and totals; `str` makes a table of it.

    Attributes:
      model: class of the model.
      layout: the model's `layout` if it has one: the axes of four-dimensional output shapes.
      input_shape: of the images, (N, H, W, C).
      parameters: of the whole model, shared ones counted once, batch statistics not counted.
      batch_statistics: numbers that batch norm keeps beside its parameters.
    """

    model: str
    layout: str | None
    input_shape: tuple[int, ...]
    rows: tuple[Row, ...]
    parameters: int
    batch_statistics: int

    @property
    def multiplications(self) -> int:
        """Multiplications per example of all rows in which they are known."""
        return sum(row.multiplications or 0 for row in self.rows)

    def __str__(self) -> str:
        shape_title = "output shape" + (f" ({self.layout})" if self.layout else "")
        lines = [("layer", "kind", shape_title, "parameters", "multiplications", "receptive field")]
        for row in self.rows:
            lines.append(
                (
                    row.name,
                    row.kind,
                    _by(row.output_shape),
                    f"{row.parameters:,}",
                    "?" if row.multiplications is None else f"{row.multiplications:,}",
                    "-" if row.receptive_field is None else _by(row.receptive_field),
                )
            )
        lines.append(("total", "", "", f"{self.parameters:,}", f"{self.multiplications:,}", ""))
        widths = [max(map(len, column)) for column in zip(*lines, strict=True)]
        texts = [
            "  ".join(
                # Names to the left, numbers and shapes to the right.
                cell.ljust(width) if i < 2 else cell.rjust(width)
                for i, (cell, width) in enumerate(zip(line, widths, strict=True))
            ).rstrip()
            for line in lines
        ]
        rule = "-" * max(map(len, texts))
        texts = [texts[0], rule, *texts[1:-1], rule, texts[-1]]
        notes = [f"{self.model}, input {_by(self.input_shape)}; multiplications per example"]
        after = []
        if self.batch_statistics:
            after.append(f"batch statistics, beside the parameters: {self.batch_statistics:,}")
        if any(row.multiplications is None for row in self.rows):
            after.append("?: a kind whose multiplications are not known, not in the total")
        return "\n".join(notes + texts + after)


def summary(model: nnx.Module, input_shape: Sequence[int] = (1, 28, 28, 1)) -> Summary:
    """Describes a model without computing anything and without changing it.

    The layers are the modules with parameters of their own that a call in evaluation mode
    reaches. Multiplications count the weights only, as a bias is added: a convolution has one per
    weight and output cell, a linear layer one per weight and position. Batch norm has one per
    channel: as torchinfo does, a scale is counted once per example and not once per pixel, since
    at inference it can be merged into the convolution before it.

    The receptive field is that of a chain of convolutions, with layers between them that work on
    each pixel alone. It is None from the first layer whose output size does not follow from the
    layer before (pooling, a branch), after a linear layer, and after a kind that is not known. A
    branch or pooling that keeps size and channels cannot be seen in shapes.

    Args:
      model: a Flax NNX module, called with images; one of `nnx.eval_shape`, whose parameters
        have shapes only, will do.
      input_shape: of the images, (N, H, W, C).

    Raises:
      TypeError: if model is not an NNX module.
      ValueError: if a size is below 1, or no module with parameters is found.
    """
    if not isinstance(model, nnx.Module):
        got = f"the class {model.__name__}" if isinstance(model, type) else type(model).__name__
        raise TypeError(
            f"model must be a flax.nnx.Module, got {got}; instantiate a class first; for a Linen "
            "module there is flax.linen.tabulate."
        )
    shape = tuple(input_shape)
    if not shape or min(shape) < 1:
        raise ValueError(f"input_shape must hold sizes of at least 1, got {shape}.")
    clone = nnx.clone(model)
    clone.eval()
    modules = layer_names(clone)
    graphdef, state = nnx.split(clone)

    names: list[str] = []

    def call(state: Any, images: jax.Array) -> list[Any]:
        # Merged in here, so that whatever the model changes about itself is only traced. The names
        # leave beside the result, because a dictionary in it would come back sorted by key.
        outputs = capture(nnx.merge(graphdef, state), images)[1]
        names.extend(outputs)
        return list(outputs.values())

    # float32 stands for any dtype: the shapes are the same.
    outputs = jax.eval_shape(call, state, jax.ShapeDtypeStruct(shape, jnp.float32))
    chain = _Chain(shape)
    rows = []
    for name, output in zip(names, outputs, strict=True):
        first_call = name in modules
        module = modules[name if first_call else name.rpartition("#")[0]]
        # A recurrent cell returns several arrays: the first stands for them.
        output_shape = jax.tree.leaves(output)[0].shape
        rows.append(
            Row(
                name=name,
                kind=type(module).__name__,
                output_shape=output_shape,
                parameters=_own_parameters(module) if first_call else 0,
                multiplications=_multiplications(module, output_shape),
                receptive_field=chain.after(module, output_shape),
            )
        )
    return Summary(
        model=type(model).__name__,
        layout=getattr(model, "layout", None),
        input_shape=shape,
        rows=tuple(rows),
        parameters=_count(nnx.state(clone, nnx.Param)),
        batch_statistics=_count(nnx.state(clone, nnx.BatchStat)),
    )


class _Window(NamedTuple):
    """The settings of a two-dimensional convolution, of ours or of Flax."""

    layout: str
    features: geometry.Pair  # channels in and out
    kernel: tuple[int, ...]  # the kernel's whole shape
    size: geometry.Pair
    stride: geometry.Pair
    padding: Any
    dilation: geometry.Pair


class _Chain:
    """Follows the receptive field from layer to layer, as long as their shapes fit together."""

    def __init__(self, images: tuple[int, ...]):
        self.shape, self.layout = images, "NHWC"  # of what the next layer should take
        self.windows: list[_Window] = []
        self.whole = len(images) == 4

    def after(self, module: nnx.Module, output_shape: tuple[int, ...]) -> geometry.Pair | None:
        """Takes the next layer and returns (height, width) of its field, None once it is lost."""
        window = _window(module)
        if window is not None:
            self.whole = self.whole and output_shape == self._expected(window)
            self.windows.append(window)
            self.layout = window.layout
        elif not isinstance(module, BatchNorm | nnx.BatchNorm) or output_shape != self.shape:
            self.whole = False
        self.shape = output_shape
        if not self.whole:
            return None
        height, width = (
            geometry.receptive_field(
                geometry.Window(window.size[i], window.stride[i], window.dilation[i])
                for window in self.windows
            )
            for i in range(2)
        )
        return height, width

    def _expected(self, window: _Window) -> tuple[int, ...] | None:
        """Returns the output shape of `window` on the last output, None if it does not fit."""
        size = spatial_shape(self.shape, self.layout)
        if self.shape[axis_of("C", self.layout)] != window.features[0]:
            return None
        try:
            padding = geometry.resolve_padding(
                window.padding,
                size=size,
                kernel_size=window.size,
                stride=window.stride,
                dilation=window.dilation,
            )
            height, width = (
                geometry.output_size(
                    size[i],
                    window.size[i],
                    stride=window.stride[i],
                    padding=padding[i],
                    dilation=window.dilation[i],
                )
                for i in range(2)
            )
        except (TypeError, ValueError):
            # A padding of Flax that has no counterpart here, or a kernel larger than the map.
            return None
        sizes = {
            "N": self.shape[axis_of("N", self.layout)],
            "C": window.features[1],
            "H": height,
            "W": width,
        }
        return tuple(sizes[letter] for letter in window.layout)


def _window(module: nnx.Module) -> _Window | None:
    if isinstance(module, Conv):
        sizes = dict(zip(KERNEL_AXES[module.layout], module.kernel.shape, strict=True))
        return _Window(
            module.layout,
            (sizes["I"] * module.groups, sizes["O"]),
            module.kernel.shape,
            (sizes["H"], sizes["W"]),
            geometry.pair("stride", module.stride, minimum=1),
            module.padding,
            geometry.pair("dilation", module.dilation, minimum=1),
        )
    if isinstance(module, nnx.Conv) and len(module.kernel.shape) == 4:
        height, width, inputs, outputs = module.kernel.shape
        return _Window(
            "NHWC",
            (inputs * module.feature_group_count, outputs),
            module.kernel.shape,
            (height, width),
            geometry.pair("strides", 1 if module.strides is None else module.strides, minimum=1),
            module.padding,
            geometry.pair("kernel_dilation", module.kernel_dilation or 1, minimum=1),
        )
    return None


def _multiplications(module: nnx.Module, output_shape: tuple[int, ...]) -> int | None:
    """Returns the multiplications of one call per example, None if the kind is not known."""
    window = _window(module)
    if window is not None:
        size = spatial_shape(output_shape, window.layout)
        return geometry.multiplications(size, window.kernel)
    if isinstance(module, Linear | nnx.Linear):
        return math.prod(output_shape[1:-1]) * math.prod(module.kernel.shape)
    if isinstance(module, BatchNorm | nnx.BatchNorm):
        return 0 if module.scale is None else math.prod(module.scale.shape)
    return None


def _own_parameters(module: nnx.Module) -> int:
    # Those of submodules have rows of their own.
    own = (value for value in vars(module).values() if isinstance(value, nnx.Param))
    return sum(math.prod(parameter.shape) for parameter in own)


def _count(state: Any) -> int:
    return sum(math.prod(leaf.shape) for leaf in jax.tree.leaves(state))


def _by(shape: Sequence[int]) -> str:
    return "×".join(map(str, shape))
