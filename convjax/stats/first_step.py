"""The layers or parameters of a record: those of the first step, to which later ones are fitted."""

from collections.abc import Iterable, Mapping
from typing import NamedTuple

import numpy as np
from jaxtyping import Int

from convjax.stats.bins import Bins
from convjax.stats.layers import LayerStats
from convjax.stats.parameters import ParameterStats

_SHOWN = 5  # names in a message


class Traits(NamedTuple):
    """What a record must know of the layers, or of the parameters, of a step.

    Attributes:
      what: "layers" or "parameters".
      entries: by the name, what must be the same at every step: a layer's number of channels, or a
        parameter's number of elements.
      quantities: names of the fields that were taken.
      bins: of the layers' histograms, if there are any.
    """

    what: str
    entries: Mapping[str, int]
    quantities: tuple[str, ...]
    bins: Bins | None = None


class Fit(NamedTuple):
    """Whether and how the statistics of a step fit a record.

    Attributes:
      fits: False if they are left out as a whole.
      columns: the columns to keep, in the order of the record; None if these are all, in order.
      complaints: sentences on what is left out, by their kind.
    """

    fits: bool
    columns: Int[np.ndarray, " L"] | None
    complaints: Mapping[str, str]


def traits_of_layers(layers: LayerStats) -> Traits:
    """Returns what a record must know of layers."""
    channels = layers.channels or (0,) * len(layers.names)
    taken = {"histograms": layers.stats.hist is not None, "units": layers.units is not None}
    return Traits(
        "layers",
        dict(zip(layers.names, channels, strict=True)),
        tuple(name for name, found in taken.items() if found),
        layers.bins if taken["histograms"] else None,
    )


def traits_of_parameters(parameters: ParameterStats) -> Traits:
    """Returns what a record must know of parameters."""
    fields = parameters.stats._asdict().items()
    return Traits(
        "parameters",
        dict(zip(parameters.of.names, parameters.of.sizes, strict=True)),
        tuple(name for name, value in fields if value is not None),
    )


def fit(first: Traits, now: Traits) -> Fit:
    """Returns how the statistics of a step fit the record that the first step began.

    Layers, parameters and quantities that the first step lacks are left out. Statistics that lack
    some of the first step's are left out as a whole.
    """
    if first == now and list(first.entries) == list(now.entries):
        return Fit(True, None, {})
    what = first.what
    lacking = first.entries.keys() - now.entries.keys()
    both = [name for name in first.entries if name in now.entries]
    changed = [name for name in both if first.entries[name] != now.entries[name]]
    more = [name for name in now.entries if name not in first.entries]
    fewer_quantities = [name for name in first.quantities if name not in now.quantities]
    more_quantities = [name for name in now.quantities if name not in first.quantities]
    if what == "layers" and "units" in (*fewer_quantities, *more_quantities):
        changed = []  # without units no channels are known
    wholly = f"{what} must be those of the first step that has them at every step, got"
    without = f"The steps are recorded without {what}."
    fixes = {
        "names": f"Pass the same {what}, or give each network a Recorder of its own.",
        "quantities": "Take the same quantities at every step.",
    }
    complaints: dict[str, str] = {}
    if lacking:
        ordered = [name for name in first.entries if name in lacking]
        complaints["lacking"] = f"{wholly} no {_listed(ordered)}. {without} {fixes['names']}"
    if changed:
        of = "another number of channels" if what == "layers" else "another number of elements"
        complaints["changed"] = f"{wholly} {of} in {_listed(changed)}. {without} {fixes['names']}"
    if fewer_quantities:
        names = _listed(fewer_quantities)
        complaints["fewer"] = f"{wholly} no {names}. {without} {fixes['quantities']}"
    if first.bins and now.bins and first.bins != now.bins:
        complaints["bins"] = (
            f"{wholly} {now.bins} after {first.bins}. {without} Take the same bins at every step."
        )
    if complaints:
        return Fit(False, None, complaints)
    if more:
        complaints["more"] = f"{wholly} {_listed(more)}, too, left out. {fixes['names']}"
    if more_quantities:
        names = _listed(more_quantities)
        complaints["more quantities"] = f"{wholly} {names}, too, left out. {fixes['quantities']}"
    position = {name: i for i, name in enumerate(now.entries)}
    return Fit(True, np.array([position[name] for name in first.entries], int), complaints)


def _listed(names: Iterable[str]) -> str:
    names = list(names)
    rest = f" and {len(names) - _SHOWN} more" if len(names) > _SHOWN else ""
    return ", ".join(names[:_SHOWN]) + rest
