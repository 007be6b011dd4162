"""The arithmetic of convolutions: output sizes, padding, multiplications.

References:
  Dumoulin and Visin, "A guide to convolution arithmetic for deep learning",
  https://arxiv.org/abs/1603.07285.
"""

import math
import operator
from collections.abc import Sequence
from typing import Any

Pair = tuple[int, int]
Padding = tuple[Pair, Pair]


def pair(name: str, value: Any, *, minimum: int) -> Pair:
    """Returns `value`, an int or a pair (height, width), as a pair of ints.

    Raises:
      TypeError: if a number is not an integer.
      ValueError: if there are not one or two numbers, or one is below `minimum`.
    """
    numbers = tuple(value) if isinstance(value, Sequence) else (value, value)
    if len(numbers) != 2:
        raise ValueError(f"{name} must be an int or a pair (height, width), got {value!r}.")
    try:
        height, width = map(operator.index, numbers)
    except TypeError:
        raise TypeError(
            f"{name} must be an int or a pair of ints (height, width), got {value!r}."
        ) from None
    if min(height, width) < minimum:
        raise ValueError(f"{name} must be at least {minimum}, got {value!r}.")
    return height, width


def dilated_size(kernel_size: int, dilation: int = 1) -> int:
    """Returns how many pixels a kernel spans: d·(k−1) + 1."""
    return dilation * (kernel_size - 1) + 1


def output_size(
    size: int, kernel_size: int, *, stride: int = 1, padding: Pair | int = 0, dilation: int = 1
) -> int:
    """Returns the output size along one axis: ⌊(n + p_before + p_after − span)/stride⌋ + 1.

    Args:
      size: input pixels n along the axis.
      kernel_size: kernel pixels k; the span is d·(k−1) + 1.
      stride: pixels between neighbouring outputs.
      padding: pixels added to each side, or (before, after).
      dilation: pixels d between neighbouring taps.

    Raises:
      ValueError: if the kernel spans more pixels than the padded input has.

    Examples:
      >>> from convjax.ops import output_size
      >>> output_size(28, 5, stride=2, padding=2)
      14
    """
    before, after = (padding, padding) if isinstance(padding, int) else padding
    span = dilated_size(kernel_size, dilation)
    padded = size + before + after
    if span > padded:
        raise ValueError(
            f"the kernel is larger than the padded input: it spans {span} pixels "
            f"(kernel_size {kernel_size}, dilation {dilation}), the input has {padded} "
            f"({size} + padding {before} + {after}). Pad more or use a smaller kernel."
        )
    return (padded - span) // stride + 1


def same_padding(size: int, kernel_size: int, *, stride: int = 1, dilation: int = 1) -> Pair:
    """Returns the padding (before, after) with which the output has ⌈size/stride⌉ pixels.

    If the total is odd, as an even kernel needs it, the extra pixel comes after the input, as in
    TensorFlow, XLA and PyTorch.

    Examples:
      >>> from convjax.ops import same_padding
      >>> same_padding(5, 3), same_padding(5, 4)
      ((1, 1), (1, 2))
    """
    wanted = -(-size // stride)
    total = max((wanted - 1) * stride + dilated_size(kernel_size, dilation) - size, 0)
    return total // 2, total - total // 2


def resolve_padding(
    padding: Any, *, size: Pair, kernel_size: Pair, stride: Pair, dilation: Pair
) -> Padding:
    """Returns any accepted form of padding as ((top, bottom), (left, right)).

    Args:
      padding: an int; a pair (height, width); ((top, bottom), (left, right)); "same", which gives
        ⌈size/stride⌉ pixels of output; or "valid", none. Case does not matter.
      size: input (height, width) in pixels.
      kernel_size: kernel (height, width) in pixels.
      stride: (height, width) in pixels.
      dilation: (height, width) in pixels.

    Raises:
      TypeError: if a number is not an integer.
      ValueError: for another word or structure, or a negative number.
    """
    if isinstance(padding, str):
        word = padding.lower()
        if word == "valid":
            return (0, 0), (0, 0)
        if word == "same":
            rows, columns = (
                same_padding(size[i], kernel_size[i], stride=stride[i], dilation=dilation[i])
                for i in range(2)
            )
            return rows, columns
        raise ValueError(f'padding must be "same", "valid" or numbers, got {padding!r}.')
    if isinstance(padding, Sequence) and any(isinstance(side, Sequence) for side in padding):
        if len(padding) != 2 or not all(isinstance(side, Sequence) for side in padding):
            raise ValueError(
                f"padding must be an int, a pair (height, width) or "
                f"((top, bottom), (left, right)), got {padding!r}."
            )
        return (
            pair("padding (top, bottom)", padding[0], minimum=0),
            pair("padding (left, right)", padding[1], minimum=0),
        )
    height, width = pair("padding", padding, minimum=0)
    return (height, height), (width, width)


def output_shape(
    size: Pair, kernel_size: Pair, *, stride: Pair, padding: Padding, dilation: Pair
) -> Pair:
    """Returns (height, width) of the output, `output_size` along both axes.

    Args:
      size: input (height, width) in pixels.
      kernel_size: kernel (height, width) in pixels.
      stride: (height, width) in pixels.
      padding: ((top, bottom), (left, right)) in pixels.
      dilation: (height, width) in pixels.

    Raises:
      ValueError: if the kernel spans more pixels than the padded input has.
    """
    height, width = (
        output_size(
            size[i],
            kernel_size[i],
            stride=stride[i],
            padding=padding[i],
            dilation=dilation[i],
        )
        for i in range(2)
    )
    return height, width


def multiplications(output_shape: Sequence[int], kernel_shape: Sequence[int]) -> int:
    """Returns the number of products of a convolution of one image: one per weight and output cell.

    Products with padding count. A convolution over any number of axes is accepted.

    Args:
      output_shape: sizes of the output map, without examples and channels, such as (height, width).
      kernel_shape: all sizes of the kernel, in any order (input channels per group).

    Examples:
      >>> from convjax.ops import multiplications
      >>> multiplications((7, 7), (3, 3, 8, 16))
      56448
    """
    return math.prod(output_shape) * math.prod(kernel_shape)


def transposed_taps(
    size: int,
    output_size: int,
    kernel_size: int,
    *,
    spacing: int,
    stride: int = 1,
    padding: int = 0,
    dilation: int = 1,
) -> int:
    """Returns the number of products along one axis of a transposed convolution.

    A transposed convolution is a convolution of an image with zeros inserted between its pixels.
    Only products with pixels count: those with inserted zeros and with padding are not computed by
    its definition, in which every pixel adds the kernel to the output, cropped at the border.

    Args:
      size: pixels of the image, before zeros are inserted.
      output_size: cells of the output.
      kernel_size: taps of the kernel.
      spacing: distance between pixels after zeros are inserted; the stride of the transposed
        convolution.
      stride: of the convolution; 1 for every transposed convolution.
      padding: before the first pixel; negative if it is cut off.
      dilation: distance between neighbouring taps.

    Examples:
      >>> from convjax.ops.geometry import transposed_taps
      >>> transposed_taps(4, 9, 3, spacing=2, padding=2)  # 4 pixels of 3 taps each
      12
      >>> transposed_taps(4, 8, 3, spacing=2, padding=2)  # the last cell is cropped
      11
    """
    last = spacing * (size - 1)
    places = (
        stride * cell + dilation * tap - padding
        for cell in range(output_size)
        for tap in range(kernel_size)
    )
    return sum(place % spacing == 0 and 0 <= place <= last for place in places)
