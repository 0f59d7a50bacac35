"""How sure one may be of an AU-sPRO, given so many images: a bootstrap over images.

Resampling pixels of whole images again and again would take hours. Instead each image is read once
into a small table: its false positives, and its defects' sPRO, above each of some hundred
thresholds. A resample is then a weighted sum of tables.
"""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike, NDArray

from dfsc_tune.metrics.areas import FloatMap
from dfsc_tune.metrics.image import GOOD, KINDS
from dfsc_tune.metrics.pixel import (
    Defect,
    Mask,
    check_groups_match,
    check_kinds_match,
    checked_limits,
    checked_maps,
    unions,
)
from dfsc_tune.metrics.uncertainty import (
    LEVEL,
    Interval,
    hull,
    normal_quantile,
    percentile_interval,
)

FloatArray = NDArray[np.float64]

# With these, the table's AU-sPRO lies within 0.002 of the exact one, and half a negative pixel's
# share of those within the limit.
_NUM_THRESHOLDS = 1000
# Tables reach this many times the FPR limit, since a resample may reach the limit further down.
_REACH = 4
_SAMPLE_PIXELS = 1_000_000
_NUM_RESAMPLES = 1000


def au_spro_interval(
    anomaly_maps: Sequence[ArrayLike],
    kinds: Sequence[str],
    defects: Sequence[Defect],
    fpr_limit: float = 0.05,
) -> dict[str, Interval]:
    """Return a 95 % interval of each number of `au_spro_by_kind`; each call gives the same.

    It is the hull of the percentile bootstrap, which resamples images (with all their defects)
    within the good ones and within each kind, and of a score interval that stays honest where few
    or all too similar images make the bootstrap too narrow; see `_score_interval`.

    Args:
        anomaly_maps, kinds, defects: as for `au_spro_by_kind`.
        fpr_limit: in (0, 1].

    Returns:
        Intervals by "logical" and "structural", if present, and "mean".

    Raises:
        UserError: as `au_spro_by_kind`.
    """
    check_kinds_match(kinds, len(anomaly_maps), defects)
    found = _resample(anomaly_maps, kinds, defects, fpr_limit)
    resamples = {kind: found[kind] for kind in KINDS if kind in found}
    resamples["mean"] = _Resamples(
        estimate=float(np.mean([one.estimate for one in found.values()])),
        values=np.mean([one.values for one in found.values()], axis=0),
        # The variance of a mean over kinds is that of one kind with so many images.
        num_images=len(found) ** 2 / sum(1 / one.num_images for one in found.values()),
    )
    return {name: one.interval() for name, one in resamples.items()}


def au_spro_interval_by_group(
    anomaly_maps: Sequence[ArrayLike],
    groups: Sequence[str],
    defects: Sequence[Defect],
    fpr_limit: float = 0.05,
) -> dict[str, Interval]:
    """Return a 95 % interval of each number of `au_spro_by_group`; each call gives the same.

    Arguments and errors are those of `au_spro_interval`, but for `groups`: for each image "good"
    or any other name, such as its defect type.
    """
    check_groups_match(groups, len(anomaly_maps), defects)
    found = _resample(anomaly_maps, groups, defects, fpr_limit)
    return {group: one.interval() for group, one in found.items()}


@dataclass(frozen=True)
class _Resamples:
    """What a bootstrap finds of one number."""

    estimate: float
    values: FloatArray
    """Shape (R,)."""
    num_images: float

    def interval(self) -> Interval:
        score = _score_interval(self.estimate, float(self.values.var()), self.num_images)
        return hull(percentile_interval(self.values), score)


def _resample(
    anomaly_maps: Sequence[ArrayLike],
    groups: Sequence[str],
    defects: Sequence[Defect],
    fpr_limit: float,
) -> dict[str, _Resamples]:
    """Return the bootstrapped AU-sPRO of each group of anomalous images, with all good images."""
    checked_limits([fpr_limit])
    table = _tabulate(checked_maps(anomaly_maps), defects, fpr_limit)
    generator = np.random.default_rng(0)
    labels = np.asarray(groups)
    is_good = labels == GOOD
    good_weights = _draw(is_good, generator)
    found = {}
    for group in sorted(set(groups) - {GOOD}):
        of_group = labels == group
        weights = good_weights + _draw(of_group, generator)
        once = (is_good | of_group).astype(np.float64)[np.newaxis]
        found[group] = _Resamples(
            estimate=float(table.au_spro(once, of_group, fpr_limit)[0]),
            values=table.au_spro(weights, of_group, fpr_limit),
            num_images=float(of_group.sum()),
        )
    return found


