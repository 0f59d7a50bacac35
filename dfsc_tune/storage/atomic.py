"""Writes files so that a reader never sees half of one."""

from __future__ import annotations

import errno
import os
import re
import secrets
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from dfsc_tune.errors import StorageError, UserError

_DISK_ERRORS = {errno.ENOSPC, errno.EDQUOT, errno.EFBIG, errno.EIO, errno.EROFS, errno.ESTALE}
_TEMPORARY = re.compile(r"\.[0-9a-f]{16}\.part")

_TEMPORARY = re.compile(r"\.[0-9a-f]{16}\.part")


def check_writable(folder: Path) -> None:
    """Makes a folder if need be; StorageError if it cannot be made or written to."""
    try:
        folder.mkdir(parents=True, exist_ok=True)
        tempfile.TemporaryFile(dir=folder).close()
    except OSError as error:
        raise StorageError(
            f"cannot write to the folder {folder} ({error.strerror or error}); choose another"
        ) from error


def is_unfinished(path: Path) -> bool:
    """True for the temporary file of an `atomic_path` whose process died."""
    return bool(_TEMPORARY.fullmatch(path.name)) and path.is_file()


@contextmanager
def atomic_path(path: Path) -> Iterator[Path]:
    """A temporary path beside `path` that takes its place when the block ends without an error.

    Raises:
        UserError: a folder has that name.
        StorageError: the folder cannot be written to, or the disk fails within the block.
    """
    if path.is_dir():
        raise UserError(f"cannot write the file {path}: a folder has that name; choose another")
    check_writable(path.parent)
    # Not named after the file: a name may be as long as names may be.
    temporary = path.with_name(f".{secrets.token_hex(8)}.part")
    # Not by mkstemp, which makes private files: what a run leaves is for all whom the umask allows.
    os.close(os.open(temporary, os.O_CREAT | os.O_EXCL | os.O_WRONLY, 0o666))
    try:
        yield temporary
        temporary.replace(path)
    except OSError as error:
        if error.errno in _DISK_ERRORS:
            raise StorageError(f"cannot write {path} ({os.strerror(error.errno)})") from error
        raise
    finally:
        temporary.unlink(missing_ok=True)


def remove_unfinished(folder: Path) -> None:
    """Removes the temporary files of `atomic_path` that a killed process left below a folder."""
    for path in folder.rglob(".*.part"):
        if _TEMPORARY.fullmatch(path.name) and not path.is_dir():
            path.unlink(missing_ok=True)


def write_text(path: Path, text: str) -> None:
    """Writes a whole text file or nothing."""
    with atomic_path(path) as temporary:
        temporary.write_text(text, encoding="utf-8")
