"""What machines cost an hour, in whatever currency the price is given in."""

from __future__ import annotations

import math
from dataclasses import dataclass


@dataclass(frozen=True)
class Price:
    """What is paid an hour, in the user's currency."""

    per_hour: float
    """Of a GPU, or of an instance."""
    gpus_per_instance: int | None = None
    """None: GPUs are paid one by one."""

    def per_hour_of(self, gpus: int) -> float:
        """Of so many GPUs; whole instances are paid. Without GPUs, of one instance."""
        if self.gpus_per_instance is None:
            return self.per_hour * gpus
        return self.per_hour * max(1, math.ceil(gpus / self.gpus_per_instance))
