"""Places of files outside runs: the cache, kept files, temporary folders, what is shipped.

The process that makes a temporary folder locks a file in it that says so. One that died without
removing the folder has lost the lock; whoever makes the next one on the same machine removes it.
"""

from __future__ import annotations

import fcntl
import os
import platform
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
_DATA = "XDG_DATA_HOME"
_SCRATCH = ".dfsc_tune_"
_LOCK = ".lock"
_RAY = "RAY_TMPDIR"
_SHORT = "/tmp"
_MOST_BEFORE_SOCKETS = 19
"""Bytes of a temporary folder's path that leave room for Ray's sockets below it: a socket's path
has at most 107, of which Ray takes 64, and a scratch folder and what is below it 24."""


def cache_folder() -> Path:
    """Returns the folder for what is made or fetched once: the one named, else the system's.

    Where that cannot be written, as by a container's random user, it is a private one among the
    temporary files.

    Raises:
        UserError: the folder that is named cannot be made, or no other can.
    """
    if named := os.environ.get(CACHE):
        return _named(Path(named), CACHE)
    return _made_for_user(platformdirs.user_cache_dir, "cache", "XDG_CACHE_HOME", CACHE)


def data_folder() -> Path:
    """Returns the folder for what this user fetches to keep, made if need be.

    Raises:
        UserError: the folder that is named cannot be made, or no other can.
    """
    return _made_for_user(platformdirs.user_data_dir, "data", _DATA, _DATA)


def found_data_folder() -> Path | None:
    """Returns the folder that `data_folder` made; None if it is not there. Makes nothing."""
    with suppress(OSError, RuntimeError):
        if not _is_set(_DATA):
            Path.home()
        if (folder := Path(platformdirs.user_data_dir(_NAME)).absolute()).is_dir():
            return folder
    with suppress(OSError, UserError):
        if not _is_set(_DATA) and _is_own_folder(folder := _private_path("data")):
            return folder
    return None


def _made_for_user(folder_of: Callable[[str], str], kind: str, variable: str, way_out: str) -> Path:
    """Makes the folder under the variable's, or at home; if there is none, a private temporary one.

    Args:
        folder_of: platformdirs' function.
        kind: "cache" or "data".
        variable: the one that platformdirs reads.
        way_out: the variable to set where no folder can be made.
    """
    if _is_set(variable):
        return _named(Path(folder_of(_NAME)), variable)
    try:
        # A user may have no home at all.
        Path.home()
        folder = Path(folder_of(_NAME))
        _ensure(folder)
    except (StorageError, PermissionError, RuntimeError):
        return _private(_private_path(kind), f"name another {kind} folder in {way_out}")
    return folder


def _is_set(variable: str) -> bool:
    return bool(os.environ.get(variable, "").strip())


def _named(folder: Path, variable: str) -> Path:
    folder = folder.absolute()
    try:
        _ensure(folder)
    except (StorageError, PermissionError) as error:
        raise UserError(f"{error}: the environment variable {variable} names it") from error
    return folder


def _ensure(folder: Path) -> None:
    # One that is there may be filled and closed, as in a container's image.
    if not folder.is_dir():
        check_writable(folder)


def _private_path(kind: str) -> Path:
    return temporary_folder() / f"{_NAME}_{kind}_{os.geteuid()}"


def _private(folder: Path, way_out: str) -> Path:
    """A folder that only this user can enter, made if need be."""
    with suppress(FileExistsError):
        folder.mkdir(mode=0o700)
    if not _is_own_folder(folder):
        raise UserError(f"{folder} belongs to somebody else; {way_out}")
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
    base = _base_for_sockets() if for_sockets else temporary_folder()
    _remove_leftovers(base)
    try:
        folder = Path(tempfile.mkdtemp(prefix=_SCRATCH, dir=base))
    except OSError as error:
        raise StorageError(
            f"cannot write to the folder for temporary files, {base} ({error.strerror}); name "
            "another in TMPDIR"
        ) from error
    try:
        with _locked(folder):
            yield folder
    finally:
        shutil.rmtree(folder, ignore_errors=True)


def _base_for_sockets() -> Path:
    """Returns the folder that RAY_TMPDIR names, else that for temporary files, else /tmp."""
    if _is_set(_RAY):
        named = _named(Path(os.environ[_RAY]), _RAY)
        if _is_short(named):
            return named
        raise UserError(
            f"the path that the environment variable {_RAY} names, {named}, is too long for "
            f"sockets; name one of at most {_MOST_BEFORE_SOCKETS} characters"
        )
    base = temporary_folder()
    if _is_short(base):
        return base
    if os.access(_SHORT, os.W_OK | os.X_OK):
        return Path(_SHORT)
    raise UserError(
        f"the path of the folder for temporary files, {base}, is too long for sockets, and "
        f"{_SHORT} cannot be written to; name one of at most {_MOST_BEFORE_SOCKETS} characters in "
        f"{_RAY} or TMPDIR"
    )


def _is_short(path: Path) -> bool:
    return len(os.fsencode(path)) <= _MOST_BEFORE_SOCKETS


def _marker() -> bytes:
    # A lock may hold on its own machine only, though others see the folder.
    return f"a temporary folder of dfsc_tune on {platform.node()}\n".encode()


@contextmanager
def _locked(folder: Path) -> Iterator[None]:
    """Keeps a new folder from being taken for a leftover.

    Its lock file appears locked and whole. Where files cannot be locked there is none, and nobody
    removes the folder but its own process.
    """
    unfinished = folder / f"{_LOCK}.part"
    try:
        file = unfinished.open("xb")
    except OSError as error:
        raise StorageError(
            f"cannot write to the temporary folder {folder} ({error.strerror}); name another place "
            "in TMPDIR"
        ) from error
    with file:
        with suppress(OSError):
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
            file.write(_marker())
            file.flush()
            unfinished.replace(folder / _LOCK)
        yield


def _remove_leftovers(base: Path) -> None:
    for folder in base.glob(f"{_SCRATCH}*"):
        with suppress(OSError):
            if _is_own_folder(folder):
                _remove_if_left(folder)


def _remove_if_left(folder: Path) -> None:
    """Removes a folder whose lock file is ours and locked by no process; else an OSError."""
    lock = os.open(folder / _LOCK, os.O_RDWR | os.O_NOFOLLOW | os.O_NONBLOCK)
    try:
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        if os.pread(lock, len(_marker()) + 1, 0) == _marker():
            shutil.rmtree(folder, ignore_errors=True)
    finally:
        os.close(lock)


def _is_own_folder(folder: Path) -> bool:
    status = folder.lstat()
    return stat.S_ISDIR(status.st_mode) and status.st_uid == os.geteuid()


def shipped_folder(name: str) -> Path:
    """Returns a folder of files that come with the package, such as `search_spaces`."""
    # An installed package contains the folder; a checkout has it at its top.
    package = Path(__file__).parents[1]
    installed = package / name
    return installed if installed.is_dir() else package.parent / name
