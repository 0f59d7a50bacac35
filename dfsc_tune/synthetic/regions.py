"""Finds object-like regions in good images without labels: closed, compact, unlike their ring.

Regions of a colour segmentation at several scales are weighted by their contrast with the ring
around them, the rarity of their colour in the image, and their size. What remains are parts such as
a pin, a label, a fruit or a nut; sometimes half a part, which serves as well.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
from scipy import ndimage
from skimage import measure, segmentation, transform

Mask = npt.NDArray[np.bool_]
Pixels = npt.NDArray[np.float32]

# Segmentation works at this many pixels a side, whatever the image's size.
_SIZE = 256
_SCALES = (30, 100, 300)
_MIN_SHARE, _MAX_SHARE = 0.0008, 0.15
_MIN_EXTENT, _MIN_SOLIDITY = 0.2, 0.5
# A region thinner than a screw is an edge, not a part.
_MIN_ASPECT = 0.15
_RARE = 0.96
_MIN_CONTRAST = 15.0
_SAME_COLOUR = 15.0
_MAX_OVERLAP = 0.3
_LEAST_OF_BEST = 0.4
_MAX_REGIONS = 16
# The antialiased border of a part belongs to it.
_BORDER = 2


@dataclass(frozen=True, eq=False)
class Region:
    """An object-like region of an image."""

    top: int
    left: int
    mask: Mask
    """(h, w), with a margin of False around; its first pixel lies at (top, left) of the image."""
    saliency: float
    """Measure of how much it stands out, above 0; comparable within a category only."""

    @property
    def centre(self) -> tuple[int, int]:
        """The middle of its box, in the image."""
        height, width = self.mask.shape
        return self.top + height // 2, self.left + width // 2

    def on(self, size: int) -> Mask:
        """Returns the region as a mask of the whole image, (size, size)."""
        whole = np.zeros((size, size), dtype=bool)
        height, width = self.mask.shape
        whole[self.top : self.top + height, self.left : self.left + width] = self.mask
        return whole


def find_regions(lab: Pixels) -> tuple[Region, ...]:
    """Finds the object-like regions of an image, the most salient first, with little overlap.

    Args:
        lab: (W, W, 3) in CIELAB, W at least 256.
    """
    size = len(lab)
    small = transform.resize(lab, (_SIZE, _SIZE), anti_aliasing=size > _SIZE)
    found = [candidate for scale in _SCALES for candidate in _candidates(small, scale)]
    found.sort(key=lambda candidate: -candidate[0])
    taken = np.zeros((_SIZE, _SIZE), dtype=bool)
    regions: list[Region] = []
    for saliency, mask in found:
        if len(regions) == _MAX_REGIONS or saliency < _LEAST_OF_BEST * found[0][0]:
            break
        if (mask & taken).sum() <= _MAX_OVERLAP * mask.sum():
            taken |= mask
            regions.append(_cut_out(mask, saliency, size))
    return tuple(regions)


def _candidates(lab: Pixels, scale: int) -> Iterator[tuple[float, Mask]]:
    """Yields saliency and mask of each region of one segmentation that may be an object."""
    labels = segmentation.felzenszwalb(
        lab / 100, scale=scale, sigma=1.0, min_size=int(_MIN_SHARE * lab[..., 0].size)
    )
    sample = lab[::5, ::5].reshape(-1, 3)
    for found in measure.regionprops(labels + 1):
        share = found.area / labels.size
        top, left, bottom, right = found.bbox
        at_border = min(top, left) < 2 or max(bottom, right) > _SIZE - 2
        if at_border or not _MIN_SHARE < share < _MAX_SHARE or found.extent < _MIN_EXTENT:
            continue
        # Only a margin around the region matters, so the rest works on a crop.
        box = slice(max(top - 6, 0), bottom + 6), slice(max(left - 6, 0), right + 6)
        mask = ndimage.binary_fill_holes(labels[box] == found.label - 1)
        near = lab[box][ndimage.binary_dilation(mask, iterations=5) & ~_grown(mask)]
        around = np.median(near, axis=0)
        unrest = np.percentile(np.linalg.norm(near - around, axis=1), 70)
        colour = lab[box][mask].mean(axis=0)
        contrast = float(np.linalg.norm(colour - around))
        rarity = 1 - float((np.linalg.norm(sample - colour, axis=1) < _SAME_COLOUR).mean())
        # A part of a colour of its own may be long and bent, such as a cable.
        is_part = rarity > _RARE or _is_compact(found)
        if contrast < max(_MIN_CONTRAST, unrest) or not is_part:
            continue
        whole = np.zeros(labels.shape, dtype=bool)
        whole[box] = mask
        yield contrast * rarity**2 * share**0.25, whole


def _is_compact(found: Any) -> bool:
    thickness = found.axis_minor_length / max(found.axis_major_length, 1e-6)
    return bool(thickness >= _MIN_ASPECT and found.solidity >= _MIN_SOLIDITY)


def _grown(mask: Mask) -> Mask:
    return ndimage.binary_dilation(mask, iterations=_BORDER)


def _cut_out(mask: Mask, saliency: float, size: int) -> Region:
    """Turns a mask of the segmentation's size into a region of an image of `size`, with border."""
    whole = transform.resize(_grown(mask), (size, size), order=0)
    box = box_around(whole)
    return Region(top=box[0].start, left=box[1].start, mask=whole[box], saliency=saliency)


def box_around(mask: Mask) -> tuple[slice, slice]:
    """Returns the smallest box that holds a mask and a pixel around it, within the image."""
    rows, columns = ndimage.find_objects(mask.astype(np.uint8))[0]
    return _widened(rows), _widened(columns)


def _widened(part: slice) -> slice:
    return slice(max(part.start - 1, 0), part.stop + 1)
