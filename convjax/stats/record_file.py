"""The file of a record: an .npz of plain arrays, without pickle."""

from collections.abc import Callable, Mapping
from dataclasses import asdict
from typing import Any

import numpy as np

from convjax.io.npz import Arrays, Check
from convjax.nn.outputs import LayerKind
from convjax.stats.bins import FASTAI
from convjax.stats.forms import NEAR_ZERO
from convjax.stats.parameter_record import ParameterRecord
from convjax.stats.record_schema import (
    FIELDS,
    PARAMETER_FIELDS,
    check_parameter_arrays,
    check_record_arrays,
    check_shapes,
)

# Files of format 4 may lack these fields, and then have these values. A record with other values is
# written as format 5, so that versions without these fields reject it. So is, as format 6, one with
# batches of several sizes, or with more members than steps: earlier versions take `sizes` for the
# number of values of every step, and do not know members.
_FORMATS = _FORMAT, _FORMAT_OF_OTHER_BINS, _FORMAT_OF_OTHER_SIZES = 4, 5, 6
_IMPLIED: dict[str, Any] = {
    "hist_edges": FASTAI.edges,
    "near_zero_threshold": np.float64(NEAR_ZERO),
}

# Bytes that a file may unfold to: twice those of 1,024 rows of a thousand layers and parameters.
LIMIT = 1 << 30

# Fields of the record of parameters are in the same file, with this before their names. So are the
# facts of the batches. Files of every format may lack them, and what the layers are.
_PARAMETERS, _FACTS = "parameters.", "facts."
_KINDS = LayerKind._fields


class RecordError(ValueError):
    """Raised when a file is not a complete record."""


def to_arrays(fields: Mapping[str, Any]) -> Arrays:
    """Returns the arrays of the file, given the fields of a `Record`."""
    parameters, varied = fields["parameters"], len(fields["counted"]) > 0
    arrays = {name: fields[name] for name in FIELDS if varied or name != "counted"}
    # In an .npz an array of strings is stored without pickle.
    arrays["layers"] = np.array(fields["layers"], dtype=np.str_)
    if kinds := fields["kinds"]:
        columns = zip(_KINDS, zip(*kinds, strict=True), strict=True)
        arrays |= {name: np.array(column, dtype=np.str_) for name, column in columns}
    arrays |= {_FACTS + name: column for name, column in fields["facts"].items()}
    if parameters is not None:
        varied |= int(parameters.watched_count.sum()) > fields["steps"]
        of_parameters = asdict(parameters)
        of_parameters["names"] = np.array(of_parameters["names"], dtype=np.str_)
        arrays |= {_PARAMETERS + name: value for name, value in of_parameters.items()}
    implied = all(np.array_equal(fields[name], value) for name, value in _IMPLIED.items())
    version = _FORMAT if implied else _FORMAT_OF_OTHER_BINS
    arrays["format"] = np.asarray(_FORMAT_OF_OTHER_SIZES if varied else version, np.int64)
    return {name: np.asarray(array) for name, array in arrays.items()}


def from_arrays(read: Callable[[Check], Arrays], name: str) -> dict[str, Any]:
    """Returns the fields of a `Record`.

    Args:
      read: returns the arrays of the file, and checks those that it declares before.
      name: of the file, for messages.

    Raises:
      RecordError: if the file is damaged or its arrays are not those of a record.
    """
    try:
        arrays = read(lambda declared: _check(declared, name))
        arrays, facts, of_parameters = _parts(arrays)
        check_record_arrays(arrays)
        parameters = _parameters(of_parameters, int(arrays["steps"]))
    except RecordError:
        raise
    except ValueError as error:
        raise RecordError(
            f"{name} is not a complete record of convjax: {error}. Take another copy of it, or "
            "train again."
        ) from error
    fields: dict[str, Any] = {field: arrays[field] for field in FIELDS}
    fields["layers"] = tuple(map(str, fields["layers"]))
    fields["steps"] = int(fields["steps"])
    fields["near_zero_threshold"] = float(fields["near_zero_threshold"])
    if _KINDS[0] in arrays:
        columns = (map(str, arrays[name]) for name in _KINDS)
        fields["kinds"] = tuple(LayerKind(*names) for names in zip(*columns, strict=True))
    return {**fields, "facts": facts, "parameters": parameters}


def _check(declared: Arrays, name: str) -> set[str]:
    """Checks format, types and shapes of the arrays that a file declares; returns those to read."""
    if "format" not in declared:
        raise ValueError("format is missing")
    found = declared["format"]
    if found.ndim or found.item() not in _FORMATS:
        raise RecordError(
            f"{name} has record format {found!s:.40}, this version reads {_FORMATS[0]} to "
            f"{_FORMATS[-1]}: read it with the version that wrote it, or train again."
        )
    arrays, facts, parameters = _parts(declared)
    check_shapes(arrays, facts, parameters, _KINDS)
    own = {"format", *FIELDS, *_KINDS, *(_FACTS + fact for fact in facts)}
    return own | {_PARAMETERS + field for field in PARAMETER_FIELDS}


def _parts(found: Arrays) -> tuple[Arrays, Arrays, Arrays]:
    """Returns the arrays of a file with those that it implies, its facts, and its parameters."""
    arrays = {"counted": np.zeros((0, 0), np.int64), **found}
    if found["format"].item() == _FORMAT and not set(_IMPLIED) & set(arrays):
        arrays |= _IMPLIED
    facts, parameters = (
        {name.removeprefix(prefix): a for name, a in found.items() if name.startswith(prefix)}
        for prefix in (_FACTS, _PARAMETERS)
    )
    return arrays, facts, parameters


def _parameters(found: Arrays, steps: int) -> ParameterRecord | None:
    """Returns the record of parameters, None if the file has none."""
    if not found:
        return None
    check_parameter_arrays(found, steps)
    names = tuple(map(str, found.pop("names")))
    return ParameterRecord(
        names, **{name: found[name] for name in PARAMETER_FIELDS if name in found}
    )
