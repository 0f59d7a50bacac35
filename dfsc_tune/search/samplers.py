"""Optuna's samplers by the names that a search space gives them, set up for short searches."""

from __future__ import annotations

import warnings

import optuna
from optuna.exceptions import ExperimentalWarning
from optuna.samplers import (
    BaseSampler,
    CmaEsSampler,
    GPSampler,
    QMCSampler,
    RandomSampler,
    TPESampler,
)

from dfsc_tune.search.space import SamplerName


def build_sampler(
    name: SamplerName, *, num_trials: int, seed: int, conditional: bool = False
) -> BaseSampler:
    """The sampler of that name.

    Args:
        name: as in `SearchSpace.sampler`.
        num_trials: how many trials the search may spend.
        seed: decides all that the sampler draws.
        conditional: whether some parameters exist only beside certain values of others.
    """
    optuna.logging.set_verbosity(optuna.logging.ERROR)
    # Optuna's ten random trials to start with would be most of a small budget.
    num_startup_trials = min(10, max(4, num_trials // 4))
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ExperimentalWarning)
        match name:
            case "tpe":
                return TPESampler(
                    seed=seed,
                    n_startup_trials=num_startup_trials,
                    multivariate=True,
                    constant_liar=True,
                    group=conditional,
                )
            case "gp":
                return GPSampler(
                    seed=seed, n_startup_trials=num_startup_trials, deterministic_objective=False
                )
            case "cmaes":
                # Of the few that ASHA lets finish, no generation would ever be full.
                return CmaEsSampler(
                    seed=seed, consider_pruned_trials=True, warn_independent_sampling=False
                )
            case "qmc":
                return QMCSampler(seed=seed, scramble=True, warn_independent_sampling=False)
            case "random" | "grid":
                # A grid's points all come as first points: its sampler is never asked.
                return RandomSampler(seed=seed)
