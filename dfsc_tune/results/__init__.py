"""What a run leaves in `results/<run>/`: its schema, writing and reading it, what it found."""

from dfsc_tune.results.files import (
    Run,
    create_run,
    find_run,
    list_runs,
    load,
    removed_on_error,
    resume_command,
    write_settings,
    write_table,
)
from dfsc_tune.results.headline import (
    REFERENCES,
    Headline,
    best_trials,
    describe,
    gain_in_words,
    headline_of,
    headlines,
    is_real,
    selection_interval,
    shown_duration,
    shown_value,
)
from dfsc_tune.results.machine import describe_machine
from dfsc_tune.results.schema import REPORTS, SCHEMA_VERSION, SCHEMAS, SCORES, TRIALS
from dfsc_tune.results.tables import RunTables

__all__ = [
    "REFERENCES",
    "REPORTS",
    "SCHEMAS",
    "SCHEMA_VERSION",
    "SCORES",
    "TRIALS",
    "Headline",
    "Run",
    "RunTables",
    "best_trials",
    "create_run",
    "describe",
    "describe_machine",
    "find_run",
    "gain_in_words",
    "headline_of",
    "headlines",
    "is_real",
    "list_runs",
    "load",
    "removed_on_error",
    "resume_command",
    "selection_interval",
    "shown_duration",
    "shown_value",
    "write_settings",
    "write_table",
]
