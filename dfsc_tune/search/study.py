"""One category's Optuna study, which suggests points and is told their results."""

from __future__ import annotations

import json
import math
import random
import warnings
from collections import deque
from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any, Literal

import optuna
from optuna.exceptions import DuplicatedStudyError
from optuna.storages import JournalStorage
from optuna.storages.journal import JournalFileBackend
from optuna.trial import TrialState

from dfsc_tune.errors import UserError
from dfsc_tune.search.samplers import KEEPS_COUNT, build_sampler
from dfsc_tune.spaces.parameters import (
    CategoricalParameter,
    FloatParameter,
    IntParameter,
    SuggestedParameter,
    Value,
)
from dfsc_tune.spaces.space import CategorySpace, Role

State = Literal["complete", "pruned", "failed"]

_STATES = {
    "complete": TrialState.COMPLETE,
    "pruned": TrialState.PRUNED,
    "failed": TrialState.FAIL,
}


@dataclass(frozen=True)
class Suggestion:
    """A suggested point: settings by name, their role, and the study's number of the trial.

    A point outside the search space, as the paper's setting may be, has no number, because the
    study is not told of it.
    """

    values: dict[str, Value]
    role: Role
    number: int | None
    params: dict[str, Value] = field(default_factory=dict)
    """The point as the study is told it: 1 − x for a scale log_complement, not rounded twice."""


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
        seed: int = 0,
        journal: Path | None = None,
    ) -> None:
        optuna.logging.set_verbosity(optuna.logging.ERROR)
        self.space = space
        self._first = deque(space.first_points())
        combinations = space.untried_combinations()
        random.Random(seed).shuffle(combinations)
        self._first += [("sampler", point) for point in combinations]
        self.num_expected = space.num_expected(num_trials)
        """Number of points that will be suggested in all."""
        self._num_suggested = 0
        self._keeps_count = space.sampler in KEEPS_COUNT
        self._study = _create_study(name, journal)
        self._build_sampler = partial(
            build_sampler,
            space.sampler,
            seed=seed,
            conditional=any(parameter.when for parameter in space.suggested.values()),
        )
        self._trials: dict[int, optuna.Trial] = {}

    def suggest(self) -> Suggestion | None:
        """Suggests the next point; None after `num_trials`, or at the end of a grid."""
        if self._num_suggested >= self.num_expected:
            return None
        self._num_suggested += 1
        self._study.sampler = self._build_sampler(number=self._num_suggested)
        if not self._first:
            trial = self._study.ask()
            return self._remember(trial, self._draw(trial), "sampler")
        role, point = self._first.popleft()
        suggested = {x: y for x, y in self.space.suggested.items() if x in point}
        inside = all(parameter.contains(point[name]) for name, parameter in suggested.items())
        params = {_optuna_name(x, y): _mirrored(y, point[x]) for x, y in suggested.items()}
        return self._enqueue(point, role, params if inside else {})

    def suggest_again(
        self, values: Mapping[str, Value], role: Role, params: Mapping[str, Value]
    ) -> Suggestion:
        """Repeats a recorded suggestion of an earlier session.

        Raises:
            ValueError: the study cannot have made it.
        """
        self._num_suggested += 1
        if self._first:
            self._first.popleft()
        self._study.sampler = self._build_sampler(number=self._num_suggested)
        with warnings.catch_warnings():
            # Optuna's, of values out of range, which it then draws anew.
            warnings.simplefilter("ignore")
            suggestion = self._enqueue(dict(values), role, dict(params))
        if suggestion.params != params:
            raise ValueError(f"params {params} are not in the search space")
        if self._keeps_count and role == "sampler" and suggestion.number is not None:
            # Optuna asks the sampler only for missing values; this makes it draw, and so count.
            _ = self._trials[suggestion.number].relative_params
        return suggestion

    @property
    def num_left(self) -> int:
        """Number of points still to be suggested."""
        return max(self.num_expected - self._num_suggested, 0)

    def _enqueue(self, point: dict[str, Value], role: Role, params: dict[str, Value]) -> Suggestion:
        if not params:
            return Suggestion(point, role, None)
        self._study.enqueue_trial(params)
        trial = self._study.ask()
        self._draw(trial)
        # The point itself, not Optuna's echo of it: 1 − (1 − x) may differ from x.
        return self._remember(trial, point, role)

    def report(self, number: int, step: int, value: float) -> None:
        """Tells the study the value of a trial at a step."""
        if math.isfinite(value):
            self._trials[number].report(value, step)

    def finish(self, number: int, state: State, value: float | None = None) -> None:
        """Tells the study how a trial ended; `value` is for a complete one."""
        trial = self._trials.pop(number)
        self._study.tell(trial, value if state == "complete" else None, _STATES[state])

    def _remember(self, trial: optuna.Trial, values: dict[str, Value], role: Role) -> Suggestion:
        self._trials[trial.number] = trial
        trial.set_user_attr("role", role)
        return Suggestion(values, role, trial.number, trial.params)

    def _draw(self, trial: optuna.Trial) -> dict[str, Value]:
        """Asks Optuna for each parameter that exists beside those before it."""
        values: dict[str, Value] = {}
        for name, parameter in self.space.suggested.items():
            if parameter.exists(values):
                values[name] = _suggested(trial, name, parameter)
        return values


