"""`conv2d`: the convolution in every layout, as XLA's convolution or as a matrix product.

The method "lax" is the definition: `jax.lax.conv_general_dilated`. "matmul" computes the same sum
as patches times kernel matrix. XLA on CPU is slow on small convolutions, and much slower inside
loops (https://github.com/jax-ml/jax/issues/12868); matrix products are fast in both places.
"""

import math
import operator
from functools import partial
from typing import Any, Literal, NamedTuple, get_args

import jax.numpy as jnp
import numpy as np
from jax import lax
from jaxtyping import Array, Num

from convjax._checks import check_array
from convjax.ops import geometry
from convjax.ops.geometry import Padding, Pair
from convjax.ops.layout import KERNEL_AXES, check_layout

# "auto" is chosen for training, which runs inside a loop (scan, fori_loop), where XLA on CPU does
# not call its library convolution (https://github.com/jax-ml/jax/issues/12868). The table is the
# time of lax over the time of matmul for the forward and backward pass of one convolution, inside a
# loop and outside, NHWC | CHWN: two cores, float32, jax 0.10.2, medians of 5 interleaved runs
# beside other work. Only large differences are significant; CHWN has become faster since.
#
# | N, H=W, C → O, kernel, stride | loop      | outside     |
# |-------------------------------|-----------|-------------|
# | 64, 28, 1 → 8, 5, 2           | 1.7 | 1.5 | 1.2 | 1.4   |
# | 64, 14, 8 → 16, 3, 2          | 5.9 | 5.3 | 1.0 | 0.7   |
# | 64, 4, 32 → 64, 3, 2          |  11 |  13 | 2.0 | 1.1   |
# | 512, 14, 8 → 16, 3, 2         | 7.0 | 5.2 | 0.8 | 0.7   |
# | 64, 32, 3 → 32, 3, 1          |  19 | 8.0 | 1.4 | 1.1   |
# | 64, 16, 64 → 64, 3, 1         |  27 |  20 | 0.5 | 0.4   |
# | 4, 56, 64 → 64, 3, 1          |  14 |  14 | 0.3 | 0.4   |
#
# "auto" is therefore matmul for every shape on CPU: it always wins inside a loop, loses a factor of
# 3 at most outside, and a traced function does not know where it will run. With groups matmul wins
# by more, even outside a loop: XLA's convolution takes 30 to 90 times as long for the gradients of
# 32 groups. On an accelerator XLA's convolution is the fast one, and patches take kernel height ×
# width times the memory; `_is_small` names the exception.
Method = Literal["lax", "matmul", "auto"]

# Pixels of the largest kernel of a product on a GPU, 7×7.
_MOST_TAPS = 49


class _Settings(NamedTuple):
    """The validated settings of one convolution; pairs are (height, width)."""

    stride: Pair
    padding: Padding
    dilation: Pair
    groups: int
    kernel_size: Pair


