"""Checks image folders: what they hold, what must be mended, and what is worth knowing."""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
from PIL import Image

from dfsc_tune.data.files import map_in_threads
from dfsc_tune.data.fingerprint import content_digest
from dfsc_tune.data.images import flatten, open_upright, safe_workers
from dfsc_tune.data.layout import category_folder, complete_category, find_categories, list_category
from dfsc_tune.data.masks import read_mask
from dfsc_tune.data.misplaced import describe_misplaced
from dfsc_tune.data.records import Category, ImageRecord, Kind, Layout
from dfsc_tune.errors import UserError


@dataclass(frozen=True)
class ImageCount:
    """How many images of one defect type a split has."""

    # "train", "validation" or "test"; held-out images count as validation.
    split: str
    kind: Kind
    defect_type: str
    images: int


@dataclass(frozen=True)
class SizeCount:
    """How many images have one upright size, in pixels."""

    height: int
    width: int
    images: int


@dataclass(frozen=True)
class CategoryCheck:
    """What the check of one category found."""

    name: str
    layout: Layout | None
    counts: tuple[ImageCount, ...]
    # The most frequent size first.
    sizes: tuple[SizeCount, ...]
    # What must be mended before a search, one sentence each.
    problems: tuple[str, ...]
    # What is worth knowing and may stay.
    notes: tuple[str, ...]


@dataclass(frozen=True)
class _Seen:
    """What opening one image file and its masks showed."""

    record: ImageRecord
    split: str
    digest: str = ""
    # Height and width; None where the file is broken.
    size: tuple[int, int] | None = None
    is_grey: bool = False
    # What is odd of its pixels, as the end of "3 of 9 images …".
    oddities: tuple[str, ...] = ()
    # The largest grey value of a 16-bit image.
    peak: int | None = None
    problems: tuple[str, ...] = ()


def check_data(data: Path, names: Sequence[str] | None = None) -> tuple[CategoryCheck, ...]:
    """The checks of the categories `names` (default: all) in the folder `data`.

    Every image and mask is decoded, by a thread a CPU. Raises UserError only where `data` or a
    category named is missing, or `data` holds no category.
    """
    for name in names or ():
        category_folder(data, name)
    return tuple(check_category(data, name) for name in names or find_categories(data))


def check_category(data: Path, name: str) -> CategoryCheck:
    """The check of one category of the folder `data`, as `check_data` makes it."""
    try:
        listed = list_category(data, name)
    except UserError as error:
        return CategoryCheck(name, None, (), (), (str(error),), ())
    category, problems = listed, []
    try:
        category = complete_category(listed)
    except UserError as error:
        problems.append(str(error))
    seen = map_in_threads(
        lambda item: _look_at(item[1], item[0], listed),
        [(split, record) for split, records in listed.splits.items() for record in records],
        safe_workers([record.path for record in listed.records]),
    )
    problems += [problem for one in seen for problem in one.problems]
    twins, contradictions = _twins(seen)
    return CategoryCheck(
        name=name,
        layout=category.layout,
        counts=_count_images(category),
        sizes=_count_sizes(seen),
        # A broken mask is met twice where it also names the defect type.
        problems=tuple(dict.fromkeys([*problems, *contradictions, *_missing_good(listed)])),
        notes=(
            *category.notes,
            *_idle_good(listed),
            *_pixel_notes(seen),
            *twins,
            *_mask_notes(listed),
            *describe_misplaced(listed),
        ),
    )


def _look_at(record: ImageRecord, split: str, category: Category) -> _Seen:
    try:
        digest = content_digest(record.path)
        with open_upright(record.path) as image:
            flat = flatten(image, record.path)
            seen = _Seen(
                record,
                split,
                digest,
                size=(image.height, image.width),
                is_grey=flat.mode in ("L", "I"),
                oddities=tuple(_oddities(image)),
                peak=int(np.asarray(flat).max()) if flat.mode == "I" else None,
            )
            size = (image.height, image.width)
    except UserError as error:
        return _Seen(record, split, problems=(str(error),))
    return replace(seen, problems=tuple(_mask_problems(record, category, size)))


