"""Estimates the steps and hours of a search under ASHA from simulated searches.

The values that trials will report are unknown, so they are drawn at random. Trials are exchangeable
(none is better by its place in the search). Half of the variance of a trial's values is its own,
half its rung's.
"""

from __future__ import annotations

import heapq
import math
from collections.abc import Sequence
from dataclasses import dataclass
from statistics import fmean

import numpy as np
import numpy.typing as npt

from dfsc_tune.spaces.asha import Asha, judged_steps
from dfsc_tune.spaces.space import Budget

# Small searches vary more, so more of them are simulated; the mean is precise to a few per cent.
_TRIALS_SIMULATED = 4_000

Values = npt.NDArray[np.float64]


@dataclass(frozen=True)
class TrialTimes:
    """Durations of a category's trials when as many run at once as the search allows."""

    seconds_per_step: float
    seconds_per_report: float
    seconds_to_start: float

    def until(self, step: int, report_interval: int) -> float:
        """Seconds from a trial's start to the end of its report at `step`."""
        num_reports = math.ceil(step / report_interval)
        return (
            self.seconds_to_start
            + step * self.seconds_per_step
            + num_reports * self.seconds_per_report
        )


@dataclass(frozen=True)
class Expected:
    """The expected steps and times of a search, given ASHA's early stops."""

    steps: float
    """Of all trials added up."""
    trial_seconds: float
    """Of all trials added up."""
    wall_seconds: float
    """From the first trial's start to the last one's end."""


def expect(
    budget: Budget,
    num_trials: Sequence[int],
    at_once: int,
    times: Sequence[TrialTimes],
    num_references: int = 1,
) -> Expected:
    """Returns the means over simulated searches.

    Args:
        budget: of each category.
        num_trials: of each category.
        at_once: number of trials that run at the same time.
        times: durations of each category's trials.
        num_references: number of each category's first trials that are never stopped early.
    """
    rng = np.random.default_rng(0)
    num_judged = len(judged_steps(budget))
    found = []
    for _ in range(math.ceil(_TRIALS_SIMULATED / sum(num_trials))):
        values = [
            rng.standard_normal((count, 1)) + rng.standard_normal((count, num_judged))
            for count in num_trials
        ]
        steps, *seconds = simulate(budget, values, at_once, times, num_references)
        found.append((sum(map(sum, steps)), *seconds))
    return Expected(*map(fmean, zip(*found, strict=True)))


def simulate(
    budget: Budget,
    values: Sequence[Values],
    at_once: int,
    times: Sequence[TrialTimes],
    num_references: int = 1,
) -> tuple[list[list[int]], float, float]:
    """Simulates one search: categories take turns, each trial starts when a place is free.

    Args:
        budget: of each category.
        values: the values that each category's trials report, (trials, judged reports).
        at_once: number of trials that run at the same time.
        times: durations of each category's trials.
        num_references: number of each category's first trials that are never stopped early.

    Returns:
        The steps of each category's trials in the order of their start, the seconds of all trials
        added up, and the seconds from the first trial's start to the last one's end.
    """
    judged = judged_steps(budget)
    asha = Asha(budget)
    steps = [[0] * len(of_category) for of_category in values]
    waiting = sorted(
        (trial, category) for category, x in enumerate(steps) for trial in range(len(x))
    )
    starts: list[float] = []
    running: list[tuple[float, int, int]] = []
    trial_seconds = now = 0.0

    def wait(order: int, stage: int) -> None:
        of_category = times[waiting[order][1]]
        due = starts[order] + of_category.until(judged[stage], budget.report_interval)
        # At the same moment, trials report in the order of their start.
        heapq.heappush(running, (due, order, stage))

    def start() -> None:
        if len(starts) < len(waiting):
            starts.append(now)
            wait(len(starts) - 1, 0)

    for _ in range(at_once):
        start()
    while running:
        now, order, stage = heapq.heappop(running)
        trial, category = waiting[order]
        value = float(values[category][trial, stage])
        is_reference = trial < num_references
        if asha.goes_on(str(category), str(order), judged[stage], value, is_reference=is_reference):
            wait(order, stage + 1)
        else:
            steps[category][trial] = judged[stage]
            trial_seconds += now - starts[order]
            start()
    return steps, trial_seconds, now
