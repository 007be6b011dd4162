"""With how many seeds, and in which form, a run measures each claim."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from experiments.harness.claim import Claim
from experiments.harness.rules import Measured

if TYPE_CHECKING:
    from experiments.harness.lab import Lab


@dataclass(frozen=True, eq=False)
class Planned:
    """A claim as a run measures it.

    Attributes:
      claim: the claim.
      seeds: number of seeds.
      brief: whether a brief form replaces the whole one, see `Claim.form`.
    """

    claim: Claim
    seeds: int
    brief: bool = False

    @property
    def id(self) -> str:
        """The claim's id."""
        return self.claim.id

    def form(self, lab: "Lab") -> Callable[["Lab"], Measured] | None:
        """Returns what measures it in a lab with its seeds, or None where it is left out."""
        return self.claim.form(lab, brief=self.brief)


def plan(
    claims: Sequence[Claim], data: str, seeds: int | None, *, chapter: bool, quick: bool = False
) -> list[Planned]:
    """Returns how a run measures claims.

    Args:
      claims: to measure.
      data: name of the data set.
      seeds: for every claim. None stands for as many as the rule of each claim needs, or one in a
        quick run.
      chapter: whether the run is one of the whole chapter, which takes the brief forms if `seeds`
        and `quick` do not say otherwise.
      quick: whether the run passes through all the code at its smallest size.
    """
    if seeds is not None or quick:
        return [Planned(claim, seeds or 1) for claim in claims]
    return [Planned(claim, claim.min_seeds(data), brief=chapter) for claim in claims]
