"""Pixel metrics: AU-sPRO, AU-PRO and pixel AUROC, exact over all thresholds.

All three are areas under a curve over the false-positive rate (FPR). The FPR is pooled over all
pixels outside the union of their image's defects, good images included. A pixel is called anomalous
when its score is strictly above the threshold. The curve has one point for each distinct score,
joined by straight lines from (0, 0) on; so tied pixels act together, as one sloped step, and maps
that are constant everywhere give half the limit. Areas are divided by the FPR limit.
"""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy import ndimage

from dfsc_tune.errors import UserError
from dfsc_tune.metrics.areas import FloatMap, Steps, mean_heights
from dfsc_tune.metrics.image import GOOD, KINDS, check_kinds

Mask = NDArray[np.bool_]

_EIGHT_NEIGHBOURS = np.ones((3, 3), dtype=np.bool_)


@dataclass(frozen=True, eq=False)
class Defect:
    """One annotated defect: a channel of an MVTec LOCO ground truth."""

    image: int
    """Index of its image in the sequence of anomaly maps."""
    mask: Mask
    """Its pixels, shape (H, W) of its anomaly map; defects of an image may overlap."""
    saturation_area: float
    """Pixels that must be found for the defect to count as fully found; see `saturation_area`."""


def saturation_area(threshold: float, relative: bool, area: int) -> float:
    """Returns the number of pixels, at least one, from which a defect counts as fully found.

    It is `int(threshold * area)` if relative, else `min(threshold, area)`, as in the evaluation
    code of MVTec LOCO AD (Bergmann et al., IJCV 2022). There the relative rule gives 0 for a tiny
    defect, followed by a division by 0; here such a defect is found with its first pixel.

    Args:
        threshold: `saturation_threshold` of `defects_config.json`: a share, or a number of pixels.
        relative: `relative_saturation` of the same entry.
        area: pixels of the defect.

    Raises:
        UserError: a threshold is not positive or, if relative, above 1; or a defect is empty.
    """
    if not 0 < threshold < math.inf or (relative and threshold > 1):
        bounds = "in (0, 1]" if relative else "above 0"
        raise UserError(f"This saturation threshold must be {bounds}, not {threshold}.")
    if area < 1:
        raise UserError(f"A defect must have at least one pixel, not {area}.")
    return max(1, int(threshold * area)) if relative else float(min(threshold, area))


def au_spro(
    anomaly_maps: Sequence[ArrayLike],
    defects: Sequence[Defect],
    fpr_limits: Sequence[float] = (0.05,),
) -> dict[float, float]:
    """Returns the area under the saturated per-region overlap curve, in [0, 1], by FPR limit.

    A defect's sPRO is min(true-positive pixels / saturation area, 1); the curve is its mean over
    all defects (Bergmann et al., "Beyond Dents and Scratches", IJCV 2022). The module's docstring
    says how ties and the limit are treated.

    Args:
        anomaly_maps: for each image its scores, shape (H, W), higher is more anomalous; sizes may
            differ between images. float32 is used as it is, other types as float64.
        defects: all defects; an image without a defect is good.
        fpr_limits: each in (0, 1].

    Raises:
        UserError: a map is not 2-D or holds NaN or infinity; there is no defect; a mask is empty,
            differs from its map in size or names no map; a saturation area or a limit is out of
            range; or the defects leave no negative pixel.
    """
    maps = checked_maps(anomaly_maps)
    masks = unions(maps, defects)
    limits = checked_limits(fpr_limits)
    heights = mean_heights(maps, scores_within(maps, masks), [spro_steps(maps, defects)], limits)
    return by_limit(limits, heights[0])


def au_spro_by_kind(
    anomaly_maps: Sequence[ArrayLike],
    kinds: Sequence[str],
    defects: Sequence[Defect],
    fpr_limits: Sequence[float] = (0.05,),
) -> dict[str, dict[float, float]]:
    """Returns `au_spro` of each kind present, with all good images, and "mean" over these kinds.

    Args:
        anomaly_maps, defects, fpr_limits: as for `au_spro`.
        kinds: "good", "logical" or "structural" for each image.

    Raises:
        UserError: as `au_spro`; or `kinds` and `defects` disagree on which images are good.
    """
    check_kinds_match(kinds, len(anomaly_maps), defects)
    found = au_spro_by_group(anomaly_maps, kinds, defects, fpr_limits)
    result = {kind: found[kind] for kind in KINDS if kind in found}
    result["mean"] = {
        limit: float(np.mean([areas[limit] for areas in found.values()])) for limit in fpr_limits
    }
    return result


