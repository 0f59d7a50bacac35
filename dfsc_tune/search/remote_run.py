"""The process that goes on with a run in an object store, on a copy of it: one at a time.

The copy is the truth while the run goes on. A thread copies what changed to the store every few
seconds; that a trial ended is in the store before anything else is done about it. So when the
machine is lost, with it go at most the last seconds of trials that were still running, and those go
on from their checkpoints, which they put into the store themselves, each before it is reported.
"""

from __future__ import annotations

import json
import os
import socket
import threading
import time
from collections.abc import Callable, Collection, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from urllib.parse import quote

import psutil

from dfsc_tune.errors import StorageError, UserError
from dfsc_tune.progress import CHECKPOINT
from dfsc_tune.results import CHECKPOINTS, LEDGER, SETTINGS, resume_command
from dfsc_tune.results.remote import DRIVER, check_exists, copy_run, is_checkpoint
from dfsc_tune.search.events import parse_lines
from dfsc_tune.search.remote_checkpoints import StoredCheckpoints
from dfsc_tune.search.request import SearchRequest
from dfsc_tune.storage.copies import local_copy
from dfsc_tune.storage.documents import parse_json
from dfsc_tune.storage.names import path_below
from dfsc_tune.storage.object_store import Store, StoredFile
from dfsc_tune.storage.removal import remove_below

_COPY_SECONDS = 5.0
_BEAT_SECONDS = 20.0
"""After which the file that names the process is put anew."""
_STALE_SECONDS = 90.0
# No clock with which a store grants access is wrong by so much.
_DEAD_SECONDS = 900.0
_POLL_SECONDS = 5.0


def working_folder(store: Store) -> Path:
    """The folder of this machine for the runs of a store's results folder that go on here."""
    return local_copy(store, "runs")


