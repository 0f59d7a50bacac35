"""Ray's own ASHA with the interface of ours, to compare with."""

from __future__ import annotations

import math
from types import SimpleNamespace

from ray.tune.schedulers import AsyncHyperBandScheduler, TrialScheduler

from dfsc_tune.spaces.space import Budget


def budget(num_steps: int, interval: int, grace: int, factor: int = 3) -> Budget:
    """Of one trial, in steps."""
    return Budget(
        num_trials=1,
        num_steps=num_steps,
        report_interval=interval,
        grace_period=grace,
        reduction_factor=factor,
    )


class RayAsha:
    """One AsyncHyperBandScheduler per category, called as Tune does."""

    def __init__(self, budget: Budget) -> None:
        self._budget = budget
        self._schedulers: dict[str, AsyncHyperBandScheduler] = {}
        self._trials: dict[str, SimpleNamespace] = {}

    def goes_on(
        self, category: str, trial: str, step: int, value: float, *, is_reference: bool = False
    ) -> bool:
        """As `Asha.goes_on`."""
        if category not in self._schedulers:
            self._schedulers[category] = AsyncHyperBandScheduler(
                time_attr="step",
                metric="value",
                mode="max",
                max_t=self._budget.num_steps,
                grace_period=self._budget.grace_period,
                reduction_factor=self._budget.reduction_factor,
            )
        scheduler = self._schedulers[category]
        if trial not in self._trials:
            self._trials[trial] = SimpleNamespace(trial_id=trial)
            scheduler.on_trial_add(None, self._trials[trial])
        complete = step >= self._budget.num_steps
        if not math.isfinite(value):
            return not complete
        one, result = self._trials[trial], {"step": step, "value": value}
        stops = scheduler.on_trial_result(None, one, result) == TrialScheduler.STOP
        ends = complete or (stops and not is_reference)
        if ends:
            scheduler.on_trial_complete(None, one, result)
        return not ends
