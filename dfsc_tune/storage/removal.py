"""Removes what lies below a folder, and never anything else."""

from __future__ import annotations

import shutil
from pathlib import Path, PurePosixPath

from dfsc_tune.storage.names import path_below


def remove_below(folder: Path, path: str | PurePosixPath) -> None:
    """Removes a file, a link (not what it leads to) or a folder, if it is there.

    What of a folder cannot be removed stays.

    Args:
        folder: all that is removed lies in it.
        path: relative to it.

    Raises:
        UserError: the path leads out of the folder.
        OSError: a file cannot be removed.
    """
    below = path_below(folder, path)
    if below.is_dir() and not below.is_symlink():
        shutil.rmtree(below, ignore_errors=True)
    else:
        below.unlink(missing_ok=True)
