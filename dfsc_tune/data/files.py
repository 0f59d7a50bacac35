"""Lists folders and image files in one order on every file system, and maps over them."""

from __future__ import annotations

import os
import re
from collections.abc import Callable, Iterable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import TypeVar

from dfsc_tune.errors import UserError

_BITMAP_SUFFIXES = {".bmp", ".pbm", ".pgm", ".png", ".pnm", ".ppm", ".tga", ".tif", ".tiff"}
_CODED_SUFFIXES = {".avif", ".gif", ".jfif", ".jp2", ".jpeg", ".jpg", ".webp"}
IMAGE_SUFFIXES = frozenset(_BITMAP_SUFFIXES | _CODED_SUFFIXES)

_Item = TypeVar("_Item")
_Result = TypeVar("_Result")


def natural_key(name: str) -> tuple[list[str | int], str]:
    """A sort key that puts "2.png" before "10.png", and "1.png" apart from "01.png"."""
    parts = re.split(r"([0-9]+)", name)
    return [int(part) if index % 2 else part for index, part in enumerate(parts)], name


def is_image_name(path: Path) -> bool:
    """Whether the name says image; hidden files, such as macOS's "._000.png", never do."""
    return path.suffix.lower() in IMAGE_SUFFIXES and not path.name.startswith(".")


def list_files(folder: Path) -> tuple[Path, ...]:
    """Every file directly in `folder`, naturally sorted; empty where there is no such folder.

    A link to nothing counts: who reads it is told, rather than served fewer files in silence.
    Raises UserError for a name that is no text, as `list_images` and `list_folders` do.
    """
    return _children(folder, lambda path: path.is_file() or is_broken_link(path))


def list_images(folder: Path) -> tuple[Path, ...]:
    """The files directly in `folder` that `is_image_name`, naturally sorted."""
    return tuple(path for path in list_files(folder) if is_image_name(path))


def list_folders(folder: Path) -> tuple[Path, ...]:
    """The visible folders directly in `folder`, naturally sorted; empty where it is missing."""
    return tuple(path for path in _children(folder, Path.is_dir) if not path.name.startswith("."))


def check_text(path: Path) -> None:
    """Refuses a path that is no text: neither a table nor a page could hold it."""
    try:
        str(path).encode()
    except UnicodeEncodeError as error:
        raise UserError(f"The name of {str(path)!a} is no UTF-8 text: rename it.") from error


def is_broken_link(path: Path) -> bool:
    """Whether the path is a link to nothing, or one that leads back to itself."""
    return path.is_symlink() and not path.exists()


def _children(folder: Path, wanted: Callable[[Path], bool]) -> tuple[Path, ...]:
    if not folder.is_dir():
        return ()
    found = [path for path in folder.iterdir() if wanted(path)]
    for path in found:
        check_text(path)
    return tuple(sorted(found, key=lambda path: natural_key(path.name)))


def map_in_threads(
    function: Callable[[_Item], _Result], items: Iterable[_Item], workers: int | None = None
) -> list[_Result]:
    """`function` of each item, in order, over `workers` threads (default: one a CPU).

    Pillow and hashlib release the interpreter lock, so threads are enough. The first error in
    the order of the items is raised, and items not yet begun are dropped.
    """
    with ThreadPoolExecutor(workers or os.cpu_count()) as pool:
        return list(pool.map(function, items))
