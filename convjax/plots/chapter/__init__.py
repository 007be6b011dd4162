"""The chapter's drawings, made from real arrays: kernels, padding, equations, colour, histograms.

Every function takes arrays or a record and returns a matplotlib `Figure`. The numbers in a drawing
are computed from the arrays. A single channel is drawn as ink: 0 is white and 255 black. Positive
numbers are red and negative numbers blue.
"""

from convjax.plots.chapter.colour import colour_channels, colour_kernel
from convjax.plots.chapter.equations import equation_list, equation_places
from convjax.plots.chapter.histograms import histogram_column, histogram_summary, why_logarithm
from convjax.plots.chapter.kernels import kernel_at_place, kernel_on_grid
from convjax.plots.chapter.matrix import equation_links, equation_matrix
from convjax.plots.chapter.padding import windows_on_grid
from convjax.plots.chapter.pixels import pixel_table
from convjax.plots.chapter.precedents import precedents_of_cell

__all__ = [
    "colour_channels",
    "colour_kernel",
    "equation_links",
    "equation_list",
    "equation_matrix",
    "equation_places",
    "histogram_column",
    "histogram_summary",
    "kernel_at_place",
    "kernel_on_grid",
    "pixel_table",
    "precedents_of_cell",
    "why_logarithm",
    "windows_on_grid",
]
