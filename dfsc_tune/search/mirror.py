"""A run in an object store: kept up to date while it goes on, and brought back from there.

The run's folder on the driver's machine is the truth while it runs. A thread copies what changed to
the store every few seconds; that a trial ended is in the store before anything else is done about
it. So when the driver's machine is lost, with it go at most the last seconds of trials that were
still running, and those go on from their checkpoints, which they put into the store themselves,
each before it is reported.
"""

from __future__ import annotations

import json
import os
import shutil
import socket
import threading
import time
from collections.abc import Iterator, Mapping
from contextlib import suppress
from pathlib import Path

from dfsc_tune.errors import StorageError
from dfsc_tune.progress import CHECKPOINT
from dfsc_tune.results.remote import BEAT_SECONDS, DRIVER, is_checkpoint
from dfsc_tune.results.schema import CHECKPOINTS, LEDGER
from dfsc_tune.storage.object_store import Store

_INTERVAL_SECONDS = 5.0


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
        """Puts what there is into the store, and goes on doing so.

        Raises:
            StorageError: the store cannot be written to.
        """
        self._beat()
        self.push()
        self._thread.start()

    def push(self) -> None:
        """Puts every file that changed into the store; checkpoints are put by their trials."""
        with self._lock:
            for path in sorted(self.folder.rglob("*")):
                name = path.relative_to(self.folder).as_posix()
                if path.is_file() and not path.name.startswith(".") and not is_checkpoint(name):
                    self._put(path, name)

    def trial_ended(self, trial: str, state: str) -> None:
        """Puts the ledger into the store, and then drops what an unfinished trial left there."""
        with self._lock:
            self._put(self.folder / LEDGER, LEDGER)
        if state != "complete":
            self.checkpoints.delete(trial)

    def close(self) -> None:
        """Puts the last changes into the store, and lets go of the run.

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
        while not self._ended.wait(_INTERVAL_SECONDS):
            # Should the store not answer for a while, the next trial that ends says so.
            with suppress(StorageError, OSError):
                self._beat()
                self.push()

    def _beat(self) -> None:
        if time.monotonic() >= self._beat_at:
            self.store.write(DRIVER, json.dumps(_this_process()).encode())
            self._beat_at = time.monotonic() + BEAT_SECONDS


class StoredCheckpoints:
    """The checkpoints of a run's trials in a store, for trials on any node."""

    def __init__(self, uri: str) -> None:
        self._store = Store(uri)

    def fetch(self, trial: str, folder: Path) -> None:
        """Puts a trial's last checkpoint into an empty folder, if there is one."""
        shutil.rmtree(folder, ignore_errors=True)
        with suppress(FileNotFoundError):
            self._store.fetch(f"{trial}/{CHECKPOINT}", folder / CHECKPOINT)

    def put(self, trial: str, folder: Path) -> None:
        """Keeps the folder's checkpoint as the trial's last."""
        self._store.put(folder / CHECKPOINT, f"{trial}/{CHECKPOINT}")

    def delete(self, trial: str) -> None:
        """Drops a trial's checkpoint."""
        self._store.delete(f"{trial}/{CHECKPOINT}")


class FetchedCheckpoints(Mapping[str, Path]):
    """The folders of trials' checkpoints on this machine, each fetched when it is asked for."""

    def __init__(self, folders: Mapping[str, Path], stored: StoredCheckpoints) -> None:
        self._folders = folders
        self._stored = stored

    def __getitem__(self, trial: str) -> Path:
        folder = self._folders[trial]
        if not (folder / CHECKPOINT).exists():
            self._stored.fetch(trial, folder)
        return folder

    def __iter__(self) -> Iterator[str]:
        return iter(self._folders)

    def __len__(self) -> int:
        return len(self._folders)


def _this_process() -> dict[str, str | int]:
    return {"host": socket.gethostname(), "pid": os.getpid()}
