"""Statistics of several layers at one step, for a custom training loop."""

from collections.abc import Mapping
from dataclasses import dataclass
from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Bool, Real

from convjax._checks import check_array, check_type
from convjax.stats.activations import ActivationStats, activation_stats
from convjax.stats.bins import FASTAI, Bins, as_bins


@partial(
    jax.tree_util.register_dataclass,
    data_fields=["stats", "active"],
    meta_fields=["names", "sizes", "bins"],
)
@dataclass(frozen=True)
class LayerStats:
    """Statistics of L layers at one step; a pytree, so that a jitted step may return it.

    Attributes:
      names: of the layers, in the order of their calls.
      sizes: number of values of each.
      stats: every field but `active` has a first axis L.
      active: whether each channel was active, one array (C,) per layer; empty without units.
      bins: of the histograms.
    """

    names: tuple[str, ...]
    sizes: tuple[int, ...]
    stats: ActivationStats
    active: tuple[Bool[Array | np.ndarray, "..."], ...] = ()
    bins: Bins = FASTAI


def layer_stats(
    outputs: Mapping[str, Real[Array | np.ndarray, "..."]],
    *,
    histogram: bool = True,
    bins: Bins | str = "fastai",
    units: bool = False,
    channel_axes: Mapping[str, int] | None = None,
) -> LayerStats:
    """Returns the statistics of each layer's output; call it within the jitted step.

    Args:
      outputs: by the layer's name, as `convjax.capture` returns them. The network's input and
        labels may be among them, by the names "input" and "labels".
      histogram: False leaves out the histograms, most of the cost.
      bins: of the histograms: "fastai" (40 over 0 to 10), "symmetric" (40 over -5 to 5) or a
        `convjax.Bins`.
      units: True adds which channels were active, for `Record.dead`.
      channel_axes: the axis of the channels of outputs where it is not the last, as
        `convjax.channel_axes(model, outputs)` returns it for this project's networks in any layout.

    Raises:
      TypeError: if outputs is not a mapping of arrays, or bins is of another type.
      ValueError: if there is no output, one has no values or does not have the axis, or bins is
        not the name of a preset.

    Examples:
      >>> import jax.numpy as jnp
      >>> from convjax import layer_stats
      >>> stats = layer_stats({"conv": jnp.zeros((2, 4, 4, 3)), "head": jnp.ones((2, 10))})
      >>> stats.names, stats.sizes, stats.stats.hist.shape
      (('conv', 'head'), (96, 20), (2, 40))
      >>> layer_stats({"x": jnp.ones(3)}, bins="symmetric").bins.low
      -5.0
    """
    bins = as_bins(bins)
    check_type("outputs", outputs, Mapping, "convjax.capture(model, x) returns one.")
    for name, x in outputs.items():
        check_array(f"outputs[{name!r}]", x)
    if not outputs:
        raise ValueError("outputs must hold the output of one layer or more, got none.")
    axes = dict.fromkeys(outputs, -1) | dict(channel_axes or {})
    for name, x in outputs.items():
        if not x.size:
            raise ValueError(
                f"outputs[{name!r}] must hold one value or more, got the shape {x.shape}. Leave "
                "out empty batches."
            )
        if x.ndim and not -x.ndim <= axes[name] < x.ndim:
            raise ValueError(
                f"channel_axes[{name!r}] must be an axis of the shape {x.shape}, got {axes[name]}."
            )
    stats = [
        activation_stats(
            x, histogram=histogram, bins=bins, channel_axis=axes[name] if units else None
        )
        for name, x in outputs.items()
    ]
    alike = [layer._replace(active=None) for layer in stats]
    return LayerStats(
        tuple(outputs),
        tuple(x.size for x in outputs.values()),
        jax.tree.map(lambda *values: jnp.stack(values), *alike),
        tuple(layer.active for layer in stats if layer.active is not None),
        bins,
    )
