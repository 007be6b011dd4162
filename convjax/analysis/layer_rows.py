"""The rows of a summary: what each call of a layer returns, stores, multiplies and sees."""

from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass

from convjax.analysis.products import Products
from convjax.analysis.receptive_field import OUTPUT
from convjax.analysis.traced_call import TracedCall, layer_of

# The row of what belongs to no other row. Names of layers contain no parentheses.
MODEL = "(model)"


@dataclass(frozen=True)
class LayerRow:
    """One call of one layer.

    Attributes:
      name: path in the model, with dots; the second call of a layer is "name#2". "(model)" is what
        belongs to no other row.
      kind: class of the layer.
      output_shape: in the layer's own layout, including the batch.
      parameters: of the layer itself; 0 for a further call of the same layer.
      multiplications: per example, see `summary`; None if unknown.
      receptive_field: (height, width) in pixels of the image; infinite if each cell depends on all
        pixels; None if unknown.
    """

    name: str
    kind: str
    output_shape: tuple[int, ...]
    parameters: int
    multiplications: int | None
    receptive_field: tuple[int | float, int | float] | None


def layer_rows(traced: TracedCall, products: Products, examples: int) -> tuple[LayerRow, ...]:
    """Returns the rows of a call, in its order; the last is "(model)" if there is a rest.

    Args:
      traced: the call of the model with the layers to show.
      products: multiplications of the whole call.
      examples: number of examples that the multiplications are divided by.
    """
    model, fields = traced.model, traced.fields()
    costs = {
        of: -(-number // examples) + (model.scales(of.module, of.kind) if of else 0)
        for of, number in products.known.items()
    }
    names: dict[str, list[str]] = defaultdict(list)
    for name in traced.shapes:
        names[layer_of(name)].append(name)
    rows: dict[str, LayerRow] = {}
    rest, shown = dict(costs), set[str]()
    for layer, of_layer in names.items():
        calls = [of for of in costs if of and of.layer == layer]
        incomplete = any(of in products.unknown for of in calls)
        # A layer without operations, such as a dropout in evaluation mode, has no multiplications.
        # The values that a function names are no layers.
        found = [costs[of] for of in calls] or [0] * (layer in traced.called)
        numbers = None if incomplete else _split(found, len(of_layer))
        if numbers is not None or incomplete:
            rest = {of: cost for of, cost in rest.items() if of not in calls}
        one = calls[0] if calls else traced.called.get(layer)
        module, kind = (one.module, one.kind) if one else (layer, "")
        # Each depth of a scanned stack has its part of the parameters; further calls have none.
        first = [name for name in of_layer if "#" not in name and module not in shown]
        shown.add(module)
        for i, name in enumerate(of_layer):
            rows[name] = LayerRow(
                name=name,
                kind=kind,
                output_shape=traced.shapes[name],
                parameters=model.parameters(module) // len(first) if name in first else 0,
                multiplications=None if numbers is None else numbers[i],
                receptive_field=fields[name].size if name in fields else None,
            )
    remaining = model.total("params") - sum(row.parameters for row in rows.values())
    incomplete = any(of in products.unknown for of in rest)
    if remaining or incomplete or any(rest.values()):
        rows[MODEL] = LayerRow(
            name=MODEL,
            kind=type(model.model).__name__,
            output_shape=traced.output_shape,
            parameters=remaining,
            multiplications=None if incomplete else sum(rest.values()),
            receptive_field=fields[OUTPUT].size if OUTPUT in fields else None,
        )
    return tuple(rows[name] for name in [*traced.shapes, *rows.keys() - traced.shapes.keys()])


def _split(costs: Sequence[int], rows: int) -> list[int] | None:
    """Returns the multiplications of each row of a layer; None if they cannot be told apart.

    Args:
      costs: of the calls in the traced program.
      rows: number of rows: several per call if a scan calls a stack of layers, or if JAX reuses the
        trace of a call for the next.
    """
    if len(costs) == rows:
        return list(costs)
    if len(costs) == 1:
        return [costs[0] // rows] * rows
    return None
