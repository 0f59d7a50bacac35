"""Finds categories and their images in folders of the MVTec LOCO or MVTec AD layout.

    MVTec LOCO                                      MVTec AD
    <category>/train/good                           <category>/train/good
    <category>/validation/good
    <category>/test/good                            <category>/test/good
    <category>/test/logical_anomalies/NNN.png       <category>/test/<type>/NNN.png
    <category>/test/structural_anomalies/NNN.png
    <category>/ground_truth/<folder>/NNN/KKK.png    <category>/ground_truth/<type>/NNN_mask.png
    <category>/defects_config.json

Your own categories may follow either: only `train/good` is needed, and a mask may also have its
image's name, `<category>/ground_truth/<type>/NNN.png`. The kind of a defect type, logical or
structural, comes from `dataset.yaml` (see `declarations.py`), else from MVTec LOCO's folder names;
otherwise it counts as structural, and a note says so.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from hashlib import blake2b
from pathlib import Path

from dfsc_tune.data.declarations import (
    DATASET_FILE,
    DEFECTS_CONFIG,
    read_defect_kinds,
    read_defects_config,
)
from dfsc_tune.data.files import is_broken_link, list_folders, list_images, map_in_threads
from dfsc_tune.data.images import safe_workers
from dfsc_tune.data.masks import mask_entry
from dfsc_tune.data.records import Category, DefectKind, ImageRecord, Kind, Layout
from dfsc_tune.errors import UserError

# The share of good training images held out if there is no validation folder; MVTec LOCO's own
# validation splits are 14 to 16 % of its good images.
VALIDATION_SHARE = 0.15

GOOD_FOLDER = "train/good"
"""A folder with this subfolder is a category, on a disk or in an object store."""

_LOCO_FOLDERS: Mapping[str, DefectKind] = {
    "logical_anomalies": "logical",
    "structural_anomalies": "structural",
}


def find_categories(data: Path) -> tuple[str, ...]:
    """Finds the categories in the folder `data`: its folders with a `train/good` inside, sorted.

    Raises UserError if `data` is missing, is itself a category, or has none.
    """
    if not data.is_dir():
        what = "is not a folder" if data.exists() else "does not exist"
        raise UserError(
            f"Data folder '{data}' {what}: give the folder that holds the categories; if a run was "
            "made with it, put it back or give its new path by --data."
        )
    if _is_category(data):
        folder = data.resolve()
        raise UserError(
            f"'{data}' is itself a category: give its parent folder '{folder.parent}' and "
            f"--category {folder.name}."
        )
    names = tuple(folder.name for folder in list_folders(data) if _is_category(folder))
    if not names:
        raise UserError(
            f"No category found in '{data}': a category is a folder with good training images in "
            f"'{data / '<category>' / GOOD_FOLDER}'.{_misplaced(data)}"
        )
    return names


def category_folder(data: Path, name: str) -> Path:
    """Returns the folder of the category `name`; if it is missing, a UserError lists the others."""
    folder = data / name
    # Not by listing all categories, which takes a while if there are hundreds.
    if name.startswith(".") or folder.parent != data or not _is_category(folder):
        names = ", ".join(find_categories(data))
        raise UserError(f"No category '{name}' in '{data}'; choose from {names}.")
    return folder


def read_category(data: Path, name: str) -> Category:
    """Lists the images of the category `name` in the folder `data`, by split, with defect types.

    Without a validation folder, VALIDATION_SHARE of the training images is held out, chosen by file
    name only. If a `defects_config.json` names defects by pixel value, the first mask of each image
    is read; no other image is opened. Raises UserError if the category or its good training images
    are missing, a declaration is wrong, or a mask that is read is broken or not in the config.
    """
    return complete_category(list_category(data, name))


def list_category(data: Path, name: str) -> Category:
    """Lists a category from its folders alone: opens no image, holds nothing out, may be empty.

    A defect type is the name of its folder here. Raises UserError if the category is missing or a
    declaration is wrong.
    """
    root = category_folder(data, name)
    for folder in ("train", "validation", "test", "ground_truth"):
        if is_broken_link(root / folder):
            raise UserError(f"'{root / folder}' is a broken link: repair or delete it.")
    own_kinds = read_defect_kinds(root / DATASET_FILE)
    kinds = {**_LOCO_FOLDERS, **read_defect_kinds(data / DATASET_FILE), **own_kinds}
    defect_types = [folder.name for folder in list_folders(root / "test") if folder.name != "good"]
    test = _records(root, "test", "good", "good")
    for defect_type in defect_types:
        test += _records(root, "test", defect_type, kinds.get(defect_type, "structural"))
    return Category(
        name=name,
        root=root,
        layout=_layout(root),
        train=_records(root, "train", "good", "good"),
        validation=_records(root, "validation", "good", "good"),
        test=test,
        defect_entries=read_defects_config(root / DEFECTS_CONFIG),
        notes=(
            *_undeclared(defect_types, kinds),
            *_declared_in_vain(root / DATASET_FILE, own_kinds, defect_types),
        ),
    )


def complete_category(category: Category) -> Category:
    """Adds fine defect types and validation images to a listed category; see `read_category`.

    Raises the UserErrors of `read_category`, except those of `list_category`.
    """
    if not category.train:
        raise UserError(
            f"Category '{category.name}' has no good training images: put some in "
            f"'{category.root / GOOD_FOLDER}'."
        )
    category = _with_fine_defect_types(category)
    return category if category.validation else _with_held_out(category)


def _misplaced(data: Path) -> str:
    """Returns a sentence on images that lie elsewhere, at most two folders deep; may be empty."""
    outer = list_folders(data)
    for folder in (data, *outer, *(inner for each in outer for inner in list_folders(each))):
        if list_images(folder):
            return f" Images lie in '{folder}' instead: move the good ones there."
    return ""


def _is_category(folder: Path) -> bool:
    return (folder / GOOD_FOLDER).is_dir()


def _layout(root: Path) -> Layout:
    marks = [root / "test" / folder for folder in _LOCO_FOLDERS] + [root / DEFECTS_CONFIG]
    return "loco" if any(mark.exists() for mark in marks) else "mvtec_ad"


def _records(root: Path, split: str, folder: str, kind: Kind) -> tuple[ImageRecord, ...]:
    masks = root / "ground_truth" / folder
    mask_files = {path.stem: path for path in list_images(masks)}

    def masks_of(stem: str) -> tuple[Path, ...]:
        mask_file = mask_files.get(f"{stem}_mask", mask_files.get(stem))
        return list_images(masks / stem) or ((mask_file,) if mask_file else ())

    return tuple(
        ImageRecord(
            path=path,
            name=f"{split}/{folder}/{path.name}",
            kind=kind,
            defect_type=folder,
            mask_paths=() if kind == "good" else masks_of(path.stem),
        )
        for path in list_images(root / split / folder)
    )


def _undeclared(defect_types: list[str], kinds: Mapping[str, DefectKind]) -> list[str]:
    return [
        f"defect type '{defect_type}' is not declared logical or structural, so it counts as "
        f"structural; say otherwise in {DATASET_FILE}"
        for defect_type in defect_types
        if defect_type not in kinds
    ]


def _declared_in_vain(
    path: Path, declared: Mapping[str, DefectKind], defect_types: list[str]
) -> list[str]:
    return [
        f"'{path}' declares defect type '{name}', but there is no folder 'test/{name}'"
        for name in declared
        if name not in defect_types
    ]


def _with_fine_defect_types(category: Category) -> Category:
    """Returns the category with the defect types named by each first mask's pixel value."""
    if not category.defect_entries:
        return category

    def named(record: ImageRecord) -> ImageRecord:
        if not record.mask_paths:
            return record
        return replace(
            record, defect_type=mask_entry(record.mask_paths[0], category.defect_entries).name
        )

    first_masks = [record.mask_paths[0] for record in category.test if record.mask_paths]
    return replace(
        category, test=tuple(map_in_threads(named, category.test, safe_workers(first_masks)))
    )


def _with_held_out(category: Category) -> Category:
    """Returns the category with a share of its training images moved to validation."""
    total = len(category.train)
    if total < 2:
        raise UserError(
            f"Category '{category.name}' has one good training image and no validation folder: "
            f"add good images to '{category.root / 'train' / 'good'}', as one must be held out."
        )

    # By the hash of each name, so that adding images hardly changes which others are held out. The
    # prefix keeps those that earlier versions held out.
    def lot(record: ImageRecord) -> bytes:
        return blake2b(f"0:{record.name}".encode()).digest()

    count = max(1, round(VALIDATION_SHARE * total))
    held_out = set(sorted(category.train, key=lot)[:count])
    note = (
        f"there are no validation images, so {count} of the {total} good training images are "
        "held out for validation, chosen by their names and seed 0"
    )
    return replace(
        category,
        train=tuple(record for record in category.train if record not in held_out),
        validation=tuple(record for record in category.train if record in held_out),
        notes=(*category.notes, note),
    )
