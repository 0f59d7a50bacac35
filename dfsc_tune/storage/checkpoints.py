"""Checkpoints of a training: saved whole, checked when read, the one before to fall back on."""

from __future__ import annotations

import io
import os
import secrets
from collections.abc import Callable
from contextlib import suppress
from functools import partial
from pathlib import Path
from typing import Any, TypeVar

import torch

from dfsc_tune.errors import StorageError, UserError
from dfsc_tune.storage.atomic import atomic_path
from dfsc_tune.storage.digest import check_archive

Begun = TypeVar("Begun")
Taken = TypeVar("Taken")

_NO_MEMORY = "DefaultCPUAllocator"
"""How torch begins the text of a RuntimeError where the machine's memory does not suffice."""


def save(path: Path, state: dict[str, Any]) -> None:
    """Writes a tree of tensors and plain values, whole or not at all, also if the power fails."""
    # Through memory, for torch's own writing of files tells a full disk from a bug in no way.
    buffer = io.BytesIO()
    torch.save(state, buffer)
    with atomic_path(path) as temporary, temporary.open("wb") as file:
        file.write(buffer.getbuffer())
        file.flush()
        os.fsync(file.fileno())


def load(
    path: Path,
    take: Callable[[dict[str, Any]], Taken],
    if_damaged: str = "delete it to start anew",
) -> Taken:
    """Returns what `take` makes of the state that `save` wrote.

    Args:
        path: the file.
        take: given the state, on the CPU; what it raises says that the state is not its own, but
            for errors of memory and device. So it does nothing else that may fail.
        if_damaged: what the file's user can then do.

    Raises:
        UserError: the file is damaged or another training's; as a StorageError, it cannot be read
            at all.
        MemoryError: there is too little for it; torch has its own RuntimeErrors for that and for a
            device that fails.
    """
    try:
        content = path.read_bytes()
    except OSError as error:
        raise StorageError(f"cannot read the checkpoint {path} ({error.strerror})") from error
    try:
        # torch writes checksums and does not look at them.
        check_archive(io.BytesIO(content))
        return take(torch.load(io.BytesIO(content), map_location="cpu", weights_only=True))
    except (MemoryError, torch.OutOfMemoryError, torch.AcceleratorError):
        raise
    except Exception as error:  # On what it did not write, torch raises nearly any type.
        if _NO_MEMORY in str(error):
            raise
        raise UserError(
            f"the checkpoint {path} is damaged or not of this training; {if_damaged}"
        ) from error


def save_next(path: Path, state: dict[str, Any]) -> None:
    """Like `save`, and keeps what was there before as the file to fall back on."""
    coming = path.with_suffix(f".next{path.suffix}")
    for place in (path, previous(path), coming):
        if place.is_dir():
            # No file takes a folder's place; what is in it is not ours to delete.
            place.replace(place.with_name(f"{place.name}.{secrets.token_hex(4)}"))
    save(coming, state)
    # A worker that was given up for lost may still write here: what it moves away is as good.
    for old, new in ((path, previous(path)), (coming, path)):
        with suppress(FileNotFoundError):
            old.replace(new)
    folder = os.open(path.parent, os.O_RDONLY)
    os.fsync(folder)
    os.close(folder)


def load_newest(
    path: Path,
    begin: Callable[[], Begun],
    restore: Callable[[Begun, dict[str, Any]], Taken],
    note: Callable[[str], None],
) -> tuple[Begun, Taken | None]:
    """Begins a training and restores the newest good one of the two states of `save_next` to it.

    Args:
        path: as given to `save_next`.
        begin: makes a new training; called anew for each state, for restoring may fail half-way.
            Its errors are passed on: they say nothing about the file.
        restore: given the training and a state, as `take` in `load`.
        note: told if a state is not good, and what is done instead.

    Returns:
        The training, and what `restore` made of the state; None if there is no good one.
    """
    damaged = None
    for candidate in (path, previous(path)):
        if not candidate.exists():
            continue
        try:
            restored = _restored(candidate, begin, restore)
        except StorageError:
            # It may be whole all the same: beginning anew would throw it away.
            raise
        except UserError:
            damaged = damaged or candidate
            continue
        if damaged:
            note(f"{_damaged(damaged)}, so the training goes on from the one before it")
        return restored
    if damaged:
        note(f"{_damaged(damaged)}, so the training begins anew")
    return begin(), None


def _restored(
    path: Path, begin: Callable[[], Begun], restore: Callable[[Begun, dict[str, Any]], Taken]
) -> tuple[Begun, Taken]:
    if path.is_dir():
        raise UserError(f"{path} is a folder")
    training = begin()
    return training, load(path, partial(restore, training))


def _damaged(path: Path) -> str:
    return f"the checkpoint {path} is damaged or not of this training"


def previous(path: Path) -> Path:
    """Returns the path of the state before the last, which `save_next` keeps."""
    return path.with_suffix(f".previous{path.suffix}")
