"""The order of the axes of kernels in files.

All kernels are HWIO, in memory and in files, whatever the layout of the maps. Files of convjax 0.1
had the order of the layout that the network computed in, which differed between CPU and GPU, and
did not say which.
"""

from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt

from convjax.ops.layout import KERNEL_AXES, permutation

# The order of the axes that files have, and its name in them.
FILE_AXES = "HWIO"
AXES_KEY = "kernel_axes"


class Reordered(NamedTuple):
    """Arrays whose kernels are HWIO.

    Attributes:
      arrays: all of them.
      layouts: in whose order the kernels may have been, the chosen one first; empty if their shapes
        are those of no layout.
    """

    arrays: dict[str, npt.NDArray[Any]]
    layouts: tuple[str, ...]


def from_unnamed_order(
    arrays: Mapping[str, npt.NDArray[Any]],
    wanted: Mapping[str, Sequence[int]],
    layouts: Sequence[str],
) -> Reordered:
    """Returns the arrays of a file that does not name the order of its kernels' axes.

    Args:
      arrays: of the file, by name.
      wanted: the shapes of the kernels by name, HWIO.
      layouts: in whose order they may be, the likeliest first.

    Examples:
      >>> import numpy as np
      >>> from convjax.nn.kernel_order import from_unnamed_order
      >>> file = {"kernel": np.zeros((8, 1, 5, 5)), "bias": np.zeros(8)}
      >>> found = from_unnamed_order(file, {"kernel": (5, 5, 1, 8)}, ("NHWC", "NCHW", "CHWN"))
      >>> found.layouts, found.arrays["kernel"].shape
      (('NCHW',), (5, 5, 1, 8))
    """
    given = {name: arrays[name] for name in wanted if name in arrays}
    fitting = []
    for layout in layouts:
        axes = permutation(KERNEL_AXES[layout], FILE_AXES)
        turned = {name: x.transpose(axes) for name, x in given.items() if x.ndim == len(axes)}
        if all(name in turned and turned[name].shape == tuple(wanted[name]) for name in given):
            fitting.append((layout, turned))
    kernels = fitting[0][1] if fitting else {}
    # Copies, since a view of another order would be written or summed in that order.
    contiguous = {name: np.ascontiguousarray(x) for name, x in kernels.items()}
    return Reordered({**arrays, **contiguous}, tuple(layout for layout, _ in fitting))