def _mask_problems(record: ImageRecord, category: Category, size: tuple[int, int]) -> Iterator[str]:
    for path in record.mask_paths:
        try:
            read_mask(path, record, category, size)
        except UserError as error:
            yield str(error)


def _oddities(image: Image.Image) -> Iterator[str]:
    if image.has_transparency_data:
        yield "have transparency, which is laid over black"
    if image.mode.startswith("I"):
        yield "have 16-bit grey values, which are scaled to 8 bits"
    if image.mode in ("CMYK", "YCbCr", "HSV"):
        yield f"are in {image.mode} colours, which are turned into RGB without a colour profile"


def _count_images(category: Category) -> tuple[ImageCount, ...]:
    counted = Counter(
        (split, record.kind, record.defect_type)
        for split, records in category.splits.items()
        for record in records
    )
    return tuple(ImageCount(*key, images) for key, images in counted.items())


def _count_sizes(seen: Sequence[_Seen]) -> tuple[SizeCount, ...]:
    counted = Counter(one.size for one in seen if one.size)
    by_frequency = sorted(counted.items(), key=lambda item: (-item[1], item[0]))
    return tuple(SizeCount(*size, images) for size, images in by_frequency)


def _missing_good(category: Category) -> Iterator[str]:
    if category.test and all(record.kind != "good" for record in category.test):
        yield (
            f"Category '{category.name}' has anomalous test images but no good ones to tell them "
            f"from: put some in '{category.root / 'test' / 'good'}'."
        )


def _idle_good(category: Category) -> Iterator[str]:
    if category.test and all(record.kind == "good" for record in category.test):
        yield (
            f"the {len(category.test)} images in 'test/good' serve for nothing without defective "
            "ones: put these into 'test/<defect type>', or the good ones into 'train/good'"
        )


def _twins(seen: Sequence[_Seen]) -> tuple[list[str], list[str]]:
    """Notes and problems of files with the same bytes.

    In one split and of one kind they only count twice. Across splits the test would judge what
    was trained on, and a good and a defective twin contradict each other.
    """
    groups: dict[str, list[_Seen]] = defaultdict(list)
    for one in seen:
        if one.digest:
            groups[one.digest].append(one)
    notes, problems = [], []
    for group in groups.values():
        names = ", ".join(f"'{one.record.name}'" for one in group)
        if len({(one.split, one.record.kind) for one in group}) > 1:
            problems.append(f"The same image is in several splits or kinds: keep one of {names}.")
        elif len(group) > 1:
            notes.append(f"the same image is there {len(group)} times: {names}")
    return notes, problems


def _pixel_notes(seen: Sequence[_Seen]) -> Iterator[str]:
    readable = [one for one in seen if one.size]
    for oddity in dict.fromkeys(oddity for one in readable for oddity in one.oddities):
        yield _share([one.record for one in readable if oddity in one.oddities], seen) + oddity
    grey = [one.record for one in readable if one.is_grey]
    if 0 < len(grey) < len(readable):
        yield _share(grey, seen) + "are grey, while the others are in colour"
    peak = max((one.peak for one in readable if one.peak is not None), default=65_535)
    if peak < 65_535 // 4:
        yield (
            f"the 16-bit images reach only {peak:,} of 65,535, so they decode dark: "
            "scale their values to the whole range"
        )


def _share(records: Sequence[ImageRecord], seen: Sequence[_Seen]) -> str:
    return f"{len(records)} of {len(seen)} images, such as '{records[0].name}', "


def _mask_notes(category: Category) -> Iterator[str]:
    anomalous: dict[str, list[ImageRecord]] = defaultdict(list)
    for record in category.test:
        if record.kind != "good":
            anomalous[record.defect_type].append(record)
    for defect_type, records in anomalous.items():
        bare = [record for record in records if not record.mask_paths]
        if bare:
            yield (
                f"{len(bare)} of {len(records)} images in 'test/{defect_type}' have no mask, such "
                f"as '{bare[0].name}'; they count for image scores, not for localisation"
            )
