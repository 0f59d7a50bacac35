"""A search on a blackbox in simulated time: Tune's order of calls without Ray running."""

from __future__ import annotations

import heapq
import itertools
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np
from ray.tune.schedulers import TrialScheduler

from dfsc_tune.search.searcher import STEP, VALUE
from dfsc_tune.spaces.parameters import Value
from tests.studies.blackbox import Array, Blackbox

# Trials of one speed would report in lockstep, which no real ones do.
_SPEED_SPREAD = 0.1


class Searching(Protocol):
    """What Tune calls of a search algorithm."""

    def suggest(self, trial_id: str) -> dict[str, Any] | str | None:
        """The next trial's config."""

    def on_trial_result(self, trial_id: str, result: dict[str, Any]) -> None:
        """Takes a report."""

    def on_trial_complete(self, trial_id: str, result: dict[str, Any]) -> None:
        """Takes the last report of a trial that ended or was stopped."""


class Scheduling(Protocol):
    """What Tune calls of a trial scheduler."""

    def on_trial_add(self, controller: Any, trial: Any) -> None:
        """Takes a new trial."""

    def on_trial_result(self, controller: Any, trial: Any, result: dict[str, Any]) -> str:
        """Whether the trial goes on."""

    def on_trial_complete(self, controller: Any, trial: Any, result: dict[str, Any]) -> None:
        """Takes the last report of a trial."""


@dataclass(frozen=True)
class Strategy:
    """A way to search: who suggests, who stops, and which trial is called best."""

    searcher: Searching
    scheduler: Scheduling
    read: Callable[[Mapping[str, Any]], tuple[Mapping[str, Value], Sequence[float]]]
    """The settings of a config that the searcher suggested, and the EMA momenta that are scored
    from its training, the best of which counts."""
    best_at_full_budget: bool = True
    """Whether only trials at the full budget can be best, or any by its last report."""


@dataclass
class _Trial:
    trial_id: str
    config: dict[str, Any]
    settings: Mapping[str, Value]
    curves: dict[float, Array]
    speed: float
    num_reports: int = 0


@dataclass(frozen=True)
class Standing:
    """What a search would hand over after so many steps."""

    steps: int
    """Training steps spent by all trials so far."""
    settings: Mapping[str, Value]


def simulate(
    strategy: Strategy, blackbox: Blackbox, *, num_workers: int, num_steps: int, seed: int
) -> list[Standing]:
    """Runs a search until its trials have spent `num_steps`; each change of its best trial."""
    rng = np.random.default_rng(seed)
    steps = blackbox.curves.steps
    standings: list[Standing] = []
    spent, names = 0, itertools.count()
    candidates: dict[str, tuple[float, Mapping[str, Value]]] = {}
    queue: list[tuple[float, int, _Trial]] = []

    def start(now: float) -> None:
        name = str(next(names))
        config = strategy.searcher.suggest(name)
        if not isinstance(config, dict):
            return
        settings, momenta = strategy.read(config)
        speed = float(np.exp(_SPEED_SPREAD * rng.standard_normal()))
        curves = blackbox.curve(settings, momenta, seed)
        trial = _Trial(name, config, settings, curves, speed)
        strategy.scheduler.on_trial_add(None, trial)
        heapq.heappush(queue, (now + speed * steps[0], int(name), trial))

    for _ in range(num_workers):
        start(0.0)
    while queue and spent < num_steps:
        now, order, trial = heapq.heappop(queue)
        step = int(steps[trial.num_reports])
        spent += step - (int(steps[trial.num_reports - 1]) if trial.num_reports else 0)
        momentum, value = max(
            ((x, float(curve[trial.num_reports])) for x, curve in trial.curves.items()),
            key=lambda item: item[1],
        )
        trial.num_reports += 1
        result = {STEP: step, VALUE: value, "training_iteration": trial.num_reports}
        decision = strategy.scheduler.on_trial_result(None, trial, result)
        if step == steps[-1] or not strategy.best_at_full_budget:
            candidates[trial.trial_id] = (value, {**trial.settings, "ema_momentum": momentum})
            _, best = max(candidates.values(), key=lambda candidate: candidate[0])
            if not standings or standings[-1].settings != best:
                standings.append(Standing(spent, best))
        if decision == TrialScheduler.STOP or step == steps[-1]:
            # As Tune does: the last report reaches the searcher only here.
            strategy.searcher.on_trial_complete(trial.trial_id, result)
            strategy.scheduler.on_trial_complete(None, trial, result)
            start(now)
        else:
            strategy.searcher.on_trial_result(trial.trial_id, result)
            interval = int(steps[trial.num_reports]) - step
            heapq.heappush(queue, (now + trial.speed * interval, order, trial))
    return standings
