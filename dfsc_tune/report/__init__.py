"""Pages and tables for people: what a run found, how it found it, and runs side by side."""

from dfsc_tune.report.comparison import CategoryComparison, compare_runs, comparison_table
from dfsc_tune.report.page import PAGE, write_comparison, write_report

__all__ = [
    "PAGE",
    "CategoryComparison",
    "compare_runs",
    "comparison_table",
    "write_comparison",
    "write_report",
]