def conv2d(
    x: Num[Array | np.ndarray, "..."],
    kernel: Num[Array | np.ndarray, "A B C D"],
    bias: Num[Array | np.ndarray, " O"] | None = None,
    *,
    stride: int | Pair = 1,
    padding: int | Pair | Padding | str = 0,
    dilation: int | Pair = 1,
    groups: int = 1,
    layout: str = "NHWC",
    method: str = "auto",
    precision: Any = None,
    preferred_element_type: Any = None,
) -> Num[Array, "..."]:
    """Convolves images with kernels. As usual in deep learning, the kernel is not flipped.

    Args:
      x: images; four axes as `layout` says, or three, without N, for one image.
      kernel: weights; axes HWIO for "NHWC", OIHW for "NCHW", IHWO for "CHWN", where I is the
        number of input channels per group.
      bias: one number per output channel, shape (O,), or None.
      stride: pixels between neighbouring outputs; an int or a pair (height, width).
      padding: zeros around the image in pixels: an int, a pair (height, width),
        ((top, bottom), (left, right)), "same" (⌈size/stride⌉ outputs) or "valid" (none).
      dilation: pixels between neighbouring taps of the kernel; an int or a pair.
      groups: number of groups of channels; outputs of group g see the inputs of group g.
      layout: "NHWC", "NCHW" or "CHWN".
      method: "lax" (`lax.conv_general_dilated`), "matmul" (patches times kernel matrix) or "auto":
        matmul where the program is lowered for a CPU, or for a GPU if the output has fewer pixels
        than the kernel and groups is 1; lax elsewhere. matmul is faster on CPU inside a loop, and
        lax may be for wide layers outside of one.
      precision: as for `jax.lax.dot_general`; None is the default of the backend.
      preferred_element_type: dtype in which products are accumulated and returned, as for
        `jax.lax.dot_general`; None is the dtype of the operands.

    Returns:
      The maps; axes as `layout` says, without N if `x` has none. Height and width are
      ⌊(n + padding − dilation·(k−1) − 1)/stride⌋ + 1.

    Raises:
      TypeError: if `x`, `kernel` and `bias` are not arrays or differ in dtype, or a setting is not
        an integer.
      ValueError: for a wrong number of axes, channels or groups, a stride or dilation below 1, a
        negative padding, or a kernel larger than the padded input.

    References:
      https://docs.pytorch.org/docs/stable/generated/torch.nn.functional.conv2d.html

    Examples:
      >>> import convjax, jax.numpy as jnp
      >>> x = jnp.arange(9.0).reshape(1, 3, 3, 1)
      >>> kernel = jnp.array([[1.0, 2.0], [3.0, 4.0]]).reshape(2, 2, 1, 1)
      >>> convjax.conv2d(x, kernel)[0, :, :, 0].tolist()  # 0·1 + 1·2 + 3·3 + 4·4 = 27
      [[27.0, 37.0], [57.0, 67.0]]

      Half the pixels in the layout of PyTorch, and one image without the batch axis:

      >>> weights = jnp.ones((8, 3, 3, 3))
      >>> settings = {"stride": 2, "padding": 1, "layout": "NCHW"}
      >>> convjax.conv2d(jnp.ones((64, 3, 28, 28)), weights, **settings).shape
      (64, 8, 14, 14)
      >>> convjax.conv2d(jnp.ones((3, 28, 28)), weights, **settings).shape
      (8, 14, 14)
    """
    layout = check_layout(layout)
    if method not in get_args(Method):
        raise ValueError(f'method must be "lax", "matmul" or "auto", got {method!r}.')
    for name, array in (("x", x), ("kernel", kernel), *([] if bias is None else [("bias", bias)])):
        check_array(name, array)
    batch_axis = layout.index("N")
    batched = jnp.ndim(x) == 4
    if jnp.ndim(x) == 3:
        x = jnp.expand_dims(x, batch_axis)
    settings = _check(x, kernel, bias, stride, padding, dilation, groups, layout)
    by_name = {
        name: partial(
            form,
            settings=settings,
            layout=layout,
            precision=precision,
            dtype=preferred_element_type,
        )
        for name, form in (
            ("lax", _conv_lax),
            ("matmul", _conv_matmul),
            ("matmul in NHWC", _conv_matmul_in_nhwc),
        )
    }
    if method == "auto":  # of the platform that the program is lowered for
        forms = {"cpu": by_name["matmul"]}
        if _is_small(x, settings, layout):
            forms |= dict.fromkeys(("cuda", "rocm"), by_name["matmul in NHWC"])
        y = lax.platform_dependent(x, kernel, **forms, default=by_name["lax"])
    else:
        y = by_name[method](x, kernel)
    if bias is not None:
        shape = [1, 1, 1, 1]
        shape[layout.index("C")] = bias.shape[0]
        y = y + bias.reshape(shape).astype(y.dtype)
    return y if batched else jnp.squeeze(y, batch_axis)