def check_name(request: SearchRequest) -> None:
    """Refuses the name of a run that the store has already, or that no address can hold."""
    if (run := _stored_run(request)) is None:
        return
    if quote(request.name, safe="") != request.name:
        raise UserError(
            f"--name {request.name} cannot be part of an address in {request.store}; use "
            "letters, digits, '.', '-' and '_'"
        )
    if run.find(SETTINGS) is not None:
        raise UserError(
            f"the run '{run.name}' exists already in {run.parent}; continue it with `dfsc-tune "
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
    check_exists(run)
    _wait_for_driver(run, note)
    folder = path_below(working_folder(run.parent), run.name)
    ledger = folder / LEDGER
    here = ledger.read_bytes() if ledger.is_file() else b""
    there = run.read(LEDGER) or b""
    # A driver that died here may have written what it could not put into the store any more.
    if here.startswith(there) and (folder / SETTINGS).exists():
        return folder
    if (damage := parse_lines(there, run / LEDGER).damage) is not None:
        raise UserError(f"{damage} (this machine's copy is in {folder})" if here else str(damage))
    # Beside it: a copy that breaks off must not be taken for the run.
    part = folder.with_name(f".{folder.name}.part")
    copy_run(run, part)
    if there.startswith(here):
        remove_below(folder.parent, folder.name)
    else:
        _set_aside(folder, note)
    part.replace(folder)
    return folder


def _set_aside(folder: Path, note: Callable[[str], None]) -> None:
    """Renames a copy of a run that holds what its store does not."""
    number = 1
    while (aside := folder.with_name(f"{folder.name}.other-{number}")).exists():
        number += 1
    folder.replace(aside)
    note(f"the copy of the run on this machine differs from the store's; it is kept in {aside}")


@contextmanager
def mirrored_to_store(
    request: SearchRequest, folder: Path
) -> Iterator[Callable[[str, str], None] | None]:
    """Copies the run's folder to its store for the time of the block.

    Yields:
        A function to call with each trial that ends, and its state; None without a store.

    Raises:
        StorageError: at the beginning or the end, the store cannot be written to.
    """
    run = _stored_run(request)
    if run is None:
        yield None
        return
    mirror = Mirror(folder, run)
    mirror.start()
    try:
        yield mirror.trial_ended
    finally:
        try:
            mirror.close()
        except StorageError as error:
            raise StorageError(
                f"{error}; the whole run is in {folder}: `{resume_command(folder)}` on this "
                "machine puts it there"
            ) from error


def trial_checkpoints(request: SearchRequest, folder: Path) -> Path | StoredCheckpoints:
    """Returns the place of the trials' checkpoints, for every node."""
    run = _stored_run(request)
    return StoredCheckpoints(str(run / CHECKPOINTS)) if run else (folder / CHECKPOINTS).resolve()


def with_stored_checkpoints(
    request: SearchRequest, checkpoint_dir: Callable[[str], Path]
) -> Callable[[str], Path]:
    """The folder of a trial's last checkpoint by its name, into which it is fetched if need be."""
    if (run := _stored_run(request)) is None:
        return checkpoint_dir
    stored = StoredCheckpoints(str(run / CHECKPOINTS))

    def fetched(trial: str) -> Path:
        folder = checkpoint_dir(trial)
        if not (folder / CHECKPOINT).exists():
            stored.fetch(trial, folder)
        return folder

    return fetched


def drop_unknown_checkpoints(request: SearchRequest, known: Collection[str]) -> None:
    """Drops stored checkpoints of trials that the ledger does not know, if the run is in a store.

    Their trials began in the last seconds of a driver that died before its ledger got there; others
    will have their names.

    Args:
        request: of the run.
        known: the trials in its ledger.
    """
    if (run := _stored_run(request)) is None:
        return
    for name in run.files(CHECKPOINTS):
        if name.split("/")[1] not in known:
            run.delete(name)


class Mirror:
    """Copies a run's folder to its store while the run goes on."""

    def __init__(self, folder: Path, store: Store) -> None:
        self.folder = folder
        self.store = store
        self.checkpoints = StoredCheckpoints(str(store / CHECKPOINTS))
        self._pushed: dict[str, tuple[int, int]] = {}
        self._lock = threading.Lock()
        self._ended = threading.Event()
        self._beat_at = 0.0
        self._thread = threading.Thread(target=self._run, name="mirror", daemon=True)

    def start(self) -> None:
        """Puts the run into the store, and starts to update it.

        Raises:
            StorageError: the store cannot be written to.
        """
        self._beat()
        self.push()
        self._thread.start()

    def push(self) -> None:
        """Puts every changed file into the store; trials put their own checkpoints there."""
        with self._lock:
            for path in sorted(self.folder.rglob("*")):
                name = path.relative_to(self.folder).as_posix()
                if path.is_file() and not path.name.startswith(".") and not is_checkpoint(name):
                    self._put(path, name)

    def trial_ended(self, trial: str, state: str) -> None:
        """Puts the ledger into the store, then deletes an unfinished trial's checkpoints there."""
        with self._lock:
            self._put(self.folder / LEDGER, LEDGER)
        if state != "complete":
            self.checkpoints.delete(trial)

    def close(self) -> None:
        """Puts the last changes into the store, and releases the run.

        Raises:
            StorageError: the store cannot be written to; the run's folder has everything.
        """
        self._ended.set()
        if self._thread.is_alive():
            self._thread.join()
        self.push()
        self.store.delete(DRIVER)

    def _put(self, path: Path, name: str) -> None:
        with suppress(FileNotFoundError):
            status = path.stat()
            stamp = (status.st_mtime_ns, status.st_size)
            if self._pushed.get(name) != stamp:
                self.store.put(path, name)
                self._pushed[name] = stamp

    def _run(self) -> None:
        while not self._ended.wait(_COPY_SECONDS):
            # If the store does not answer, the next trial that ends reports it.
            with suppress(StorageError, OSError):
                self._beat()
                self.push()

    def _beat(self) -> None:
        if time.monotonic() >= self._beat_at:
            process = {"host": socket.gethostname(), "pid": os.getpid()}
            self.store.write(DRIVER, json.dumps(process).encode())
            self._beat_at = time.monotonic() + _BEAT_SECONDS


def _stored_run(request: SearchRequest) -> Store | None:
    """The place of the run in its store, if it has one."""
    return Store(request.store) / request.name if request.store else None


def _driver(run: Store) -> tuple[str, int]:
    """The machine and process that a run's store names."""
    try:
        found = parse_json(run.read(DRIVER) or b"{}", DRIVER)
        return str(found["host"]), int(found["pid"])
    except (UserError, LookupError, TypeError, ValueError):
        # One whose age alone counts.
        return "a machine unknown", 0


def _wait_for_driver(run: Store, note: Callable[[str], None]) -> None:
    """Returns once no other process can still be going on with a run."""
    first: StoredFile | None = None
    deadline = 0.0
    while (beat := run.find(DRIVER)) is not None:
        host, pid = _driver(run)
        is_here = host == socket.gethostname()
        if beat.age_seconds > _DEAD_SECONDS or (is_here and not psutil.pid_exists(pid)):
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
