"""Metrics of a training for a writer of any kind: W&B, MLflow, Aim, CLU, or event files."""

from collections.abc import Iterator, Mapping
from typing import Any, Protocol, runtime_checkable

import numpy as np

from convjax._checks import describe_value
from convjax.stats.record import Array, Record

# Statistics of one layer at one step.
STATISTICS = ("mean", "std", "near_zero", "abs_near_zero")

# Numbers of a row of metrics that are not results.
NOT_RESULTS = ("epoch", "step", "seconds", "compile_seconds")


@runtime_checkable
class MetricWriter(Protocol):
    """What a training needs of a writer of metrics: one method, which `clu.metric_writers` have.

    A method `flush()`, where there is one, is called at the end of `Trainer.run` and after an
    evaluation. The writer is never closed.

    Examples:
      >>> import convjax
      >>> import numpy as np
      >>> from flax import nnx
      >>> class Print:
      ...     def write_scalars(self, step, scalars):
      ...         print(step, {name: round(value, 3) for name, value in scalars.items()})
      >>> model = convjax.LinearNet((4, 2), rngs=nnx.Rngs(0))
      >>> trainer = convjax.Trainer(model, convjax.sgd(), watch=None)
      >>> pixels, labels = np.zeros((2, 2, 2, 1), np.uint8), np.arange(2, dtype=np.int32)
      >>> images = convjax.Images.put(convjax.data.Split(pixels, labels))
      >>> table, order = convjax.constant(0.5).table(2), np.array([[0, 1], [0, 1]])
      >>> _ = trainer.run(trainer.start(model), images, order, table, writer=Print())
      0 {'training/loss': 0.693, 'training/learning_rate': 0.5, 'training/momentum': 0.9}
      1 {'training/loss': 0.693, 'training/learning_rate': 0.5, 'training/momentum': 0.9}
    """

    def write_scalars(self, step: int, scalars: Mapping[str, float], /) -> None:
        """Writes the scalars of one step, by names such as "training/loss".

        Steps never go back within a training; one step may come twice, with other names.
        """


class MetricOutput:
    """Passes what a training measures to a writer; without a writer it does nothing.

    Args:
      writer: of one's own, or None.
      begin: the steps of earlier trainings, which are added to the numbers of the steps.

    Raises:
      TypeError: if the writer has no method `write_scalars`.
    """

    def __init__(self, writer: MetricWriter | None, begin: int = 0):
        if writer is not None and (
            isinstance(writer, type) or not callable(getattr(writer, "write_scalars", None))
        ):
            own = "Give a CLU writer, or an object of a class of your own with this one method."
            raise TypeError(
                "writer must have a method write_scalars(step, scalars), got "
                f"{describe_value(writer)}. "
                f"{'Make an instance.' if isinstance(writer, type) else own}"
            )
        self._writer: Any = writer
        self._begin = begin

    @classmethod
    def of(cls, writer: "AnyWriter") -> "MetricOutput":
        """Returns the output of a writer, or an output as it is."""
        return writer if isinstance(writer, MetricOutput) else cls(writer)

    def record(self, piece: Record, first: int) -> None:
        """Writes the rows of a piece of the training that begins at step `first`."""
        if self._writer is None:
            return
        for step, scalars in record_scalars(piece):
            self._call("write_scalars", first + step, scalars)
        if hasattr(self._writer, "add_histograms"):  # an EventWriter
            self._call("add_histograms", first, piece)

    def evaluation(self, row: Mapping[str, Any]) -> None:
        """Writes a row of metrics, at the number of steps before the evaluation."""
        if self._writer is not None:
            self._call("write_scalars", row["step"], evaluation_scalars(row))
            self.flush()

    def flush(self) -> None:
        """Calls the writer's `flush`, if it has one."""
        if callable(getattr(self._writer, "flush", None)):
            self._call("flush")

    def _call(self, method: str, *arguments: Any) -> None:
        step = ""
        if arguments:
            arguments = (self._begin + arguments[0], *arguments[1:])
            step = f" at step {arguments[0]:,}"
        try:
            getattr(self._writer, method)(*arguments)
        except Exception as error:
            error.add_note(
                f"{type(self._writer).__name__}.{method} raised it{step}: the writer that the "
                "training was given. What the training saved before is complete."
            )
            raise


AnyWriter = MetricWriter | MetricOutput | None


def record_scalars(record: Record) -> Iterator[tuple[int, dict[str, float]]]:
    """Yields the first step of each row of a record, in order, with the row's scalars.

    training/loss, training/learning_rate, training/momentum, training/evaluation_mode_loss,
    activations/LAYER/mean (std, near_zero, abs_near_zero), gradients/PARAMETER/norm and
    updates/PARAMETER/norm.
    """
    found: dict[int, dict[str, float]] = {}
    for steps, tags, table in _columns(record):
        for step, row in zip(steps.tolist(), table.tolist(), strict=True):
            found.setdefault(step, {}).update(zip(tags, row, strict=True))
    yield from sorted(found.items(), key=lambda item: item[0])


def evaluation_scalars(row: Mapping[str, Any]) -> dict[str, float]:
    """Returns the results in a row of metrics, as evaluation/NAME; other items are left out."""
    return {
        f"evaluation/{name}": float(value)
        for name, value in row.items()
        if name not in NOT_RESULTS
        and isinstance(value, int | float | np.number)
        and not isinstance(value, bool)
    }


def _columns(record: Record) -> Iterator[tuple[Array, tuple[str, ...], Array]]:
    """Yields groups of scalars: steps (R,), T tags, and the values (R, T)."""
    columns = record.loss, record.learning_rate, record.momentum
    of_training = ("training/loss", "training/learning_rate", "training/momentum")
    yield record.first, of_training, np.stack(columns, 1)
    if len(record.eval_loss):
        taken = ~np.isnan(record.eval_loss)
        tag = "training/evaluation_mode_loss"
        yield record.watched[taken], (tag,), record.eval_loss[taken, None]
    if record.layers and len(record.watched):
        tags = tuple(f"activations/{layer}/{s}" for layer in record.layers for s in STATISTICS)
        table = np.stack([getattr(record, statistic) for statistic in STATISTICS], 2)
        yield record.watched, tags, table.reshape(len(table), -1)
    if parameters := record.parameters:
        norms = {"gradients": parameters.grad_norm, "updates": parameters.update_norm}
        for kind, norm in norms.items():
            if len(norm):
                tags = tuple(f"{kind}/{name}/norm" for name in parameters.names)
                yield parameters.watched, tags, norm
