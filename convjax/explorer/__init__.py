"""A page in which a network's convolutions are traced back, cell by cell, and changed."""

from convjax.explorer._page import page, page_data
from convjax.explorer.layer_spec import layers_of

__all__ = ["layers_of", "page", "page_data"]
