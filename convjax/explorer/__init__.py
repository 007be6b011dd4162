"""A page in which a network's convolutions are traced back, cell by cell, and changed."""

from convjax.explorer._page import page, page_data
from convjax.explorer.layer_spec import layer_specs

__all__ = ["layer_specs", "page", "page_data"]
