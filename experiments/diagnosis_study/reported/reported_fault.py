"""The description of a reported fault."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

from experiments.diagnosis_study.user_loops import Trained


@dataclass(frozen=True)
class ReportedFault:
    """A fault of public origin, rebuilt in words of our own.

    Attributes:
      name: unique, such as "softmax twice".
      source: the address of the report.
      cause: that the diagnosis should name.
      train: returns a training, given whether it has the fault, and a seed; without the fault it is
        the control.
      library: of the loop: "nnx", "linen", "optax", "haiku" or "equinox".
      healthy: what the control reaches at least, as `Trained.reached`; shows that it is healthy.
      options: of `convjax.diagnose`, such as {"classes": 0}; few loops need any.
    """

    name: str
    source: str
    cause: str
    train: Callable[[bool, int], Trained]
    library: str
    healthy: float
    options: Mapping[str, Any] = field(default_factory=dict)
