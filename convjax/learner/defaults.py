"""What a learner chooses where nothing is said: normalisation, loss, layer groups."""

import inspect
from collections.abc import Callable, Sequence
from typing import Any

import jax
import numpy as np
from flax import nnx

from convjax._checks import describe_value
from convjax.data import Dataset, Split, normalization
from convjax.nn import capture
from convjax.optim.optimizers import path_name
from convjax.train import cross_entropy
from convjax.train.losses import PerExample


def splits_of(data: Any) -> tuple[Split, Split]:
    """Returns the training and the validation split.

    Raises:
      TypeError: if the data are neither a data set nor a pair of splits.
    """
    if isinstance(data, Dataset):
        return data.train, data.test
    if isinstance(data, Sequence) and len(data) == 2 and all(isinstance(s, Split) for s in data):
        return data[0], data[1]
    raise TypeError(
        f"data must be a Dataset or a pair of splits, got {describe_value(data)}. "
        'convjax.data.load("mnist5k") makes one; of arrays: (convjax.data.Split(images, labels), '
        "convjax.data.Split(test_images, test_labels))."
    )


def normalization_of(split: Split) -> tuple[Any, Any]:
    """Returns mean and std per channel, of pixels on the scale p/255; std 1 where it is 0."""
    images = split.images
    if images.dtype == np.uint8:
        mean, std = normalization(images)
    else:
        axes = tuple(range(images.ndim - 1))  # each feature of vectors by itself
        wide = images.astype(np.float64)
        mean, std = wide.mean(axes), wide.std(axes)
    return mean, np.where(std > 0, std, 1)


def loss_for(split: Split) -> PerExample:
    """Returns the loss that goes with the labels of a split.

    Raises:
      ValueError: if they are not classes.
    """
    if split.labels.ndim == 1 and split.labels.dtype == np.int32:
        return cross_entropy
    raise ValueError(
        f"loss must be given for labels that are not classes, got {split.labels.dtype} of the "
        f"shape {split.labels.shape}: loss=convjax.train.squared_error for values, "
        "loss=convjax.train.binary_cross_entropy for many labels, loss=convjax.train.cross_entropy "
        "for classes of pixels or probabilities."
    )


def called_layers(model: nnx.Module, images: jax.ShapeDtypeStruct) -> list[str]:
    """Returns the names of the layers with parameters in the order of their calls.

    Args:
      model: is not changed.
      images: such as it gets.
    """
    graph, state = nnx.split(model)
    names: list[str] = []

    def call(state: Any, images: jax.Array) -> None:
        names.extend(capture(nnx.merge(graph, state, copy=True), images)[1])

    jax.eval_shape(call, state, images)
    return names


def check_outputs(model: nnx.Module, images: jax.ShapeDtypeStruct, classes: int) -> None:
    """Raises ValueError if a model does not return one output for each class.

    The cross entropy would take more of them without a word, such as those of a map that is larger
    than one pixel.

    Args:
      model, images: as for `called_layers`.
      classes: their number.
    """
    graph, state = nnx.split(model)

    def call(state: Any, images: jax.Array) -> Any:
        module: Any = nnx.merge(graph, state, copy=True)
        return module(images)

    shape = tuple(getattr(jax.eval_shape(call, state, images), "shape", ()))
    if shape[-1:] != (classes,):
        raise ValueError(
            f"model must return one output for each of the {classes} classes, got the shape "
            f"{shape} for images {images.shape}. A network of strides ends in a map of more than "
            "one pixel if images are larger than it is made for: add a convolution, or "
            "GlobalAvgPool."
        )


def last_layer_apart(model: nnx.Module, images: jax.ShapeDtypeStruct) -> Callable[[str], int]:
    """Returns the groups of parameters: 1 for the last layer and its norm, 0 for all others.

    Args:
      model, images: as for `called_layers`.
    """
    names = called_layers(model, images)
    matrices = [
        path_name(path)
        for path, value in jax.tree_util.tree_flatten_with_path(nnx.state(model, nnx.Param))[0]
        if value.ndim > 1
    ]
    # The last with a matrix or kernel, and the norms after it.
    weighted = [i for i, n in enumerate(names) if any(m.startswith(f"{n}.") for m in matrices)]
    if len(weighted) < 2:
        return lambda path: 0
    head = tuple(f"{name}." for name in names[weighted[-1] :])
    return lambda path: int(path.startswith(head))


def is_leaf(name: str, module: Any) -> bool:
    """Returns whether a module contains no other."""
    if isinstance(module, nnx.Module):
        return sum(1 for _ in nnx.iter_modules(module)) == 1
    return True


def arguments(make: Callable[..., Any]) -> Sequence[str]:
    """Returns the names of a function's arguments."""
    return list(inspect.signature(make).parameters)
