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
image's name, `<category>/ground_truth/<type>/NNN.png`. Whether a defect type is logical or
structural comes from `dataset.yaml` (see `declarations.py`), else from MVTec LOCO's folder names;
else it counts as structural, and a note says so.
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

# The share of good training images held out where there is no validation folder; MVTec LOCO's
# own validation splits are 14 to 16 % of its good images.
VALIDATION_SHARE = 0.15

GOOD_FOLDER = "train/good"
"""Of a category: by it a folder is known as one, on a disk or in an object store."""

_LOCO_FOLDERS: Mapping[str, DefectKind] = {
    "logical_anomalies": "logical",
    "structural_anomalies": "structural",
}


def find_categories(data: Path) -> tuple[str, ...]:
    """The categories in the folder `data`: its folders with a `train/good` inside, sorted.

    Raises UserError where `data` is missing, is itself a category, or has none.
    """
    if not data.is_dir():
        what = "is not a folder" if data.exists() else "does not exist"
        raise UserError(
            f"Data folder '{data}' {what}: give the folder that holds the categories; if a run was "
            "made with it, put it back, or say where it is now by --data."
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
    """The folder of the category `name`. Raises UserError, naming those there are, if missing."""
    folder = data / name
    # Not by the list of all, which takes a while where there are hundreds.
    if name.startswith(".") or folder.parent != data or not _is_category(folder):
        names = ", ".join(find_categories(data))
        raise UserError(f"No category '{name}' in '{data}'; there is {names}.")
    return folder


def read_category(data: Path, name: str, validation_seed: int = 0) -> Category:
    """The images of the category `name` in the folder `data`, split and with their defect types.

    Without a validation folder, VALIDATION_SHARE of the training images is held out, chosen by
    `validation_seed` and file name only. The first mask of each image is read where a
    `defects_config.json` names defects by pixel value; no other image is opened. Raises UserError
    where the category or its good training images are missing, a declaration is wrong, or a mask
    read is broken or not in the config.
    """
    return complete_category(list_category(data, name), validation_seed)


def list_category(data: Path, name: str) -> Category:
    """The category as its folders show it: nothing opened, nothing held out, maybe no images.

    A defect type is the name of its folder here. Raises UserError where the category is missing
    or a declaration is wrong.
    """
    root = category_folder(data, name)
    for folder in ("train", "validation", "test", "ground_truth"):
        if is_broken_link(root / folder):
            raise UserError(f"'{root / folder}' is a link to nothing: mend or delete the link.")
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


def complete_category(category: Category, validation_seed: int = 0) -> Category:
    """A listed category with its fine defect types and its validation images: see `read_category`.

    Raises UserError as `read_category` does, but for what `list_category` has found.
    """
    if not category.train:
        raise UserError(
            f"Category '{category.name}' has no good training images: put some in "
            f"'{category.root / GOOD_FOLDER}'."
        )
    category = _with_fine_defect_types(category)
    return category if category.validation else _with_held_out(category, validation_seed)


def _misplaced(data: Path) -> str:
    """Where images lie instead, no more than two folders deep; empty if there are none."""
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
    """The category with each defect type that a first mask's pixel value names."""
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


def _with_held_out(category: Category, seed: int) -> Category:
    """The category with a share of its training images moved to validation."""
    total = len(category.train)
    if total < 2:
        raise UserError(
            f"Category '{category.name}' has one good training image and no validation folder: "
            f"add good images to '{category.root / 'train' / 'good'}', as one must be held out."
        )

    # By hash of each name, so that adding images barely changes which others are held out.
    def lot(record: ImageRecord) -> bytes:
        return blake2b(f"{seed}:{record.name}".encode()).digest()

    count = max(1, round(VALIDATION_SHARE * total))
    held_out = set(sorted(category.train, key=lot)[:count])
    note = (
        f"there are no validation images, so {count} of the {total} good training images are "
        f"held out for validation, chosen by their names and seed {seed}"
    )
    return replace(
        category,
        train=tuple(record for record in category.train if record not in held_out),
        validation=tuple(record for record in category.train if record in held_out),
        notes=(*category.notes, note),
    )
