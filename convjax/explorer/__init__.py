"""An interactive page that traces a network's convolutions cell by cell and can change them."""

from convjax.explorer._page import page, page_data
from convjax.explorer.layer_spec import layer_specs

__all__ = ["layer_specs", "page", "page_data"]