def patches(
    x: Num[Array | np.ndarray, "A B C D"],
    kernel_size: Pair,
    *,
    stride: Pair = (1, 1),
    padding: Padding = ((0, 0), (0, 0)),
    dilation: Pair = (1, 1),
    layout: str = "NHWC",
) -> Num[Array, "E F G H"]:
    """Returns what each tap of a kernel sees: the image padded with zeros, shifted and strided.

    Args:
      x: images; axes as `layout` says.
      kernel_size: (height, width) in pixels.
      stride: (height, width) in pixels.
      padding: ((top, bottom), (left, right)) in pixels.
      dilation: (height, width) in pixels.
      layout: "NHWC", "NCHW" or "CHWN".

    Returns:
      An array with axes as `layout` says and the height and width of the output. Its kh·kw·C
      channels are the taps in row-major order and, within each tap, the channels of `x`.

    Examples:
      >>> import jax.numpy as jnp
      >>> from convjax.ops import patches
      >>> patches(jnp.arange(9.0).reshape(1, 3, 3, 1), (2, 2))[0, 0, 0].tolist()
      [0.0, 1.0, 3.0, 4.0]
    """
    rows, columns, channels = (layout.index(letter) for letter in "HWC")
    config = [(0, 0, 0)] * 4
    config[rows], config[columns] = (*padding[0], 0), (*padding[1], 0)
    x = lax.pad(x, jnp.zeros((), x.dtype), config)
    taken = []
    for i in range(kernel_size[0]):
        for j in range(kernel_size[1]):
            part = x
            for axis, tap, side in ((rows, i, 0), (columns, j, 1)):
                span = geometry.dilated_size(kernel_size[side], dilation[side])
                start = tap * dilation[side]
                stop = x.shape[axis] - span + start + 1
                part = lax.slice_in_dim(part, start, stop, stride[side], axis)
            taken.append(part)
    return jnp.concatenate(taken, channels) if len(taken) > 1 else taken[0]


def _conv_lax(
    x: Any,
    kernel: Any,
    settings: _Settings,
    layout: str,
    precision: Any,
    dtype: Any,
) -> Array:
    return lax.conv_general_dilated(
        x,
        kernel,
        window_strides=settings.stride,
        padding=settings.padding,
        rhs_dilation=settings.dilation,
        dimension_numbers=(layout, KERNEL_AXES[layout], layout),
        feature_group_count=settings.groups,
        precision=precision,
        preferred_element_type=dtype,
    )


