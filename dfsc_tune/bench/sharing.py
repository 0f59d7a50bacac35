"""How many trials shall share a device, by how fast they were measured to be together."""

from __future__ import annotations

from collections.abc import Mapping

# A further trial must add this share to the whole, else it only takes memory.
_LEAST_GAIN = 0.05


def best_count(steps_per_second: Mapping[int, float]) -> int:
    """The fewest trials at once beyond which more add next to nothing.

    Args:
        steps_per_second: of all trials together, by their number; at least one.
    """
    best, *more = sorted(steps_per_second)
    for count in more:
        if steps_per_second[count] >= steps_per_second[best] * (1 + _LEAST_GAIN):
            best = count
    return best
