"""Describes what lies in a category's folders and is not read."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path

from dfsc_tune.data.files import is_image_name, list_files, list_folders
from dfsc_tune.data.records import Category

# What phones and cameras write and Pillow does not read.
_UNREAD_PHOTOGRAPHS = {".heic", ".heif", ".arw", ".cr2", ".cr3", ".dng", ".nef", ".orf", ".raf"}


def describe_misplaced(category: Category) -> Iterator[str]:
    """A sentence for each folder that is empty, unused or holds what is not read, and each mask.

    A mask is a misplaced where no anomalous test image has its name.
    """
    for split in ("train", "validation", "test"):
        yield from _misplaced_of_split(category.root / split)
    used = {path for record in category.test for path in record.mask_paths}
    for path in _images_below(category.root / "ground_truth"):
        if path not in used:
            name = path.relative_to(category.root).as_posix()
            yield (
                f"mask '{name}' belongs to no anomalous test image: of image NNN it is NNN.png, "
                "NNN_mask.png or in the folder NNN"
            )


def _misplaced_of_split(split: Path) -> Iterator[str]:
    if files := list_files(split):
        yield _not_read(split.name, files) + "images go one folder lower"
    for folder in list_folders(split):
        name = f"{split.name}/{folder.name}"
        if split.name != "test" and folder.name != "good":
            yield f"folder '{name}' is not read: only '{split.name}/good' is"
        else:
            yield from _misplaced_of_folder(folder, name)


def _misplaced_of_folder(folder: Path, name: str) -> Iterator[str]:
    files = list_files(folder)
    images = [path for path in files if is_image_name(path)]
    photographs = [path for path in files if path.suffix.lower() in _UNREAD_PHOTOGRAPHS]
    others = [path for path in files if path not in (*images, *photographs)]
    if not images:
        yield f"folder '{name}' has no images"
    if photographs:
        yield _not_read(name, photographs) + "save photographs of that format as JPEG or PNG"
    if others:
        yield _not_read(name, others) + "not image files by their names"
    if inner := list_folders(folder):
        yield f"folders inside '{name}', such as '{inner[0].name}', are not read"


def _not_read(name: str, files: Sequence[Path]) -> str:
    if len(files) == 1:
        return f"'{name}/{files[0].name}' is not read: "
    return f"{len(files)} files in '{name}', such as '{files[0].name}', are not read: "


def _images_below(folder: Path) -> Iterator[Path]:
    yield from (path for path in list_files(folder) if is_image_name(path))
    for inner in list_folders(folder):
        yield from _images_below(inner)
