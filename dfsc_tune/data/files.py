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
    """Returns a sort key that puts "2.png" before "10.png" and tells "1.png" from "01.png"."""
    parts = re.split(r"([0-9]+)", name)
    return [int(part) if index % 2 else part for index, part in enumerate(parts)], name


def is_image_name(path: Path) -> bool:
    """Returns whether a name is an image's; never for hidden files such as macOS's "._000.png"."""
    return path.suffix.lower() in IMAGE_SUFFIXES and not path.name.startswith(".")


def list_files(folder: Path) -> tuple[Path, ...]:
    """Lists every file directly in `folder`, naturally sorted; empty if there is no such folder.

    A broken link is listed, so that reading it fails rather than leaves a file out in silence.
    Raises UserError for a name that is not text, as `list_images` and `list_folders` do.
    """
    return _children(folder, lambda path: path.is_file() or is_broken_link(path))


def list_images(folder: Path) -> tuple[Path, ...]:
    """Lists the files directly in `folder` with an image's name, naturally sorted."""
    return tuple(path for path in list_files(folder) if is_image_name(path))


def list_folders(folder: Path) -> tuple[Path, ...]:
    """Lists the visible folders directly in `folder`, naturally sorted; empty if it is missing."""
    return tuple(path for path in _children(folder, Path.is_dir) if not path.name.startswith("."))


def check_text(path: Path) -> None:
    """Refuses a path that is not text: neither a table nor a page could hold it."""
    try:
        str(path).encode()
    except UnicodeEncodeError as error:
        raise UserError(f"The name of {str(path)!a} is not UTF-8 text: rename it.") from error


def is_broken_link(path: Path) -> bool:
    """Returns whether the path is a link to nothing, or one that leads back to itself."""
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
    """Applies `function` to each item, in order, over `workers` threads (default: one per CPU).

    Pillow and hashlib release the interpreter lock, so threads are enough. The first error in
    the order of the items is raised, and items not yet begun are dropped.
    """
    with ThreadPoolExecutor(workers or os.cpu_count()) as pool:
        return list(pool.map(function, items))
