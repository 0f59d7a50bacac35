"""Local copies of runs in an object store."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

from dfsc_tune.errors import UserError
from dfsc_tune.results.schema import CHECKPOINTS, SETTINGS
from dfsc_tune.storage.copies import copy_place, fetch_folder, local_copy
from dfsc_tune.storage.object_store import Store

DRIVER = "driver.json"
"""File beside those of a stored run: the process that leads it."""


def look_at(run: Store) -> Path:
    """Makes a copy of a stored run on this machine, for reading, without its checkpoints.

    Raises:
        UserError: there is no such run.
    """
    return copy_run(run, local_copy(run, "views"))


def fetch_run(run: Store, results: Path, progress: Callable[[int, int], None]) -> Path:
    """Copies a stored run into a results folder, or updates the copy there.

    Args:
        run: the run in its store, ended or not.
        results: the results folder of this machine.
        progress: called with the numbers of files done and of all files.

    Raises:
        UserError: there is no such run, or the folder of its name here is not a copy of it.
    """
    check_exists(run)
    return copy_run(run, copy_place(results / run.name, run), progress)


def copy_run(run: Store, folder: Path, progress: Callable[[int, int], None] | None = None) -> Path:
    """Updates a copy of a stored run, without its checkpoints; returns its folder.

    Raises:
        UserError: there is no such run.
    """
    check_exists(run)
    fetch_folder(run, folder, lambda name: not is_checkpoint(name) and name != DRIVER, progress)
    return folder


def check_exists(run: Store) -> None:
    """Refuses a run that is not in the store; the error names those that are."""
    if run.find(SETTINGS) is None:
        runs = {name.split("/")[0] for name in run.parent.files() if name.endswith(f"/{SETTINGS}")}
        known = ", ".join(sorted(runs)) or "none"
        raise UserError(f"no run '{run.name}' in {run.parent}; runs there: {known}")


def is_checkpoint(name: str) -> bool:
    """True if a path within a run is that of a trial's checkpoint."""
    return name.startswith(f"{CHECKPOINTS}/")
