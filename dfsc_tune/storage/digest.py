"""Checks that a file is as it was written: its sha256, the checksums in an archive."""

from __future__ import annotations

import hashlib
import zipfile
from pathlib import Path
from typing import IO

SUMS = "SHA256SUMS"


def file_sha256(path: Path) -> str:
    """Hex digits of a file's sha256; an OSError if it cannot be read."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def write_sums(folder: Path) -> None:
    """Writes `SHA256SUMS`, as `sha256sum` does, of all files in a folder that is complete."""
    files = sorted(path for path in folder.rglob("*") if path.is_file())
    lines = [f"{file_sha256(path)}  {path.relative_to(folder).as_posix()}\n" for path in files]
    (folder / SUMS).write_text("".join(lines), encoding="utf-8")


def has_changed(folder: Path) -> bool:
    """True if a file is missing or differs from the folder's `SHA256SUMS`; false without one."""
    try:
        lines = (folder / SUMS).read_text(encoding="utf-8").splitlines()
        pairs = [line.split("  ", maxsplit=1) for line in lines]
        return any(file_sha256(folder / name) != digest for digest, name in pairs)
    except FileNotFoundError:
        return (folder / SUMS).exists()
    except (OSError, ValueError):
        return True


def check_archive(file: Path | IO[bytes]) -> None:
    """Checks a zip archive, as torch.save and NumPy write them, by the CRC-32 of each member.

    Raises:
        BadZipFile: it is damaged; where it is badly so, zipfile raises nearly any type.
    """
    with zipfile.ZipFile(file) as archive:
        if damaged := archive.testzip():
            raise zipfile.BadZipFile(f"{damaged} has changed")
