"""Whether a file is as it was written: its sha256, the checksums in an archive."""

from __future__ import annotations

import hashlib
import zipfile
from pathlib import Path
from typing import IO


def file_sha256(path: Path) -> str:
    """Hex digits of a file's sha256; an OSError if it cannot be read."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def check_archive(file: Path | IO[bytes]) -> None:
    """Checks a zip archive, as torch.save and NumPy write them, by the CRC-32 of each member.

    Raises:
        BadZipFile: it is damaged; where it is badly so, zipfile raises nearly any type.
    """
    with zipfile.ZipFile(file) as archive:
        if damaged := archive.testzip():
            raise zipfile.BadZipFile(f"{damaged} has changed")
