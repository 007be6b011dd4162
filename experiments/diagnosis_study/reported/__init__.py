"""Faults that people reported in public, rebuilt in loops of one's own, each with a control."""

from importlib import import_module
from pkgutil import iter_modules

from experiments.diagnosis_study.reported.reported_fault import ReportedFault

_MODULES = sorted(module.name for module in iter_modules(__path__))

# All faults, in the order of the modules.
REPORTED: tuple[ReportedFault, ...] = tuple(
    fault
    for name in _MODULES
    for fault in getattr(import_module(f"{__name__}.{name}"), "REPORTED", ())
)
