"""The token that lets a process into a cluster: made here, shipped to the nodes, offered by Ray."""

from __future__ import annotations

import os
import secrets
import stat
from contextlib import suppress
from pathlib import Path

from dfsc_tune.errors import UserError

TOKEN, MODE = "RAY_AUTH_TOKEN", "RAY_AUTH_MODE"


def ensure_token() -> Path:
    """The file of this user's token, made if there is none; only its owner can read it.

    Raises:
        UserError: there is no home folder for it, or it is somebody else's.
    """
    path = _path()
    if path is None:
        raise UserError("this user has no home folder to keep a cluster's token in; set HOME")
    path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
    if not _close(path.parent, 0o700):
        raise _not_own(path.parent)
    if not path.is_file() or not path.read_text(encoding="utf-8").strip():
        # In place of a link or another's file, never through it.
        path.unlink(missing_ok=True)
        handle = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
        with os.fdopen(handle, "w", encoding="utf-8") as file:
            file.write(secrets.token_hex(32))
    if not _close(path, 0o600):
        raise _not_own(path)
    return path


def offer_token() -> None:
    """Has Ray offer this user's token, if there is one, to the cluster that it talks to next.

    The mode that the environment names already is kept. A token that others could read, as Ray
    makes it, is closed to them.
    """
    path = _path()
    # Another user's home may be closed to this one.
    with suppress(OSError):
        if path is not None and path.is_file():
            _close(path, 0o600)
            os.environ.setdefault(MODE, "token")
    if TOKEN in os.environ or f"{TOKEN}_PATH" in os.environ:
        os.environ.setdefault(MODE, "token")


def new_token() -> str:
    """A token that nobody knows yet."""
    return secrets.token_hex(32)


def _close(path: Path, mode: int) -> bool:
    """Takes from others what they may do with a file or folder; False if it is not this user's."""
    status = path.stat()
    if status.st_uid != os.geteuid():
        return False
    if stat.S_IMODE(status.st_mode) & ~mode:
        path.chmod(mode)
    return True


def _not_own(path: Path) -> UserError:
    return UserError(f"{path} belongs to another user, who could read the token; delete or move it")


def _path() -> Path | None:
    """The place where Ray looks for it; None for a user without a home."""
    try:
        return Path.home() / ".ray" / "auth_token"
    except RuntimeError:
        return None
