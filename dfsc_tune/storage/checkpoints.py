"""Checkpoints of a training: saved whole, the one before kept, the newest whole one loaded."""

from __future__ import annotations

import io
import os
import pickle
from contextlib import suppress
from pathlib import Path
from typing import Any

import torch

from dfsc_tune.errors import StorageError, UserError
from dfsc_tune.storage.atomic import atomic_path


def save(path: Path, state: dict[str, Any]) -> None:
    """Writes a tree of tensors and plain values, whole or not at all, also if the power fails."""
    # Through memory, for torch's own writing of files tells a full disk from a bug in no way.
    buffer = io.BytesIO()
    torch.save(state, buffer)
    with atomic_path(path) as temporary, temporary.open("wb") as file:
        file.write(buffer.getbuffer())
        file.flush()
        os.fsync(file.fileno())


def load(path: Path, if_damaged: str = "delete it to start anew") -> dict[str, Any]:
    """Reads what `save` wrote, onto the CPU.

    Args:
        path: the file.
        if_damaged: what its user can then do.

    Raises:
        UserError: the file is damaged; as a StorageError, it cannot be read at all.
    """
    try:
        state: dict[str, Any] = torch.load(path, map_location="cpu", weights_only=True)
    except OSError as error:
        raise StorageError(f"cannot read the checkpoint {path} ({error.strerror})") from error
    except (RuntimeError, EOFError, ValueError, pickle.UnpicklingError) as error:
        raise UserError(f"the checkpoint {path} is damaged; {if_damaged}") from error
    return state


def save_next(path: Path, state: dict[str, Any]) -> None:
    """Like `save`, and keeps what was there before as the file to fall back on."""
    coming = path.with_suffix(f".next{path.suffix}")
    save(coming, state)
    # A worker that was given up for lost may still write here: what it moves away is as good.
    for old, new in ((path, previous(path)), (coming, path)):
        with suppress(FileNotFoundError):
            old.replace(new)
    folder = os.open(path.parent, os.O_RDONLY)
    os.fsync(folder)
    os.close(folder)


def load_newest(path: Path) -> dict[str, Any] | None:
    """The newest whole one of the two states that `save_next` keeps; None if there is none."""
    for candidate in (path, previous(path)):
        try:
            if candidate.exists():
                return load(candidate)
        except StorageError:
            # It may be whole all the same: beginning anew would throw it away.
            raise
        except UserError:
            continue
    return None


def previous(path: Path) -> Path:
    """Where `save_next` keeps the state before the last."""
    return path.with_suffix(f".previous{path.suffix}")
