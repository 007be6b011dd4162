"""The diagnosis of a training from its record."""

from convjax.diagnosis._diagnose import Diagnosis, Finding, diagnose

__all__ = ["Diagnosis", "Finding", "diagnose"]
