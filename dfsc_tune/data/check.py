"""Checks image folders: reports their images, what must be fixed, and what is worth knowing."""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path

from dfsc_tune.data.files import map_in_threads
from dfsc_tune.data.fingerprint import content_digest
from dfsc_tune.data.images import flatten, open_upright, safe_workers
from dfsc_tune.data.layout import category_folder, complete_category, find_categories, list_category
from dfsc_tune.data.masks import mask_notes, read_mask
from dfsc_tune.data.misplaced import describe_misplaced
from dfsc_tune.data.oddities import image_oddities, oddity_notes
from dfsc_tune.data.records import Category, ImageRecord, Kind, Layout
from dfsc_tune.errors import UserError


@dataclass(frozen=True)
class ImageCount:
    """The number of images of one defect type in a split."""

    # "train", "validation" or "test"; held-out images count as validation.
    split: str
    kind: Kind
    defect_type: str
    images: int


@dataclass(frozen=True)
class SizeCount:
    """The number of images of one upright size, in pixels."""

    height: int
    width: int
    images: int


@dataclass(frozen=True)
class CategoryCheck:
    """The findings of the check of one category."""

    name: str
    layout: Layout | None
    counts: tuple[ImageCount, ...]
    # The most frequent size first.
    sizes: tuple[SizeCount, ...]
    # What must be fixed before a search, one sentence each.
    problems: tuple[str, ...]
    # What is worth knowing but need not be fixed, one sentence each.
    notes: tuple[str, ...]


@dataclass(frozen=True)
class _Seen:
    """The findings in one image file and its masks."""

    record: ImageRecord
    split: str
    digest: str = ""
    # Height and width; None if the file is broken.
    size: tuple[int, int] | None = None
    is_grey: bool = False
    # From `image_oddities`.
    oddities: tuple[str, ...] = ()
    # The oddities of its masks by their paths.
    masks: Mapping[Path, tuple[str, ...]] = field(default_factory=dict)
    problems: tuple[str, ...] = ()


def check_data(data: Path, names: Sequence[str] | None = None) -> tuple[CategoryCheck, ...]:
    """Checks the categories `names` (default: all) in the folder `data`.

    Every image and mask is decoded, by one thread per CPU. Raises UserError only if `data` or a
    named category is missing, or if `data` holds no category.
    """
    for name in names or ():
        category_folder(data, name)
    return tuple(check_category(data, name) for name in names or find_categories(data))


def check_category(data: Path, name: str) -> CategoryCheck:
    """Checks one category of the folder `data`, as `check_data` does."""
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
        # A broken mask is found twice if it also names the defect type.
        problems=tuple(dict.fromkeys([*problems, *contradictions, *_missing_good(listed)])),
        notes=(
            *category.notes,
            *_idle_good(listed),
            *_pixel_notes(seen),
            *twins,
            *_missing_masks(listed),
            *mask_notes(listed, {path: x for one in seen for path, x in one.masks.items()}),
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
                oddities=tuple(image_oddities(record.path, image, flat)),
            )
            size = (image.height, image.width)
    except UserError as error:
        return _Seen(record, split, problems=(str(error),))
    masks: dict[Path, tuple[str, ...]] = {}
    problems: list[str] = []
    for path in record.mask_paths:
        try:
            masks[path] = read_mask(path, record, category, size).oddities
        except UserError as error:
            problems.append(str(error))
    return replace(seen, masks=masks, problems=tuple(problems))


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
            f"the {len(category.test)} images in 'test/good' are of no use without defective "
            "ones: put these into 'test/<defect type>', or the good ones into 'train/good'"
        )


def _twins(seen: Sequence[_Seen]) -> tuple[list[str], list[str]]:
    """Returns notes and problems of files with the same bytes.

    Within one split and kind, such an image only counts twice. Across splits, the test would
    include training images; and a good and a defective twin contradict each other.
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
            notes.append(f"the same image occurs {len(group)} times: {names}")
    return notes, problems


def _pixel_notes(seen: Sequence[_Seen]) -> Iterator[str]:
    are_mixed = len({one.is_grey for one in seen if one.size}) > 1
    grey = ("are grey, while the others are in colour",)
    yield from oddity_notes(
        "images",
        {
            one.record.name: one.oddities + (grey if are_mixed and one.is_grey else ())
            for one in seen
        },
    )


def _missing_masks(category: Category) -> Iterator[str]:
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
