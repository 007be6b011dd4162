"""Statistics of several layers at one step, for a custom training loop."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Bool, Float

from convjax._checks import check_array, check_type
from convjax._warnings import warn_user
from convjax.nn.outputs import LayerKind, LayerOutputs
from convjax.stats.activations import ActivationStats, Units, stats_of
from convjax.stats.bins import FASTAI, Bins, as_bins
from convjax.stats.facts import batch_facts
from convjax.stats.watch import INPUT, LABELS

# The fact of a batch that is known of its network, see `LayerOutputs`.
NOISE = "dropout noise"


@partial(
    jax.tree_util.register_dataclass,
    data_fields=["stats", "units", "facts"],
    meta_fields=["names", "sizes", "channels", "bins", "kinds"],
)
@dataclass(frozen=True)
class LayerStats:
    """Statistics of L layers at one step; a pytree, so that a jitted step may return it.

    Attributes:
      names: of the layers, in the order of their calls.
      sizes: number of values of each.
      stats: every field has a first axis L; `active` is None.
      units: whether each channel was active, those of all layers one after the other, so that one
        array leaves the device; None without units.
      channels: number of each layer; empty without units.
      bins: of the histograms.
      kinds: of the layers; empty where they are not known.
      facts: of the batch, see `convjax.stats.facts.batch_facts`.
    """

    names: tuple[str, ...]
    sizes: tuple[int, ...]
    stats: ActivationStats
    units: Bool[Array | np.ndarray, "..."] | None = None
    channels: tuple[int, ...] = ()
    bins: Bins = FASTAI
    kinds: tuple[LayerKind, ...] = ()
    facts: Mapping[str, Float[Array | np.ndarray, "..."]] = field(default_factory=dict)

    @property
    def active(self) -> tuple[Bool[Array | np.ndarray, "..."], ...]:
        """Whether each channel was active, one array (C,) per layer; empty without units."""
        units: Any = self.units
        if isinstance(units, jax.Array) and not isinstance(units, jax.core.Tracer):
            units = np.asarray(units)  # cut on the host, which needs no program
        return tuple(Units(units, self.channels).split())


def layer_stats(
    outputs: Mapping[str, Any],
    *,
    histogram: bool = True,
    bins: Bins | str = "fastai",
    units: bool = False,
    channel_axes: Mapping[str, int] | None = None,
) -> LayerStats:
    """Returns the statistics of each layer's output; call it within the jitted step.

    What cannot be measured is left out with a warning, because it must not end a training: outputs
    without values and those that are not real numbers.

    Args:
      outputs: by the layer's name, as `convjax.capture` returns them. The network's input and
        labels may be among them, by the names "input" and "labels". The arrays of an output that
        is a tuple or another tree are layers named "name:0", "name:1" or by their keys, "name:h".
      histogram: False leaves out the histograms, most of the cost.
      bins: of the histograms: "fastai" (40 over 0 to 10), "symmetric" (40 over -5 to 5) or a
        `convjax.Bins`.
      units: True adds which channels were active, for `Record.dead`.
      channel_axes: the axis of the channels of outputs where it is not the last; by default what
        `convjax.capture` found.

    Raises:
      TypeError: if outputs is not a mapping, an output is not an array or a tree of arrays, or bins
        is of another type.
      ValueError: if an output does not have the axis, or bins is not the name of a preset.

    Examples:
      >>> import jax.numpy as jnp
      >>> from convjax import layer_stats
      >>> stats = layer_stats({"conv": jnp.zeros((2, 4, 4, 3)), "head": jnp.ones((2, 10))})
      >>> stats.names, stats.sizes, stats.stats.hist.shape
      (('conv', 'head'), (96, 20), (2, 40))
      >>> layer_stats({"x": jnp.ones(3)}, bins="symmetric").bins.low
      -5.0
      >>> layer_stats({"lstm": (jnp.ones(3), {"h": jnp.ones(2)})}).names
      ('lstm:0', 'lstm:1:h')
    """
    bins = as_bins(bins)
    check_type("outputs", outputs, Mapping, "convjax.capture(model, x) returns one.")
    given = LayerOutputs.of(outputs)
    known = channel_axes is not None or isinstance(outputs, LayerOutputs) or bool(given.kinds)
    found = measurable(given, channel_axes)
    axes = {name: found.channel_axes.get(name, -1) for name in found}
    for name, x in found.items():
        if x.ndim and not -x.ndim <= axes[name] < x.ndim:
            raise ValueError(
                f"channel_axes[{name!r}] must be an axis of the shape {x.shape}, got {axes[name]}."
            )
    if units and not known and (maps := {n: x.shape for n, x in found.items() if x.ndim > 2}):
        name, shape = next(iter(maps.items()))
        warn_user(
            f"units=True takes the last axis for the channels, as of {name!r} with the shape "
            f"{shape}. Pass the outputs as convjax.capture returns them, {{'input': x}} | outputs "
            f"to add to them, or the axes: channel_axes={{{name!r}: -1}}."
        )
    stats, of_units = stats_of(
        list(found.values()),
        histogram=histogram,
        bins=bins,
        channel_axes=[axes[name] if units else None for name in found],
    )
    return LayerStats(
        tuple(found),
        tuple(x.size for x in found.values()),
        stats,
        of_units.active,
        of_units.channels if units else (),
        bins,
        tuple(given.kinds.get(name, LayerKind()) for name in found) if given.kinds else (),
        _facts(given, found),
    )


def _facts(given: LayerOutputs, found: LayerOutputs) -> dict[str, Any]:
    """Returns the facts of the batch: of the network's output or, if unknown, its last layer."""
    output = given.output
    labels = found.get(LABELS)
    layers = [name for name in found if name not in (INPUT, LABELS)]
    if output is None and labels is not None and layers:
        output = found[layers[-1]]
    noise = {NOISE: jnp.float32(given.dropout_noise)} if given.dropout_noise else {}
    return batch_facts(output, labels) | noise


