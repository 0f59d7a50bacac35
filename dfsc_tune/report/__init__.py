"""Pages and tables for people: what a run found, how it found it, and runs side by side."""

from dfsc_tune.report.comparison import CategoryComparison, compare_runs, comparison_table
from dfsc_tune.report.page import PAGE, write_comparison, write_report
from dfsc_tune.report.progress import RunProgress, TrialLine, progress_of

__all__ = [
    "PAGE",
    "CategoryComparison",
    "RunProgress",
    "TrialLine",
    "compare_runs",
    "comparison_table",
    "progress_of",
    "write_comparison",
    "write_report",
]
