"""The setting of a training: its network, schedule and batch size."""

import math
from collections.abc import Callable, Hashable
from dataclasses import asdict, dataclass, fields, replace
from typing import TYPE_CHECKING, Annotated, Any, ClassVar

from convjax._checks import check_whole, near_match
from convjax._names import NORMS

# JAX is imported where it is used: the fields are the options of a command, whose help has no need
# of it.
if TYPE_CHECKING:
    import jax
    from flax import nnx

    from convjax.data import Dataset
    from convjax.optim.optimizers import Optimizer
    from convjax.train.losses import PerExample

# One-cycle, and variants without one of its parts, as arguments of `one_cycle`. Without warm-up the
# rate begins at its highest; without annealing it stays there. The momentum mirrors the rate, or is
# fastai's constant.
CYCLES: dict[str, dict[str, Any]] = {
    "one-cycle": {},
    "linear": {"anneal": "linear"},
    "no-warm-up": {"div": 1, "momentum": (0.85, 0.85, 0.95)},
    "no-annealing": {"div_final": 1, "momentum": (0.95, 0.85, 0.85)},
    "flat-momentum": {"momentum": (0.9, 0.9, 0.9)},
}

NETWORKS = ("digits", "threes-sevens", "linear")

DTYPES = ("float32", "bfloat16", "float16")


