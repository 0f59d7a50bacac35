"""A search on a blackbox in simulated time, without Ray running."""

from __future__ import annotations

import heapq
import itertools
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np

from dfsc_tune.spaces.asha import Asha
from dfsc_tune.spaces.parameters import Value
from tests.studies.blackbox import Array, Blackbox

# Trials of one speed would report in lockstep, which no real ones do.
_SPEED_SPREAD = 0.1


class Searching(Protocol):
    """What suggests trials: a `StudySearcher`, or another in its place."""

    def suggest(self, name: str) -> Any:
        """The next trial, to be known by that name; None if there is none."""

    def report(self, name: str, step: int, value: float) -> None:
        """Takes a report."""

    def finish(self, name: str, step: int, value: float) -> object:
        """Takes the last report of a trial that ended or was stopped."""


@dataclass(frozen=True)
class Tried:
    """What a trial tries."""

    settings: Mapping[str, Value]
    momenta: Sequence[float]
    """The EMA momenta that are scored from its training, the best of which counts."""
    is_reference: bool = False
    """Whether ASHA lets it go on whatever it reports."""


@dataclass(frozen=True)
class Strategy:
    """A way to search: who suggests, who stops, and which trial is called best."""

    searcher: Searching
    asha: Asha
    read: Callable[[Any], Tried]
    """What a trial tries that the searcher suggested."""
    best_at_full_budget: bool = True
    """Whether only trials at the full budget can be best, or any by its last report."""


@dataclass
class _Trial:
    name: str
    tried: Tried
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
        suggested = strategy.searcher.suggest(name)
        if suggested is None:
            return
        tried = strategy.read(suggested)
        speed = float(np.exp(_SPEED_SPREAD * rng.standard_normal()))
        curves = blackbox.curve(tried.settings, tried.momenta, seed)
        trial = _Trial(name, tried, curves, speed)
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
        if step == steps[-1] or not strategy.best_at_full_budget:
            candidates[trial.name] = (value, {**trial.tried.settings, "ema_momentum": momentum})
            _, best = max(candidates.values(), key=lambda candidate: candidate[0])
            if not standings or standings[-1].settings != best:
                standings.append(Standing(spent, best))
        if not strategy.asha.goes_on(
            "", trial.name, step, value, is_reference=trial.tried.is_reference
        ):
            strategy.searcher.finish(trial.name, step, value)
            start(now)
        else:
            strategy.searcher.report(trial.name, step, value)
            interval = int(steps[trial.num_reports]) - step
            heapq.heappush(queue, (now + trial.speed * interval, order, trial))
    return standings