@dataclass(frozen=True)
class _Table:
    """What a bootstrap needs of each image, above each of T falling thresholds."""

    false_positives: FloatArray
    """Negative pixels above the threshold, shape (images, T), from none to all."""
    num_negatives: FloatArray
    """Shape (images,)."""
    spro: FloatArray
    """Shape (defects, T)."""
    defect_images: NDArray[np.int64]
    """The image of each defect, shape (defects,)."""

    def au_spro(
        self, weights: FloatArray, defective: NDArray[np.bool_], fpr_limit: float
    ) -> FloatArray:
        """Return the AU-sPRO of each resample, shape (R,).

        Args:
            weights: how often each image is taken, shape (R, images).
            defective: the images whose defects count, shape (images,); each resample has some.
            fpr_limit: in (0, 1].
        """
        counting = defective[self.defect_images]
        defect_weights = weights[:, self.defect_images[counting]]
        heights = defect_weights @ self.spro[counting] / defect_weights.sum(axis=1, keepdims=True)
        rates = weights @ self.false_positives / (weights @ self.num_negatives)[:, np.newaxis]
        return _areas_up_to(rates, heights, fpr_limit) / fpr_limit


def _tabulate(maps: Sequence[FloatMap], defects: Sequence[Defect], fpr_limit: float) -> _Table:
    masks = unions(maps, defects)
    thresholds = _thresholds(maps, masks, min(1.0, _REACH * fpr_limit))
    false_positives = np.stack([_num_above(scores, thresholds) for scores in maps])
    for image, mask in masks.items():
        false_positives[image] -= _num_above(maps[image][mask], thresholds)
    true_positives = np.stack(
        [_num_above(maps[defect.image][defect.mask], thresholds) for defect in defects]
    )
    saturation_areas = np.array([[defect.saturation_area] for defect in defects])
    return _Table(
        false_positives=false_positives,
        num_negatives=false_positives[:, -1],
        spro=np.minimum(true_positives / saturation_areas, 1.0),
        defect_images=np.array([defect.image for defect in defects]),
    )


def _thresholds(maps: Sequence[FloatMap], masks: Mapping[int, Mask], reach: float) -> FloatMap:
    """Return falling thresholds at pooled FPRs that lie evenly, and also evenly in logarithm."""
    sample = np.sort(_sample_of_negatives(maps, masks))
    rates = np.concatenate(
        [
            np.geomspace(1 / sample.size, reach, _NUM_THRESHOLDS // 2),
            np.linspace(0, reach, _NUM_THRESHOLDS // 2),
        ]
    )
    places = np.minimum(np.floor(rates * sample.size), sample.size - 1).astype(np.int64)
    falling: FloatMap = sample[::-1][np.unique(places)]
    return falling


def _sample_of_negatives(maps: Sequence[FloatMap], masks: Mapping[int, Mask]) -> FloatMap:
    generator = np.random.default_rng(0)
    share = min(1.0, _SAMPLE_PIXELS / sum(scores.size for scores in maps))
    pieces = []
    for image, scores in enumerate(maps):
        places = (
            np.arange(scores.size)
            if share == 1
            else generator.integers(scores.size, size=math.ceil(share * scores.size))
        )
        if image in masks:
            places = places[~masks[image].ravel()[places]]
        pieces.append(scores.ravel()[places])
    return np.concatenate(pieces)


def _num_above(scores: FloatMap, thresholds: FloatMap) -> FloatArray:
    """Return how many scores are above +infinity, each of the falling thresholds, -infinity."""
    candidates = np.sort(scores[scores > thresholds[-1]])
    num_above = candidates.size - np.searchsorted(candidates, thresholds, side="right")
    return np.concatenate([[0.0], num_above, [float(scores.size)]])


def _areas_up_to(rates: FloatArray, heights: FloatArray, limit: float) -> FloatArray:
    """Return the trapezoid areas under curves, a row each, interpolated at the limit."""
    left, right = np.minimum(rates[:, :-1], limit), np.minimum(rates[:, 1:], limit)
    steps = np.diff(rates, axis=1)
    share_within = np.divide(right - left, steps, out=np.ones_like(steps), where=steps > 0)
    mean_heights = heights[:, :-1] + share_within * np.diff(heights, axis=1) / 2
    areas: FloatArray = np.einsum("rt,rt->r", right - left, mean_heights)
    return areas


def _draw(stratum: NDArray[np.bool_], generator: np.random.Generator) -> FloatArray:
    """Return how often each image is taken, shape (R, images); 0 outside the stratum."""
    num_images = int(stratum.sum())
    shares = stratum / max(1, num_images)
    return generator.multinomial(num_images, shares, size=_NUM_RESAMPLES).astype(np.float64)


def _score_interval(estimate: float, bootstrap_variance: float, num_images: float) -> Interval:
    """Return Wilson's score interval (JASA 22 (1927) 209) with an effective number of images.

    An image's AU-sPRO lies in [0, 1], so it varies at most as a coin does: estimate * (1 -
    estimate). How much less, is estimated by the bootstrap, and shrunk towards that bound as if z^2
    images more had been seen that reach it; Wilson's interval too acts like z^2 images more.
    """
    z_squared = normal_quantile(LEVEL) ** 2
    bound = estimate * (1 - estimate) / num_images
    ratio = min(1.0, bootstrap_variance / bound) if bound > 0 else 1.0
    shrunk_ratio = (z_squared + num_images * ratio) / (z_squared + num_images)
    share = z_squared * shrunk_ratio / num_images
    centre = (estimate + share / 2) / (1 + share)
    half = math.sqrt(share * estimate * (1 - estimate) + share**2 / 4) / (1 + share)
    return Interval(max(0.0, centre - half), min(1.0, centre + half))
