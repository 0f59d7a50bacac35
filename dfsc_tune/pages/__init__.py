"""Pages and tables for people: what a run found, how it found it, and runs side by side."""

from dfsc_tune.pages.comparison import CategoryComparison, compare_runs, comparison_table
from dfsc_tune.pages.page import PAGE, write_comparison, write_report
from dfsc_tune.results.progress import RunProgress, TrialLine, progress_of

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
