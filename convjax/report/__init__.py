"""HTML pages of runs, each a single file without network, and displays in notebooks."""

from convjax.report.build import comparison, report, write_report
from convjax.report.tables import record_tables

__all__ = ["comparison", "record_tables", "report", "write_report"]
