"""Summaries of models: shapes, parameters, multiplications and receptive fields by layer."""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from convjax._display import Displayed
from convjax.analysis.layer_rows import LayerRow, layer_rows
from convjax.analysis.model_kinds import DEFAULT_SHAPE, model_call
from convjax.analysis.products import count_products
from convjax.analysis.traced_call import traced_call
from convjax.nn.selection import Select, has_parameters, no_match_error
from convjax.ops.layout import KERNEL_AXES, permutation


@dataclass(frozen=True, repr=False)
class Summary(Displayed):
    """The layers of a model in the order of their calls, with totals; `str` gives a table.

    Attributes:
      model: class of the model.
      layout: the model's `layout` if it has one: axes of four-dimensional output shapes.
      inputs: shapes of the input arrays.
      examples: number of examples in the inputs: the size of the first axis, if the first input
        and the output agree in it, else 1.
      parameters: of the whole model. Shared parameters count once, batch statistics do not count.
      batch_statistics: count of the running statistics of batch norm.
      axes: order in which output shapes are shown, "NHWC" or "NCHW"; None for the layout's, or NHWC
        for CHWN, which few know.
    """

    model: str
    layout: str | None
    inputs: tuple[tuple[int, ...], ...]
    examples: int
    rows: tuple[LayerRow, ...]
    parameters: int
    batch_statistics: int
    axes: str | None = None

    @property
    def input_shape(self) -> tuple[int, ...]:
        """Shape of the first input; of images (N, H, W, C)."""
        return next(iter(self.inputs), ())

    @property
    def multiplications(self) -> int:
        """Multiplications per example, over all rows whose number is known."""
        return sum(row.multiplications or 0 for row in self.rows)

    @property
    def shape_title(self) -> str:
        """Title of the column of shapes, with the order of the axes of `shown_shape`."""
        return "output shape" + (f" ({self._shown_layout})" if self.layout else "")

    def shown_shape(self, row: LayerRow) -> str:
        """Returns the output shape of a row as text, in the order of `shape_title`."""
        shape, shown = row.output_shape, self._shown_layout
        if shown is not None and self.layout != shown and len(shape) == 4:
            shape = tuple(shape[axis] for axis in permutation(str(self.layout), shown))
        return shape_text(shape)

    @property
    def _shown_layout(self) -> str | None:
        if self.layout is not None and self.axes is not None:
            return self.axes
        return "NHWC" if self.layout == "CHWN" else self.layout

    def __repr__(self) -> str:
        return (
            f"Summary({self.model}, {len(self.rows):,} layers, {self.parameters:,} parameters, "
            f"{inputs_text(self.inputs)})"
        )

    def __str__(self) -> str:
        head = ("layer", "kind", self.shape_title)
        lines = [(*head, "parameters", "multiplications", "receptive field")]
        for row in self.rows:
            lines.append(
                (
                    row.name,
                    row.kind,
                    self.shown_shape(row),
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
        whole = self.input_shape[:1] != (self.examples,)
        per = "of the whole call" if whole else "per example"
        notes = [f"{self.model}, {inputs_text(self.inputs)}; multiplications {per}"]
        after = []
        if self.batch_statistics:
            after.append(f"batch statistics, not among the parameters: {self.batch_statistics:,}")
        if any(row.multiplications is None for row in self.rows):
            after.append(UNKNOWN)
        return "\n".join(notes + texts + after)


# Why a number of multiplications is missing.
UNKNOWN = (
    "?: unknown; those of while loops are in no row, those of values that a function names in the "
    "row (model)"
)


def summary(model: Any, *args: Any, select: Select | None = None, **kwargs: Any) -> Summary:
    """Summarises a model without running or changing it.

    The layers are the modules that a call reaches and that have parameters or multiplications of
    their own, such as an attention. What the model does and stores outside of them is a last row
    named "(model)", so that the columns add up to the totals. A layer inside a branch or a while
    loop, whose outputs exist only there, belongs to that row.

    Multiplications are counted in the traced program, for one example: those of products of
    matrices and of convolutions. A convolution has one per weight and output cell, products with
    padding included; a transposed convolution has none with the zeros between pixels and beyond
    the border. A look-up in an embedding has none. The body of a scan counts at every iteration,
    and of the branches of a condition the one with most. Elementwise operations do not count, with
    one exception: the scale of a norm counts once per channel and not once per pixel, as in
    torchinfo, because batch norm can be merged into the convolution before it. A layer that
    contains layers counts only its own.

    The multiplications of the call are divided by the number of examples and rounded up. If the
    output does not begin with the examples of the first input, they are those of the whole call.

    Receptive fields are those of `convjax.receptive_fields`, which also gives strides, paddings,
    and the reason why a field is unknown. They exist if the first input has four axes.

    `flax.nnx.tabulate` is not used: it returns text alone, runs the model, has one row for calls of
    a layer with equal shapes, counts the operations of a layer again in the layer around it, and
    knows neither receptive fields nor layouts.

    Args:
      model: a Flax NNX module, which is traced in evaluation mode and may be the result of
        `nnx.eval_shape`; a module of Linen or Equinox; a bound method of these, such as
        `model.encode`; a transform of Haiku; or a function as for `convjax.capture`.
      *args: the model's inputs, arrays or `jax.ShapeDtypeStruct`s. A sequence of whole numbers
        (N, H, W, C), also as the keyword `input_shape`, stands for float32 images of this shape;
        (1, 28, 28, 1) without inputs. For a Linen module its variables come first; without them,
        their shapes are those that it would initialise. For a transform of Haiku its parameters,
        its state if there is one, and a key or None come first.
      select: the layers to show, see `convjax.nn.selection.Select`; None for those named above.
      **kwargs: keyword arguments of the model, such as train=False. A Linen module takes `rngs`,
        too, but does not need them.

    Raises:
      TypeError: if model is not a model, or there are inputs without an array.
      ValueError: if a size is below 1, or `select` matches no layer.

    Examples:
      >>> import jax, jax.numpy as jnp
      >>> from flax import linen, nnx
      >>> import convjax
      >>> table = convjax.summary(convjax.threes_sevens_net(layout="NHWC", rngs=nnx.Rngs(0)))
      >>> table.parameters, table.multiplications
      (6722, 58608)
      >>> table.rows[0].output_shape, table.rows[0].receptive_field
      ((1, 14, 14, 4), (3, 3))

      Four texts of 16 tokens, and a Linen module without variables:

      >>> class Classifier(linen.Module):
      ...     @linen.compact
      ...     def __call__(self, tokens):
      ...         return linen.Dense(2)(linen.Embed(100, 8)(tokens).mean(1))
      >>> print(convjax.summary(Classifier(), jax.ShapeDtypeStruct((4, 16), jnp.int32)))
      Classifier, input 4×16; multiplications per example
      layer    kind   output shape  parameters  multiplications  receptive field
      --------------------------------------------------------------------------
      Embed_0  Embed        4×16×8         800                0                -
      Dense_0  Dense           4×2          18               16                -
      --------------------------------------------------------------------------
      total                                818               16
    """
    call = model_call(model, args, kwargs)
    try:
        traced = traced_call(call, has_parameters if select is None else select)
    except Exception as error:
        error.add_note(
            f"convjax.summary called {call.name} with {inputs_text(call.input_shapes)}."
            + ("" if args or kwargs else f" Without inputs it assumes images {DEFAULT_SHAPE}.")
        )
        raise
    products = count_products(traced.program)
    if select is not None and not traced.names:
        raise no_match_error(call.name, sorted(products.layers))
    computing = {of.layer for of, number in products.known.items() if of and of.layer and number}
    if select is None and not computing <= traced.layers:
        # Such as an attention, whose parameters are those of its projections.
        traced = traced_call(
            call, lambda name, module: name in computing or has_parameters(name, module)
        )
        products = count_products(traced.program)
    first, returned = call.input_shape, traced.output_shape
    examples = first[0] if first and returned and first[0] == returned[0] else 1
    layout = getattr(call.model, "layout", None)
    return Summary(
        model=call.name,
        layout=layout if isinstance(layout, str) and layout in KERNEL_AXES else None,
        inputs=call.input_shapes,
        examples=examples,
        rows=layer_rows(traced, products, examples),
        parameters=call.total("params"),
        batch_statistics=call.total("batch_stats"),
    )


def inputs_text(shapes: Sequence[Sequence[int]]) -> str:
    """Returns shapes such as "input 1×28×28×1"."""
    if not shapes:
        return "no inputs"
    return f"input{'s' * (len(shapes) > 1)} {', '.join(map(shape_text, shapes))}"


def field_text(size: tuple[int | float, int | float] | None) -> str:
    """Returns a receptive field as height×width, "-" if unknown."""
    if size is None:
        return "-"
    return "×".join("all" if side == math.inf else str(side) for side in size)


def shape_text(shape: Sequence[int]) -> str:
    """Returns a shape such as 1×28×28×1; that of a single number is "scalar"."""
    return "×".join(map(str, shape)) or "scalar"
