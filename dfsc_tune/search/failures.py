"""Why a trial broke (a bug, a lost worker, memory, storage), and whether it is tried again.

A bug or bad setting would break again, so its trial fails at once. What the trial cannot be blamed
for is tried again from its last checkpoint, after a pause that grows.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import torch
from ray.exceptions import RayActorError, RayError, RayTaskError

from dfsc_tune.errors import StorageError

MAX_RETRIES = 3
"""In a row, without a report between."""
_FIRST_PAUSE_SECONDS = 2.0
_PAUSE_FACTOR = 4.0


@dataclass(frozen=True)
class Failure:
    """Why a trial broke."""

    kind: Literal["bug", "lost", "preempted", "memory", "storage"]
    reason: str


@dataclass(frozen=True)
class Retry:
    """That a trial is tried again, when, and with how much of a GPU."""

    pause_seconds: float
    gpus: float


def classify(error: BaseException) -> Failure:
    """Why a trial broke, by the exception that Ray gives for it."""
    if isinstance(error, RayTaskError):
        return _classify_cause(error.cause)
    if isinstance(error, RayActorError) and error.actor_init_failed:
        # Our package is missing on that node, or the like: it would fail there again.
        return Failure("bug", f"its process did not start: {str(error).strip().splitlines()[-1]}")
    if isinstance(error, RayActorError):
        return Failure("preempted" if error.preempted else "lost", "its worker was lost")
    return _classify_cause(error)


def _classify_cause(cause: BaseException) -> Failure:
    text = str(cause).strip()
    reason = f"{type(cause).__name__}: {text.splitlines()[0]}" if text else type(cause).__name__
    if isinstance(cause, torch.OutOfMemoryError | MemoryError):
        return Failure("memory", reason)
    # cuBLAS and cuDNN tell of it in words only.
    if isinstance(cause, RuntimeError) and (
        "out of memory" in text.lower() or "ALLOC_FAILED" in text
    ):
        return Failure("memory", reason)
    if isinstance(cause, StorageError):
        return Failure("storage", text)
    if isinstance(cause, OSError):
        return Failure("storage", reason)
    if isinstance(cause, RayError):
        return Failure("lost", reason)
    return Failure("bug", reason)


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
