"""Confidence intervals of image AUROCs and of their differences.

Each interval is the hull of two. A stratified percentile bootstrap assumes no distribution, but its
interval shrinks to a point if the sample is separated perfectly, and is too narrow for a few
images. Newcombe's score interval keeps its width there, but rests on a model of the scores. Each
covers cases that the other misses, and with many images they nearly agree. In simulation (normal
scores of equal and of threefold spread, AUROC 0.75 to 0.99, 2 to 100 images of each kind) hulls of
nominal level 0.95 covered the mean AUROC in 0.94 to 1.00 of the repetitions, the bootstrap alone in
0.05 to 0.96, the score interval alone in 0.90 to 0.99.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from statistics import NormalDist

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy import stats

from dfsc_tune.metrics.image import ScoresByKind, image_auroc, part_by_kind

FloatArray = NDArray[np.float64]

LEVEL = 0.95
"""Nominal coverage of all intervals."""
_NUM_RESAMPLES = 2000


@dataclass(frozen=True)
class Interval:
    """A two-sided confidence interval."""

    low: float
    high: float
    level: float = LEVEL
    """Nominal coverage, in (0, 1)."""


@dataclass(frozen=True)
class Difference:
    """The difference of two configurations' mean image AUROC on the same images."""

    value: float
    """Mean AUROC of the first minus that of the second."""
    interval: Interval
    p_value: float
    """Two-sided, for the null hypothesis that the two are interchangeable."""


def image_auroc_interval(scores: ArrayLike, kinds: Sequence[str]) -> dict[str, Interval]:
    """Returns a 95 % confidence interval of each number of `image_auroc`; deterministic.

    Each is the hull of two intervals. One is the percentile bootstrap, which resamples the good
    images and those of each kind separately. The other, for a kind, is Newcombe's score interval
    (Statistics in Medicine 25 (2006) 559, method 5). For the mean, the kinds' intervals are
    combined by the MOVER (Zou and Donner, Statistics in Medicine 27 (2008) 1693). It takes the
    correlation that the shared good images cause, as estimated by DeLong et al. (Biometrics 44
    (1988) 837) and shrunk towards 1 if few images support that estimate.

    Args:
        scores, kinds: as for `image_auroc`.

    Returns:
        Intervals of "logical" and "structural", if present, and "mean".

    Raises:
        UserError: as `image_auroc`.
    """
    return mean_image_auroc_interval([scores], kinds)


def mean_image_auroc_interval(
    score_lists: Sequence[ArrayLike], kinds: Sequence[str]
) -> dict[str, Interval]:
    """Returns the intervals of `image_auroc_interval` for mean AUROCs over several models.

    They tell how uncertain the mean over these very models is, given so few images. That other
    models of the same setting would differ is not included.

    Args:
        score_lists: each model's scores of the same images, shape (N,) each.
        kinds: as for `image_auroc`.

    Raises:
        UserError: as `image_auroc`.
    """
    weights = [1 / len(score_lists)] * len(score_lists)
    return _weighted_intervals(score_lists, weights, kinds)


def image_auroc_difference(
    scores_a: ArrayLike, scores_b: ArrayLike, kinds: Sequence[str]
) -> Difference:
    """Returns the difference a - b of two mean image AUROCs on the same images, with its interval.

    As in `image_auroc_interval`, the interval is the hull of a paired bootstrap and of the MOVER
    with DeLong's correlations, here shrunk towards independence if few images support them. The
    p-value is that of the permutation test of Bandos et al. (Statistics in Medicine 24 (2005)
    2873): under the null hypothesis, the ranks that a and b give to an image may be swapped. The
    test is valid for any number of images, so with very few the p-value cannot be small. The test
    is more powerful than the interval: near an AUROC of 1 the interval may contain 0 although the
    p-value is small.

    Args:
        scores_a, scores_b: the two configurations' scores of the same images, shape (N,) each.
        kinds: as for `image_auroc`.

    Raises:
        UserError: as `image_auroc`.
    """
    parted = [part_by_kind(scores, kinds) for scores in (scores_a, scores_b)]
    intervals = mean_image_auroc_difference([scores_a], [scores_b], kinds)
    a, b = (image_auroc(scores, kinds).mean for scores in (scores_a, scores_b))
    return Difference(
        value=a - b,
        interval=intervals["mean"],
        p_value=_swap_p_value(parted[0], parted[1]),
    )


