"""Optuna's importances of the settings, with their range over resampled trials."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import optuna
import pandas as pd
from optuna.distributions import BaseDistribution, CategoricalDistribution, FloatDistribution
from optuna.importance import PedAnovaImportanceEvaluator, get_param_importances
from optuna.trial import FrozenTrial, create_trial

from dfsc_tune.pages.searched import Setting
from dfsc_tune.results import complete_trials

MIN_TRIALS = 8
MAX_TRIALS = 200
_NUM_RESAMPLES = 10


@dataclass(frozen=True)
class Importance:
    """A setting's importance as a share; the shares of all settings add up to 1."""

    name: str
    share: float
    low: float
    high: float
    """`low` and `high` are the smallest and largest share when the trials are resampled."""


def importances(trials: pd.DataFrame, settings: Sequence[Setting]) -> list[Importance]:
    """Computes the importance of each setting, largest first; empty with too few trials.

    Args:
        trials: of one category; those at the full budget count, at most a random 200.
        settings: those that vary.
    """
    complete = complete_trials(trials).dropna(subset="value")
    positions = pd.DataFrame({x.name: x.positions(complete) for x in settings})
    positions = positions.loc[:, positions.nunique() > 1].dropna()
    values = complete["value"][positions.index]
    if len(values) < MIN_TRIALS or positions.shape[1] < 2 or values.nunique() < 2:
        return []
    positions = positions.sample(min(len(positions), MAX_TRIALS), random_state=0)
    distributions = {
        x.name: _distribution(x, positions[x.name]) for x in settings if x.name in positions
    }
    past = [
        create_trial(
            params={str(name): place for name, place in row.items()},
            distributions=distributions,
            value=value,
        )
        for row, value in zip(
            positions.to_dict("records"), values[positions.index].tolist(), strict=True
        )
    ]
    found = _shares(past)
    generator = np.random.default_rng(0)
    spread = pd.DataFrame(
        [found]
        + [
            _shares([past[i] for i in generator.integers(len(past), size=len(past))])
            for _ in range(_NUM_RESAMPLES)
        ]
    )
    return [
        Importance(name, share, float(spread[name].min()), float(spread[name].max()))
        for name, share in found.items()
    ]


def _distribution(setting: Setting, positions: pd.Series) -> BaseDistribution:
    """The distribution of a setting along its own axis, on which the search is even."""
    if setting.choices:
        return CategoricalDistribution([float(x) for x in range(len(setting.choices))])
    return FloatDistribution(float(positions.min()), float(positions.max()))


def _shares(trials: Sequence[FrozenTrial]) -> dict[str, float]:
    """Optuna's importances, the largest first."""
    optuna.logging.set_verbosity(optuna.logging.ERROR)
    study = optuna.create_study(direction="maximize")
    study.add_trials(trials)
    # With few trials, the better half differs from all of them more clearly than the best tenth.
    evaluator = PedAnovaImportanceEvaluator(target_quantile=0.5)
    return get_param_importances(study, evaluator=evaluator)
