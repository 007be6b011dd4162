"""What experiments tell while they work."""

from contextlib import AbstractContextManager, nullcontext
from typing import Any

from convjax.train._fit import Callback
from experiments.harness.setting import Setting


class Observer(Callback):
    """Hears of the progress; this one keeps quiet."""

    def on_screen(self) -> AbstractContextManager[Any]:
        """Surrounds the work: what a terminal shows meanwhile is gone afterwards."""
        return nullcontext()

    def kept(self, claims: int) -> None:
        """So many claims keep the figures of a run that was stopped."""

    def claim(self, id: str, number: int, total: int, seconds_left: float | None) -> None:
        """Claim `number` of `total` begins; None where nobody knows how long all will take."""

    def network(self, summary: str) -> None:
        """A network is about to be trained, with the first of its seeds."""

    def training(self, setting: Setting, seed: int, steps: int, *, watched: bool) -> None:
        """A training of `steps` steps begins."""

    def trained(self, metrics: list[dict[str, Any]]) -> None:
        """The training has come to its end."""

    def measuring(self, what: str) -> None:
        """A part of a claim that takes its time is about to be measured."""

    def told(self, text: str) -> None:
        """A claim has something to say beside its verdict."""
