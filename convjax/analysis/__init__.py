"""What a network is before it is trained: shapes, costs, and which pixels each cell sees."""

from convjax.analysis._effective_field import EffectiveField, effective_field
from convjax.analysis._precedents import Windows, precedents, trace_precedents
from convjax.analysis._summary import Summary, summary
from convjax.analysis.receptive_field import ReceptiveField, receptive_fields

__all__ = [
    "EffectiveField",
    "ReceptiveField",
    "Summary",
    "Windows",
    "effective_field",
    "precedents",
    "receptive_fields",
    "summary",
    "trace_precedents",
]
