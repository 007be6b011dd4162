"""Plots of gradients and updates: their magnitudes, parameter by parameter."""

from typing import TYPE_CHECKING

import numpy as np
from jaxtyping import Float

from convjax.plots import heatmap
from convjax.plots.figure import MAX_COLUMNS, caption, label_steps, new_figure, point_style
from convjax.plots.layer_choice import LayerChoice, choose, describe_choice
from convjax.stats.parameter_forms import LOG_BINS
from convjax.stats.parameter_record import ParameterRecord
from convjax.stats.record import Record, check_record

if TYPE_CHECKING:
    import matplotlib.axes
    import matplotlib.figure

RULE_OF_THUMB = 1e-3  # Karpathy's: a good norm of the update over that of the weights


def plot_update_ratios(
    record: Record, layers: LayerChoice | None = None
) -> "matplotlib.figure.Figure":
    """Draws the norm of the gradient and the update-to-weight ratio of kernels.

    Both axes are logarithmic; a gradient of zero leaves a gap in its line. In a healthy training
    the ratios stay within a few decades of each other and of 10⁻³, the dashed rule of thumb. A
    line far from the others is a parameter that learns at another rate.

    Args:
      record: a record with updates, and perhaps gradients.
      layers: which kernels, by their names or those of their layers, as
        `convjax.plots.layer_choice.choose` takes them: "*" draws all. By default at most 12,
        evenly spaced, with the first and the last, and those that a finding of `convjax.diagnose`
        names.

    Raises:
      TypeError: if record is not a `Record`, or layers is of another type.
      ValueError: if the record has no updates, or no such kernel.
      IndexError: if the record has no kernel of an index.
    """
    parameters = _parameters(record)
    ratio = parameters.update_ratio
    kernels = kernel_columns(parameters)
    names = [parameters.names[i] for i in kernels]
    drawn = [kernels[i] for i in choose(record, names, layers)]
    has_gradients = len(parameters.grad_norm) > 0
    figure = new_figure(11 if has_gradients else 7, 4.2)
    panels = figure.subplots(1, 2 if has_gradients else 1, squeeze=False, sharex=True)[0]
    _draw_lines(panels[-1], parameters, ratio, drawn)
    panels[-1].axhline(
        RULE_OF_THUMB, color="0.3", linestyle="--", linewidth=1, label="rule of thumb"
    )
    panels[-1].set(ylabel="norm of the update / norm of the weights")
    if has_gradients:
        _draw_lines(panels[0], parameters, parameters.grad_norm, drawn)
        panels[0].set(ylabel="norm of the gradient")
    lines, labels = panels[-1].get_legend_handles_labels()
    figure.legend(lines, labels, loc="outside right upper", fontsize="small")
    if len(drawn) < len(kernels):
        count = describe_choice(len(drawn), len(kernels), "kernels")
        caption(figure, f'{count} are drawn; layers="*" draws all.')
    return figure


def kernel_columns(parameters: ParameterRecord) -> list[int]:
    """Returns the columns of the kernels; of all parameters, if none is a kernel."""
    found = np.flatnonzero(parameters.kernels).tolist()
    return found or list(range(len(parameters.names)))


def _draw_lines(
    axes: "matplotlib.axes.Axes",
    record: ParameterRecord,
    values: Float[np.ndarray, "rows parameters"],
    drawn: list[int],
) -> None:
    import matplotlib as mpl

    colours = mpl.colormaps[heatmap.COLORMAP](np.linspace(0, 0.9, max(len(drawn), 2)))
    for colour, i in zip(colours, drawn, strict=False):
        # A logarithmic axis cannot show zero.
        shown = np.where(values[:, i] > 0, values[:, i], np.nan)
        axes.plot(record.watched, shown, color=colour, label=record.names[i], **point_style(shown))
    label_steps(axes)
    axes.set(yscale="log")
    axes.grid(alpha=0.3)


def color_magnitudes(
    record: Record, parameter: str, *, of: str = "gradients"
) -> "matplotlib.figure.Figure":
    """Draws the histograms of the magnitudes of a parameter's gradients or updates at all steps.

    The colour is log(1 + count), as in `color_dim`. The bins are factors of two, on a logarithmic
    axis. The strips show the percentage of elements below the bins, including zeros, and above
    them, including elements that are not finite.

    Args:
      record: a record with gradients or updates.
      parameter: a name, such as "blocks.0.conv.kernel".
      of: "gradients" or "updates".

    Raises:
      KeyError: if there is no such parameter; the message lists the parameters.
      ValueError: if the record has no such histograms, or `of` is not one of the two.
    """
    parameters = _parameters(record)
    if of not in ("gradients", "updates"):
        raise ValueError(f"of must be 'gradients' or 'updates', got {of!r}. Pass one of these.")
    if parameter not in parameters.names:
        raise KeyError(
            f"parameter must be one of {', '.join(parameters.names)}, got {parameter!r}. Pass one "
            "of these names."
        )
    counts = parameters.grad_hist if of == "gradients" else parameters.update_hist
    if not len(counts):
        raise ValueError(
            f"record must hold histograms of {of}, got none. Train with Watch({of}=True), or give "
            f"parameter_stats the {'grads' if of == 'gradients' else 'updated parameters'}."
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
    top = heatmap.highest_count(mean)
    inside = mean[:, 1 : LOG_BINS + 1]
    mesh = heatmap.draw_mesh(panel, edges, parameters.hist_edges, inside, top)
    panel.set(yscale="log", ylabel="|gradient|" if of == "gradients" else "|update|")
    above.set(title=parameter)
    for strip, percent, name in ((above, over, "above"), (below, under, "below")):
        strip.stairs(percent, edges, fill=True, color="0.5")
        strip.set(ylabel=f"{name}\n%", ylim=(0, 100))
    label_steps(below)
    below.set(xlim=(-0.5, record.steps - 0.5))
    heatmap.draw_count_bar(figure, mesh, panel, top, what="elements")
    return figure


def _parameters(record: Record) -> ParameterRecord:
    check_record("record", record)
    if record.parameters is None or not len(record.parameters.watched):
        raise ValueError(
            "record must hold gradients or updates, got none. Train with Watch(gradients=True, "
            "updates=True), or pass the result of parameter_stats to Recorder.add."
        )
    return record.parameters
