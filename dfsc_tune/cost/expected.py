"""What a search takes under ASHA, before it is run: its steps and times in simulated searches.

What trials will report is not known, so each value is drawn: trials are exchangeable (none is
better by its place in the search), and a trial's values at two rungs correlate by some ρ. Curves
that never cross (ρ = 1) let later trials pass more often than curves that are all noise (ρ = 0), by
up to a quarter of the steps of 40 trials; each simulated search draws its ρ evenly from 0 to 1.
"""

from __future__ import annotations

import heapq
import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from dfsc_tune.spaces.asha import Asha, judged_steps
from dfsc_tune.spaces.space import Budget

_MOST_SEARCHES = 500
_LEAST_SEARCHES = 20
# Large searches vary less: fewer simulations of them say as much.
_TRIALS_SIMULATED = 50_000

Values = npt.NDArray[np.float64]


@dataclass(frozen=True)
class TrialTimes:
    """How long a category's trials take, as many running beside each as will."""

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
class Simulated:
    """How one simulated search went."""

    steps: list[list[int]]
    """Of each category's trials, in the order of their start."""
    trial_seconds: float
    """Of all trials added up."""
    wall_seconds: float
    """From the first trial's start to the last one's end."""


def simulate(
    budget: Budget,
    values: Sequence[Values],
    at_once: int,
    times: Sequence[TrialTimes],
    num_spared: int = 1,
) -> Simulated:
    """One search: categories take turns, each trial starts when a place is free.

    Args:
        budget: of each category.
        values: what each category's trials report, (trials, judged reports).
        at_once: how many trials run at the same time.
        times: of each category's trials.
        num_spared: how many of each category's first trials are never stopped.
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
        spared = trial < num_spared
        if asha.goes_on(str(category), str(order), judged[stage], value, spared=spared):
            wait(order, stage + 1)
        else:
            steps[category][trial] = judged[stage]
            trial_seconds += now - starts[order]
            start()
    return Simulated(steps, trial_seconds, now)


@dataclass(frozen=True)
class Spread:
    """A quantity over the simulated searches: its mean and the range of 90 % of them."""

    mean: float
    low: float
    high: float

    @classmethod
    def of(cls, values: Sequence[float]) -> Spread:
        """The spread of some values."""
        low, high = np.quantile(values, (0.05, 0.95))
        return cls(float(np.mean(values)), float(low), float(high))

    def times(self, factor: float) -> Spread:
        """The same in another unit."""
        return Spread(self.mean * factor, self.low * factor, self.high * factor)


@dataclass(frozen=True)
class Expected:
    """What a search will take, as far as ASHA's stops decide it."""

    steps: Spread
    """Of all trials added up."""
    trial_seconds: Spread
    """Of all trials added up."""
    wall_seconds: Spread
    num_simulations: int


def expect(
    budget: Budget,
    num_trials: Sequence[int],
    at_once: int,
    times: Sequence[TrialTimes],
    seed: int = 0,
    num_spared: int = 1,
) -> Expected:
    """The steps and times of a search, from simulated ones.

    Args:
        budget: of each category.
        num_trials: of each category.
        at_once: how many trials run at the same time.
        times: of each category's trials.
        seed: decides the drawn values.
        num_spared: how many of each category's first trials are never stopped.
    """
    rng = np.random.default_rng(seed)
    most = _TRIALS_SIMULATED // sum(num_trials)
    num_simulations = min(max(most, _LEAST_SEARCHES), _MOST_SEARCHES)
    num_stages = len(judged_steps(budget))
    found = [
        simulate(budget, _draw(num_trials, num_stages, rng), at_once, times, num_spared)
        for _ in range(num_simulations)
    ]
    return Expected(
        steps=Spread.of([sum(map(sum, x.steps)) for x in found]),
        trial_seconds=Spread.of([x.trial_seconds for x in found]),
        wall_seconds=Spread.of([x.wall_seconds for x in found]),
        num_simulations=num_simulations,
    )


def _draw(num_trials: Sequence[int], num_stages: int, rng: np.random.Generator) -> list[Values]:
    """Values of each category's trials, (trials, stages), any two stages correlated by one ρ."""
    correlation = rng.uniform()
    values = []
    for count in num_trials:
        lasting = rng.standard_normal((count, 1))
        passing = rng.standard_normal((count, num_stages))
        values.append(np.sqrt(correlation) * lasting + np.sqrt(1 - correlation) * passing)
    return values
