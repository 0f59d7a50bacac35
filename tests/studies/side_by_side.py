"""Ways to search, side by side on one blackbox: regret against the steps spent."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np
import optuna
import pandas as pd
from optuna.distributions import FloatDistribution
from ray.tune.search.optuna import OptunaSearch

from dfsc_tune.config import TrialConfig, searchable_values
from dfsc_tune.metrics import LEVEL
from dfsc_tune.search.searcher import StudySearcher, SuggestedTrial
from dfsc_tune.search.study import CategoryStudy
from dfsc_tune.spaces.asha import Asha
from dfsc_tune.spaces.parameters import (
    AnyParameter,
    CategoricalParameter,
    FloatParameter,
    FreeParameter,
    Value,
)
from dfsc_tune.spaces.sampler import SamplerName
from dfsc_tune.spaces.space import REFERENCES, Budget, CategorySpace
from tests.studies.blackbox import Array, Blackbox, from_unit
from tests.studies.simulate import Strategy, Tried, simulate

BUDGETS = (4, 6, 8, 12, 16, 24, 32)
"""What may be spent, in full trainings."""
_CATEGORY = "blackbox"
_MOMENTUM = "ema_momentum"
_GRID_SIDE = 3
_REDUCTION_FACTOR = 3
_NUM_RESAMPLES = 2000


def _ours(
    blackbox: Blackbox,
    seed: int,
    sampler: SamplerName = "tpe",
    starting_points: Sequence[Mapping[str, Value]] = (),
) -> Strategy:
    """What a search does: our studies, EMA momenta free, ASHA, best at full budget."""
    momenta = FreeParameter(choices=tuple(float(x) for x in blackbox.curves.momenta))
    parameters: dict[str, AnyParameter] = {**blackbox.curves.parameters, _MOMENTUM: momenta}
    return _searched(blackbox, seed, sampler, parameters, starting_points=starting_points)


def _searched(
    blackbox: Blackbox,
    seed: int,
    sampler: SamplerName,
    parameters: Mapping[str, AnyParameter],
    early_stopping: bool = True,
    starting_points: Sequence[Mapping[str, Value]] = (),
) -> Strategy:
    space = CategorySpace({}, parameters, starting_points, sampler)
    budget = _budget(blackbox, early_stopping)
    base = space.base_config(_CATEGORY, train={"num_steps": budget.num_steps})
    study = CategoryStudy(space, name=_CATEGORY, num_trials=budget.num_trials, seed=seed)
    return Strategy(
        searcher=StudySearcher({_CATEGORY: study}, {_CATEGORY: base}),
        asha=Asha(budget),
        read=_read,
    )


def _random(blackbox: Blackbox, seed: int, early_stopping: bool) -> Strategy:
    return _searched(blackbox, seed, "random", _ranges(blackbox), early_stopping)


def _read(trial: SuggestedTrial) -> Tried:
    return tried(trial.config, is_reference=trial.suggestion.role in REFERENCES)


def tried(config: TrialConfig, *, is_reference: bool = False) -> Tried:
    """What a trial of that config tries."""
    train = config.train
    momenta = train.ema_momenta if train.choose_ema_momentum else (train.ema_momentum,)
    return Tried(searchable_values(config), momenta, is_reference)


def _grid(blackbox: Blackbox, seed: int) -> Strategy:
    """All combinations of three values of each setting, each trained in full."""
    fractions = (np.arange(_GRID_SIDE) + 0.5) / _GRID_SIDE
    choices = {
        name: CategoricalParameter(choices=tuple(from_unit(x, float(f)) for f in fractions))
        for name, x in _ranges(blackbox).items()
    }
    return _searched(blackbox, seed, "grid", choices, early_stopping=False)


def _stock(blackbox: Blackbox, seed: int) -> Strategy:
    """Ray's OptunaSearch and ASHA as they come; best is the best last report of any trial.

    They are given the paper's point and margin 0 to start with, as ours tries them too.
    """
    ranges = _ranges(blackbox)
    mirrored = {name for name, x in ranges.items() if x.scale == "log_complement"}
    paper, without = (
        {name: 1 - float(x) if name in mirrored else x for name, x in point.items()}
        for _, point in CategorySpace({}, ranges, (), "tpe").first_points()[:2]
    )

    def read(config: Mapping[str, Any]) -> Tried:
        values = {x: 1 - y if x in mirrored else y for x, y in config.items()}
        return Tried(values, (float(values[_MOMENTUM]),))

    budget = _budget(blackbox, early_stopping=True)
    return Strategy(
        searcher=_OptunaSearch(
            OptunaSearch(
                {name: _distribution(x) for name, x in ranges.items()},
                metric="value",
                mode="max",
                points_to_evaluate=[paper, without],
                seed=seed,
            )
        ),
        asha=Asha(budget),
        read=read,
        best_at_full_budget=False,
    )


class _OptunaSearch:
    """Ray's OptunaSearch, called as Tune does."""

    def __init__(self, search: OptunaSearch) -> None:
        self._search = search

    def suggest(self, name: str) -> Any:
        """A trial's config; None if there is none."""
        config = self._search.suggest(name)
        return config if isinstance(config, dict) else None

    def report(self, name: str, step: int, value: float) -> None:
        """Takes a report."""
        self._search.on_trial_result(name, {"value": value, "training_iteration": step})

    def finish(self, name: str, step: int, value: float) -> None:
        """Takes the last report, which reaches Optuna only here."""
        self._search.on_trial_complete(name, {"value": value, "training_iteration": step})


