"""A split of a data set where a training can use it: on the device, all of it."""

from collections.abc import Sequence
from typing import Any, NamedTuple

import jax

from convjax import parallel
from convjax.checks import check_images, check_split, check_type
from convjax.data import Split, Stream


class Images(NamedTuple):
    """A split on the device, or on all of several: images uint8 (N, H, W, C), labels int32 (N,)."""

    images: jax.Array
    labels: jax.Array

    @classmethod
    def put(cls, split: Split, devices: Sequence[jax.Device] | None = None) -> "Images":
        """Copies a split of a data set to the device.

        Args:
          devices: those of a `Trainer` over several, each of which takes the whole split; without
            them such a trainer copies it at every call.
        """
        check_split(split)
        here = split.images, split.labels
        if devices is None:
            return cls(*jax.device_put(here))
        return cls(*parallel.replicate(here, parallel.data_mesh(devices)))


def check_data(data: Any, name: str = "data") -> None:
    """Checks images and labels to train on or to score: `Images` or a `Stream`.

    Raises:
      TypeError: if they are neither, or their images no uint8.
      ValueError: if their axes are not (N, H, W, C) and (N,), or there is none.
    """
    if not isinstance(data, Stream):
        way_out = "Images.put(split) copies a split to the device; a Stream leaves it in its files."
        check_type(name, data, Images, way_out)
        check_images(data.images, data.labels, name)
    if not len(data.labels):
        raise ValueError(f"{name} must hold at least one example, got none.")
