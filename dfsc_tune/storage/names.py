"""Names that come from files and become parts of paths: none leads out of its folder."""

from __future__ import annotations

from pathlib import Path, PurePosixPath
from typing import Annotated

from pydantic import AfterValidator

from dfsc_tune.errors import UserError

_MOST_BYTES = 255


def checked_name(name: str) -> str:
    """The name, if it is that of a single file or folder.

    Raises:
        ValueError: it is empty, too long, a path, or leads to the folder itself or the one above.
    """
    if not name or name in (".", "..") or "/" in name or "\0" in name:
        raise ValueError("must be the name of a single file or folder")
    if len(name.encode(errors="surrogatepass")) > _MOST_BYTES:
        raise ValueError(f"must be a name of at most {_MOST_BYTES} bytes")
    return name


def checked_path(path: str) -> str:
    """The path, if it is one below some folder.

    Raises:
        ValueError: it is absolute, leads out of the folder, or has a part that is no name.
    """
    for name in path.split("/"):
        checked_name(name)
    return path


FileName = Annotated[str, AfterValidator(checked_name)]
"""In settings and records: the name of a single file or folder."""
PathBelow = Annotated[str, AfterValidator(checked_path)]
"""In settings and records: a path below some folder."""


def path_below(folder: Path, path: str | PurePosixPath) -> Path:
    """A path below a folder, which neither its names nor a symbolic link lead out of.

    Raises:
        UserError: they do.
    """
    try:
        below = folder / checked_path(str(path))
    except ValueError as error:
        raise UserError(f"'{path}' leads out of the folder {folder}: refused") from error
    if not below.parent.resolve().is_relative_to(folder.resolve()):
        raise UserError(f"{below} leads out of the folder {folder} by a symbolic link: refused")
    return below
