"""A run in an object store: looked at, and taken over to go on with it."""

from __future__ import annotations

import json
import os
import shutil
import socket
import time
from collections.abc import Callable
from pathlib import Path

from dfsc_tune.errors import UserError
from dfsc_tune.results.schema import CHECKPOINTS, LEDGER, SETTINGS
from dfsc_tune.storage.copies import copy_place, fetch_folder, local_copy
from dfsc_tune.storage.object_store import Store, StoredFile

DRIVER = "driver.json"
"""Which process goes on with the run, put anew every `BEAT_SECONDS` for as long as it does."""
BEAT_SECONDS = 20.0
_STALE_SECONDS = 90.0
# By so much no clock is wrong with which a store lets anybody in.
_DEAD_SECONDS = 900.0
_POLL_SECONDS = 5.0


def working_folder(store: Store) -> Path:
    """Where the driver on this machine keeps the runs of a store's results folder."""
    return local_copy(store, "runs")


def check_absent(run: Store) -> None:
    """Refuses the name of a run that the store has already."""
    if run.find(SETTINGS) is not None:
        raise UserError(
            f"the run '{run.name}' exists already in {run.parent}; go on with it by `dfsc-tune "
            f"resume {run}`, or choose another --name"
        )


def take_over(run: Store, note: Callable[[str], None]) -> Path:
    """The folder of a stored run on this machine, as new as the store's, to go on with it.

    Args:
        run: the run in its store.
        note: told why it takes time.

    Raises:
        UserError: there is no such run, or another process goes on with it.
    """
    _check_exists(run)
    _wait_for_driver(run, note)
    folder = working_folder(run.parent) / run.name
    ledger = folder / LEDGER
    here = ledger.read_bytes() if ledger.exists() else b""
    # A driver that died here may have written what it could not put into the store any more.
    if not here.startswith(run.read(LEDGER) or b"") or not (folder / SETTINGS).exists():
        # Beside it: a copy that breaks off must not be taken for the run.
        part = folder.with_name(f".{folder.name}.part")
        fetch_folder(run, part, _is_kept)
        shutil.rmtree(folder, ignore_errors=True)
        part.replace(folder)
    return folder


def look_at(run: Store) -> Path:
    """A copy of a stored run on this machine, to read: all but its checkpoints.

    Raises:
        UserError: there is no such run.
    """
    _check_exists(run)
    folder = local_copy(run, "views")
    fetch_folder(run, folder, _is_kept)
    return folder


def fetch_run(run: Store, results: Path, progress: Callable[[int, int], None]) -> Path:
    """Copies a stored run into a results folder, or brings the copy there up to date.

    Args:
        run: the run in its store, going on or not.
        results: the results folder of this machine.
        progress: told the files done and the files in all.

    Raises:
        UserError: there is no such run, or a folder of its name that is no copy of it.
    """
    _check_exists(run)
    folder = copy_place(results / run.name, run)
    fetch_folder(run, folder, _is_kept, progress)
    return folder


def _check_exists(run: Store) -> None:
    if run.find(SETTINGS) is None:
        runs = {name.split("/")[0] for name in run.parent.files() if name.endswith(f"/{SETTINGS}")}
        known = ", ".join(sorted(runs)) or "none"
        raise UserError(f"no run '{run.name}' in {run.parent}; runs there: {known}")


def _wait_for_driver(run: Store, note: Callable[[str], None]) -> None:
    """Returns once no other process can still be going on with a run."""
    first: StoredFile | None = None
    deadline = 0.0
    while (beat := run.find(DRIVER)) is not None:
        driver = json.loads(run.read(DRIVER) or b"{}")
        host, pid = driver.get("host"), driver.get("pid")
        is_here = host == socket.gethostname()
        if beat.age_seconds > _DEAD_SECONDS or (is_here and not _is_alive(pid)):
            return
        is_lately_here = is_here and beat.age_seconds <= _STALE_SECONDS
        if is_lately_here or (first is not None and beat.changed != first.changed):
            raise UserError(
                f"the run {run} is still going on in process {pid} on {host}; wait for it, or end "
                "that process first"
            )
        if first is None:
            # Not by the age: this machine's clock may be ahead of the store's.
            first, deadline = beat, time.monotonic() + _STALE_SECONDS
            note(
                f"process {pid} on {host} worked on this run lately; looking for "
                f"{_STALE_SECONDS:.0f} s whether it still does"
            )
        elif time.monotonic() > deadline:
            return
        time.sleep(_POLL_SECONDS)


def _is_alive(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    except PermissionError:
        return True
    return True


def _is_kept(name: str) -> bool:
    return not is_checkpoint(name) and name != DRIVER


def is_checkpoint(name: str) -> bool:
    """Whether a file of a run, by its path in it, is a trial's checkpoint."""
    return name.startswith(f"{CHECKPOINTS}/")
