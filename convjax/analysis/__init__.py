"""What a network is before it is trained: shapes, costs, which pixels each cell sees, programs."""

from convjax.analysis._compare_layouts import compare_layouts
from convjax.analysis._effective_field import EffectiveField, effective_field
from convjax.analysis._precedents import Windows, precedents, trace_precedents
from convjax.analysis._summary import Summary, summary
from convjax.analysis.layout_programs import LayoutComparison, LayoutProgram
from convjax.analysis.receptive_field import ReceptiveField, receptive_fields

__all__ = [
    "EffectiveField",
    "LayoutComparison",
    "LayoutProgram",
    "ReceptiveField",
    "Summary",
    "Windows",
    "compare_layouts",
    "effective_field",
    "precedents",
    "receptive_fields",
    "summary",
    "trace_precedents",
]
