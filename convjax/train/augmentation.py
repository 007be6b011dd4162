"""Augmentation: random changes of the training images inside the compiled step.

An augmentation is a pure function of a key and one image (H, W, C) on the scale p/255, and returns
an image of the same shape; any such function will do. The ones here that flip, shift, brighten and
change contrast are those of PIX, `pip install "convjax[augment]"`; cutout and mixup, which PIX
lacks, are written here. `Mixup` takes the whole batch.

Every example of a batch has its own key, made of the seed, the number of the step and the
example's place in the batch. It depends neither on how the steps are cut into chunks, nor on where
a training was resumed, nor on the number of devices.

References:
  PIX, an image processing library in JAX, https://github.com/google-deepmind/dm_pix.
  DeVries and Taylor, "Improved Regularization of Convolutional Neural Networks with Cutout",
  https://arxiv.org/abs/1708.04552.
  Zhang et al., "mixup: Beyond Empirical Risk Minimization", https://arxiv.org/abs/1710.09412.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax
from jaxtyping import Array, Float, Int, Key, UInt8

from convjax._checks import check_number, check_type, check_whole, describe_value

Image = Float[Array, "H W C"]
ImageFunction = Callable[[Any, Image], Image]

_FILLS = {"black": "constant", "edge": "edge", "reflect": "reflect"}


@dataclass(frozen=True)
class RandomFlip:
    """Exchanges left and right. Not for digits and letters, which then are others or none.

    Attributes:
      probability: of the exchange, from 0 to 1.

    Examples:
      >>> RandomFlip()
      RandomFlip(probability=0.5)
    """

    probability: int | float = 0.5

    def __post_init__(self) -> None:
        _check_range("probability", self.probability, 0, 1)

    def __call__(self, key: Key[Array, ""], image: Image) -> Image:
        """Returns the image, flipped or not."""
        return _pix().random_flip_left_right(key, image, probability=float(self.probability))


@dataclass(frozen=True)
class RandomShift:
    """Pads an image on all sides and cuts its size out at a random place.

    Attributes:
      pixels: of the padding, the most that the image moves in each direction.
      fill: what is padded: "black", the "edge" repeated, or the image mirrored ("reflect").

    Examples:
      >>> RandomShift(2, fill="reflect")
      RandomShift(pixels=2, fill='reflect')
    """

    pixels: int = 4
    fill: str = "black"

    def __post_init__(self) -> None:
        check_whole("pixels", self.pixels, 1)
        if self.fill not in _FILLS:
            raise ValueError(
                f"fill must be one of {', '.join(_FILLS)}, got {describe_value(self.fill)}. Choose "
                "one of them."
            )

    def __call__(self, key: Key[Array, ""], image: Image) -> Image:
        """Returns the image, moved."""
        if self.fill == "reflect" and min(image.shape[:2]) <= self.pixels:
            raise ValueError(
                f"pixels must be below the height and width of the images to reflect them, got "
                f"{self.pixels} for {image.shape[0]}×{image.shape[1]}. Use fewer, or another fill."
            )
        margin = self.pixels, self.pixels
        padded = jnp.pad(image, (margin, margin, (0, 0)), mode=_FILLS[self.fill])
        return _pix().random_crop(key, padded, image.shape)


@dataclass(frozen=True)
class RandomBrightness:
    """Adds one number to all pixels of an image, and cuts off what is below 0 or above 1.

    Attributes:
      most: the number is uniform between −most and most.

    Examples:
      >>> RandomBrightness(0.1)
      RandomBrightness(most=0.1)
    """

    most: int | float = 0.2

    def __post_init__(self) -> None:
        _check_range("most", self.most, 0, 1)

    def __call__(self, key: Key[Array, ""], image: Image) -> Image:
        """Returns the image, brighter or darker."""
        return jnp.clip(_pix().random_brightness(key, image, float(self.most)), 0, 1)


@dataclass(frozen=True)
class RandomContrast:
    """Scales the distance of all pixels from their mean in each channel, and cuts off as above.

    Attributes:
      lower, upper: the factor is uniform between them.

    Examples:
      >>> RandomContrast()
      RandomContrast(lower=0.8, upper=1.25)
    """

    lower: int | float = 0.8
    upper: int | float = 1.25

    def __post_init__(self) -> None:
        _check_range("lower", self.lower, 0, 100)
        _check_range("upper", self.upper, self.lower, 100)

    def __call__(self, key: Key[Array, ""], image: Image) -> Image:
        """Returns the image with more or less contrast."""
        return jnp.clip(_pix().random_contrast(key, image, self.lower, self.upper), 0, 1)


@dataclass(frozen=True)
class Cutout:
    """Covers a square whose centre is any pixel, so that a part of it may lie outside.

    Attributes:
      size: of the square's sides, in pixels.
      fill: its value on the scale p/255. The paper's is the mean of the data.

    Examples:
      >>> import jax
      >>> import jax.numpy as jnp
      >>> covered = Cutout(2)(jax.random.key(1), jnp.ones((4, 4, 1)))
      >>> covered.shape, int((covered == 0).sum()) in (1, 2, 4)
      ((4, 4, 1), True)
    """

    size: int = 8
    fill: int | float = 0.0

    def __post_init__(self) -> None:
        check_whole("size", self.size, 1)
        _check_range("fill", self.fill, 0, 1)

    def __call__(self, key: Key[Array, ""], image: Image) -> Image:
        """Returns the image with a square covered."""
        height, width = image.shape[:2]
        centre = jax.random.randint(key, (2,), 0, jnp.array([height, width], jnp.int32), jnp.int32)
        first = centre - self.size // 2
        rows, columns = (
            (jnp.arange(length) >= start) & (jnp.arange(length) < start + self.size)
            for length, start in ((height, first[0]), (width, first[1]))
        )
        inside = (rows[:, None] & columns)[..., None]
        return jnp.where(inside, jnp.asarray(self.fill, image.dtype), image)


@dataclass(frozen=True)
class Mixup:
    """Mixes each image of a batch with another, and its loss in the same proportion.

    The share of the image itself is max(s, 1 − s) with s from the distribution Beta(alpha, alpha),
    drawn for each example, as in fastai; the other image is that of a random permutation of the
    batch, and may be itself.

    Attributes:
      alpha: above 0; the larger, the more alike the shares.

    Examples:
      >>> Mixup(0.4)
      Mixup(alpha=0.4)
    """

    alpha: int | float = 0.2

    def __post_init__(self) -> None:
        if not 0 < check_number("alpha", self.alpha) < float("inf"):
            raise ValueError(f"alpha must be positive and finite, got {self.alpha}.")

    def draw(
        self, key: Key[Array, ""], examples: int
    ) -> tuple[Float[Array, " N"], Int[Array, " N"]]:
        """Returns the share of each example of a batch, and the index of the one it is mixed with.

        Args:
          key: of the step.
          examples: in the batch, N.
        """
        of_share, of_order = jax.random.split(key)
        alpha = jnp.float32(self.alpha)
        share = jax.random.beta(of_share, alpha, alpha, (examples,), jnp.float32)
        order = jax.random.permutation(of_order, jnp.arange(examples, dtype=jnp.int32))
        return jnp.maximum(share, 1 - share), order


class AugmentedBatch(NamedTuple):
    """A batch as the network sees it, before the normalisation.

    Attributes:
      images: on the scale p/255.
      labels: of the images.
      mixed_labels: of the images that they are mixed with; None without `Mixup`.
      share: of each image itself; None without `Mixup`.
    """

    images: Float[Array | np.ndarray, "N H W C"]
    labels: Int[Array | np.ndarray, " N"]
    mixed_labels: Int[Array | np.ndarray, " N"] | None = None
    share: Float[Array | np.ndarray, " N"] | None = None

    @property
    def pixels(self) -> UInt8[np.ndarray, "N H W C"]:
        """The images in whole numbers from 0 to 255, to look at."""
        return np.rint(np.clip(np.asarray(self.images), 0, 1) * 255).astype(np.uint8)


class Augmenter:
    """Augmentations in their order, for a whole batch.

    Args:
      augment: functions of a key and an image, the last of which may be `Mixup`.
      axis: the name of the devices' axis, where a batch is split over devices.

    Raises:
      TypeError: if it is not a sequence of functions.
      ValueError: if it is empty, or `Mixup` is not the last.
    """

    def __init__(self, augment: Sequence[ImageFunction | Mixup], axis: str | None = None):
        check_type("augment", augment, Sequence, "Pass a list: [RandomShift(4)].")
        for i, function in enumerate(augment):
            if isinstance(function, Mixup):
                if i < len(augment) - 1:
                    raise ValueError(
                        f"augment must have Mixup as its last, got it as number {i + 1} of "
                        f"{len(augment)}. Move it to the end."
                    )
            elif not callable(function) or isinstance(function, type):
                raise TypeError(
                    "augment must hold functions of a key and an image, got "
                    f"{describe_value(function)}. RandomShift(4) makes one."
                )
        if not augment:
            raise ValueError("augment must hold at least one function, got none. Pass None.")
        self._mixup = augment[-1] if isinstance(augment[-1], Mixup) else None
        self._functions = [f for f in augment if not isinstance(f, Mixup)]
        self._axis = axis

    def check_unbounded(self) -> None:
        """Raises ValueError for functions that cut off at 0 and 1, of images of other scales."""
        for function in self._functions:
            if isinstance(function, RandomBrightness | RandomContrast):
                raise ValueError(
                    f"augment must not hold {type(function).__name__} for images of floating "
                    "point, which it would cut off at 0 and 1. Pass uint8 images, or a function of "
                    "your own."
                )

    def __call__(
        self, key: Key[Array, ""], images: Float[Array, "N H W C"], labels: Int[Array, " N"]
    ) -> AugmentedBatch:
        """Returns the batch, or the device's part of it, augmented.

        Args:
          key: of the step.
          images, labels: of the batch, the images on the scale p/255.

        Raises:
          ValueError: if a function returns an image of another shape.
        """
        number = len(images)
        first = 0 if self._axis is None else lax.axis_index(self._axis) * number
        of_examples = jax.vmap(jax.random.fold_in, (None, 0))(key, first + jnp.arange(number))
        for i, function in enumerate(self._functions):
            keys = jax.vmap(jax.random.fold_in, (0, None))(of_examples, i)
            if images.ndim != 4:
                raise ValueError(
                    "augment must be None, or Mixup alone, for data that are no images (N, H, W, "
                    f"C), got the shape {images.shape}."
                )
            if labels.ndim > 2:
                raise ValueError(
                    f"augment must be None, or Mixup alone, for labels of pixels, got the shape "
                    f"{labels.shape}: they would not move with the images."
                )
            changed = jax.vmap(function)(keys, images)
            if changed.shape != images.shape:
                raise ValueError(
                    f"augment must keep the shape of images {images.shape[1:]}, got "
                    f"{changed.shape[1:]} from {function!r}. Resize the data instead."
                )
            images = changed.astype(images.dtype)
        if self._mixup is None:
            return AugmentedBatch(images, labels)
        others, other_labels = images, labels
        if self._axis is not None:  # partners may lie on other devices
            others, other_labels = (
                lax.all_gather(array, self._axis, tiled=True) for array in (images, labels)
            )
        # Not a key that an example has: those are of whole numbers from 0.
        share, order = self._mixup.draw(jax.random.fold_in(key, np.uint32(2**32 - 1)), len(others))
        share, order = (lax.dynamic_slice_in_dim(a, first, number) for a in (share, order))
        of_image = share.astype(images.dtype).reshape(-1, *(1,) * (images.ndim - 1))
        mixed = of_image * images + (1 - of_image) * others[order]
        return AugmentedBatch(mixed, labels, other_labels[order], share)


def step_key(seed: Any, step: Any) -> Key[Array, ""]:
    """Returns the key of a step, of the seed and the number of the step alone."""
    # Named, so that the draws do not change with the default of JAX or of the process.
    return jax.random.fold_in(jax.random.key(seed, impl="threefry2x32"), step)


def step_columns(seed: int, first: int, steps: int) -> dict[str, np.ndarray]:
    """Returns the columns of a table from which a program makes the keys of its steps.

    Args:
      seed: below 2^32.
      first: number of the first step in the whole training.
      steps: number of steps.

    Raises:
      TypeError: if a number is not whole.
      ValueError: if one is out of range.
    """
    check_whole("seed", seed, 0)
    check_whole("first_step", first, 0)
    for name, value, most in (("seed", seed, 2**32), ("first_step", first + steps, 2**31)):
        if value >= most:
            raise ValueError(f"{name} must be below {most}, got {value}. Choose a smaller one.")
    return {
        "seed": np.full(steps, seed, np.uint32),
        "step": np.arange(first, first + steps, dtype=np.int32),
    }


def _check_range(name: str, value: Any, low: int | float, high: int | float) -> None:
    if not low <= check_number(name, value) <= high:
        raise ValueError(f"{name} must be from {low} to {high}, got {value}.")


def _pix() -> Any:
    try:
        import dm_pix
    except ImportError as error:
        raise ImportError(
            "this augmentation needs PIX, which is not installed. Run pip install "
            '"convjax[augment]".'
        ) from error
    return dm_pix
