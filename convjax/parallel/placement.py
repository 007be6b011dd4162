"""Where a training takes place: on JAX's default device, or split over several."""

from collections.abc import Callable, Sequence
from typing import Any

import jax

from convjax.parallel import mesh
from convjax.parallel.mesh import REPLICATED, SPLIT_SECOND
from convjax.parallel.timed_jit import TimedJit


class Placement:
    """Puts arrays and programs where a training takes place.

    Args:
      devices: as `convjax.Trainer` takes them.

    Attributes:
      mesh: of several devices; None for JAX's default device.
      parts: into how many a batch is split.
      spans: whether some of the devices belong to other processes.

    Raises:
      TypeError, ValueError: for devices that `convjax.parallel.mesh.data_mesh` rejects.
    """

    def __init__(self, devices: Sequence[jax.Device] | None):
        self.mesh = None if devices is None else mesh.data_mesh(devices)
        self.parts = 1 if self.mesh is None else self.mesh.size
        self.spans = self.mesh is not None and mesh.spans_processes(self.mesh)

    def put(self, tree: Any) -> Any:
        """Returns the tree where the training takes place; what is there already stays."""
        return mesh.gather(tree) if self.mesh is None else mesh.replicate(tree, self.mesh)

    def put_order(self, order: Any, *rest: Any) -> tuple[Any, ...]:
        """Returns a program's arguments from the host, placed where JAX could not do so itself.

        Args:
          order: (K, B), each row split over the devices.
          *rest: the same on all of them.
        """
        if self.mesh is None or not self.spans:
            return order, *rest
        order = mesh.place(order, self.mesh, SPLIT_SECOND)
        return order, *mesh.replicate(rest, self.mesh)

    def program(
        self, function: Callable[..., Any], given: Any, returned: Any = REPLICATED, **settings: Any
    ) -> TimedJit:
        """Returns the program of a function, over all devices.

        Args:
          given, returned: how its arguments and results lie there, as `convjax.parallel.mesh` names it.
          **settings: of `jax.jit`.
        """
        if self.mesh is not None:
            function = mesh.on_devices(function, self.mesh, given, returned)
        return TimedJit(function, **settings)