@dataclass(frozen=True)
class Setting:
    """One training of the chapter; variants are made with `dataclasses.replace`.

    A field with a text beside its type is an option of `train`; the text is its help.

    Attributes:
      network: "digits" (ten classes), or for threes and sevens "threes-sevens" (convolutions) or
        "linear" (fully connected, trained as in the book's chapter on MNIST: SGD without momentum,
        and a loss of 1 − the probability of the right answer).
      norm: None, "batch", "layer", "group" or "instance".
      norm_last: whether the last layer has the norm, too.
      activate_first: whether the ReLU precedes the norm.
      first_kernel: side of the first kernel in pixels, for "digits" only.
      batch_size: images per step.
      epochs: of the chapter; the learning rate's schedule spans all of them.
      schedule: "constant", or one of CYCLES.
      lr_max: the constant, or the highest, learning rate.
      scores: evaluations per epoch.
      encoding: None leaves the images unchanged; for "digits" only, one of
        `convjax.chapter.colour_encodings.ENCODINGS` takes the images in colour
        (`convjax.chapter.tinted_digits`) in that encoding.
      dtype: of the products, one of DTYPES. Parameters, optimiser, losses and statistics are
        float32 in any case.

    Raises:
      TypeError: if a count is not a whole number.
      ValueError: for any other value that no training can have.
    """

    network: Annotated[str, "digits, or for threes and sevens: threes-sevens, linear."] = "digits"
    norm: Annotated[str | None, "none, batch, layer, group or instance."] = None
    norm_last: bool = True
    activate_first: bool = False
    first_kernel: Annotated[int, "Side of the first kernel, in pixels."] = 5
    batch_size: Annotated[int, "Images per step."] = 64
    epochs: Annotated[int, "Of the chapter; on mnist5k each is 15 passes over the images."] = 1
    schedule: Annotated[
        str,
        "constant, one-cycle, or one-cycle without a part: linear, no-warm-up, no-annealing, "
        "flat-momentum.",
    ] = "constant"
    lr_max: Annotated[float, "The constant, or the highest, learning rate."] = 0.06
    scores: Annotated[int, "Evaluations per epoch."] = 1
    encoding: str | None = None
    dtype: Annotated[str, "Of the products: float32, bfloat16 or float16."] = "float32"

    networks: ClassVar[tuple[str, ...]] = NETWORKS
    # Fields that a compiled program is independent of.
    free: ClassVar[tuple[str, ...]] = ("batch_size", "epochs", "schedule", "lr_max", "scores")
    passes: ClassVar[int] = 1  # over the images in an epoch
    augment: ClassVar[tuple[Callable[..., Any], ...] | None] = None

    def table(self, steps: int) -> "dict[str, jax.Array]":
        """Returns the learning rate and momentum of each of `steps` steps."""
        from convjax.optim import schedules

        if self.schedule == "constant":
            momentum = 0.0 if self.network == "linear" else 0.9
            return schedules.constant(self.lr_max, momentum).table(steps)
        return schedules.one_cycle(steps, self.lr_max, **CYCLES[self.schedule]).table(steps)

    def __post_init__(self) -> None:
        """Checks the values."""
        known = {
            "network": self.networks,
            "norm": (None, *NORMS),
            "schedule": ("constant", *CYCLES),
            "dtype": DTYPES,
        }
        for name, names in known.items():
            value = getattr(self, name)
            if value not in names:
                shown = [str(option or "none") for option in names]
                raise ValueError(
                    f"{name} must be one of {', '.join(shown)}, got {value!r}"
                    f"{near_match(str(value), shown) or '.'}"
                )
        for name in ("batch_size", "epochs", "scores", "first_kernel"):
            check_whole(name, getattr(self, name), 1)
        if not (isinstance(self.lr_max, int | float) and 0 < self.lr_max < math.inf):
            raise ValueError(f"lr_max must be a positive number, got {self.lr_max!r}.")

    @property
    def slug(self) -> str:
        """The name of a folder, unique to the setting."""
        parts = [self.network]
        parts += [f"{self.norm}norm"] if self.norm else []
        default = type(self)()
        written = ("network", "norm", "schedule", "batch_size", "lr_max", "epochs")
        for name in (f.name for f in fields(self) if f.name not in written):
            value = getattr(self, name)
            if value != getattr(default, name):
                text = "-".join(map(str, value)) if isinstance(value, tuple) else str(value)
                parts.append(f"{name.replace('_', '-')}-{text}".lower())
        parts += [self.schedule, f"bs{self.batch_size}", f"lr{self.lr_max}"]
        parts += [f"{self.epochs}epochs"] if self.epochs > 1 else []
        return "-".join(parts)

    @property
    def config(self) -> dict[str, Any]:
        """All fields, as in a run's configuration.

        Encoding and dtype are omitted where they have their defaults, so that runs of versions
        without them can be resumed.
        """
        default = Setting()
        same = {n for n in ("encoding", "dtype") if getattr(self, n) == getattr(default, n)}
        return {name: value for name, value in asdict(self).items() if name not in same}

    @property
    def structure(self) -> "Setting":
        """The setting with the defaults of all fields that a compiled program is independent of."""
        default = type(self)()
        return replace(self, **{name: getattr(default, name) for name in self.free})

    @property
    def threes_and_sevens(self) -> bool:
        """Whether it trains with these two classes alone."""
        return self.network in ("threes-sevens", "linear")

    @property
    def images_kind(self) -> Hashable:
        """What `images_of` depends on."""
        return self.encoding

    def images_of(self, dataset: "Dataset") -> "Dataset":
        """Returns the images of a data set in the form in which the network takes them."""
        if not self.encoding:
            return dataset
        from convjax.chapter.colour_encodings import encoded
        from convjax.chapter.tinted_digits import coloured

        return encoded(coloured(dataset), self.encoding)

    @property
    def optimizer(self) -> "Optimizer":
        """fastai's Adam, or SGD for "linear"."""
        from convjax.optim import optimizers

        return optimizers.sgd() if self.network == "linear" else optimizers.adam()

    @property
    def loss(self) -> "PerExample":
        """Cross entropy, or that of the book's chapter on MNIST for "linear"."""
        from convjax.train.losses import cross_entropy

        return wrong_probability if self.network == "linear" else cross_entropy

    def build(self, image: tuple[int, ...], classes: int, layout: str, seed: int) -> "nnx.Module":
        """Returns the network with the initial parameters of a seed.

        Args:
          image: (height, width, channels).
          classes: number of outputs; "linear" has one output in any case.
          layout: of the network.
          seed: of the initial parameters.
        """
        import jax.numpy as jnp
        from flax import nnx

        from convjax.nn import models

        rngs, dtype = nnx.Rngs(seed), jnp.dtype(self.dtype)
        if self.network == "linear":
            height, width, channels = image
            return models.LinearNet((height * width * channels, 30, 1), dtype=dtype, rngs=rngs)
        settings: dict[str, Any] = {
            "in_features": image[-1],
            "classes": classes,
            "norm": self.norm,
            "norm_last": self.norm_last,
            "activate_first": self.activate_first,
            "layout": layout,
            "dtype": dtype,
            "rngs": rngs,
        }
        if self.network == "digits":
            return models.digits_net(first_kernel=self.first_kernel, **settings)
        return models.threes_sevens_net(**settings)


def wrong_probability(logits: "jax.Array", labels: "jax.Array") -> "jax.Array":
    """Returns 1 − the probability of the right class of two, shape (N,).

    Args:
      logits: (N, 1), the logit of label 1.
      labels: (N,), 0 or 1.
    """
    import jax.numpy as jnp
    from flax import nnx

    probability = nnx.sigmoid(logits[:, 0])  # of label 1
    return jnp.where(labels == 1, 1 - probability, probability)


# The last convolution but one, by its name in a record.
PENULTIMATE = "blocks.3.conv"

BASELINE = Setting()
LINEAR = Setting(network="linear", batch_size=256, epochs=40, lr_max=0.1)
THREE_OR_SEVEN = Setting(network="threes-sevens", epochs=2, schedule="one-cycle", lr_max=0.01)
BATCH_512 = replace(BASELINE, batch_size=512)
ONE_CYCLE = replace(BATCH_512, schedule="one-cycle")
BATCH_NORM = replace(ONE_CYCLE, norm="batch")
LONGER = replace(BATCH_NORM, epochs=5, lr_max=0.1)
