"""The configuration of one training: from options, or from the config.json of another run."""

from collections.abc import Mapping
from dataclasses import dataclass, fields, replace
from typing import TYPE_CHECKING, Annotated, Any

import typer

from convjax._checks import near_match
from convjax._names import PIECE
from convjax.chapter.setting import BASELINE, Setting
from convjax.cli.train_options import FOLDER, PROCESSES, WATCH, option
from convjax.io.json_files import differences
from convjax.terminal.options import Data, LayoutOption, Quick

# JAX is imported where it is used: the fields are options, whose help has no need of it.
if TYPE_CHECKING:
    from convjax.chapter.session import Session
    from convjax.stats.watch import Watch

WATCHES = ("nothing", "activations", "everything")
NON_FINITE = ("stop", "go-on")
PRECISIONS = ("default", "high", "highest")


@dataclass(frozen=True)
class TrainConfig:
    """All that the figures of one training depend on; its fields are options of `train`.

    Attributes:
      data: a name or a folder, as for `convjax.data.load`.
      layout: of the network.
      quick: whether an epoch has three steps only.
      watch: one of WATCHES.
      non_finite: one of NON_FINITE.
      devices: number of devices, of all processes together.
      piece: most steps between two points where the training can stop, see `convjax.Plan`.
      precision: of float32 products, one of PRECISIONS.
      deterministic: whether a GPU uses only operations whose results are the same bit for bit.

    Raises:
      ValueError: for an invalid value; the message names the field.
    """

    setting: Annotated[Setting, "Network and schedule"] = BASELINE
    data: Data = "mnist5k"
    seed: Annotated[int, typer.Option(help="Of the parameters and of the images' order.")] = 0
    layout: LayoutOption = "auto"
    quick: Quick = False
    watch: Annotated[
        str, option(WATCH, "nothing, activations, or everything (what a diagnosis uses).")
    ] = "everything"
    watch_every: Annotated[int, option(WATCH, "Steps from one with statistics to the next.")] = 1
    non_finite: Annotated[str, option(WATCH, "stop or go-on, at a loss that is not finite.")] = (
        "stop"
    )
    devices: Annotated[
        int,
        option(
            PROCESSES,
            "Number of devices that share each batch, of all processes together.",
            show_default="1, or all with several processes",
        ),
    ] = 1
    piece: Annotated[
        int,
        option(FOLDER, "Most steps until the training can stop or save; fewer for large ones."),
    ] = PIECE

    precision: Annotated[
        str,
        option(
            PROCESSES,
            "Of float32 products: default (on TPU bfloat16, on GPU may be TF32), high or highest.",
        ),
    ] = "default"
    deterministic: Annotated[
        bool, option(PROCESSES, "On GPU, only operations whose results are the same bit for bit.")
    ] = False

    def __post_init__(self) -> None:
        _check_choice("watch", self.watch, WATCHES)
        _check_choice("precision", self.precision, PRECISIONS)
        _check_choice("non_finite", self.non_finite, NON_FINITE)
        if self.layout != "auto":  # which asks for the devices
            from convjax.ops.layout import resolve_layout

            resolve_layout(self.layout)
        for name, least in (("seed", 0), ("watch_every", 1), ("devices", 1), ("piece", 1)):
            value = getattr(self, name)
            if type(value) is not int or value < least:
                raise ValueError(f"{name} must be a whole number, at least {least}, got {value!r}.")
        for name in ("quick", "deterministic"):
            if type(value := getattr(self, name)) is not bool:
                raise ValueError(f"{name} must be true or false, got {value!r}.")
        if self.setting.batch_size % self.devices:
            raise ValueError(
                f"batch_size must be a multiple of the number of devices, {self.devices}, got "
                f"{self.setting.batch_size}."
            )

    @property
    def watched(self) -> "Watch | None":
        """The watch for the trainer, None for "nothing"."""
        from convjax.stats.watch import Watch

        if self.watch == "everything":
            return Watch.everything(every=self.watch_every)
        return Watch(every=self.watch_every) if self.watch == "activations" else None

    def full(self, session: "Session") -> dict[str, Any]:
        """Returns the content of config.json: this configuration and what follows from the data."""
        own = {f.name: getattr(self, f.name) for f in fields(self) if f.name in _ADDED}
        # Omitted where they have their defaults, so that runs of version 0.1 can be resumed.
        default = TrainConfig()
        given = {n: getattr(self, n) for n in _NUMERICS if getattr(self, n) != getattr(default, n)}
        return {**session.run_config(self.setting, self.seed), **own, **given}


# Entries in the config.json of `train` that the one of `run` lacks.
_ADDED = ("watch", "watch_every", "non_finite", "devices", "piece")
_NUMERICS = ("precision", "deterministic")
_OF_SETTING = tuple(field.name for field in fields(Setting))


def resolved(
    base: Mapping[str, Any] | None, given: Mapping[str, Any], source: str = "--config"
) -> TrainConfig:
    """Returns a configuration: the defaults, changed by a config.json, changed by given values.

    Args:
      base: the content of a config.json, or None.
      given: values of fields of `TrainConfig` and of `Setting`.
      source: where the base is from, for messages.

    Raises:
      RunError: if the base is not a configuration of a training.
      ValueError: for an invalid value.
    """
    from convjax.data.catalog import DATASET_NAMES
    from convjax.runs.config import RunError

    config = TrainConfig()
    if base is not None:
        try:
            if not isinstance(base["setting"], Mapping):
                raise TypeError(f"setting must be an object, got {base['setting']!r:.80}")
            setting = Setting(**base["setting"])
            own = {f.name: base[f.name] for f in fields(TrainConfig) if f.name in base}
            # `run` watches activations and never stops at a loss that is not finite.
            before = {"watch": "activations", "non_finite": "go-on"} if "watch" not in base else {}
            config = TrainConfig(**{**own, **before, "setting": setting})
        except (KeyError, TypeError, ValueError) as error:
            raise RunError(
                f"{source} is not the configuration of a training: {str(error).rstrip('.')}. Take "
                "the config.json of a run's folder."
            ) from error
        if config.data not in DATASET_NAMES and "data" not in given:
            raise ValueError(
                f"data must be given for a run on a folder of images, got none: {source} has only "
                f"the name of the folder, {config.data!r}."
            )
    setting = replace(config.setting, **{k: v for k, v in given.items() if k in _OF_SETTING})
    own = {k: v for k, v in given.items() if k not in _OF_SETTING}
    return replace(config, setting=setting, **own)


def check_same_images(base: Mapping[str, Any], full: Mapping[str, Any], source: str) -> None:
    """Checks that a training is repeated on the images of the first time.

    Args:
      base: the content of the config.json to repeat.
      full: the new configuration.
      source: where the base is from, for messages.

    Raises:
      ValueError: if the images differ.
    """
    names = ("data", "classes", "sha256")
    differing = differences({n: base.get(n) for n in names}, {n: full[n] for n in names})
    if differing:
        raise ValueError(
            f"data must be those of {source}, which has {'; '.join(differing)}. To train the same "
            "network on other data, name them with --data."
        )


def _check_choice(name: str, value: Any, choices: Any) -> None:
    if value not in choices:
        raise ValueError(
            f"{name} must be one of {', '.join(choices)}, got {value!r}"
            f"{near_match(str(value), choices) or '.'}"
        )
