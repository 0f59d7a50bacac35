"""A run in an object store, read: a copy of it on this machine."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

from dfsc_tune.errors import UserError
from dfsc_tune.results.schema import CHECKPOINTS, SETTINGS
from dfsc_tune.storage.copies import copy_place, fetch_folder, local_copy
from dfsc_tune.storage.object_store import Store

DRIVER = "driver.json"
"""Beside a stored run's files: which process goes on with it."""


def look_at(run: Store) -> Path:
    """A copy of a stored run on this machine, to read: all but its checkpoints.

    Raises:
        UserError: there is no such run.
    """
    return copy_run(run, local_copy(run, "views"))


def fetch_run(run: Store, results: Path, progress: Callable[[int, int], None]) -> Path:
    """Copies a stored run into a results folder, or brings the copy there up to date.

    Args:
        run: the run in its store, going on or not.
        results: the results folder of this machine.
        progress: told the files done and the files in all.

    Raises:
        UserError: there is no such run, or a folder of its name that is no copy of it.
    """
    check_exists(run)
    return copy_run(run, copy_place(results / run.name, run), progress)


def copy_run(run: Store, folder: Path, progress: Callable[[int, int], None] | None = None) -> Path:
    """Brings a copy of a stored run, without its checkpoints, up to date; returns its folder.

    Raises:
        UserError: there is no such run.
    """
    check_exists(run)
    fetch_folder(run, folder, lambda name: not is_checkpoint(name) and name != DRIVER, progress)
    return folder


def check_exists(run: Store) -> None:
    """Refuses a run that the store does not have; the error names those it has."""
    if run.find(SETTINGS) is None:
        runs = {name.split("/")[0] for name in run.parent.files() if name.endswith(f"/{SETTINGS}")}
        known = ", ".join(sorted(runs)) or "none"
        raise UserError(f"no run '{run.name}' in {run.parent}; runs there: {known}")


def is_checkpoint(name: str) -> bool:
    """Whether a file of a run, by its path in it, is a trial's checkpoint."""
    return name.startswith(f"{CHECKPOINTS}/")
