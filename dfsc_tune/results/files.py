"""A run's folder: making, finding, reading it; every file is written whole or not at all."""

from __future__ import annotations

import os
import shlex
import shutil
from collections.abc import Collection, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pandas as pd
import pyarrow as pa
import pyarrow.compute as pc

from dfsc_tune.errors import UserError, first_line
from dfsc_tune.metrics.image import AUROCS
from dfsc_tune.results.remote import look_at
from dfsc_tune.results.schema import (
    LEDGER,
    NEVER_NULL,
    NULLABLE_INTEGERS,
    SCHEMA_KEY,
    SCHEMA_VERSION,
    SCHEMAS,
    SETTINGS,
)
from dfsc_tune.results.settings import RunSettings, read_settings
from dfsc_tune.storage.atomic import check_writable, is_unfinished
from dfsc_tune.storage.names import checked_name
from dfsc_tune.storage.object_store import Store, is_remote
from dfsc_tune.storage.parquet import read_parquet, write_parquet
from dfsc_tune.storage.removal import remove_below
from dfsc_tune.training.objectives import Objective, objective_named


@dataclass(frozen=True)
class Run:
    """A run as read from its folder: its settings and its three tables."""

    folder: Path
    settings: RunSettings
    trials: pd.DataFrame
    reports: pd.DataFrame
    scores: pd.DataFrame

    @property
    def objective(self) -> str:
        """The names of its categories' objectives, joined by commas; usually there is one."""
        return ", ".join(sorted({read.objective for read in self.settings.datasets.values()}))

    def objective_of(self, category: str) -> Objective:
        """The objective that judged the trials of a category."""
        return objective_named(self.settings.datasets[category].objective)


def create_run(results: Path, name: str) -> Path:
    """Makes the folder of a new run.

    Raises:
        UserError: it is no name of a folder, a run of that name exists, or anything else that no
            search left, or the folder cannot be written.
    """
    try:
        folder = results / checked_name(name)
    except ValueError as error:
        raise UserError(f"'{name}' cannot be a run's name: it {error}") from error
    if (folder / SETTINGS).exists():
        raise UserError(
            f"the run '{name}' exists already in {results}; continue it with "
            f"`{resume_command(folder)}`, choose another --name, or delete it"
        )
    # A run that died before its first trial leaves at most an empty ledger; its name is free.
    # Nothing else may be there, for a run that fails at its beginning is removed whole.
    if folder.exists() and not (folder.is_dir() and all(map(_is_leftover, folder.iterdir()))):
        raise UserError(f"{folder} exists already and is not a run; choose another --name")
    check_writable(folder)
    return folder


def _is_leftover(path: Path) -> bool:
    is_empty_ledger = path.name == LEDGER and path.is_file() and not path.stat().st_size
    return is_empty_ledger or is_unfinished(path)


def resume_command(folder: Path) -> str:
    """The shell command that continues a run."""
    settings = _settings_so_far(folder)
    if settings is None or settings.continued_by == "resume":
        run = folder.name if folder.parent == Path("results") else folder
        return shlex.join(["dfsc-tune", "resume", str(stored_at(folder) or run)])
    return shlex.join(["dfsc-tune", settings.continued_by, *settings.continued_with])


def stored_at(folder: Path) -> Store | None:
    """The place of a run in an object store; None if it is kept in none."""
    settings = _settings_so_far(folder)
    return Store(settings.store) / folder.name if settings and settings.store else None


def _settings_so_far(folder: Path) -> RunSettings | None:
    """Reads a run's settings; None if `run.yaml` is not written yet or damaged."""
    try:
        return read_settings(folder)
    except UserError:
        return None


@contextmanager
def removed_on_error(folder: Path) -> Iterator[None]:
    """Removes a new run's folder if the block fails, so that the name is free again."""
    try:
        yield
    except BaseException:
        # NFS keeps open files, such as the ledger; the first error is the one to report.
        shutil.rmtree(folder, ignore_errors=True)
        raise


def table_of(name: str, rows: Sequence[Mapping[str, Any]]) -> pa.Table:
    """Makes a table of `SCHEMAS` from rows."""
    schema = SCHEMAS[name].with_metadata({SCHEMA_KEY: SCHEMA_VERSION.encode()})
    return pa.Table.from_pylist([dict(row) for row in rows], schema=schema)


def write_table(folder: Path, name: str, rows: Sequence[Mapping[str, Any]] | pa.Table) -> None:
    """Writes one Parquet table of `SCHEMAS`, whole or not at all."""
    table = rows if isinstance(rows, pa.Table) else table_of(name, rows)
    write_parquet(folder / name, table)


