"""Objectives, by which the trials of a search are judged: a class each; loads no torch."""

from dfsc_tune.training.objectives.base import Objective, Split, objective_value
from dfsc_tune.training.objectives.registry import (
    OBJECTIVES,
    chosen_objective,
    objective_named,
    refusals,
    split_test,
)

__all__ = [
    "OBJECTIVES",
    "Objective",
    "Split",
    "chosen_objective",
    "objective_named",
    "objective_value",
    "refusals",
    "split_test",
]
