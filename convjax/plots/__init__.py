"""Plots of records: layers, training curves, gradients and updates, sweeps, and findings.

Every function returns a matplotlib `Figure`, which a notebook displays and the caller saves with
`figure.savefig("name.png")`. pyplot is not used: there is no window, no global state and nothing to
close. matplotlib is imported when the first figure is made.
"""

from convjax.plots import chapter
from convjax.plots.figure import BLUE, ORANGE, new_figure
from convjax.plots.findings import mark
from convjax.plots.images import (
    show_batch,
    show_feature_maps,
    show_image,
    show_kernels,
    subplots,
)
from convjax.plots.layers import color_dim, plot_layer_stats
from convjax.plots.overview import color_dims
from convjax.plots.parameters import color_magnitudes, plot_update_ratios
from convjax.plots.receptive_fields import plot_effective_field
from convjax.plots.sweeps import plot_sweep
from convjax.plots.training import plot_loss, plot_lr_find, plot_sched

drawings = chapter  # public as convjax.drawings

__all__ = [
    "BLUE",
    "ORANGE",
    "chapter",
    "color_dim",
    "color_dims",
    "color_magnitudes",
    "drawings",
    "mark",
    "new_figure",
    "plot_effective_field",
    "plot_layer_stats",
    "plot_loss",
    "plot_lr_find",
    "plot_sched",
    "plot_sweep",
    "plot_update_ratios",
    "show_batch",
    "show_feature_maps",
    "show_image",
    "show_kernels",
    "subplots",
]
