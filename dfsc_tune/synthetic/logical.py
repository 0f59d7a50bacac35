"""Recipes of logical anomalies: good images wrongly combined, their parts removed, moved and so on.

Each takes a scene and other scenes of its category and returns the changed image (W, W, 3), or None
where it finds no part or no place that allows it without a visible seam.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from scipy import ndimage

from dfsc_tune.synthetic.blending import Corners, blend, crop, misfits, smooth_filling, tolerance
from dfsc_tune.synthetic.regions import Mask, Pixels, Region
from dfsc_tune.synthetic.scenes import Scene

_NUM_PLACES = 200
_NUM_OTHERS = 6
# One of this many best places is taken, so that not all anomalies look the same.
_NUM_BEST = 5
# Two parts with a smaller difference, in grey levels, look alike to everyone.
_UNLIKE = 20.0
# How far around a region a change of its size may reach, in half-sizes of its box.
_REACH = 1.8
_NUM_WINDOWS = 10
_WINDOW_SIDES = (0.12, 0.5)
# For the ring around a window that must fit.
_WINDOW_MARGIN = 4
_LEAST_UNLIKE = 0.05
# Share of the image's side by which an end of a part may move.
_MAX_SHIFT = 0.12


def exchanged(rng: np.random.Generator, scene: Scene, others: Sequence[Scene]) -> Pixels | None:
    """Copies a window from another image: parts are missing or do not go together.

    It needs no regions. Of many windows the one that changes most is taken, if its border fits.
    """
    windows = [
        (other, _window(rng, scene.size))
        for other in _some(rng, others)
        for _ in range(_NUM_WINDOWS)
    ]
    changes = [_share_changed(scene, other, window) for other, window in windows]
    for index in np.argsort(changes)[::-1]:
        if changes[index] == 0:
            break
        other, window = windows[index]
        here = _box(scene.pixels, window)
        corners = _corners_near(window, scene.size)
        misfit = misfits(here, window.mask, other.pixels, corners)
        if misfit.min() < tolerance(here, window.mask):
            top, left = corners[misfit.argmin()].tolist()
            there = crop(other.pixels, top, left, window.mask)
            return _with_box(scene.pixels, window.top, window.left, there, window.mask)
    return None


def removed(rng: np.random.Generator, scene: Scene, others: Sequence[Scene]) -> Pixels | None:
    """Removes a part: its place shows background, of this image or of another."""
    return _without(rng, scene.pixels, scene.region(rng), (scene, *_some(rng, others)))


def doubled(rng: np.random.Generator, scene: Scene, others: Sequence[Scene]) -> Pixels | None:
    """Adds a copy of a part at an empty place."""
    return _with_copy(rng, scene.pixels, scene, scene.region(rng))


def moved(rng: np.random.Generator, scene: Scene, others: Sequence[Scene]) -> Pixels | None:
    """Moves a part to another place."""
    region = scene.region(rng)
    rest = _without(rng, scene.pixels, region, (scene, *_some(rng, others)))
    return None if rest is None else _with_copy(rng, rest, scene, region)


def swapped(rng: np.random.Generator, scene: Scene, others: Sequence[Scene]) -> Pixels | None:
    """Swaps two unlike parts."""
    first, second = scene.region(rng), scene.region(rng)
    difference = _colour(scene.pixels, first) - _colour(scene.pixels, second)
    if first is second or np.abs(difference).max() < _UNLIKE:
        return None
    image: Pixels | None = scene.pixels
    sources = (scene, *_some(rng, others))
    for part in (first, second):
        image = None if image is None else _without(rng, image, part, sources)
    for part, where in ((first, second), (second, first)):
        image = None if image is None else _with_part(image, scene.pixels, part, where.centre)
    return image


def replaced(rng: np.random.Generator, scene: Scene, others: Sequence[Scene]) -> Pixels | None:
    """Replaces a part by what another image shows there, or by a part of another image."""
    region = scene.region(rng)
    here = _box(scene.pixels, region)
    some = _some(rng, others)
    for other in some:
        there = _box(other.pixels, region)
        misfit = misfits(here, region.mask, other.pixels, np.array([[region.top, region.left]]))
        fits = misfit[0] < tolerance(here, region.mask)
        if fits and np.abs(here - there)[region.mask].mean() > _UNLIKE:
            return _with_box(scene.pixels, region.top, region.left, there, region.mask)
    donors = [other for other in some if other.regions]
    rest = _without(rng, scene.pixels, region, (scene, *some))
    if rest is None or not donors:
        return None
    return _with_part(rest, donors[0].pixels, donors[0].region(rng), region.centre)


def recoloured(rng: np.random.Generator, scene: Scene, others: Sequence[Scene]) -> Pixels | None:
    """Gives a part the colour of an unlike part, of this image or of another."""
    region = scene.region(rng)
    donors = [other for other in (scene, *_some(rng, others)) if other.regions]
    donor = donors[rng.integers(len(donors))]
    wanted = _colour(donor.pixels, donor.region(rng))
    change = wanted - _colour(scene.pixels, region)
    if np.abs(change).max() < _UNLIKE:
        return None
    image = scene.pixels.copy()
    inside = ndimage.gaussian_filter(region.mask.astype(np.float32), 1.0)
    _box(image, region)[...] += inside[..., None] * change
    return image.clip(0, 255)


def mirrored(rng: np.random.Generator, scene: Scene, others: Sequence[Scene]) -> Pixels | None:
    """Mirrors a part, or turns it upside down."""
    region = scene.region(rng)
    axes = ((0,), (1,), (0, 1))[rng.integers(3)]
    source = np.flip(_box(scene.pixels, region), axes)
    mask = region.mask | np.flip(region.mask, axes)
    return _with_box(scene.pixels, region.top, region.left, source, mask)


def resized(rng: np.random.Generator, scene: Scene, others: Sequence[Scene]) -> Pixels | None:
    """Makes a part, or its level of filling, longer or shorter along one axis."""
    region = scene.region(rng)
    axis = int(rng.integers(2))
    half, half_across = region.mask.shape[axis] / 2, region.mask.shape[1 - axis] / 2
    factor = rng.uniform(0.5, 0.75) if rng.random() < 0.5 else rng.uniform(1.3, 1.6)
    # One end may stay in place, which changes a level of filling.
    anchor = (0.0, -1.0, 1.0)[rng.integers(3)]
    most = _MAX_SHIFT * scene.size / half
    ends = [end + np.clip((anchor - end) * (1 - factor), -most, most) for end in (-1.0, 1.0)]
    reach = max(_REACH, max(map(abs, ends)) + 0.3)
    along = (np.arange(scene.size) - region.centre[axis]) / half
    across = np.abs(np.arange(scene.size) - region.centre[1 - axis]) / half_across
    # Outside its reach the image stays unchanged; inside, the mapping is piecewise linear, no fold.
    shift = np.interp(along, (-reach, *ends, reach), (-reach, -1.0, 1.0, reach)) - along
    shift[np.abs(along) > reach] = 0
    field = np.outer(half * shift, np.interp(across, (1.0, _REACH), (1.0, 0.0)))
    coordinates = np.indices(field.shape, dtype=np.float64)
    coordinates[axis] += field if axis == 0 else field.T
    warped = [
        ndimage.map_coordinates(scene.pixels[..., channel], coordinates, order=1, mode="nearest")
        for channel in range(3)
    ]
    return np.stack(warped, axis=-1)


PART_RECIPES = {
    "removed": removed,
    "doubled": doubled,
    "moved": moved,
    "swapped": swapped,
    "replaced": replaced,
    "recoloured": recoloured,
    "mirrored": mirrored,
    "resized": resized,
}
"""Recipes that change a part, so they need a scene with regions."""

RECIPES = {"exchanged": exchanged, **PART_RECIPES}


def _window(rng: np.random.Generator, size: int) -> Region:
    """Returns a rectangle with rounded corners at a random place in the image."""
    height, width = (rng.uniform(*_WINDOW_SIDES, 2) * size).astype(int)
    rows, columns = np.linspace(-1, 1, height)[:, None], np.linspace(-1, 1, width)
    mask = np.pad(rows**4 + columns**4 <= 1, _WINDOW_MARGIN)
    top, left = (int(rng.integers(0, size - side + 1)) for side in mask.shape)
    return Region(top, left, mask, saliency=1.0)


def _share_changed(scene: Scene, other: Scene, window: Region) -> float:
    """Returns the area that differs within a window, textures aside, as a share; 0 if small."""
    # Every fourth pixel is enough, as textures are smoothed away.
    mask = window.mask[::4, ::4]
    difference = _box(scene.smooth, window)[::4, ::4] - _box(other.smooth, window)[::4, ::4]
    unlike = (np.abs(difference).max(axis=2) > _UNLIKE) & mask
    return float(unlike.sum() / scene.size**2) if unlike.sum() > _LEAST_UNLIKE * mask.sum() else 0.0


def _corners_near(window: Region, size: int) -> Corners:
    """Returns corners (K, 2) near a window's own, within the image, so that patterns can match."""
    shifts = np.arange(-2, 3) * max(size // 64, 1)
    corners = np.array([window.top, window.left]) + np.stack(
        np.meshgrid(shifts, shifts), axis=-1
    ).reshape(-1, 2)
    inside: Corners = corners[
        (corners >= 0).all(axis=1) & (corners + window.mask.shape <= size).all(axis=1)
    ]
    return inside


def _without(
    rng: np.random.Generator, image: Pixels, region: Region, sources: Sequence[Scene]
) -> Pixels | None:
    """Returns the image with a region filled with the scenes' background; None if none fits."""
    target = _box(image, region)
    found = [smooth_filling(rng, target, region.mask)]
    for source in sources:
        here = np.array([[region.top, region.left]])
        corners = np.concatenate([here, _random_corners(rng, region, source.size)])
        corners = corners[_are_free(source.occupied, region.mask, corners)]
        found += [
            (misfit, crop(source.pixels, top, left, region.mask))
            for misfit, (top, left) in zip(
                misfits(target, region.mask, source.pixels, corners), corners.tolist(), strict=True
            )
        ]
    found.sort(key=lambda item: item[0])
    if found[0][0] > tolerance(target, region.mask):
        return None
    return _with_box(image, region.top, region.left, found[0][1], region.mask)


def _with_copy(
    rng: np.random.Generator, image: Pixels, scene: Scene, region: Region
) -> Pixels | None:
    """Returns the image with a copy of a region at a place of the product without regions."""
    piece = _box(scene.pixels, region)
    corners = _random_corners(rng, region, scene.size)
    middle = corners + np.array(region.mask.shape) // 2
    on_product = scene.product[middle[:, 0], middle[:, 1]]
    corners = corners[on_product & _are_free(scene.occupied, region.mask, corners)]
    misfit = misfits(piece, region.mask, image, corners)
    order = np.argsort(misfit)[:_NUM_BEST]
    order = order[misfit[order] < tolerance(piece, region.mask)]
    if not len(order):
        return None
    top, left = corners[order[rng.integers(len(order))]].tolist()
    return _with_box(image, top, left, piece, region.mask)


def _with_part(
    image: Pixels, source: Pixels, region: Region, centre: tuple[int, int]
) -> Pixels | None:
    """Returns the image with another's region placed around a centre; None if it does not fit."""
    corner = np.array([centre]) - np.array(region.mask.shape) // 2
    if corner.min() < 0 or (corner + region.mask.shape).max() > len(image):
        return None
    piece = _box(source, region)
    if misfits(piece, region.mask, image, corner)[0] > tolerance(piece, region.mask):
        return None
    top, left = corner[0].tolist()
    return _with_box(image, top, left, piece, region.mask)


def _with_box(image: Pixels, top: int, left: int, source: Pixels, mask: Mask) -> Pixels:
    result = image.copy()
    box = crop(result, top, left, mask)
    box[...] = blend(box, source, mask)
    return result


def _box(image: Pixels, region: Region) -> Pixels:
    return crop(image, region.top, region.left, region.mask)


def _colour(image: Pixels, region: Region) -> Pixels:
    """Returns the mean colour of a region, (3,)."""
    colour: Pixels = _box(image, region)[region.mask].mean(axis=0)
    return colour


def _some(rng: np.random.Generator, others: Sequence[Scene]) -> list[Scene]:
    return [others[index] for index in rng.permutation(len(others))[:_NUM_OTHERS]]


def _random_corners(rng: np.random.Generator, region: Region, size: int) -> Corners:
    """Returns random corners (K, 2) at which a region's box lies within an image."""
    height, width = region.mask.shape
    return np.stack(
        [
            rng.integers(0, size - height + 1, _NUM_PLACES),
            rng.integers(0, size - width + 1, _NUM_PLACES),
        ],
        axis=1,
    )


def _are_free(occupied: Mask, mask: Mask, corners: Corners) -> Mask:
    """Returns True for each corner (K,) at which no region lies under the mask."""
    # Every other pixel is enough, as regions are not thin lines.
    rows, columns = (2 * found for found in np.nonzero(mask[::2, ::2]))
    free: Mask = ~occupied[corners[:, :1] + rows, corners[:, 1:] + columns].any(axis=1)
    return free