class _UnsyncedFile(JournalFileBackend):
    """Optuna's journal file, neither synced to the disk nor locked at each of a report's writes.

    The ledger is, and the journal is made again from it when a search is taken up. A lock of
    Optuna's that a killed process left would be waited for, at a relative path for ever.
    """

    def __init__(self, path: Path) -> None:
        super().__init__(str(path))
        self._path = path

    def append_logs(self, logs: list[dict[str, Any]]) -> None:
        """Writes some operations at the file's end."""
        lines = "".join(json.dumps(log, separators=(",", ":")) + "\n" for log in logs)
        with self._path.open("ab") as file:
            file.write(lines.encode())


def _create_study(name: str, journal: Path | None) -> optuna.Study:
    storage = JournalStorage(_UnsyncedFile(journal)) if journal else None
    try:
        return optuna.create_study(storage=storage, study_name=name, direction="maximize")
    except DuplicatedStudyError as error:
        # Optuna would go on with it, whatever its ranges and direction.
        raise UserError(
            f"{journal} holds a study '{name}' already, perhaps of another space; use a new journal"
        ) from error


def _suggested(trial: optuna.Trial, name: str, parameter: SuggestedParameter) -> Value:
    told = _optuna_name(name, parameter)
    match parameter:
        case CategoricalParameter():
            choice = trial.suggest_categorical(told, parameter.choices)
            assert choice is not None, "no setting's choice is None"
            return choice
        case IntParameter():
            log = parameter.scale == "log"
            return trial.suggest_int(told, parameter.low, parameter.high, log=log)
        case _:
            bounds = (float(_mirrored(parameter, x)) for x in (parameter.low, parameter.high))
            low, high = sorted(bounds)
            value = trial.suggest_float(told, low, high, log=parameter.scale != "linear")
            # 1 − (1 − low) may lie a rounding error below low.
            return min(max(float(_mirrored(parameter, value)), parameter.low), parameter.high)


def _is_mirrored(parameter: SuggestedParameter) -> bool:
    """True if Optuna is told 1 − x, because the scale is even in its logarithm."""
    return isinstance(parameter, FloatParameter) and parameter.scale == "log_complement"


def _mirrored(parameter: SuggestedParameter, value: Value) -> Value:
    """Converts a setting to the value that Optuna is told, and back."""
    return 1 - float(value) if _is_mirrored(parameter) else value


def _optuna_name(name: str, parameter: SuggestedParameter) -> str:
    return f"one_minus_{name}" if _is_mirrored(parameter) else name
