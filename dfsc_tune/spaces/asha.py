"""ASHA: at which steps the trials of a category are compared, and which of them go on.

Asynchronous successive halving (Li et al., "A System for Massively Parallel Hyperparameter Tuning",
MLSys 2020), decision by decision as Ray's AsyncHyperBandScheduler has it: a test compares them.
"""

from __future__ import annotations

import math
from bisect import insort
from collections import defaultdict
from collections.abc import Container, Sequence

from dfsc_tune.spaces.space import Budget


def rung_steps(num_steps: int, grace_period: int, reduction_factor: int) -> list[int]:
    """Returns the steps at which trials are compared, ascending: grace_period · reduction_factor^k.

    As in Ray, the last one may be the full budget, at which no trial goes on anyway.
    """
    ratio = math.log(num_steps / grace_period) / math.log(reduction_factor)
    return [grace_period * reduction_factor**k for k in range(int(ratio + 1))]


def rung_of_report(rungs: Sequence[int], step: int, judged: Container[int]) -> int | None:
    """Finds the rung at which a report counts, if any.

    Args:
        rungs: of the search, as `rung_steps` gives them.
        step: of the report.
        judged: the rungs at which its trial has been judged.

    Returns:
        The highest rung that the report has reached and where its trial has not been judged.
    """
    return max((x for x in rungs if x <= step and x not in judged), default=None)


def judged_steps(budget: Budget) -> list[int]:
    """Returns the steps of the reports at which a trial is compared, and of its last report.

    A rung's report is the first one at or after its step. No two rungs share a report: they lie at
    least one `report_interval` apart, as `grace_period` is never below it.
    """
    interval = budget.report_interval
    reports = [math.ceil(rung / interval) * interval for rung in _rungs(budget)]
    return [*(x for x in reports if x < budget.num_steps), budget.num_steps]


class Asha:
    """Decides at each report whether its trial goes on; trials are compared within a category."""

    def __init__(self, budget: Budget) -> None:
        self._budget = budget
        self._rungs = _rungs(budget)
        self._values: dict[tuple[str, int], list[float]] = defaultdict(list)
        """The values reported at each category's rungs, sorted."""
        self._judged: dict[str, set[int]] = defaultdict(set)

    def goes_on(
        self, category: str, trial: str, step: int, value: float, *, is_reference: bool = False
    ) -> bool:
        """Records a report and returns whether its trial goes on.

        The first trial at a rung goes on, as does one that equals the cutoff. A value that is not
        finite is not compared.

        Args:
            category: of the trial.
            trial: its name, unique among all categories.
            step: of the report.
            value: reported, to be maximised.
            is_reference: whether the trial counts at the rungs, but is not stopped before the full
                budget.
        """
        ends = step >= self._budget.num_steps
        if not math.isfinite(value):
            return not ends
        if not ends:
            ends = not self._passes(category, trial, step, value) and not is_reference
        if ends:
            # Ray judges a last report once more; if the trial skipped a rung, it counts there.
            self._passes(category, trial, step, value)
        return not ends

    def _passes(self, category: str, trial: str, step: int, value: float) -> bool:
        """Records a value at the rung where it counts; returns whether it reaches the cutoff."""
        rung = rung_of_report(self._rungs, step, self._judged[trial])
        if rung is None:
            return True
        self._judged[trial].add(rung)
        values = self._values[category, rung]
        passes = not values or value >= _cutoff(values, self._budget.reduction_factor)
        insort(values, value)
        return passes


def _rungs(budget: Budget) -> list[int]:
    return rung_steps(budget.num_steps, budget.grace_period, budget.reduction_factor)


def _cutoff(values: Sequence[float], reduction_factor: int) -> float:
    """Returns the cutoff that the best 1 in `reduction_factor` of the sorted values reach.

    It equals `np.nanpercentile(values, 100 * (1 - 1 / reduction_factor))` to the last bit, which
    matters as trials often tie, and takes a hundredth of its time.
    """
    place = (len(values) - 1) * ((1 - 1 / reduction_factor) * 100 / 100)
    below = math.floor(place)
    low, high = values[below], values[min(below + 1, len(values) - 1)]
    fraction = place - below
    if fraction < 0.5:
        return low + (high - low) * fraction
    return high - (high - low) * (1 - fraction)
