"""Exact areas under curves over the false-positive rate, for hundreds of millions of pixels.

As the threshold falls, a localisation curve rises at each pixel of a defect and moves right at each
negative pixel. So its area is a sum over the defect pixels alone: each lifts the curve by its gain
for all negatives still to come within the limit. Of the negatives, only two counts are needed for
each defect pixel: how many score above it, and how many score the same.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

FloatMap = NDArray[np.floating]
"""Scores as float32 or float64."""

# Bounds the memory beyond the maps themselves: a slice of this many pixels is copied and sorted.
_SLICE_PIXELS = 48_000_000
# Edges of slices come from a sample; its error costs time only, never exactness.
_SAMPLE_PIXELS = 1_000_000


@dataclass(frozen=True, eq=False)
class Steps:
    """The scores at which a curve rises as the threshold falls, and its gains; in any order."""

    scores: FloatMap
    """Shape (G,)."""
    gains: NDArray[np.float64]
    """Shape (G,)."""


def mean_heights(
    maps: Sequence[FloatMap],
    defective: FloatMap,
    curves: Sequence[Steps],
    fpr_limits: Sequence[float],
) -> NDArray[np.float64]:
    """Returns each curve's area up to each false-positive rate, over that rate: (curves, limits).

    A curve has a point for each distinct threshold t: the share of negative pixels above t, and
    the sum of the gains whose score is above t. Points are joined by straight lines, so pixels of
    equal score act together, as one sloped step. At the limit the curve is interpolated.

    The pixels are sorted in slices from the highest scores down, and only until the largest limit
    is reached.

    Args:
        maps: all anomaly maps, finite; negatives and defects alike.
        defective: scores of the defective pixels, each pixel once, in any order.
        curves: curves over the same negatives.
        fpr_limits: each in (0, 1].
    """
    num_negatives = sum(scores.size for scores in maps) - defective.size
    budgets = np.asarray(fpr_limits, dtype=np.float64) * num_negatives
    curves = [_in_order(steps) for steps in curves]
    defective = np.sort(defective)

    areas = np.zeros((len(curves), len(budgets)))
    num_above = 0
    for low, high in _slices(maps, num_needed=int(budgets.max()) + defective.size + 1):
        pixels = _sorted_between(maps, low, high)
        no_negatives = defective[_span(defective, low, high)]
        for index, steps in enumerate(curves):
            span = _span(steps.scores, low, high)
            above, tied = _num_above_and_tied(pixels, steps.scores[span])
            above_defective, tied_defective = _num_above_and_tied(no_negatives, steps.scores[span])
            above += num_above - above_defective
            tied -= tied_defective
            areas[index] += [
                float(steps.gains[span] @ _reach(above, tied, budget)) for budget in budgets
            ]
        num_above += pixels.size - no_negatives.size
        if num_above >= budgets.max():
            break
    heights: NDArray[np.float64] = areas / budgets
    return heights


def _in_order(steps: Steps) -> Steps:
    order = np.argsort(steps.scores)
    return Steps(steps.scores[order], steps.gains[order])


def _reach(above: NDArray[np.int64], tied: NDArray[np.int64], budget: float) -> NDArray[np.float64]:
    """Returns the area, in negatives, under a step of height 1 that ramps over `tied` negatives."""
    left = budget - above
    on_ramp = np.clip(left, 0, tied)
    reach: NDArray[np.float64] = on_ramp**2 / (2 * np.maximum(tied, 1))
    reach += np.maximum(left - tied, 0)
    return reach


def _num_above_and_tied(
    ordered: FloatMap, scores: FloatMap
) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Returns how many of `ordered` are above, and equal to, each of the scores."""
    not_above = np.searchsorted(ordered, scores, side="right")
    below = np.searchsorted(ordered, scores, side="left")
    return ordered.size - not_above, not_above - below


def _slices(maps: Sequence[FloatMap], num_needed: int) -> Iterator[tuple[np.floating, np.floating]]:
    """Yields half-open score ranges (low, high], from the highest scores down, that cover all.

    The first few together hold about `num_needed` pixels, and none holds many more than the slice
    size (unless very many pixels tie).
    """
    num_pixels = sum(scores.size for scores in maps)
    num_first = max(1, -(-num_needed // _SLICE_PIXELS))
    # Slightly more than needed, so that the sample's error seldom costs another slice.
    slice_size = 1.03 * num_needed / num_first
    sample = np.sort(_sample(maps))
    shares = np.arange(slice_size, num_pixels, slice_size) / num_pixels
    positions = sample.size - 1 - np.floor(shares * sample.size).astype(np.int64)
    # Edges keep the dtype of the scores: a Python float would be rounded before it is compared.
    edges = np.unique(sample[np.maximum(positions, 0)])[::-1]
    infinity = sample.dtype.type(np.inf)
    yield from zip([*edges, -infinity], [infinity, *edges], strict=True)


def _sorted_between(maps: Sequence[FloatMap], low: np.floating, high: np.floating) -> FloatMap:
    """Returns a sorted copy of all pixels with low < score <= high."""
    if np.isinf(low) and np.isinf(high):
        pixels = np.concatenate([scores.ravel() for scores in maps])
    elif np.isinf(high):
        pixels = np.concatenate([scores[scores > low] for scores in maps])
    else:
        pixels = np.concatenate([scores[(scores > low) & (scores <= high)] for scores in maps])
    pixels.sort()
    return pixels


def _span(ordered: FloatMap, low: np.floating, high: np.floating) -> slice:
    """Returns the slice of `ordered` with low < score <= high."""
    start, stop = np.searchsorted(ordered, [low, high], side="right")
    return slice(int(start), int(stop))


def _sample(maps: Sequence[FloatMap]) -> FloatMap:
    generator = np.random.default_rng(0)
    share = min(1.0, _SAMPLE_PIXELS / sum(scores.size for scores in maps))
    return np.concatenate(
        [
            scores.ravel()[generator.integers(scores.size, size=int(np.ceil(share * scores.size)))]
            for scores in maps
        ]
    )
