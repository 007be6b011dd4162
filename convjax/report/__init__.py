"""HTML pages of runs, each a single file without network, and displays in notebooks."""

from convjax.report.build import comparison, report, write_report

__all__ = ["comparison", "report", "write_report"]
