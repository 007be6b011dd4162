"""Faults that people reported in public, rebuilt in loops of one's own, each with a control."""

from importlib import import_module
from pkgutil import iter_modules

from experiments.diagnosis_study.reported.reported_fault import ReportedFault

_MODULES = sorted(module.name for module in iter_modules(__path__))


_LATER = ("further_", "last_")


def _faults(collection: str) -> tuple[ReportedFault, ...]:
    """Returns the faults of the modules whose names begin with a collection, "" for the first."""
    return tuple(
        fault
        for name in _MODULES
        if next((later for later in _LATER if name.startswith(later)), "") == collection
        for fault in getattr(import_module(f"{__name__}.{name}"), "REPORTED", ())
    )


# In the order of the modules.
REPORTED = _faults("")

# Collected by others after the thresholds were set, and diagnosed once.
FURTHER = _faults("further_")

# Collected after FURTHER had been diagnosed, by people who had not seen the diagnosis.
LAST = _faults("last_")
