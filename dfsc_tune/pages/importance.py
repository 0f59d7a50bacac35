"""Which settings mattered: Optuna's fANOVA, with the doubt that so many trials leave."""

from __future__ import annotations

import warnings
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import optuna
import pandas as pd
from optuna.distributions import BaseDistribution, CategoricalDistribution, FloatDistribution
from optuna.importance import FanovaImportanceEvaluator, get_param_importances

from dfsc_tune.pages.axes import Axis

MIN_TRIALS = 8
MAX_TRIALS = 200
_NUM_RESAMPLES = 10
_NUM_TREES = 16


@dataclass(frozen=True)
class Importance:
    """A setting's share in the variance of what trials reach; all settings' shares make 1."""

    name: str
    share: float
    low: float
    high: float
    """The least and the largest share when the trials are resampled."""


def importances(trials: pd.DataFrame, axes: Sequence[Axis]) -> list[Importance]:
    """The importance of each setting, the largest first; empty where nothing can be said.

    Args:
        trials: of one category; those at the full budget count, at most a random 200.
        axes: of the settings that vary.
    """
    complete = trials[(trials["state"] == "complete") & trials["value"].notna()]
    positions = np.stack([axis.positions(complete[axis.name]) for axis in axes], axis=1)
    usable = np.isfinite(positions).all(axis=1)
    positions, values = positions[usable], complete["value"].to_numpy()[usable]
    varied = np.ptp(positions, axis=0) > 0 if len(positions) else np.zeros(len(axes), bool)
    if len(values) < MIN_TRIALS or varied.sum() < 2 or np.ptp(values) == 0:
        return []
    generator = np.random.default_rng(0)
    if len(values) > MAX_TRIALS:
        kept = generator.choice(len(values), MAX_TRIALS, replace=False)
        positions, values = positions[kept], values[kept]
    axes = [axis for axis, varies in zip(axes, varied, strict=True) if varies]
    positions = positions[:, varied]
    distributions = _distributions(axes, positions)
    found = _shares(distributions, positions, values)
    resampled = []
    for _ in range(_NUM_RESAMPLES):
        rows = generator.integers(len(values), size=len(values))
        if np.ptp(values[rows]) > 0:
            resampled.append(_shares(distributions, positions[rows], values[rows]))
    spread = np.array([[shares[name] for name in found] for shares in [found, *resampled]])
    shown = [
        Importance(name, share, float(column.min()), float(column.max()))
        for (name, share), column in zip(found.items(), spread.T, strict=True)
    ]
    return sorted(shown, key=lambda row: -row.share)


def _distributions(
    axes: Sequence[Axis], positions: np.ndarray[tuple[int, ...], np.dtype[np.float64]]
) -> dict[str, BaseDistribution]:
    """Each setting along its own axis, so that fANOVA's forest sees what the search sampled."""
    return {
        axis.name: CategoricalDistribution([float(x) for x in range(len(axis.choices))])
        if axis.scale == "categorical"
        else FloatDistribution(float(column.min()), float(column.max()))
        for axis, column in zip(axes, positions.T, strict=True)
    }


def _shares(
    distributions: dict[str, BaseDistribution],
    positions: np.ndarray[tuple[int, ...], np.dtype[np.float64]],
    values: np.ndarray[tuple[int, ...], np.dtype[np.float64]],
) -> dict[str, float]:
    optuna.logging.set_verbosity(optuna.logging.ERROR)
    study = optuna.create_study(direction="maximize")
    study.add_trials(
        [
            optuna.trial.create_trial(
                params=dict(zip(distributions, map(float, point), strict=True)),
                distributions=distributions,
                value=float(value),
            )
            for point, value in zip(positions, values, strict=True)
        ]
    )
    evaluator = FanovaImportanceEvaluator(n_trees=_NUM_TREES, seed=0)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", optuna.exceptions.ExperimentalWarning)
        found = get_param_importances(study, evaluator=evaluator)
    return {name: float(found[name]) for name in distributions}
