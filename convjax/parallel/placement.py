"""The placement of a training: JAX's default device, or several devices."""

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import jax
import jax.numpy as jnp

from convjax.parallel import mesh
from convjax.parallel.agreement import agree
from convjax.parallel.mesh import REPLICATED, SPLIT_SECOND
from convjax.parallel.timed_jit import TimedJit


class Placement:
    """The devices of a training, on which it places arrays and programs.

    Args:
      devices: as for `convjax.Trainer`; None for JAX's default device.

    Attributes:
      mesh: the mesh of the devices; None for JAX's default device.
      parts: the number of parts of a batch.
      spans: whether some of the devices belong to other processes.
      processes: those that the devices belong to, if they are several; else empty.
      platform: of the devices, such as "cpu", "gpu" or "tpu".

    Raises:
      TypeError: if devices is not a sequence of devices.
      ValueError: for devices that `convjax.parallel.mesh.data_mesh` rejects.

    Examples:
      >>> import jax
      >>> from convjax.parallel import Placement
      >>> Placement(None).parts, dict(Placement(jax.devices()[:1]).mesh.shape)
      (1, {'batch': 1})
    """

    def __init__(self, devices: Sequence[jax.Device] | None):
        self.mesh = None if devices is None else mesh.data_mesh(devices)
        self.parts = 1 if self.mesh is None else self.mesh.size
        self.spans = self.mesh is not None and mesh.spans_processes(self.mesh)
        self.processes: tuple[int, ...] = ()
        if self.mesh is not None and self.spans:
            self.processes = mesh.processes_of(self.mesh)

    @property
    def platform(self) -> str:
        if self.mesh is not None:
            return str(self.mesh.devices.flat[0].platform)
        (device,) = jnp.zeros(()).devices()  # also one of `jax.default_device`
        return str(device.platform)

    def put(self, tree: Any) -> Any:
        """Returns the tree on the devices of the training; arrays already there stay."""
        return mesh.gather(tree) if self.mesh is None else mesh.replicate(tree, self.mesh)

    def put_order(self, order: Any, *rest: Any) -> tuple[Any, ...]:
        """Returns the arguments of a program, placed where JAX cannot place them itself.

        Args:
          order: (K, B), each row to be split over the devices.
          *rest: to be replicated.
        """
        if self.mesh is None or not self.spans:
            return order, *rest
        order = mesh.place(order, self.mesh, SPLIT_SECOND)
        return order, *mesh.replicate(rest, self.mesh)

    def agree(self, call: str, values: Mapping[str, Any]) -> None:
        """Checks that all processes of the devices have the same values; nothing for one process.

        Raises:
          ProcessError: in each of them, if a value differs, see `convjax.distributed.agree`.
        """
        if self.spans:
            agree(values, call=call, processes=self.processes)

    def program(
        self, function: Callable[..., Any], given: Any, returned: Any = REPLICATED, **settings: Any
    ) -> TimedJit:
        """Returns a function as a program on all devices.

        Args:
          function: of arrays and trees of arrays.
          given: the partition of its arguments over the mesh.
          returned: the partition of its results.
          **settings: arguments of `jax.jit`.
        """
        if self.mesh is not None:
            function = mesh.on_devices(function, self.mesh, given, returned)
        return TimedJit(function, processes=self.processes, **settings)
