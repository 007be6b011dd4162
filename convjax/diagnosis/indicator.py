"""The value of an indicator."""

from typing import NamedTuple


class IndicatorValue(NamedTuple):
    """A value of an indicator, for one layer or parameter, or for the whole training ("")."""

    where: str
    step: int  # the first at which it shows
    figure: float
