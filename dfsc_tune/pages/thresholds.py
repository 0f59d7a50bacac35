"""Operating points: the threshold for a chosen false-alarm rate, and what it catches."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import pandas as pd
from numpy.typing import NDArray
from scipy.stats import binomtest

from dfsc_tune.metrics import KINDS, LEVEL, Interval
from dfsc_tune.metrics.image import GOOD

RATES = (0.0, 0.01, 0.02, 0.05, 0.1, 0.2)


@dataclass(frozen=True)
class Share:
    """A count out of a total, and the 95 % interval of the share."""

    count: int
    total: int
    interval: Interval


@dataclass(frozen=True)
class OperatingPoint:
    """A threshold and its effect: an image that scores above it raises an alarm."""

    label: str
    threshold: float
    shares: dict[str, Share]
    """Share of images above the threshold, by kind; for good ones, these are false alarms."""


def operating_points(scores: pd.DataFrame) -> list[OperatingPoint]:
    """Finds the model's own threshold and one for each rate that the good images can resolve.

    Args:
        scores: a detector's rows of `scores.parquet`.
    """
    own = float(scores["threshold"].iloc[0])
    points = [_point("the model's own (highest good validation image)", own, scores)]
    good = np.sort(scores.loc[scores["kind"] == GOOD, "score"].to_numpy())[::-1]
    allowed: dict[int, float] = {}
    for rate in RATES:
        allowed.setdefault(int(rate * len(good) + 1e-9), rate)
    for count, rate in allowed.items():
        label = f"at most {rate:.0%} false alarms" if rate else "no false alarm"
        # At most `count` good images score above the (count + 1)-th highest good score.
        points.append(_point(label, float(good[count]), scores))
    return points


def exact_interval(count: int, total: int) -> Interval:
    """Computes the 95 % interval of a share (Clopper and Pearson, Biometrika 26 (1934) 404)."""
    interval = binomtest(count, total).proportion_ci(LEVEL, method="exact")
    return Interval(float(interval.low), float(interval.high))


def _point(label: str, threshold: float, scores: pd.DataFrame) -> OperatingPoint:
    shares = {}
    for kind in (GOOD, *KINDS):
        values: NDArray[np.float64] = scores.loc[scores["kind"] == kind, "score"].to_numpy()
        if len(values):
            count = int((values > threshold).sum())
            shares[kind] = Share(count, len(values), exact_interval(count, len(values)))
    return OperatingPoint(label, threshold, shares)
