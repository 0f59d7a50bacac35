"""Optuna's samplers by the names that a search space gives them, set up for short searches."""

from __future__ import annotations

import warnings

import numpy as np
from optuna.exceptions import ExperimentalWarning
from optuna.samplers import (
    BaseSampler,
    CmaEsSampler,
    GPSampler,
    QMCSampler,
    RandomSampler,
    TPESampler,
)

from dfsc_tune.spaces.sampler import SamplerName

KEEPS_COUNT: tuple[SamplerName, ...] = ("cmaes", "qmc")
"""Samplers whose next point depends on what they drew before, not only on what the study knows."""
# Optuna's ten random trials to start with would be most of a small budget.
_NUM_STARTUP_TRIALS = 5


def build_sampler(
    name: SamplerName, *, seed: int, number: int, conditional: bool = False
) -> BaseSampler:
    """The sampler of that name for one suggestion.

    A new one each time, seeded by the suggestion's number: what it draws depends on what the study
    knows, not on how it came to know it.

    Args:
        name: as in `SearchSpace.sampler`.
        seed: of the search.
        number: which suggestion of its study this is.
        conditional: whether some parameters exist only beside certain values of others.
    """
    own_seed = int(np.random.SeedSequence((seed, number)).generate_state(1)[0])
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ExperimentalWarning)
        match name:
            case "tpe":
                return TPESampler(
                    seed=own_seed,
                    n_startup_trials=_NUM_STARTUP_TRIALS,
                    multivariate=True,
                    constant_liar=True,
                    group=conditional,
                )
            case "gp":
                return GPSampler(
                    seed=own_seed,
                    n_startup_trials=_NUM_STARTUP_TRIALS,
                    deterministic_objective=False,
                )
            case "cmaes":
                # Of the few that ASHA lets finish, no generation would ever be full.
                return CmaEsSampler(
                    seed=own_seed, consider_pruned_trials=True, warn_independent_sampling=False
                )
            case "qmc":
                # Its sequence is one, of which the study counts what was drawn.
                return QMCSampler(seed=seed, scramble=True, warn_independent_sampling=False)
            case "random" | "grid" | "listed":
                # The points of a grid or list all come as first points: no sampler is asked.
                return RandomSampler(seed=own_seed)
