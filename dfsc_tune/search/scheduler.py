"""ASHA for several categories at once: trials are compared only within their category."""

from __future__ import annotations

import math
from typing import Any, Protocol

from ray.tune.schedulers import AsyncHyperBandScheduler, TrialScheduler

from dfsc_tune.search.searcher import STEP, VALUE
from dfsc_tune.spaces.space import SPARED, Budget


class TrialLike(Protocol):
    """What of a trial matters here."""

    trial_id: str
    config: dict[str, Any]


class CategoryAsha:
    """One AsyncHyperBandScheduler per category, its time measured in training steps.

    It is called as that is, but for the controller, which none of them needs.

    The paper's setting and margin 0 are never stopped: the winner is compared with them at full
    budget.
    """

    def __init__(self, budget: Budget) -> None:
        self._budget = budget
        self._by_category: dict[str, AsyncHyperBandScheduler] = {}

    def on_trial_add(self, controller: Any, trial: TrialLike) -> None:
        """Gives the trial to its category's scheduler."""
        self._of(trial).on_trial_add(controller, trial)

    def on_trial_result(self, controller: Any, trial: TrialLike, result: dict[str, Any]) -> str:
        """Stops the trial, or lets it go on, by its category's rungs."""
        if not math.isfinite(result[VALUE]):
            return str(TrialScheduler.CONTINUE)
        decision = str(self._of(trial).on_trial_result(controller, trial, result))
        spared = trial.config["role"] in SPARED and result[STEP] < self._budget.num_steps
        return str(TrialScheduler.CONTINUE) if spared else decision

    def on_trial_complete(self, controller: Any, trial: TrialLike, result: dict[str, Any]) -> None:
        """Enters the last report into the rungs."""
        if math.isfinite(result[VALUE]):
            self._of(trial).on_trial_complete(controller, trial, result)

    def _of(self, trial: TrialLike) -> Any:
        category = trial.config["category"]
        if category not in self._by_category:
            self._by_category[category] = AsyncHyperBandScheduler(
                time_attr=STEP,
                metric=VALUE,
                mode="max",
                max_t=self._budget.num_steps,
                grace_period=self._budget.grace_period,
                reduction_factor=self._budget.reduction_factor,
            )
        return self._by_category[category]
