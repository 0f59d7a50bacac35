"""Classifies Ray's exceptions of broken trials as bug, lost worker, memory or storage."""

from __future__ import annotations

import torch
from ray.exceptions import RayActorError, RayError, RayTaskError

from dfsc_tune.errors import StorageError
from dfsc_tune.search.failures import Failure


def classify(error: BaseException) -> Failure:
    """Returns the failure that an exception from Ray stands for."""
    if isinstance(error, RayTaskError):
        return _classify_cause(error.cause)
    if isinstance(error, RayActorError) and error.actor_init_failed:
        # For instance, our package is missing on that node; it would fail there again.
        return Failure("bug", f"its process did not start: {str(error).strip().splitlines()[-1]}")
    if isinstance(error, RayActorError):
        return Failure("preempted" if error.preempted else "lost", "its worker was lost")
    return _classify_cause(error)


def _classify_cause(cause: BaseException) -> Failure:
    text = str(cause).strip()
    reason = f"{type(cause).__name__}: {text.splitlines()[0]}" if text else type(cause).__name__
    if isinstance(cause, torch.OutOfMemoryError | MemoryError):
        return Failure("memory", reason)
    # cuBLAS and cuDNN report it only in the message.
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
