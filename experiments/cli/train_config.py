"""What one training is set up with: from options, or from the config.json of another."""

from collections.abc import Mapping
from dataclasses import dataclass, fields, replace
from typing import Any

from convjax._checks import near_match
from convjax.data.catalog import DATASET_NAMES
from convjax.io.json_files import differences
from convjax.ops.layout import resolve_layout
from convjax.runs.config import RunError
from convjax.stats.watch import Watch
from convjax.train.plan import PIECE
from experiments.harness.lab import Lab
from experiments.harness.setting import BASELINE, Setting

WATCHES: dict[str, Watch | None] = {
    "nothing": None,
    "activations": Watch(),
    "everything": Watch.everything(),
}
NON_FINITE = ("stop", "go-on")


@dataclass(frozen=True)
class TrainConfig:
    """One training, all that its figures depend on.

    Attributes:
      setting: network, schedule and sizes.
      data: a name or a folder, as for `convjax.data.load`.
      seed: of the initial parameters and of the order of the images.
      layout: of the network.
      quick: three steps per epoch.
      watch: one of WATCHES.
      watch_every: steps from one with statistics to the next.
      non_finite: "stop" ends the training at a loss that is not finite.
      piece: the most steps after which it can be stopped, see `convjax.Plan`.
      devices: over how many the batches are split, those of all processes together.

    Raises:
      ValueError: for values that cannot be; the message names the field.
    """

    setting: Setting = BASELINE
    data: str = "mnist5k"
    seed: int = 0
    layout: str = "auto"
    quick: bool = False
    watch: str = "everything"
    watch_every: int = 1
    non_finite: str = "stop"
    devices: int = 1
    piece: int = PIECE

    def __post_init__(self) -> None:
        _check_choice("watch", self.watch, WATCHES)
        _check_choice("non_finite", self.non_finite, NON_FINITE)
        resolve_layout(self.layout)
        for name, least in (("seed", 0), ("watch_every", 1), ("devices", 1), ("piece", 1)):
            value = getattr(self, name)
            if type(value) is not int or value < least:
                raise ValueError(f"{name} must be a whole number, at least {least}, got {value!r}.")
        if type(self.quick) is not bool:
            raise ValueError(f"quick must be true or false, got {self.quick!r}.")
        if self.setting.batch_size % self.devices:
            raise ValueError(
                f"batch_size must be a multiple of the number of devices, {self.devices}, got "
                f"{self.setting.batch_size}."
            )

    @property
    def watched(self) -> Watch | None:
        """What the trainer watches."""
        watch = WATCHES[self.watch]
        return None if watch is None else replace(watch, every=self.watch_every)

    def full(self, lab: Lab) -> dict[str, Any]:
        """Returns the configuration with what follows from the data, as config.json has it."""
        own = {f.name: getattr(self, f.name) for f in fields(self) if f.name in _ADDED}
        return {**lab.run_config(self.setting, self.seed), **own}


# What a config.json of `train` has beside what those of `run` have.
_ADDED = ("watch", "watch_every", "non_finite", "devices", "piece")
_OF_SETTING = tuple(field.name for field in fields(Setting))

# What may be given: of the setting, what has an option.
FIELDS = (
    *("network", "norm", "first_kernel", "batch_size", "epochs", "scores", "schedule", "lr_max"),
    *(field.name for field in fields(TrainConfig) if field.name != "setting"),
)


def resolved(
    base: Mapping[str, Any] | None, given: Mapping[str, Any], source: str = "--config"
) -> TrainConfig:
    """Returns a configuration: the defaults, then what a config.json says, then what was given.

    Args:
      base: the content of a config.json, or None.
      given: fields of `TrainConfig` and of `Setting`.
      source: where the base is from, for messages.

    Raises:
      ValueError: if something cannot be.
    """
    config = TrainConfig()
    if base is not None:
        try:
            if not isinstance(base["setting"], Mapping):
                raise TypeError(f"setting must be an object, got {base['setting']!r:.80}")
            setting = Setting(**base["setting"])
            own = {f.name: base[f.name] for f in fields(TrainConfig) if f.name in base}
            # `run` trains on one device, watches activations, and never stops.
            before = {"watch": "activations", "non_finite": "go-on"} if "watch" not in base else {}
            config = TrainConfig(**{**own, **before, "setting": setting})
        except (KeyError, TypeError, ValueError) as error:
            raise RunError(
                f"{source} is no configuration of a training: {str(error).rstrip('.')}. Take the "
                "config.json of a run's folder."
            ) from error
        if config.data not in DATASET_NAMES and "data" not in given:
            raise ValueError(
                f"data must be given where it is a folder: {source} knows only its name, "
                f"{config.data!r}."
            )
    setting = replace(config.setting, **{k: v for k, v in given.items() if k in _OF_SETTING})
    own = {k: v for k, v in given.items() if k not in _OF_SETTING}
    return replace(config, setting=setting, **own)


def check_data(base: Mapping[str, Any], full: Mapping[str, Any], source: str) -> None:
    """Checks that a training to be repeated is given the images that it had.

    Raises:
      ValueError: if not.
    """
    names = ("data", "classes", "sha256")
    differing = differences({n: base.get(n) for n in names}, {n: full[n] for n in names})
    if differing:
        raise ValueError(
            f"data must be those of {source}, which has {'; '.join(differing)}. Name other data "
            "with --data to train the same network on them."
        )


def _check_choice(name: str, value: Any, choices: Any) -> None:
    if value not in choices:
        raise ValueError(
            f"{name} must be one of {', '.join(choices)}, got {value!r}"
            f"{near_match(str(value), choices) or '.'}"
        )