def measurable(
    outputs: Mapping[str, Any], channel_axes: Mapping[str, int] | None = None
) -> LayerOutputs:
    """Returns the arrays of real numbers among outputs, and those of their tuples and trees.

    Everything else is left out with one warning.

    Args:
      outputs, channel_axes: as for `layer_stats`.

    Raises:
      TypeError: if an output is neither an array nor a tree of arrays.

    Examples:
      >>> import jax.numpy as jnp
      >>> list(measurable({"conv": jnp.ones(2), "lstm": (jnp.ones(2), jnp.ones(3))}))
      ['conv', 'lstm:0', 'lstm:1']
    """
    given = getattr(outputs, "channel_axes", {}) | dict(channel_axes or {})
    found: dict[str, Any] = {}
    axes: dict[str, int] = {}
    left_out: list[str] = []
    for layer, output in outputs.items():
        for path, x in jax.tree_util.tree_leaves_with_path(output):
            key = jax.tree_util.keystr(path, simple=True, separator=":")
            name = f"{layer}:{key}" if key else layer
            if not key:
                check_array(f"outputs[{name!r}]", x)
            if why := _unmeasurable(x):
                left_out.append(f"{name!r} ({why})")
                continue
            found[name] = x
            if (axis := given.get(name, given.get(layer))) is not None:
                axes[name] = axis
    if left_out:
        warn_user(
            f"layer_stats leaves out {', '.join(left_out)}. Statistics are of real numbers: pass "
            "jnp.abs(x) of a complex output, x.astype(jnp.float32) of a boolean one."
        )
    return LayerOutputs(found, axes)


def _unmeasurable(x: Any) -> str | None:
    """Returns why something has no statistics, None if it has some."""
    if not (hasattr(x, "shape") and hasattr(x, "dtype")):
        return f"{type(x).__name__}, not an array"
    if not (jnp.issubdtype(x.dtype, jnp.floating) or jnp.issubdtype(x.dtype, jnp.integer)):
        return f"dtype {x.dtype}"
    return None if x.size else f"no values, shape {x.shape}"