def _conv_matmul(
    x: Array | np.ndarray,
    kernel: Array | np.ndarray,
    settings: _Settings,
    layout: str,
    precision: Any,
    dtype: Any,
) -> Array:
    """Patches times kernel matrix; the sum runs over taps and, within a tap, channels (K)."""
    p = patches(
        x,
        settings.kernel_size,
        stride=settings.stride,
        padding=settings.padding,
        dilation=settings.dilation,
        layout=layout,
    )
    taps = settings.kernel_size[0] * settings.kernel_size[1]
    kernel = jnp.transpose(kernel, [KERNEL_AXES[layout].index(letter) for letter in "HWIO"])
    products = {"precision": precision, "preferred_element_type": dtype}
    if settings.groups == 1:
        # No group axis: XLA compiles this to one plain product, but a group axis, even of size 1,
        # to a batched one. The order of the operands avoids a transpose of the result where the
        # layout allows it: channels last after the patches, channels first before them.
        kernel = kernel.reshape(-1, kernel.shape[-1])
        if layout == "NHWC":
            return jnp.einsum("nhwk,ko->nhwo", p, kernel, **products)
        if layout == "NCHW":
            return jnp.einsum("ko,nkhw->nohw", kernel, p, **products)
        # As plain matrices: with four axes XLA on CPU transposes patches and gradients in the
        # backward pass, which makes copies as large as the patches.
        y = jnp.einsum("km,ko->om", p.reshape(p.shape[0], -1), kernel, **products)
        return y.reshape(-1, *p.shape[1:])
    kernel = kernel.reshape(taps, kernel.shape[2], settings.groups, -1)
    channels = layout.index("C")
    split = (taps, settings.groups, p.shape[channels] // (taps * settings.groups))
    p = p.reshape(*p.shape[:channels], *split, *p.shape[channels + 1 :])
    equation = {
        "NHWC": "nhwtgi,tigo->nhwgo",
        "NCHW": "ntgihw,tigo->ngohw",
        "CHWN": "tgihwn,tigo->gohwn",
    }[layout]
    y = jnp.einsum(equation, p, kernel, **products)
    merged = (y.shape[channels] * y.shape[channels + 1],)
    return y.reshape(*y.shape[:channels], *merged, *y.shape[channels + 2 :])


def _conv_matmul_in_nhwc(
    x: Any, kernel: Any, settings: _Settings, layout: str, precision: Any, dtype: Any
) -> Array:
    """`_conv_matmul` in NHWC for maps of any layout.

    Compilers for GPUs keep the maps in that order whatever the program says, and a product in NCHW
    would move them.
    """

    def in_order(array: Any, axes: str, wanted: str) -> Array:
        return jnp.transpose(array, [axes.index(letter) for letter in wanted])

    kernel = in_order(kernel, KERNEL_AXES[layout], KERNEL_AXES["NHWC"])
    y = _conv_matmul(in_order(x, layout, "NHWC"), kernel, settings, "NHWC", precision, dtype)
    return in_order(y, "NHWC", layout)


def _is_small(x: Any, settings: _Settings, layout: str) -> bool:
    """Returns whether the output has fewer pixels than the kernel, without groups.

    In the backward pass of such a convolution XLA for GPUs exchanges kernel and map, and moves both
    into other orders before and after: with its last two layers as convolutions the chapter's step
    takes 59 launches on an H100, and 45 with matrix products. For TPUs they stay convolutions: with
    products the step takes 1.7 times the cycles. A product has a slice per tap, so that kernels as
    large as an image are left to XLA.
    """
    stride, padding, dilation, groups, kernel_size = settings
    size = x.shape[layout.index("H")], x.shape[layout.index("W")]
    output = geometry.output_shape(
        size, kernel_size, stride=stride, padding=padding, dilation=dilation
    )
    return groups == 1 and math.prod(output) < math.prod(kernel_size) <= _MOST_TAPS


def _check(
    x: Any,
    kernel: Any,
    bias: Any,
    stride: Any,
    padding: Any,
    dilation: Any,
    groups: int,
    layout: str,
) -> _Settings:
    kernel_axes = KERNEL_AXES[layout]
    if jnp.ndim(x) != 4:
        raise ValueError(
            f"x must have the axes {layout}, or the same without N for one image, "
            f"got the shape {jnp.shape(x)}."
        )
    if jnp.ndim(kernel) != 4:
        raise ValueError(
            f"kernel must have the axes {kernel_axes} (layout {layout!r}), "
            f"got the shape {jnp.shape(kernel)}."
        )
    dtypes = {"x": x.dtype, "kernel": kernel.dtype} | ({} if bias is None else {"bias": bias.dtype})
    if len(set(dtypes.values())) > 1:
        found = ", ".join(f"{name} {dtype}" for name, dtype in dtypes.items())
        raise TypeError(
            f"x, kernel and bias must have one dtype, got {found}. Convert with astype."
        )
    kernel_sizes = dict(zip(kernel_axes, kernel.shape, strict=True))
    sizes = dict(zip(layout, x.shape, strict=True))
    kernel_size = geometry.pair(
        "kernel height and width", (kernel_sizes["H"], kernel_sizes["W"]), minimum=1
    )
    try:
        groups = operator.index(groups)
    except TypeError:
        raise TypeError(f"groups must be an int, got {groups!r}.") from None
    if groups < 1:
        raise ValueError(f"groups must be at least 1, got {groups}.")
    if kernel_sizes["O"] % groups:
        raise ValueError(
            f"groups must divide the {kernel_sizes['O']} output channels of the kernel, "
            f"got groups={groups}."
        )
    if sizes["C"] != kernel_sizes["I"] * groups:
        raise ValueError(
            f"x must have {kernel_sizes['I'] * groups} channels, as the kernel expects "
            f"({kernel_sizes['I']} per group, groups={groups}), got {sizes['C']}. x has the shape "
            f"{x.shape} ({layout}), the kernel {kernel.shape} ({kernel_axes})."
            + _other_layout(x.shape, layout, kernel_sizes["I"] * groups)
        )
    if bias is not None and bias.shape != (kernel_sizes["O"],):
        raise ValueError(
            f"bias must have one number per output channel, shape ({kernel_sizes['O']},), "
            f"got the shape {bias.shape}."
        )
    strides = geometry.pair("stride", stride, minimum=1)
    dilations = geometry.pair("dilation", dilation, minimum=1)
    size = (sizes["H"], sizes["W"])
    paddings = geometry.resolve_padding(
        padding, size=size, kernel_size=kernel_size, stride=strides, dilation=dilations
    )
    # Raises where the kernel is larger than the padded input.
    geometry.output_shape(size, kernel_size, stride=strides, padding=paddings, dilation=dilations)
    return _Settings(strides, paddings, dilations, groups, kernel_size)


def _other_layout(shape: tuple[int, ...], layout: str, channels: int) -> str:
    """Returns advice where an image of this shape has the channels in another layout."""
    for other in KERNEL_AXES:
        if shape[other.index("C")] == channels:
            return (
                f" In {other} it has {channels}: give the layer layout={other!r}, or transpose the "
                f"images to {layout}."
            )
    return ""
