"""Summaries of networks: shapes, parameters, multiplications and receptive fields by layer."""

import math
import operator
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import jax
import jax.numpy as jnp
from flax import nnx

from convjax._checks import describe_value
from convjax._display import Displayed
from convjax.analysis.receptive_field import ReceptiveField, receptive_fields
from convjax.nn._capture import capture, layer_names
from convjax.nn.layers import BatchNorm, Conv, Linear
from convjax.ops import geometry
from convjax.ops.layout import spatial_shape


@dataclass(frozen=True)
class LayerRow:
    """One call of one layer.

    Attributes:
      name: path in the model, with dots; the second call of a layer is "name#2".
      kind: class of the layer.
      output_shape: in the layer's own layout, including the batch.
      parameters: of the layer itself; 0 for a further call of the same layer.
      multiplications: per example, see `summary`; None for an unknown kind.
      receptive_field: (height, width) in pixels of the image; infinite if each cell depends on all
        pixels; None if unknown.
    """

    name: str
    kind: str
    output_shape: tuple[int, ...]
    parameters: int
    multiplications: int | None
    receptive_field: tuple[int | float, int | float] | None


@dataclass(frozen=True, repr=False)
class Summary(Displayed):
    """The layers of a model in the order of their calls, with totals; `str` gives a table.

    Attributes:
      model: class of the model.
      layout: the model's `layout` if it has one: axes of four-dimensional output shapes.
      input_shape: of the images, (N, H, W, C).
      parameters: of the whole model. Shared parameters count once, batch statistics do not count.
      batch_statistics: count of the running statistics of batch norm.
    """

    model: str
    layout: str | None
    input_shape: tuple[int, ...]
    rows: tuple[LayerRow, ...]
    parameters: int
    batch_statistics: int

    @property
    def multiplications(self) -> int:
        """Multiplications per example, over all rows whose number is known."""
        return sum(row.multiplications or 0 for row in self.rows)

    def __repr__(self) -> str:
        images = shape_text(self.input_shape)
        return (
            f"Summary({self.model}, {len(self.rows):,} layers, {self.parameters:,} parameters, "
            f"input {images})"
        )

    def __str__(self) -> str:
        shape_title = "output shape" + (f" ({self.layout})" if self.layout else "")
        lines = [("layer", "kind", shape_title, "parameters", "multiplications", "receptive field")]
        for row in self.rows:
            lines.append(
                (
                    row.name,
                    row.kind,
                    shape_text(row.output_shape),
                    f"{row.parameters:,}",
                    "?" if row.multiplications is None else f"{row.multiplications:,}",
                    field_text(row.receptive_field),
                )
            )
        lines.append(("total", "", "", f"{self.parameters:,}", f"{self.multiplications:,}", ""))
        widths = [max(map(len, column)) for column in zip(*lines, strict=True)]
        texts = [
            "  ".join(
                # Names are left-aligned, numbers and shapes right-aligned.
                cell.ljust(width) if i < 2 else cell.rjust(width)
                for i, (cell, width) in enumerate(zip(line, widths, strict=True))
            ).rstrip()
            for line in lines
        ]
        rule = "-" * max(map(len, texts))
        texts = [texts[0], rule, *texts[1:-1], rule, texts[-1]]
        notes = [f"{self.model}, input {shape_text(self.input_shape)}; multiplications per example"]
        after = []
        if self.batch_statistics:
            after.append(f"batch statistics, not among the parameters: {self.batch_statistics:,}")
        if any(row.multiplications is None for row in self.rows):
            after.append("?: multiplications of this kind are unknown and not in the total")
        return "\n".join(notes + texts + after)