def mean_image_auroc_difference(
    score_lists_a: Sequence[ArrayLike], score_lists_b: Sequence[ArrayLike], kinds: Sequence[str]
) -> dict[str, Interval]:
    """Returns intervals of the differences between the mean AUROCs of models a and of models b.

    They are made as in `image_auroc_difference`, paired by image. As in
    `mean_image_auroc_interval`, they hold for these very models.

    Args:
        score_lists_a, score_lists_b: each model's scores of the same images, shape (N,) each.
        kinds: as for `image_auroc`.

    Returns:
        Intervals by "logical" and "structural", if present, and "mean".

    Raises:
        UserError: as `image_auroc`.
    """
    score_lists = [*score_lists_a, *score_lists_b]
    weights = [1 / len(score_lists_a)] * len(score_lists_a)
    weights += [-1 / len(score_lists_b)] * len(score_lists_b)
    return _weighted_intervals(score_lists, weights, kinds)


def _weighted_intervals(
    score_lists: Sequence[ArrayLike], weights: Sequence[float], kinds: Sequence[str]
) -> dict[str, Interval]:
    """Returns intervals of the weighted sum of some models' AUROCs, by kind and of their mean."""
    comparison = _Comparison([part_by_kind(scores, kinds) for scores in score_lists])
    # Rows are ordered by model, then by kind.
    by_kind = np.kron(np.asarray(weights), np.eye(len(comparison.kinds)))
    rows = {**dict(zip(comparison.kinds, by_kind, strict=True)), "mean": by_kind.mean(axis=0)}
    resampled = comparison.resampled()
    return {
        name: hull(percentile_interval(resampled @ row), comparison.mover_interval(row))
        for name, row in rows.items()
    }


def newcombe_interval(auroc: float, num_good: int, num_anomalous: int) -> Interval:
    """Returns Newcombe's score interval of an observed AUROC; its width is never zero.

    The limits solve |auroc - a| = z * sd(a), with Hanley and McNeil's variance at a, in whose
    numerator both numbers of images are replaced by their mean (Newcombe 2006, method 5).
    """

    def lower_limit(observed: float) -> float:
        low, high = 0.0, observed
        for _ in range(60):
            middle = (low + high) / 2
            if observed - middle > z * _newcombe_deviation(middle, num_good, num_anomalous):
                low = middle
            else:
                high = middle
        return low

    z = normal_quantile(LEVEL)
    # The variance is symmetric about one half, and so is the interval.
    return Interval(lower_limit(auroc), 1 - lower_limit(1 - auroc))


def normal_quantile(level: float) -> float:
    """Returns the half-width, in standard deviations, of a normal interval of a level."""
    return NormalDist().inv_cdf((1 + level) / 2)


def percentile_interval(values: FloatArray) -> Interval:
    """Returns the middle 95 % of the resampled values."""
    low, high = np.quantile(values, [(1 - LEVEL) / 2, (1 + LEVEL) / 2])
    return Interval(float(low), float(high))


def hull(first: Interval, second: Interval) -> Interval:
    """Returns the shortest interval that contains both."""
    return Interval(min(first.low, second.low), max(first.high, second.high))


class _Comparison:
    """The AUROCs of configurations on the same images, one row per configuration and kind.

    Rows are ordered by configuration, then by kind. All methods need only the wins in the pairs of
    a good and an anomalous image: 1 if the anomalous one scores higher, 0.5 for a tie.
    """

    def __init__(self, configurations: Sequence[ScoresByKind]) -> None:
        self.kinds = tuple(configurations[0].anomalous)
        self.row_kinds = self.kinds * len(configurations)
        self.wins = [
            _wins(parted.good, parted.anomalous[kind])
            for parted in configurations
            for kind in self.kinds
        ]
        self.aurocs: FloatArray = np.array([wins.mean() for wins in self.wins])

    def resampled(self) -> FloatArray:
        """Returns bootstrapped AUROCs, shape (resamples, rows), paired across rows."""
        generator = np.random.default_rng(0)

        def draw(num_images: int) -> FloatArray:
            shares = np.full(num_images, 1 / num_images)
            return generator.multinomial(num_images, shares, size=_NUM_RESAMPLES) / num_images

        good = draw(self.wins[0].shape[0])
        anomalous = {
            kind: draw(wins.shape[1]) for kind, wins in zip(self.kinds, self.wins, strict=False)
        }
        columns = [
            np.einsum("rn,rn->r", good @ wins, anomalous[kind])
            for kind, wins in zip(self.row_kinds, self.wins, strict=True)
        ]
        return np.stack(columns, axis=1)

    def mover_interval(self, row: FloatArray) -> Interval:
        """Returns the MOVER interval of a weighted sum of the AUROCs, one weight for each row."""
        limits = [
            newcombe_interval(float(auroc), wins.shape[0], wins.shape[1])
            for auroc, wins in zip(self.aurocs, self.wins, strict=True)
        ]
        below = self.aurocs - [limit.low for limit in limits]
        above = [limit.high for limit in limits] - self.aurocs
        correlation = self._cautious_correlation(row)

        def distance(deviations: FloatArray) -> float:
            return math.sqrt(max(0.0, float(deviations @ correlation @ deviations)))

        value = float(self.aurocs @ row)
        return Interval(
            value - distance(row * np.where(row > 0, below, above)),
            value + distance(row * np.where(row > 0, above, below)),
        )

    def _cautious_correlation(self, row: FloatArray) -> FloatArray:
        """Returns DeLong's correlations of the rows, shrunk towards the values that widen most.

        Those are 1 between rows that are added and 0 between rows that are subtracted (the same
        images seldom correlate below 0). The weight of these values is 2 / images. That is 1 for
        two images, on which any two score lists are perfectly correlated or anticorrelated.
        """
        covariance = self._delong_covariance()
        deviations = np.sqrt(np.diag(covariance))
        scale = np.outer(deviations, deviations)
        widest = (np.outer(row, row) > 0).astype(np.float64)
        estimate = np.divide(covariance, scale, out=widest.copy(), where=scale > 0)
        fewest = np.array([min(wins.shape) for wins in self.wins])
        trust = np.maximum(0.0, 1 - 2 / np.minimum.outer(fewest, fewest))
        correlation: FloatArray = widest + trust * (estimate - widest)
        np.fill_diagonal(correlation, 1.0)
        return correlation

    def _delong_covariance(self) -> FloatArray:
        covariance = _covariance_of_mean(np.stack([wins.mean(axis=1) for wins in self.wins]))
        for kind in self.kinds:
            rows = [index for index, found in enumerate(self.row_kinds) if found == kind]
            placements = np.stack([self.wins[index].mean(axis=0) for index in rows])
            covariance[np.ix_(rows, rows)] += _covariance_of_mean(placements)
        return covariance


