"""Chooses the number of trials that share a device, from their measured speed together."""

from __future__ import annotations

from collections.abc import Mapping

# More trials must add at least this share to the steps per second, else they only take memory.
_LEAST_GAIN = 0.05


def best_count(steps_per_second: Mapping[int, float]) -> int:
    """Returns the smallest number of trials at once beyond which more add next to nothing.

    Args:
        steps_per_second: of all trials together, by their number; at least one.
    """
    best, *more = sorted(steps_per_second)
    for count in more:
        if steps_per_second[count] >= steps_per_second[best] * (1 + _LEAST_GAIN):
            best = count
    return best