def find_run(results: Path, name: str) -> Path:
    """Finds the folder of a run by its name in the results folder, its path, or its address.

    For a run in an object store, the folder is a copy on this machine, for reading only.

    Raises:
        UserError: there is no such run; the error names those that exist.
    """
    if is_remote(name):
        return look_at(Store(name))
    for folder in (results / name, Path(name)):
        if (folder / SETTINGS).is_file():
            return folder
    known = ", ".join(list_runs(results)) or "none"
    raise UserError(f"no run '{name}' in {results}; runs there: {known}")


def list_runs(results: Path) -> list[str]:
    """The names of all runs in a results folder, sorted; UserError if it is a file."""
    if results.exists() and not results.is_dir():
        raise UserError(f"{results} is a file, and not a folder that holds runs")
    return sorted(path.parent.name for path in results.glob(f"*/{SETTINGS}"))


def load(folder: Path | str) -> Run:
    """Reads a run, finished or not; tables not written yet are empty.

    Columns and dtypes are always those of `SCHEMAS` (string, float64, int64, bool); integers that
    may be missing are Int64. `results/README.md` explains each column.

    Raises:
        UserError: the folder is not a run, or a file is damaged.
    """
    folder = Path(folder)
    settings = read_settings(folder)
    tables = (_read_table(folder / name, settings.categories) for name in SCHEMAS)
    return Run(folder, settings, *tables)


def remove_damaged_tables(folder: Path, categories: Collection[str]) -> None:
    """Removes the tables of a run that cannot be read; its search will write them again.

    Raises:
        UserError: a table is of a later version, or a folder.
    """
    for name in SCHEMAS:
        if (folder / name).is_dir():
            raise UserError(f"{folder / name} is a folder, and the search needs its name: move it")
        try:
            _read_table(folder / name, categories)
        except LaterSchemaError:
            raise
        except UserError:
            remove_below(folder, name)


class LaterSchemaError(UserError):
    """An error: a later version wrote a table."""


def _read_table(path: Path, categories: Collection[str]) -> pd.DataFrame:
    """Reads a table of `SCHEMAS` whose rows belong to these categories."""
    schema = SCHEMAS[path.name]
    if not os.path.lexists(path):
        return _frame(schema.empty_table())
    again = f"`{resume_command(path.parent)}` makes the tables of a search again"
    if not path.is_file():
        raise UserError(f"{path} is not a file; {again}")
    read = read_parquet(path, again)
    try:
        table = _as_schema(read, schema, path)
        _check_names(table, categories)
        _check_aurocs(table)
        return _frame(table)
    except (pa.ArrowException, ValueError, TypeError, LookupError) as error:
        raise UserError(f"{path} is damaged ({first_line(error)}); {again}") from error


def _as_schema(table: pa.Table, schema: pa.Schema, path: Path) -> pa.Table:
    found = (table.schema.metadata or {}).get(SCHEMA_KEY, SCHEMA_VERSION.encode()).decode()
    if int(found) > int(SCHEMA_VERSION):
        raise LaterSchemaError(
            f"{path} has schema version {found}, and this dfsc-tune reads versions up to "
            f"{SCHEMA_VERSION}; use the dfsc-tune that wrote it"
        )
    # Versions only add columns: those missing from an older file are null.
    columns = [
        table[field.name].cast(field.type)
        if field.name in table.schema.names
        else pa.nulls(len(table), field.type)
        for field in schema
    ]
    return pa.table(columns, schema=schema)


def _check_names(table: pa.Table, categories: Collection[str]) -> None:
    """Raises ValueError for rows without an identity, and for names that are paths."""
    for name in NEVER_NULL:
        if name in table.schema.names and table[name].null_count:
            raise ValueError(f"column {name} has nulls")
    for trial in table["trial"].unique().to_pylist():
        checked_name(trial)
    if unknown := set(table["category"].unique().to_pylist()) - set(categories):
        raise ValueError(f"category {min(unknown)!r} is not the run's")


def _check_aurocs(table: pa.Table) -> None:
    """Refuses, by a ValueError, what no AUROC can be."""
    for name in AUROCS:
        if name in table.schema.names:
            ends = pc.min_max(table[name]).as_py().values()
            if any(x is not None and (x < 0 or x > 1) for x in ends):
                raise ValueError(f"column {name} has values outside 0 to 1")


def _frame(table: pa.Table) -> pd.DataFrame:
    frame: pd.DataFrame = table.to_pandas()
    # Integers that may be missing have the same dtype whether or not any is.
    return frame.astype({name: "Int64" for name in NULLABLE_INTEGERS if name in frame})
