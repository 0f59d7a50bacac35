"""Describes oddities of images and masks that can be read nevertheless."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from itertools import chain
from pathlib import Path
from typing import Any, cast

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from dfsc_tune.data.files import map_in_threads
from dfsc_tune.data.images import has_more_pages

_MORE_PAGES = "hold more than one page or frame, of which only the first is read"
# Share of the range of values; 12 bits in a 16-bit file use a sixteenth of it.
_DARK_SHARE = 1 / 4
_LARGE_SHARE = 1 / 2


def oddity_notes(noun: str, oddities: Mapping[str, Sequence[str]]) -> Iterator[str]:
    """Yields a sentence for each oddity: how many files have it, and one of them.

    Args:
        noun: the files' noun, in the plural.
        oddities: those of each file, by its name, as the functions below return them.
    """
    for oddity in dict.fromkeys(chain.from_iterable(oddities.values())):
        names = [name for name, found in oddities.items() if oddity in found]
        yield f"{len(names)} of {len(oddities)} {noun}, such as '{names[0]}', {oddity}"


def page_notes(images: Mapping[str, Path]) -> Iterator[str]:
    """Yields a note on the images, given by name, whose files hold more than is read."""
    found = map_in_threads(_page_oddities, images.values())
    yield from oddity_notes("images", dict(zip(images, found, strict=True)))


def image_oddities(path: Path, image: Image.Image, flat: Image.Image) -> Iterator[str]:
    """Yields the oddities of a file's upright image; `flat` is the same image after `flatten`."""
    if image.has_transparency_data:
        yield "have transparency, which is laid over black"
    if flat.mode == "I":
        yield "have 16-bit grey values, which are scaled to 8 bits"
    if image.mode in ("CMYK", "YCbCr", "HSV"):
        yield f"are in {image.mode} colours, which are converted to RGB without a colour profile"
    if _peak(flat) < _DARK_SHARE * (65_535 if flat.mode == "I" else 255):
        yield (
            "use less than a quarter of their range of values, so they decode dark: scale the "
            "values to the whole range (10 or 12 bits in a 16-bit file decode almost black)"
        )
    yield from _page_oddities(path)


def mask_oddities(path: Path, values: NDArray[np.integer[Any]]) -> Iterator[str]:
    """Yields the oddities of a mask file with these grey values (H, W)."""
    if np.any((values != 0) & (values != values.max())):
        yield (
            "hold several values above zero, as lossy formats such as JPEG do, and each counts as "
            "a defect: save masks as PNG, with zero and one other value"
        )
    if np.count_nonzero(values) > _LARGE_SHARE * values.size:
        yield "mark more than half of the image: if they are inverted, set the good part to zero"
    yield from _page_oddities(path)


def _page_oddities(path: Path) -> tuple[str, ...]:
    return (_MORE_PAGES,) if has_more_pages(path) else ()


def _peak(flat: Image.Image) -> float:
    """Returns the largest value of any colour."""
    extrema = cast("Any", flat.getextrema())
    if len(flat.getbands()) == 1:
        return float(extrema[1])
    return float(max(high for _, high in extrema[:3]))
