"""The run's ledger: an append-only file of the events of a search, in order.

An event is on the disk before it has any effect, so a search that dies at any moment can be rebuilt
exactly from its ledger and checkpoints. Each line has the time of its writing, which decides
nothing.
"""

from __future__ import annotations

import fcntl
import os
import time
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

from dfsc_tune.errors import StorageError, UserError
from dfsc_tune.results import ENDED, LEDGER
from dfsc_tune.search.events import BEGAN, BROKE, FINALIZED, RESUMED, Event, read_lines, sealed


class Ledger:
    """A run's ledger, open and locked for this process until it closes it or dies."""

    def __init__(self, folder: Path) -> None:
        """Opens the ledger of a run, new or not.

        Raises:
            UserError: another process holds it, or it is damaged; as a StorageError, it cannot be
                opened.
        """
        self.path = folder / LEDGER
        try:
            self._file = os.open(self.path, os.O_RDWR | os.O_CREAT | os.O_APPEND, 0o666)
        except OSError as error:
            raise self._storage_error(error) from error
        try:
            fcntl.flock(self._file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError as error:
            os.close(self._file)
            raise UserError(
                f"the run in {folder} is still going on in another process; wait for it, or end "
                "that process first"
            ) from error
        try:
            lines = read_lines(self.path)
            if lines.damage is not None:
                raise lines.damage
        except UserError:
            self.close()
            raise
        self.events = lines.events
        """The events in the ledger when it was opened, until the controller takes them."""
        self._size, self._digest = lines.num_bytes, lines.digest
        # An incomplete last line is removed when the next one is written.
        self._is_torn = os.fstat(self._file).st_size > self._size

    def take_events(self) -> list[Event]:
        """Hands over the events, which take much memory in a large run, and keeps none of them."""
        events, self.events = self.events, []
        return events

    def append(self, event: Event) -> None:
        """Writes an event to the disk, with the time (seconds since 1970).

        Raises:
            StorageError: it cannot be written, or was deleted or moved meanwhile; the ledger is as
                it was before.
        """
        if not self._is_in_place():
            raise StorageError(f"{self.path} was deleted or moved while the search went on")
        dated = {**event, "at": round(time.time(), 3)}
        line, digest = sealed(dated, self._digest)
        left = line
        try:
            if self._is_torn:
                os.ftruncate(self._file, self._size)
                self._is_torn = False
            while left:
                left = left[os.write(self._file, left) :]
            os.fdatasync(self._file)
        except OSError as error:
            with suppress(OSError):
                os.ftruncate(self._file, self._size)
            raise self._storage_error(error) from error
        self._size += len(line)
        self._digest = digest

    def _is_in_place(self) -> bool:
        """True if the open file is still the run's ledger."""
        try:
            return os.path.samestat(self.path.stat(), os.fstat(self._file))
        except FileNotFoundError:
            return False

    def close(self) -> None:
        """Closes and unlocks the file."""
        os.close(self._file)

    def _storage_error(self, error: OSError) -> StorageError:
        return StorageError(f"cannot write {self.path} ({error.strerror})")


@dataclass(frozen=True)
class Interruptions:
    """The interruptions of a run, and their cost."""

    num_losses: int
    """Number of times that a trial lost its process and was retried."""
    seconds: float
    """Time of these trials since their last reports, the most that was trained again."""
    num_resumes: int
    """Number of times that the run was resumed; the time lost by that is unknown."""

    def __str__(self) -> str:
        """One sentence for people; empty if there was nothing."""
        parts = []
        if self.num_losses:
            times = "once" if self.num_losses == 1 else f"{self.num_losses} times"
            parts.append(f"trials lost their process {times}, {self.seconds:.0f} s of training")
        if self.num_resumes:
            times = "once" if self.num_resumes == 1 else f"{self.num_resumes} times"
            parts.append(f"the run was resumed {times}")
        return f"interruptions: {'; '.join(parts)}" if parts else ""


def interruptions(folder: Path) -> Interruptions:
    """Counts the interruptions of the run in a folder; UserError if its ledger is damaged."""
    events = _events(folder)
    losses = [event for event in events if event["event"] == BROKE]
    return Interruptions(
        num_losses=len(losses),
        seconds=sum(event["seconds"] for event in losses),
        num_resumes=sum(event["event"] == RESUMED for event in events),
    )


def working_seconds(folder: Path) -> float | None:
    """Adds up the time in which a run's trials were at work, over its sessions.

    A session counts from its start to its last suggestion or report: later work of a session that
    died is unknown, and finalizing is not a trial's work.

    Args:
        folder: the run.

    Returns:
        None if there is no ledger, or one of an earlier version that has no times.

    Raises:
        UserError: the ledger is damaged.
    """
    events = _events(folder)
    if not events:
        return None
    total = start = last = 0.0
    for event in events:
        if "at" not in event:
            return None
        if event["event"] in (BEGAN, RESUMED):
            total += last - start
            start = last = event["at"]
        elif event["event"] not in (FINALIZED, ENDED):
            last = event["at"]
    return total + last - start


def _events(folder: Path) -> list[Event]:
    """The events of a run, none if it has no ledger; UserError if that is damaged."""
    if not (folder / LEDGER).exists():
        return []
    lines = read_lines(folder / LEDGER)
    if lines.damage is not None:
        raise lines.damage
    return lines.events
