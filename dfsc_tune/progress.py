"""A trial's progress at a report, and the names of its losses and of its checkpoint."""

from __future__ import annotations

from dataclasses import dataclass

CHECKPOINT = "trial.pt"
"""The file of a trial's newest checkpoint, in a folder of its own."""
LOSSES = (
    "student_autoencoder",
    "teacher_autoencoder",
    "teacher_student",
    "dfsc",
    "penalty",
    "total",
)
"""The names of a training's losses, as `training.losses.Losses` has them."""


@dataclass(frozen=True)
class Progress:
    """A trial's progress at a report."""

    step: int
    value: float
    """The objective's value at the EMA momentum that counts."""
    metrics: dict[float, dict[str, float | None]]
    """Image AUROCs of the selection part, for each EMA momentum; the one that counts is first."""
    losses: dict[str, float]
    """Means over the steps since the last report."""
    seconds: float
    """Time spent so far, training and scoring."""

    @property
    def ema_momentum(self) -> float:
        """The EMA momentum that counts: the trial's own or, if it may choose, the best one."""
        return next(iter(self.metrics))
