"""One category's Optuna study: what to try next, and what came of it. Knows nothing of Ray."""

from __future__ import annotations

import math
from collections import deque
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import optuna
from optuna.distributions import (
    BaseDistribution,
    CategoricalDistribution,
    FloatDistribution,
    IntDistribution,
)
from optuna.storages import JournalStorage
from optuna.storages.journal import JournalFileBackend
from optuna.trial import TrialState

from dfsc_tune.search.space import (
    CategoricalParameter,
    CategorySpace,
    FloatParameter,
    IntParameter,
    Value,
)

Role = Literal["paper", "margin_0", "starting_point", "sampler"]
State = Literal["complete", "pruned", "failed"]

_STATES = {
    "complete": TrialState.COMPLETE,
    "pruned": TrialState.PRUNED,
    "failed": TrialState.FAIL,
}


@dataclass(frozen=True)
class Suggestion:
    """What to try: settings by name, why, and the study's number for it.

    A point outside the search space (the paper's setting may be) has no number: the study is not
    told of it.
    """

    values: dict[str, Value]
    role: Role
    number: int | None


class CategoryStudy:
    """Asks Optuna for points and tells it each report as it comes.

    First come the fixed points (`CategorySpace.first_points`), then the sampler's. A trial stopped
    early is told as pruned with the values it reported, never as complete with its last one.
    """

    def __init__(
        self,
        space: CategorySpace,
        *,
        name: str,
        num_trials: int,
        sampler: Literal["tpe", "random", "grid"] = "tpe",
        seed: int = 0,
        journal: Path | None = None,
    ) -> None:
        optuna.logging.set_verbosity(optuna.logging.ERROR)
        self.space = space
        self._first = deque(space.first_points())
        self.num_expected = space.num_expected(num_trials)
        """How many points will be suggested in all."""
        self._num_suggested = 0
        self._paper = self._first[0]
        self._distributions = {
            _optuna_name(key, parameter): _distribution(parameter)
            for key, parameter in space.parameters.items()
        }
        self._study = optuna.create_study(
            storage=JournalStorage(JournalFileBackend(str(journal))) if journal else None,
            study_name=name,
            direction="maximize",
            sampler=_build_sampler(sampler, num_trials, seed),
        )
        self._trials: dict[int, optuna.Trial] = {}

    def suggest(self) -> Suggestion | None:
        """The next point to try; None after `num_trials`, or when the grid has been tried."""
        if self._num_suggested >= self.num_expected:
            return None
        self._num_suggested += 1
        if not self._first:
            trial = self._study.ask(self._distributions)
            return self._remember(trial, self._from_optuna(trial.params), "sampler")
        point = self._first.popleft()
        role = self._role(point)
        inside = all(self.space.parameters[name].contains(x) for name, x in point.items())
        if not inside:
            return Suggestion(point, role, None)
        self._study.enqueue_trial(self._to_optuna(point))
        # The point itself, not Optuna's echo of it: 1 − (1 − x) may differ from x.
        return self._remember(self._study.ask(self._distributions), point, role)

    def report(self, number: int, step: int, value: float) -> None:
        """Tells the value of a trial at a step."""
        if math.isfinite(value):
            self._trials[number].report(value, step)

    def finish(self, number: int, state: State, value: float | None = None) -> None:
        """Tells how a trial ended; `value` belongs to a complete one."""
        trial = self._trials.pop(number)
        self._study.tell(trial, value if state == "complete" else None, _STATES[state])

    def _role(self, point: dict[str, Value]) -> Role:
        if point == self._paper:
            return "paper"
        return "margin_0" if point == {**self._paper, "margin": 0.0} else "starting_point"

    def _remember(self, trial: optuna.Trial, values: dict[str, Value], role: Role) -> Suggestion:
        self._trials[trial.number] = trial
        trial.set_user_attr("role", role)
        return Suggestion(values, role, trial.number)

    def _to_optuna(self, point: dict[str, Value]) -> dict[str, Value]:
        parameters = self.space.parameters
        return {
            _optuna_name(key, parameters[key]): _complement(parameters[key], value)
            for key, value in point.items()
        }

    def _from_optuna(self, params: dict[str, Value]) -> dict[str, Value]:
        values: dict[str, Value] = {}
        for key, parameter in self.space.parameters.items():
            values[key] = _complement(parameter, params[_optuna_name(key, parameter)])
        return values


def _is_complement(parameter: FloatParameter | IntParameter | CategoricalParameter) -> bool:
    return isinstance(parameter, FloatParameter) and parameter.scale == "log_complement"


def _complement(
    parameter: FloatParameter | IntParameter | CategoricalParameter, value: Value
) -> Value:
    """From a setting to what Optuna is told of it, and back: 1 − x where the scale says so."""
    return 1 - float(value) if _is_complement(parameter) else value


def _optuna_name(name: str, parameter: FloatParameter | IntParameter | CategoricalParameter) -> str:
    return f"one_minus_{name}" if _is_complement(parameter) else name


def _distribution(
    parameter: FloatParameter | IntParameter | CategoricalParameter,
) -> BaseDistribution:
    match parameter:
        case CategoricalParameter():
            return CategoricalDistribution(parameter.choices)
        case IntParameter():
            return IntDistribution(parameter.low, parameter.high, log=parameter.scale == "log")
        case FloatParameter(scale="log_complement"):
            return FloatDistribution(1 - parameter.high, 1 - parameter.low, log=True)
        case _:
            return FloatDistribution(parameter.low, parameter.high, log=parameter.scale == "log")


def _build_sampler(name: str, num_trials: int, seed: int) -> optuna.samplers.BaseSampler:
    # A grid's points all come as first points: its sampler is never asked.
    if name in ("random", "grid"):
        return optuna.samplers.RandomSampler(seed=seed)
    # Optuna's ten random trials to start with would be most of a small budget.
    num_startup_trials = min(10, max(4, num_trials // 4))
    return optuna.samplers.TPESampler(
        seed=seed, multivariate=True, constant_liar=True, n_startup_trials=num_startup_trials
    )