def summary(model: nnx.Module, input_shape: Sequence[int] = (1, 28, 28, 1)) -> Summary:
    """Summarises a model without running or changing it.

    The layers are the modules with parameters that a call in evaluation mode reaches.
    Multiplications count weights only: a convolution has one per weight and output cell, a linear
    layer one per weight and position. Batch norm has one per channel, as in torchinfo: its scale
    counts once per example and not once per pixel, because at inference it can be merged into the
    convolution before it.

    Receptive fields are those of `convjax.receptive_fields`, which also gives strides, paddings,
    and the reason why a field is unknown.

    Args:
      model: a Flax NNX module that is called with images. The result of `nnx.eval_shape`, whose
        parameters are shapes only, is accepted.
      input_shape: of the images, (N, H, W, C).

    Raises:
      TypeError: if model is not an NNX module, or input_shape is not a sequence of whole numbers.
      ValueError: if a size is below 1, or no module with parameters is found.

    Examples:
      >>> from flax import nnx
      >>> import convjax
      >>> table = convjax.summary(convjax.threes_sevens_net(layout="NHWC", rngs=nnx.Rngs(0)))
      >>> table.parameters, table.multiplications
      (6722, 58608)
      >>> table.rows[0].output_shape, table.rows[0].receptive_field
      ((1, 14, 14, 4), (3, 3))
    """
    if not isinstance(model, nnx.Module):
        got = f"the class {model.__name__}" if isinstance(model, type) else type(model).__name__
        raise TypeError(
            f"model must be a flax.nnx.Module, got {got}. Instantiate a class first; for a Linen "
            "module use flax.linen.tabulate."
        )
    try:
        shape = tuple(map(operator.index, input_shape))
    except TypeError:
        raise TypeError(
            "input_shape must be the whole numbers (N, H, W, C), got "
            f"{describe_value(input_shape)}. For given images pass images.shape."
        ) from None
    if not shape or min(shape) < 1:
        raise ValueError(
            f"input_shape must have sizes of at least 1, got {shape}. Pass (N, H, W, C)."
        )
    clone = nnx.clone(model)
    clone.eval()
    modules = layer_names(clone)
    graphdef, state = nnx.split(clone)

    names: list[str] = []

    def call(state: Any, images: jax.Array) -> list[Any]:
        # Merged inside, so that changes of the model to itself are only traced. The names are a
        # side effect, because JAX would return a dictionary sorted by key.
        outputs = capture(nnx.merge(graphdef, state), images)[1]
        names.extend(outputs)
        return list(outputs.values())

    # Shapes do not depend on the dtype.
    outputs = jax.eval_shape(call, state, jax.ShapeDtypeStruct(shape, jnp.float32))
    fields: Mapping[str, ReceptiveField] = {}
    if len(shape) == 4:
        fields = receptive_fields(clone, jax.ShapeDtypeStruct(shape, jnp.float32))
    rows = []
    for name, output in zip(names, outputs, strict=True):
        first_call = name in modules
        module = modules[name if first_call else name.rpartition("#")[0]]
        # A recurrent cell returns several arrays; the first represents them.
        output_shape = jax.tree.leaves(output)[0].shape
        rows.append(
            LayerRow(
                name=name,
                kind=type(module).__name__,
                output_shape=output_shape,
                parameters=_own_parameters(module) if first_call else 0,
                multiplications=_multiplications(module, output_shape),
                receptive_field=fields[name].size if name in fields else None,
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


def _kernel(module: nnx.Module) -> tuple[str, tuple[int, ...]] | None:
    """Returns (layout, kernel shape) of a 2-D convolution, of convjax or Flax."""
    if isinstance(module, Conv):
        return module.layout, module.kernel.shape
    if isinstance(module, nnx.Conv) and len(module.kernel.shape) == 4:
        return "NHWC", module.kernel.shape
    return None


def _multiplications(module: nnx.Module, output_shape: tuple[int, ...]) -> int | None:
    """Returns the multiplications of one call per example, None for an unknown kind."""
    if kernel := _kernel(module):
        layout, shape = kernel
        return geometry.multiplications(spatial_shape(output_shape, layout), shape)
    if isinstance(module, Linear | nnx.Linear):
        return math.prod(output_shape[1:-1]) * math.prod(module.kernel.shape)
    if isinstance(module, BatchNorm | nnx.BatchNorm):
        return 0 if module.scale is None else math.prod(module.scale.shape)
    return None


def _own_parameters(module: nnx.Module) -> int:
    # Submodules have their own rows.
    own = (value for value in vars(module).values() if isinstance(value, nnx.Param))
    return sum(math.prod(parameter.shape) for parameter in own)


def _count(state: Any) -> int:
    return sum(math.prod(leaf.shape) for leaf in jax.tree.leaves(state))


def field_text(size: tuple[int | float, int | float] | None) -> str:
    """Returns a receptive field as height×width, "-" if unknown."""
    if size is None:
        return "-"
    return "×".join("all" if side == math.inf else str(side) for side in size)


def shape_text(shape: Sequence[int]) -> str:
    """Returns a shape such as 1×28×28×1."""
    return "×".join(map(str, shape))
