"""Pages and tables for people: what a run found, how it found it, and runs side by side."""

from dfsc_tune.report.page import PAGE, write_report

__all__ = ["PAGE", "write_report"]
