"""The interface through which trainings report their progress."""

from contextlib import AbstractContextManager, nullcontext
from typing import Any

from convjax.chapter.setting import Setting
from convjax.train._fit import Callback


class Observer(Callback):
    """Is notified of the progress of trainings; this base class does nothing."""

    def display(self) -> AbstractContextManager[Any]:
        """Returns a context for the work, during which a terminal may show progress bars."""
        return nullcontext()

    def resumed(self, claims: int) -> None:
        """The figures of this many claims are taken from a run that was stopped."""

    def claim(self, id: str, number: int, total: int, seconds_left: float | None) -> None:
        """Claim `number` of `total` begins; `seconds_left` is None where it cannot be estimated."""

    def judged(self, id: str, verdict: str, reason: str) -> None:
        """A claim that was measured has its verdict."""

    def network(self, summary: str) -> None:
        """A network is about to be trained, with the first of its seeds."""

    def training(self, setting: Setting, seed: int, steps: int, *, watched: bool) -> None:
        """A training of `steps` steps begins."""

    def trained(self, metrics: list[dict[str, Any]]) -> None:
        """The training has ended."""

    def measuring(self, what: str) -> None:
        """A part of a claim that takes time is about to be measured."""

    def message(self, text: str) -> None:
        """A claim has a message besides its verdict."""
