"""Describes the files in folders of images that are not read."""

from __future__ import annotations

import os
from collections.abc import Iterator, Sequence
from pathlib import Path

from dfsc_tune.data.files import is_image_name, list_files, list_folders, list_images
from dfsc_tune.data.records import Category

# Formats of phones and cameras that Pillow does not read.
_UNREAD_PHOTOGRAPHS = {".heic", ".heif", ".arw", ".cr2", ".cr3", ".dng", ".nef", ".orf", ".raf"}


def describe_misplaced(category: Category) -> Iterator[str]:
    """Yields a sentence for each folder that is empty, unused or holds files that are not read.

    Masks without an anomalous test image of their name are among these files.
    """
    for split in ("train", "validation", "test"):
        yield from _misplaced_of_split(category.root / split)
    used = {os.path.realpath(path) for record in category.test for path in record.mask_paths}
    for folder in _folders_below(category.root / "ground_truth"):
        if unused := [x for x in list_images(folder) if os.path.realpath(x) not in used]:
            name = folder.relative_to(category.root).as_posix()
            yield _not_read(name, unused) + (
                "no anomalous test image has a mask of that name; the mask of image NNN is "
                "NNN.png, NNN_mask.png or in the folder NNN"
            )


def describe_unread(folder: Path, name: str) -> Iterator[str]:
    """Yields a sentence for each kind of file in a folder of images that is not read.

    Args:
        folder: the folder.
        name: its name in the sentences.
    """
    files = [path for path in list_files(folder) if not is_image_name(path)]
    photographs = [path for path in files if path.suffix.lower() in _UNREAD_PHOTOGRAPHS]
    others = [path for path in files if path not in photographs]
    if photographs:
        yield _not_read(name, photographs) + "save photographs of that format as JPEG or PNG"
    if others:
        yield _not_read(name, others) + "their names are not those of image files"
    if inner := list_folders(folder):
        yield f"folders inside '{name}', such as '{inner[0].name}', are not read"


def _misplaced_of_split(split: Path) -> Iterator[str]:
    if files := list_files(split):
        yield _not_read(split.name, files) + "images belong one folder lower"
    for folder in list_folders(split):
        name = f"{split.name}/{folder.name}"
        if split.name != "test" and folder.name != "good":
            yield f"folder '{name}' is not read: only '{split.name}/good' is"
        else:
            if not list_images(folder):
                yield f"folder '{name}' has no images"
            yield from describe_unread(folder, name)


def _not_read(name: str, files: Sequence[Path]) -> str:
    if len(files) == 1:
        return f"'{name}/{files[0].name}' is not read: "
    return f"{len(files)} files in '{name}', such as '{files[0].name}', are not read: "


def _folders_below(folder: Path) -> Iterator[Path]:
    """Yields the folder and all folders inside it, each once even if links lead back."""
    waiting, seen = [folder], set()
    while waiting:
        found = waiting.pop()
        if (real := os.path.realpath(found)) not in seen:
            seen.add(real)
            yield found
            waiting += reversed(list_folders(found))
