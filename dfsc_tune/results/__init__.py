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
    Headline,
    best_trials,
    describe,
    headline_of,
    headlines,
    shown_value,
)
from dfsc_tune.results.machine import describe_machine
from dfsc_tune.results.schema import REPORTS, SCHEMA_VERSION, SCHEMAS, SCORES, TRIALS
from dfsc_tune.results.tables import RunTables

__all__ = [
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
    "headline_of",
    "headlines",
    "list_runs",
    "load",
    "removed_on_error",
    "resume_command",
    "shown_value",
    "write_settings",
    "write_table",
]