def au_spro_by_group(
    anomaly_maps: Sequence[ArrayLike],
    groups: Sequence[str],
    defects: Sequence[Defect],
    fpr_limits: Sequence[float] = (0.05,),
) -> dict[str, dict[float, float]]:
    """Returns `au_spro` of each group of anomalous images, with all good images.

    Args:
        anomaly_maps, defects, fpr_limits: as for `au_spro`.
        groups: for each image "good" or any other name, such as its defect type.

    Raises:
        UserError: as `au_spro`; or `groups` and `defects` disagree on which images are good.
    """
    check_groups_match(groups, len(anomaly_maps), defects)
    return {
        group: au_spro(*with_good(anomaly_maps, groups, defects, group), fpr_limits)
        for group in dict.fromkeys(groups)
        if group != GOOD
    }


def with_good(
    anomaly_maps: Sequence[ArrayLike], groups: Sequence[str], defects: Sequence[Defect], group: str
) -> tuple[list[ArrayLike], list[Defect]]:
    """Returns the maps of the good images and of one group, and the defects of that group."""
    chosen = [index for index, found in enumerate(groups) if found in (GOOD, group)]
    place = {index: position for position, index in enumerate(chosen)}
    return [anomaly_maps[index] for index in chosen], [
        Defect(place[defect.image], defect.mask, defect.saturation_area)
        for defect in defects
        if defect.image in place
    ]


def checked_maps(anomaly_maps: Sequence[ArrayLike]) -> list[FloatMap]:
    """Returns the maps as 2-D arrays of float32 or float64, or raises UserError."""
    maps = []
    for image, anomaly_map in enumerate(anomaly_maps):
        scores = np.asarray(anomaly_map)
        if scores.dtype != np.float32:
            scores = scores.astype(np.float64, copy=False)
        if scores.ndim != 2 or scores.size == 0:
            raise UserError(
                f"An anomaly map must have shape (H, W), but map {image} has {scores.shape}."
            )
        # The extremes are NaN if any pixel is, and need no temporary array.
        if not (np.isfinite(scores.min()) and np.isfinite(scores.max())):
            raise UserError(
                f"Anomaly maps must be finite, but map {image} holds NaN or infinity. "
                "Check the training of this model for divergence."
            )
        maps.append(scores)
    return maps


def unions(maps: Sequence[FloatMap], defects: Sequence[Defect]) -> dict[int, Mask]:
    """Returns the union of the checked defect masks of each anomalous image, by its index."""
    if not defects:
        raise UserError("AU-PRO and AU-sPRO need at least one defect, but none is given.")
    masks: dict[int, Mask] = {}
    for defect in defects:
        if not 0 <= defect.image < len(maps):
            raise UserError(
                f"A defect names image {defect.image}, but there are {len(maps)} anomaly maps."
            )
        mask = _checked_mask(maps, defect.image, defect.mask)
        if not mask.any():
            raise UserError(f"A defect of image {defect.image} has an empty mask.")
        if not 0 < defect.saturation_area < math.inf:
            raise UserError(
                f"A saturation area must be above 0, but a defect of image {defect.image} has "
                f"{defect.saturation_area}."
            )
        masks[defect.image] = masks[defect.image] | mask if defect.image in masks else mask
    if sum(int(mask.sum()) for mask in masks.values()) == sum(scores.size for scores in maps):
        raise UserError("Every pixel is defective, so there is no false-positive rate.")
    return masks


def checked_limits(fpr_limits: Sequence[float]) -> Sequence[float]:
    """Returns the limits unchanged, or raises UserError."""
    if not fpr_limits:
        raise UserError("Give at least one FPR limit.")
    for limit in fpr_limits:
        if not 0 < limit <= 1:
            raise UserError(f"An FPR limit must be in (0, 1], not {limit}.")
    return fpr_limits


def check_kinds_match(kinds: Sequence[str], num_images: int, defects: Sequence[Defect]) -> None:
    """Raises UserError unless the kinds are known and `check_groups_match` holds."""
    check_groups_match(kinds, num_images, defects)
    check_kinds(kinds)


