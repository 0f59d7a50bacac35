"""Places of files outside runs: the cache, kept files, temporary folders, what is shipped.

A temporary folder is locked by the process that made it. One that died without removing it has lost
its lock, and whoever makes the next one removes what it has left.
"""

from __future__ import annotations

import fcntl
import os
import shutil
import stat
import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

import platformdirs

from dfsc_tune.errors import StorageError, UserError
from dfsc_tune.storage.atomic import check_writable

CACHE = "DFSC_TUNE_CACHE"
"""The environment variable that names the cache folder."""
_NAME = "dfsc_tune"
_SCRATCH = "dfsc_tune-"
_LOCK = ".lock"
_SHORT = "/tmp"
_MOST_BEFORE_SOCKETS = 20
"""Bytes of a temporary folder's path that leave room for Ray's sockets below it: a socket's path
has at most 107, of which Ray takes 64, and a scratch folder and what is below it 23."""


def cache_folder() -> Path:
    """The folder for what is made or fetched once: the one that is named, else the system's.

    Where that cannot be written, as by a container's random user, it is a private one among the
    temporary files.

    Raises:
        UserError: the folder that is named cannot be made, or no other can.
    """
    named = os.environ.get(CACHE)
    if named or os.environ.get("XDG_CACHE_HOME"):
        folder = Path(named or platformdirs.user_cache_dir(_NAME)).absolute()
        try:
            _ensure(folder)
        except (StorageError, PermissionError) as error:
            raise UserError(f"{error}: the environment variable {CACHE} names the cache") from error
        return folder
    return _at_home(platformdirs.user_cache_dir, "cache")


def data_folder() -> Path:
    """The folder for what this user has fetched to keep; a private temporary one without a home."""
    return _at_home(platformdirs.user_data_dir, "data")


def _at_home(folder_of: Callable[[str], str], kind: str) -> Path:
    """A folder in this user's home; a private one among the temporary files if there is none."""
    try:
        # A user may have no home at all.
        Path.home()
        folder = Path(folder_of(_NAME))
        _ensure(folder)
    except (StorageError, PermissionError, RuntimeError):
        return _private(temporary_folder() / f"{_NAME}_{kind}_{os.geteuid()}")
    return folder


def _ensure(folder: Path) -> None:
    # One that is there may be filled and closed, as in a container's image.
    if not folder.is_dir():
        check_writable(folder)


def _private(folder: Path) -> Path:
    """A folder that only this user can enter, made if need be."""
    with suppress(FileExistsError):
        folder.mkdir(mode=0o700)
    if not _is_own_folder(folder):
        raise UserError(
            f"{folder} belongs to somebody else; name a folder for the cache in {CACHE}"
        )
    folder.chmod(0o700)
    return folder


def temporary_folder() -> Path:
    """The folder for temporary files; UserError if there is none."""
    try:
        return Path(tempfile.gettempdir())
    except FileNotFoundError as error:
        raise UserError(
            "no folder for temporary files can be written to here; name one in TMPDIR"
        ) from error


@contextmanager
def scratch_folder(*, for_sockets: bool = False) -> Iterator[Path]:
    """A folder that only this user can enter, for the time of the block.

    Args:
        for_sockets: whether its path must leave room for those of sockets below it.

    Raises:
        UserError: there is no place for it.
    """
    base = temporary_folder()
    if for_sockets and len(os.fsencode(base)) > _MOST_BEFORE_SOCKETS:
        base = _short_instead_of(base)
    _remove_leftovers(base)
    folder, lock = _made(base)
    try:
        yield folder
    finally:
        shutil.rmtree(folder, ignore_errors=True)
        os.close(lock)


def _short_instead_of(base: Path) -> Path:
    if os.access(_SHORT, os.W_OK | os.X_OK):
        return Path(_SHORT)
    raise UserError(
        f"the path of the folder for temporary files, {base}, is too long for sockets, and "
        f"{_SHORT} cannot be written to; name one of at most {_MOST_BEFORE_SOCKETS} characters in "
        "TMPDIR"
    )


def _made(base: Path) -> tuple[Path, int]:
    while True:
        try:
            folder = Path(tempfile.mkdtemp(prefix=_SCRATCH, dir=base))
        except OSError as error:
            raise StorageError(
                f"cannot write to the folder for temporary files, {base} ({error.strerror}); name "
                "another in TMPDIR"
            ) from error
        # Another process may have taken it for a leftover before it was locked.
        if (lock := _lock(folder)) is not None:
            return folder, lock


def _remove_leftovers(base: Path) -> None:
    for folder in base.glob(f"{_SCRATCH}*"):
        with suppress(OSError):
            if _is_own_folder(folder) and (lock := _lock(folder)) is not None:
                shutil.rmtree(folder, ignore_errors=True)
                os.close(lock)


def _lock(folder: Path) -> int | None:
    """A descriptor that keeps a folder locked; None if another process does, or it is gone."""
    try:
        lock = os.open(folder / _LOCK, os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW, 0o600)
    except FileNotFoundError:
        return None
    try:
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        if os.path.samestat(os.fstat(lock), (folder / _LOCK).lstat()):
            return lock
    except (BlockingIOError, FileNotFoundError):
        pass
    os.close(lock)
    return None


def _is_own_folder(folder: Path) -> bool:
    status = folder.lstat()
    return stat.S_ISDIR(status.st_mode) and status.st_uid == os.geteuid()


def shipped_folder(name: str) -> Path:
    """Returns a folder of files that come with the package, such as `search_spaces`."""
    # An installed package contains the folder; a checkout has it at its top.
    package = Path(__file__).parents[1]
    installed = package / name
    return installed if installed.is_dir() else package.parent / name
