"""ASHA for several categories at once: trials are compared only within their category."""

from __future__ import annotations

import math
from typing import Any, Protocol

from ray.tune.schedulers import AsyncHyperBandScheduler, FIFOScheduler, TrialScheduler

from dfsc_tune.search.searcher import STEP, VALUE
from dfsc_tune.search.space import SPARED, Budget


class TrialLike(Protocol):
    """What of a trial matters here; Tune's own trials have it."""

    trial_id: str
    config: dict[str, Any]


class CategoryAsha(FIFOScheduler):
    """One AsyncHyperBandScheduler per category, its time measured in training steps.

    The paper's setting and margin 0 are never stopped: the winner is compared with them at full
    budget.
    """

    def __init__(self, budget: Budget) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self._budget = budget
        self._by_category: dict[str, AsyncHyperBandScheduler] = {}

    def set_search_properties(self, metric: str | None, mode: str | None, **spec: Any) -> bool:
        """Accepts Tune's metric and mode, which are always ours."""
        return True

    def on_trial_add(self, tune_controller: Any, trial: TrialLike) -> None:
        """Gives the trial to its category's scheduler."""
        self._of(trial).on_trial_add(tune_controller, trial)

    def on_trial_result(
        self, tune_controller: Any, trial: TrialLike, result: dict[str, Any]
    ) -> str:
        """Stops the trial, or lets it go on, by its category's rungs."""
        if not math.isfinite(result.get(VALUE, math.nan)):
            return str(TrialScheduler.CONTINUE)
        decision = str(self._of(trial).on_trial_result(tune_controller, trial, result))
        spared = trial.config["role"] in SPARED and result[STEP] < self._budget.num_steps
        return str(TrialScheduler.CONTINUE) if spared else decision

    def on_trial_complete(
        self, tune_controller: Any, trial: TrialLike, result: dict[str, Any]
    ) -> None:
        """Enters the last report into the rungs."""
        if math.isfinite(result.get(VALUE, math.nan)):
            self._of(trial).on_trial_complete(tune_controller, trial, result)

    def on_trial_error(self, tune_controller: Any, trial: TrialLike) -> None:
        """Forgets the trial."""
        self._of(trial).on_trial_error(tune_controller, trial)

    def on_trial_remove(self, tune_controller: Any, trial: TrialLike) -> None:
        """Forgets the trial."""
        self._of(trial).on_trial_remove(tune_controller, trial)

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
