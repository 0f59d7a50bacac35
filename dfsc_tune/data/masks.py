"""Reads ground-truth masks, one defect each, in MVTec LOCO's and MVTec AD's form."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from dfsc_tune.data.declarations import DEFECTS_CONFIG
from dfsc_tune.data.images import flatten, open_upright
from dfsc_tune.data.oddities import mask_oddities, oddity_notes
from dfsc_tune.data.records import Category, DefectEntry, ImageRecord
from dfsc_tune.errors import UserError


@dataclass(frozen=True, eq=False)
class DefectMask:
    """The pixels of one defect, and the area from which it counts as fully found."""

    name: str
    # bool (H, W), at the image's original upright size.
    mask: NDArray[np.bool_]
    # A share of the mask's area if `relative_saturation`, else pixels.
    saturation_threshold: float
    relative_saturation: bool
    path: Path
    # From `mask_oddities`.
    oddities: tuple[str, ...]


def read_masks(
    record: ImageRecord, category: Category, size: tuple[int, int]
) -> tuple[DefectMask, ...]:
    """Reads the defects of one image of original upright `size` (H, W), one from each mask file.

    With a `defects_config.json`, a mask's pixel value names its entry. Without one, every value
    above zero is the image's defect type, saturated at its whole area. Raises UserError if a mask
    is broken, empty or differs from its image in size, or if its value is not in the config.
    """
    return tuple(read_mask(path, record, category, size) for path in record.mask_paths)


def read_mask(
    path: Path, record: ImageRecord, category: Category, size: tuple[int, int]
) -> DefectMask:
    """Reads one mask file of `record`, as `read_masks` does."""
    values = _values(path)
    if values.shape != size:
        (mask_height, mask_width), (height, width) = values.shape, size
        raise UserError(
            f"Mask '{path}' is {mask_width}×{mask_height} pixels, but its image '{record.path}' "
            f"is {width}×{height} (width×height, upright): make them the same size."
        )
    entry = DefectEntry(record.defect_type, 1.0, True)
    if category.defect_entries:
        entry = _entry(values, category.defect_entries, path)
    elif not values.any():
        raise _empty(path)
    return DefectMask(
        entry.name,
        values > 0,
        entry.saturation_threshold,
        entry.relative_saturation,
        path,
        tuple(mask_oddities(path, values)),
    )


def mask_notes(category: Category, oddities: Mapping[Path, Sequence[str]]) -> Iterator[str]:
    """Yields a sentence for each oddity of mask files, and for each mask that images share.

    Args:
        category: the masks' category.
        oddities: the oddities of the masks that were read, by their paths.
    """
    named = {path.relative_to(category.root).as_posix(): x for path, x in oddities.items()}
    yield from oddity_notes("masks", named)
    owners: dict[Path, list[str]] = defaultdict(list)
    for record in category.test:
        for path in record.mask_paths:
            owners[path].append(record.name)
    for path, names in owners.items():
        if len(names) > 1:
            shown = " and ".join(f"'{name}'" for name in names)
            mask = path.relative_to(category.root).as_posix()
            yield f"{shown} share the mask '{mask}': give each image a name and a mask of its own"


def mask_entry(path: Path, entries: Mapping[int, DefectEntry]) -> DefectEntry:
    """Returns the entry that the pixel value of an MVTec LOCO mask file names.

    Raises UserError if the mask is broken, empty, has several values, or has an unknown value.
    """
    return _entry(_values(path), entries, path)


def _entry(
    values: NDArray[np.integer], entries: Mapping[int, DefectEntry], path: Path
) -> DefectEntry:
    value = int(values.max())
    if value == 0:
        raise _empty(path)
    if np.any((values != 0) & (values != value)):
        raise UserError(
            f"Mask '{path}' holds several pixel values, {np.unique(values)[:6].tolist()} first: "
            "a mask of the MVTec LOCO layout holds one defect, with one value on zero."
        )
    if value not in entries:
        known = ", ".join(str(known) for known in sorted(entries))
        raise UserError(
            f"Mask '{path}' has pixel value {value}, which '{DEFECTS_CONFIG}' of its category "
            f"lacks (it has {known}): add an entry or correct the mask."
        )
    return entries[value]


def _empty(path: Path) -> UserError:
    return UserError(f"Mask '{path}' marks no pixel: mark the defect or delete the file.")


def _values(path: Path) -> NDArray[np.integer]:
    """Returns grey values (H, W); for a coloured or palette mask, each pixel's largest channel."""
    with open_upright(path) as image:
        values = np.array(flatten(image, path))
    return values if values.ndim == 2 else values[..., :3].max(axis=-1)
