"""Whether a trial that broke is tried again, and with how much of a GPU.

A bug or bad setting would break again, so its trial fails at once. What the trial cannot be blamed
for is tried again from its last checkpoint, after a pause that grows.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

MAX_RETRIES = 3
"""In a row, without a report between."""
_FIRST_PAUSE_SECONDS = 2.0
_PAUSE_FACTOR = 4.0


@dataclass(frozen=True)
class Failure:
    """Why a trial broke; `search.classify` tells it from an exception."""

    kind: Literal["bug", "lost", "preempted", "memory", "storage"]
    reason: str


@dataclass(frozen=True)
class Retry:
    """When a trial is tried again, and with how much of a GPU."""

    pause_seconds: float
    gpus: float


def next_attempt(failure: Failure, num_retries: int, gpus: float) -> Retry | None:
    """Whether and how a broken trial is tried again.

    Args:
        failure: why it broke.
        num_retries: how often it was tried again since its last report.
        gpus: the share of a GPU that it had.

    Returns:
        None if it is not tried again.
    """
    if failure.kind == "bug" or (failure.kind != "preempted" and num_retries >= MAX_RETRIES):
        return None
    if failure.kind == "memory":
        if gpus >= 1:
            return None
        # Twice the share: half as many trials on that GPU.
        gpus = min(1.0, 2 * gpus)
    pause = _FIRST_PAUSE_SECONDS * _PAUSE_FACTOR ** min(num_retries, MAX_RETRIES)
    return Retry(pause, gpus)
