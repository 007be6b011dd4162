"""Training on several devices and in several processes."""

from convjax.parallel import distributed
from convjax.parallel.mesh import data_mesh
from convjax.parallel.placement import Placement

__all__ = ["Placement", "data_mesh", "distributed"]