def check_groups_match(groups: Sequence[str], num_images: int, defects: Sequence[Defect]) -> None:
    """Raises UserError unless exactly the images that are not good have defects."""
    if len(groups) != num_images:
        raise UserError(
            f"Each map needs one kind, but there are {len(groups)} kinds for {num_images} maps."
        )
    with_defect = {defect.image for defect in defects}
    for image, group in enumerate(groups):
        if (group == GOOD) == (image in with_defect):
            has = "a" if image in with_defect else "no"
            raise UserError(f"Image {image} is of kind {group!r} but has {has} defect mask.")


def _checked_mask(maps: Sequence[FloatMap], image: int, mask: ArrayLike) -> Mask:
    checked = np.asarray(mask)
    if checked.dtype != np.bool_:
        raise UserError(
            f"A mask must be boolean, but that of image {image} is {checked.dtype}. Try mask > 0."
        )
    if checked.shape != maps[image].shape:
        raise UserError(
            f"A mask must have its anomaly map's shape, but for image {image} the mask has "
            f"{checked.shape} and the map {maps[image].shape}."
        )
    return checked


def scores_within(maps: Sequence[FloatMap], masks: Mapping[int, Mask]) -> FloatMap:
    """Returns the scores of all pixels in the masks, image by image."""
    return np.concatenate([maps[image][mask] for image, mask in masks.items()])


def spro_steps(maps: Sequence[FloatMap], defects: Sequence[Defect]) -> Steps:
    """Returns the steps of the mean sPRO of the defects."""
    scores, gains = zip(*(_saturating_gains(maps, defect) for defect in defects), strict=True)
    return Steps(np.concatenate(scores), np.concatenate(gains) / len(defects))


def pro_steps(maps: Sequence[FloatMap], masks: Mapping[int, Mask]) -> Steps:
    """Returns the steps of the mean overlap of the regions, MVTec's per-region overlap (PRO).

    A region is an 8-connected component of a mask; its overlap is the share of its pixels above
    the threshold; the mean is over all regions of all images (Bergmann et al., "The MVTec Anomaly
    Detection Dataset", IJCV 2021, whose evaluation code labels components with a 3x3 structure of
    ones; its limit is 0.3).
    """
    scores, areas = zip(
        *(_scores_and_areas_of_regions(maps[image], mask) for image, mask in masks.items()),
        strict=True,
    )
    shares = 1.0 / np.concatenate(areas)
    # The shares of one region sum to 1, so their sum counts the regions.
    return Steps(np.concatenate(scores), shares / np.round(shares.sum()))


def recall_steps(maps: Sequence[FloatMap], masks: Mapping[int, Mask]) -> Steps:
    """Returns the steps of the share of defective pixels found."""
    scores = scores_within(maps, masks)
    return Steps(scores, np.full(scores.size, 1.0 / scores.size))


def by_limit(fpr_limits: Sequence[float], heights: NDArray[np.float64]) -> dict[float, float]:
    """Returns the heights by their limits, clipped to 1."""
    # Rounding may carry a perfect area above 1 by a few units in the last place.
    return {
        limit: min(1.0, float(height)) for limit, height in zip(fpr_limits, heights, strict=True)
    }


def _saturating_gains(
    maps: Sequence[FloatMap], defect: Defect
) -> tuple[FloatMap, NDArray[np.float64]]:
    """Returns the defect's highest scores, up to saturation, and what each adds to its sPRO."""
    scores = maps[defect.image][defect.mask]
    limit = defect.saturation_area
    num_counting = min(math.ceil(limit), scores.size)
    first = scores.size - num_counting
    counting = np.partition(scores, first)[first:]
    gains = np.full(num_counting, 1.0 / limit)
    # The lowest score comes first and counts for the fraction of a saturation area only.
    gains[0] = min(1.0, limit - (num_counting - 1)) / limit
    return counting, gains


def _scores_and_areas_of_regions(
    scores: FloatMap, mask: Mask
) -> tuple[FloatMap, NDArray[np.int64]]:
    """Returns, for each pixel of the mask, its score and the area of its connected component."""
    labels, _ = ndimage.label(mask, structure=_EIGHT_NEIGHBOURS)
    label_of_pixel = labels[mask]
    return scores[mask], np.bincount(label_of_pixel)[label_of_pixel]
