"""AUROC against a setting as a curve, with the doubt that the trials leave."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from dfsc_tune.metrics import LEVEL

MIN_TRIALS = 8
_BANDWIDTH_SHARE = 0.12
_NUM_PLACES = 60
_NUM_RESAMPLES = 300


@dataclass(frozen=True)
class Curve:
    """A smoothed curve and its 95 % band, all arrays of one length."""

    positions: NDArray[np.float64]
    values: NDArray[np.float64]
    low: NDArray[np.float64]
    high: NDArray[np.float64]


def smooth(positions: NDArray[np.float64], values: NDArray[np.float64]) -> Curve | None:
    """A kernel-weighted mean of trials along an axis, with a bootstrap band over the trials.

    The band says how far other trials at the same places could have bent the curve. It does not
    hold the noise of the images, which lifts or lowers all trials together.

    Args:
        positions: (N,) of the trials on their axis, finite.
        values: (N,) what they reached.

    Returns:
        The curve, or None below `MIN_TRIALS` trials or where all lie in one place.
    """
    if len(values) < MIN_TRIALS or np.ptp(positions) == 0:
        return None
    places = np.linspace(positions.min(), positions.max(), _NUM_PLACES)
    bandwidth = _BANDWIDTH_SHARE * float(np.ptp(positions))
    weights = np.exp(-0.5 * ((places[:, None] - positions) / bandwidth) ** 2)
    generator = np.random.default_rng(0)
    shares = np.full(len(values), 1 / len(values))
    counts = generator.multinomial(len(values), shares, size=_NUM_RESAMPLES)
    # A resample may leave a place bare: its neighbours, however far, then speak for it.
    resampled = (weights @ (counts * values).T) / (weights @ counts.T)
    low, high = np.quantile(resampled, [(1 - LEVEL) / 2, (1 + LEVEL) / 2], axis=1)
    return Curve(places, (weights @ values) / weights.sum(axis=1), low, high)
