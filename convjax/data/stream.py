"""`Stream`: images too large for memory, read batch by batch while the device works."""

import os
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import numpy as np
from jaxtyping import Float64, Int32, Integer, UInt8
from numpy.typing import ArrayLike

from convjax.data._normalization import image_slices, pixel_moments
from convjax.data.dataset import DataError, dimensions
from convjax.data.sources import ImageSource, IndexedArray, image_source

# Grain's bookkeeping takes 0.1 to 0.5 ms per element, so an element holds several small batches.
_ELEMENT_BYTES = 1 << 20

# Threads wait for the disk, and decoders release Python's lock.
_THREADS = min(8, (os.cpu_count() or 1) + 1)


class Stream:
    """Images that stay in their files, with their labels.

    It can replace `convjax.Images` in `Trainer.run` and `Trainer.evaluate`; the results are equal
    bit for bit. Grain reads ahead in threads while the device computes.

    Args:
      images: (N, H, W, C) uint8, read by rows: `np.memmap` (as from
        `np.load(file, mmap_mode="r")`), an array in memory, one of a library for files, or an
        `ImageSource`.
      labels: (N,), whole numbers from 0.

    Attributes:
      images: the source of the images.
      labels: (N,) int32, in memory.

    Raises:
      DataError: for images of another dtype or number of axes, counts that differ, labels that
        are not whole or negative, and a file that is shorter than its images.

    Examples:
      >>> import numpy as np
      >>> stream = Stream(np.zeros((3, 28, 28, 1), np.uint8), [7, 3, 7])
      >>> stream
      Stream(3 images of 28×28×1)
      >>> stream.read(np.array([[0, 2]])).shape
      (1, 2, 28, 28, 1)
    """

    images: ImageSource
    labels: Int32[np.ndarray, " N"]

    def __init__(self, images: IndexedArray | ImageSource, labels: ArrayLike):
        self.images = image_source(images)
        given = np.asarray(labels)
        if given.ndim != 1 or given.dtype.kind not in "iu" or len(given) != len(self):
            raise DataError(
                f"labels must be one whole number for each of the {len(self)} images, got "
                f"{given.dtype} of shape {given.shape}. Check that both belong together."
            )
        if given.min() < 0 or given.max() > np.iinfo(np.int32).max:
            raise DataError(
                f"labels must be class indices from 0, got {given.min()} to {given.max()}. "
                "Renumber them."
            )
        self.labels = given.astype(np.int32)

    def __len__(self) -> int:
        return self.images.shape[0]

    def __repr__(self) -> str:
        return f"Stream({len(self)} images of {dimensions(self.images.shape[1:])})"

    def read(self, indices: Integer[np.ndarray, "*batch"]) -> UInt8[np.ndarray, "*batch H W C"]:
        """Returns the images of indices; −1 stands for no example, and gives a black image.

        Raises:
          DataError: if a file cannot be read.
        """
        flat = indices.ravel()
        wanted = flat >= 0
        if flat.size and wanted.all():
            images = self.images.read(flat)
        else:
            images = np.zeros((flat.size, *self.images.shape[1:]), np.uint8)
            if wanted.any():  # a part of the last batch may be padding alone
                images[wanted] = self.images.read(flat[wanted])
        return images.reshape(*indices.shape, *self.images.shape[1:])

    def normalization(self) -> tuple[Float64[np.ndarray, " C"], Float64[np.ndarray, " C"]]:
        """Returns the mean and standard deviation of each channel; reads all images once.

        See `convjax.data.normalization`.

        Raises:
          DataError: if a file cannot be read.
        """
        indices = np.arange(len(self))
        return pixel_moments(
            self.images.read(indices[part]) for part in image_slices(self.images.shape)
        )

    @contextmanager
    def reading(
        self, order: Integer[np.ndarray, "T B"], *, ahead: int, first_step: int | None = None
    ) -> Iterator[Iterator[UInt8[np.ndarray, "B H W C"]]]:
        """Reads the images of each step, up to `ahead` steps in advance.

        The threads stop with the block.

        Args:
          order: the indices of each batch.
          ahead: number of steps.
          first_step: number of the first in a training, for messages; None for an evaluation.

        Yields:
          An iterator over T arrays (B, H, W, C); it raises DataError if a file cannot be read, and
          names the step.

        Raises:
          ImportError: if Grain is not installed.
        """
        grain = _grain()
        bytes_per_step = order.shape[1] * int(np.prod(self.images.shape[1:]))
        group = max(1, min(ahead, _ELEMENT_BYTES // bytes_per_step))
        source = grain.MapDataset.source(_StepGroups(self, order, group, first_step))
        buffer = max(1, ahead // group)
        options = grain.ReadOptions(num_threads=min(_THREADS, buffer), prefetch_buffer_size=buffer)
        elements = iter(source.to_iter_dataset(options))
        try:
            yield (step for element in elements for step in _read(element))
        finally:
            elements.close()


class _StepGroups:
    """Grain's data source: each element holds the images of `group` steps."""

    def __init__(
        self,
        stream: Stream,
        order: Integer[np.ndarray, "T B"],
        group: int,
        first_step: int | None = None,
    ):
        self._stream, self._order, self._group = stream, order, group
        self._first_step = first_step

    def __len__(self) -> int:
        return -(-len(self._order) // self._group)

    def __getitem__(self, index: Any) -> UInt8[np.ndarray, "group B H W C"] | DataError:
        """Returns images, or an error to raise: Grain adds to the message of one raised here."""
        first = int(index) * self._group
        batches = self._order[first : first + self._group]
        try:
            return self._stream.read(batches)
        except DataError as error:
            return error if self._first_step is None else self._of_step(first, error)

    def _of_step(self, first: int, error: DataError) -> DataError:
        """Returns the error of the first batch of a group that cannot be read, with its step."""
        assert self._first_step is not None
        for i, batch in enumerate(self._order[first : first + self._group], first):
            try:
                self._stream.read(batch)
            except DataError as found:
                return DataError(
                    f"{found} Step {self._first_step + i} of the training needs it. Then train "
                    "again: a training that keeps checkpoints resumes from the newest."
                )
        return error

    def __repr__(self) -> str:  # Grain prints it in its messages
        return f"{self._stream!r} in {len(self)} reads"


def _read(
    element: UInt8[np.ndarray, "group B H W C"] | DataError,
) -> UInt8[np.ndarray, "group B H W C"]:
    if isinstance(element, DataError):
        raise element
    return element


def _grain() -> Any:
    try:
        import grain
    except ImportError as error:
        raise ImportError(
            'streaming needs Grain, which is not installed. Run pip install "convjax[stream]".'
        ) from error
    return grain
