"""Faults that people reported in public, rebuilt in loops of one's own, each with a control."""

from importlib import import_module
from pkgutil import iter_modules

from experiments.diagnosis_study.reported.reported_fault import ReportedFault

_MODULES = sorted(module.name for module in iter_modules(__path__))


def _faults(collection: str) -> tuple[ReportedFault, ...]:
    others = tuple(other for other in ("further_", "last_") if other != collection)
    return tuple(
        fault
        for name in _MODULES
        if name.startswith(collection) and not name.startswith(others)
        for fault in getattr(import_module(f"{__name__}.{name}"), "REPORTED", ())
    )


# In the order of the modules.
REPORTED = _faults("")

# Collected by others after the thresholds were set, and diagnosed once.
FURTHER = _faults("further_")

# Collected after FURTHER had been diagnosed, by people who had not seen the diagnosis.
LAST = _faults("last_")
