"""HTML pages of runs, each a single file that needs no network, and what notebooks show."""

from convjax.report.build import comparison, report, write_report

__all__ = ["comparison", "report", "write_report"]