def _wins(good: FloatArray, anomalous: FloatArray) -> FloatArray:
    """Returns 1 where the anomalous image scores higher, 0.5 for ties: shape (good, anomalous)."""
    above = anomalous > good[:, None]
    wins: FloatArray = 0.5 * (above.astype(np.float64) + (anomalous >= good[:, None]))
    return wins


def _covariance_of_mean(values: FloatArray) -> FloatArray:
    """Returns the covariance of the rows' means, shape (rows, rows); 0 for a single column."""
    num_columns = values.shape[1]
    centred = values - values.mean(axis=1, keepdims=True)
    covariance: FloatArray = centred @ centred.T / (max(1, num_columns - 1) * num_columns)
    return covariance


def _newcombe_deviation(auroc: float, num_good: int, num_anomalous: int) -> float:
    mean_number = (num_good + num_anomalous) / 2
    factor = 2 * mean_number - 1 - 3 * (mean_number - 1) / ((2 - auroc) * (1 + auroc))
    return math.sqrt(auroc * (1 - auroc) * factor / (num_good * num_anomalous))


def _swap_p_value(a: ScoresByKind, b: ScoresByKind) -> float:
    """Returns the p-value of swapping the ranks of a and b at random images.

    The difference is linear in the signs of the swaps, as the terms with two swapped images cancel.
    So each image has one contribution, and a permutation flips the signs of some of them.
    """
    contributions = _contributions_to_difference(_ranked(a), _ranked(b))
    generator = np.random.default_rng(0)
    signs = 1 - 2 * generator.integers(2, size=(_NUM_RESAMPLES, contributions.size))
    permuted = np.abs(signs @ contributions)
    # Rounding may let permutations that change nothing differ in the last place.
    num_as_large = int((permuted >= abs(contributions.sum()) - 1e-12).sum())
    return (1 + num_as_large) / (1 + _NUM_RESAMPLES)


def _contributions_to_difference(a: ScoresByKind, b: ScoresByKind) -> FloatArray:
    """Returns a number for each image whose sign flips when a and b swap their ranks there.

    Their sum is the difference of the mean AUROCs.
    """
    good = np.zeros(len(a.good))
    anomalous = []
    for kind in a.anomalous:
        same = _wins(a.good, a.anomalous[kind]) - _wins(b.good, b.anomalous[kind])
        crossed = _wins(b.good, a.anomalous[kind]) - _wins(a.good, b.anomalous[kind])
        share = 1 / (2 * same.size * len(a.anomalous))
        good += share * (same - crossed).sum(axis=1)
        anomalous.append(share * (same + crossed).sum(axis=0))
    return np.concatenate([good, *anomalous])


def _ranked(parted: ScoresByKind) -> ScoresByKind:
    """Returns the scores' ranks among all images; tied scores share the mean rank."""
    parts = [parted.good, *parted.anomalous.values()]
    ranks = stats.rankdata(np.concatenate(parts))
    good, *anomalous = np.split(ranks, np.cumsum([len(part) for part in parts])[:-1])
    return ScoresByKind(good, dict(zip(parted.anomalous, anomalous, strict=True)))
