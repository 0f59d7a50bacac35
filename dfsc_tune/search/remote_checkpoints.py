"""The checkpoints of a run in an object store, for trials on any node."""

from __future__ import annotations

from contextlib import suppress
from pathlib import Path

from dfsc_tune.progress import CHECKPOINT
from dfsc_tune.storage.object_store import Store
from dfsc_tune.storage.removal import remove_below


class StoredCheckpoints:
    """The checkpoints of a run's trials in an object store."""

    def __init__(self, uri: str) -> None:
        self._store = Store(uri)

    def fetch(self, trial: str, folder: Path) -> None:
        """Puts a trial's last checkpoint into an empty folder, if there is one."""
        remove_below(folder.parent, folder.name)
        with suppress(FileNotFoundError):
            self._store.fetch(f"{trial}/{CHECKPOINT}", folder / CHECKPOINT)

    def put(self, trial: str, folder: Path) -> None:
        """Keeps the folder's checkpoint as the trial's last."""
        self._store.put(folder / CHECKPOINT, f"{trial}/{CHECKPOINT}")

    def delete(self, trial: str) -> None:
        """Drops a trial's checkpoint."""
        self._store.delete(f"{trial}/{CHECKPOINT}")