OURS = "ours"
STRATEGIES: dict[str, Callable[[Blackbox, int], Strategy]] = {
    OURS: _ours,
    "ours, warm-started": lambda box, seed: _ours(box, seed, starting_points=box.curves.elsewhere),
    "ours, momentum searched": lambda box, seed: _searched(box, seed, "tpe", _ranges(box)),
    "stock OptunaSearch + ASHA": _stock,
    "random + ASHA": lambda box, seed: _random(box, seed, early_stopping=True),
    "random": lambda box, seed: _random(box, seed, early_stopping=False),
    "grid": _grid,
    "ours, random": lambda box, seed: _ours(box, seed, "random"),
    "ours, qmc": lambda box, seed: _ours(box, seed, "qmc"),
    "ours, cmaes": lambda box, seed: _ours(box, seed, "cmaes"),
    "ours, gp": lambda box, seed: _ours(box, seed, "gp"),
}
"""By name. All are given the paper's point and margin 0 first; `random` and `grid` train each trial
in full, `grid` all combinations of three values of each setting in random order."""
DEFAULT = tuple(name for name in STRATEGIES if not name.endswith(" gp"))
"""All but the sampler `gp`, which takes seconds to suggest."""


def regrets(
    blackbox: Blackbox, strategy: str, seeds: Sequence[int], num_workers: int
) -> pd.DataFrame:
    """How far a strategy's best lies below the optimum, by seed and budget.

    What counts is the true value at the full budget of the settings that the search would hand
    over; before it has any, those of the paper.

    Returns:
        a row a seed and budget: `strategy`, `seed`, `trainings` (the budget in full
        trainings), `regret` (in AUROC).
    """
    optuna.logging.set_verbosity(optuna.logging.ERROR)
    num_steps = int(blackbox.curves.steps[-1])
    paper = searchable_values(TrialConfig(category=_CATEGORY))
    limit = BUDGETS[-1] * num_steps
    rows = []
    for seed in seeds:
        standings = simulate(
            STRATEGIES[strategy](blackbox, seed),
            blackbox,
            num_workers=num_workers,
            num_steps=limit,
            seed=seed,
        )
        for trainings in BUDGETS:
            reached = [x.settings for x in standings if x.steps <= trainings * num_steps]
            regret = blackbox.optimum - blackbox.true_value((reached or [paper])[-1])
            rows.append(
                {"strategy": strategy, "seed": seed, "trainings": trainings, "regret": regret}
            )
    return pd.DataFrame(rows)


def summary(table: pd.DataFrame) -> pd.DataFrame:
    """Mean regrets over seeds with 95 % bootstrap intervals, and how much larger than ours.

    Args:
        table: of `regrets`, of one category or several (column `category`).

    Returns:
        a row a category, strategy and budget: `regret`, `low`, `high`; `excess`, `excess_low`,
        `excess_high`: the mean difference to `ours` of the same seed.
    """
    keys = ["category", "trainings"]
    ours = table[table["strategy"] == OURS].set_index([*keys, "seed"])["regret"]
    rows = []
    for (category, strategy, trainings), group in table.groupby(
        ["category", "strategy", "trainings"], sort=False
    ):
        own = group.set_index([*keys, "seed"])["regret"]
        row = {"category": category, "strategy": strategy, "trainings": trainings}
        mean, low, high = _mean_interval(own.to_numpy())
        excess, excess_low, excess_high = _mean_interval((own - ours.loc[own.index]).to_numpy())
        rows.append(
            row
            | {"regret": mean, "low": low, "high": high}
            | {"excess": excess, "excess_low": excess_low, "excess_high": excess_high}
        )
    return pd.DataFrame(rows)


def _mean_interval(values: Array) -> tuple[float, float, float]:
    """The mean and its bootstrap interval."""
    draws = np.random.default_rng(0).choice(values, (_NUM_RESAMPLES, len(values))).mean(axis=1)
    low, high = np.quantile(draws, ((1 - LEVEL) / 2, (1 + LEVEL) / 2))
    return float(values.mean()), float(low), float(high)


def _ranges(blackbox: Blackbox) -> dict[str, FloatParameter]:
    """All settings as numbers to search, the momentum among them."""
    low, *_, high = (float(x) for x in blackbox.curves.momenta)
    momentum = FloatParameter(low=low, high=high, scale="log_complement")
    return {**blackbox.curves.parameters, _MOMENTUM: momentum}


def _budget(blackbox: Blackbox, early_stopping: bool) -> Budget:
    steps = blackbox.curves.steps
    return Budget(
        # More than fit: what is spent, not how many trials, ends a search here.
        num_trials=4 * BUDGETS[-1],
        num_steps=int(steps[-1]),
        report_interval=int(steps[0]),
        grace_period=int(steps[0] if early_stopping else steps[-1]),
        reduction_factor=_REDUCTION_FACTOR,
    )


def _distribution(parameter: FloatParameter) -> FloatDistribution:
    if parameter.scale == "log_complement":
        return FloatDistribution(1 - parameter.high, 1 - parameter.low, log=True)
    return FloatDistribution(parameter.low, parameter.high, log=parameter.scale == "log")
