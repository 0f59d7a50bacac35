"""Retries of broken trials.

A bug or a bad setting would break again, so the trial fails at once. After any other failure it is
retried from its last checkpoint, after a growing pause.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

MAX_RETRIES = 3
"""Retries in a row, without a report in between."""
_FIRST_PAUSE_SECONDS = 2.0
_PAUSE_FACTOR = 4.0


@dataclass(frozen=True)
class Failure:
    """The reason why a trial broke; `search.classify` finds it from an exception."""

    kind: Literal["bug", "lost", "preempted", "memory", "storage"]
    reason: str


@dataclass(frozen=True)
class Retry:
    """A retry of a trial: the pause before it, and the share of a GPU."""

    pause_seconds: float
    gpus: float


def next_attempt(failure: Failure, num_retries: int, gpus: float) -> Retry | None:
    """Decides whether and how to retry a broken trial.

    Args:
        failure: the reason why it broke.
        num_retries: number of retries since its last report.
        gpus: the share of a GPU that it had.

    Returns:
        The retry; None if the trial fails.
    """
    if failure.kind == "bug" or (failure.kind != "preempted" and num_retries >= MAX_RETRIES):
        return None
    if failure.kind == "memory":
        if gpus >= 1:
            return None
        # With twice the share, half as many trials use that GPU.
        gpus = min(1.0, 2 * gpus)
    pause = _FIRST_PAUSE_SECONDS * _PAUSE_FACTOR ** min(num_retries, MAX_RETRIES)
    return Retry(pause, gpus)
