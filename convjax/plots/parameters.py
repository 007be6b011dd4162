"""Pictures of gradients and updates: how large they are, parameter by parameter."""

from typing import TYPE_CHECKING

import numpy as np

from convjax.plots.figure import MAX_COLUMNS, new_figure
from convjax.stats.parameters import LOG_BINS, ParameterRecord
from convjax.stats.record import Array, Record, check_record

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

# Where updates are as large as this beside their weights, Karpathy's rule of thumb has them.
RULE_OF_THUMB = 1e-3


def plot_update_ratios(record: Record) -> "Figure":
    """Draws the gradient's norm and the update-to-weight ratio of every kernel.

    Both axes are logarithmic, so that there is no line where a gradient is zero. A healthy training
    keeps the ratios within some decades of each other and of 10⁻³, the dashed rule of thumb; a line
    far from the others is a parameter with a rate of its own.

    Raises:
      ValueError: if the record has no updates.
    """
    parameters = _parameters(record)
    ratio = parameters.update_ratio
    drawn = np.flatnonzero(parameters.kernels).tolist()
    has_gradients = len(parameters.grad_norm) > 0
    figure = new_figure(11 if has_gradients else 7, 4.2)
    panels = figure.subplots(1, 2 if has_gradients else 1, squeeze=False, sharex=True)[0]
    _lines(panels[-1], parameters, ratio, drawn)
    panels[-1].axhline(
        RULE_OF_THUMB, color="0.3", linestyle="--", linewidth=1, label="rule of thumb"
    )
    panels[-1].set(ylabel="norm of the update / norm of the weights")
    if has_gradients:
        _lines(panels[0], parameters, parameters.grad_norm, drawn)
        panels[0].set(ylabel="norm of the gradient")
    lines, labels = panels[-1].get_legend_handles_labels()
    figure.legend(lines, labels, loc="outside right upper", fontsize="small")
    return figure


def _lines(axes: "Axes", record: ParameterRecord, values: Array, drawn: list[int]) -> None:
    import matplotlib as mpl

    colours = mpl.colormaps["viridis"](np.linspace(0, 0.9, max(len(drawn), 2)))
    for colour, i in zip(colours, drawn, strict=False):
        # A logarithmic axis has no place for zero.
        shown = np.where(values[:, i] > 0, values[:, i], np.nan)
        axes.plot(record.watched, shown, color=colour, label=record.names[i])
    axes.set(xlabel="step", yscale="log")
    axes.grid(alpha=0.3)


def color_magnitudes(record: Record, parameter: str, *, of: str = "gradients") -> "Figure":
    """Draws the histogram of the magnitudes of a parameter's gradients or updates at every step.

    The colour is log(1 + count), as in `color_dim`; the bins are factors of two, on a logarithmic
    axis. The strips give the elements below it, zeros among them, and above it, those that are no
    numbers among them, in percent.

    Args:
      parameter: a name, such as "blocks.0.conv.kernel".
      of: "gradients" or "updates".

    Raises:
      KeyError: if there is no such parameter; the message lists those there are.
      ValueError: if the record has no such histograms, or `of` is neither.
    """
    parameters = _parameters(record)
    if of not in ("gradients", "updates"):
        raise ValueError(f"of must be 'gradients' or 'updates', got {of!r}.")
    if parameter not in parameters.names:
        raise KeyError(f"no parameter {parameter!r}; there are {', '.join(parameters.names)}.")
    counts = parameters.grad_hist if of == "gradients" else parameters.update_hist
    if not len(counts):
        raise ValueError(
            f"record must hold histograms of {of}, got none. Train with Watch({of}=True)."
        )
    column = parameters.names.index(parameter)
    size = -(-len(parameters.watched) // MAX_COLUMNS)
    starts = np.arange(0, len(parameters.watched), size)
    steps = np.add.reduceat(parameters.watched_count, starts)[:, None]
    mean = np.add.reduceat(counts[:, column], starts, axis=0) / steps
    under = 100 * mean[:, 0] / parameters.sizes[column]
    over = 100 - 100 * mean[:, : LOG_BINS + 1].sum(1) / parameters.sizes[column]
    figure = new_figure(8, 5)
    above, panel, below = figure.subplots(3, 1, sharex=True, height_ratios=(1, 6, 1))
    edges = np.append(parameters.watched[starts], record.steps) - 0.5
    top = max(1.0, float(mean.max()))
    picture = panel.pcolormesh(
        edges,
        parameters.hist_edges,
        np.log1p(mean[:, 1 : LOG_BINS + 1]).T,
        cmap="viridis",
        vmin=0,
        vmax=np.log1p(top),
        rasterized=True,
    )
    symbol = "|gradient|" if of == "gradients" else "|update|"
    panel.set(yscale="log", ylabel=symbol)
    above.set(title=parameter)
    for strip, share, name in ((above, over, "above"), (below, under, "below")):
        strip.stairs(share, edges, fill=True, color="0.5")
        strip.set(ylabel=f"{name}\n%", ylim=(0, 100))
    below.set(xlabel="step", xlim=(-0.5, record.steps - 0.5))
    bar = figure.colorbar(picture, ax=panel, label="elements per bin, log(1 + count)")
    ticks = [0, *(10**i for i in range(1, int(np.log10(top)) + 1))]
    bar.set_ticks(np.log1p(ticks).tolist(), labels=[f"{tick:,}" for tick in ticks])
    bar.minorticks_off()
    return figure


def _parameters(record: Record) -> ParameterRecord:
    check_record("record", record)
    if record.parameters is None or not len(record.parameters.watched):
        raise ValueError(
            "record must hold gradients or updates, got none. Train with Watch(gradients=True, "
            "updates=True), or give Recorder.add what parameter_stats returns."
        )
    return record.parameters
