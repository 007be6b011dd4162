"""A record as a table of pandas."""

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import pandas as pd


def import_pandas() -> Any:
    """Returns pandas.

    Raises:
      ImportError: if it is not installed.
    """
    try:
        import pandas
    except ModuleNotFoundError as error:
        raise ImportError(
            "to_frame needs pandas, which is not installed. Run: pip install pandas"
        ) from error
    return pandas


def record_frame(record: Any) -> "pd.DataFrame":
    """Returns a `convjax.Record` with one row per step, as its `to_frame` says."""
    pandas = import_pandas()
    of_steps = {
        name: values
        for name in ("loss", "learning_rate", "momentum")
        if len(values := getattr(record, name))
    }
    frame = pandas.DataFrame(of_steps, index=pandas.Index(record.first, name="step"))
    watched: dict[str, Any] = {}
    if len(record.eval_loss):
        watched["eval_loss"] = record.eval_loss
    watched |= {f"facts/{name}": values for name, values in record.facts.items()}
    for i, layer in enumerate(record.layers):
        for name in ("mean", "std", "near_zero"):
            watched[f"layers/{layer}/{name}"] = getattr(record, name)[:, i]
    frame = frame.join(pandas.DataFrame(watched, index=record.watched))
    if (found := record.parameters) is None:
        return frame
    columns = {
        f"parameters/{parameter}/{name}": values[:, i]
        for name in ("weight_norm", "grad_norm", "update_ratio")
        if len(values := getattr(found, name))
        for i, parameter in enumerate(found.names)
    }
    return frame.join(pandas.DataFrame(columns, index=found.watched))
