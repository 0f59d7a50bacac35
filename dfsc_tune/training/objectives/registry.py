"""The registry of objectives, and the choice of one for a category."""

from __future__ import annotations

from dfsc_tune.config import ObjectiveConfig
from dfsc_tune.data.records import Category
from dfsc_tune.errors import UserError
from dfsc_tune.training.objectives.base import Objective, Split
from dfsc_tune.training.objectives.holdout import Holdout
from dfsc_tune.training.objectives.oracle import Oracle
from dfsc_tune.training.objectives.synthetic import Synthetic

OBJECTIVES: dict[str, Objective] = {x.name: x for x in (Holdout(), Synthetic(), Oracle())}
"""By name; `auto` takes the first that suits a category, and `synthetic` suits any."""
AUTO = "auto"
"""The name that leaves the choice to the category's images."""


def objective_named(name: str) -> Objective:
    """Returns the objective of a name.

    Raises:
        UserError: there is none of that name, as in a run that a later version made.
    """
    if name not in OBJECTIVES:
        raise UserError(f"no objective '{name}'; this version knows {', '.join(OBJECTIVES)}")
    return OBJECTIVES[name]


def chosen_objective(category: Category, settings: ObjectiveConfig) -> ObjectiveConfig:
    """Returns the settings with `auto` replaced by the objective that suits a category."""
    if settings.name != AUTO:
        return settings
    suiting = next(x for x in OBJECTIVES.values() if x.suits(category, settings))
    return settings.model_copy(update={"name": suiting.name})


def split_test(category: Category, settings: ObjectiveConfig) -> Split:
    """Splits a category's images by the objective that the settings name, `auto` included.

    Raises:
        UserError: the category lacks what the objective needs.
    """
    settings = chosen_objective(category, settings)
    return objective_named(settings.name).split(category, settings)


def refusals(category: Category) -> dict[str, str]:
    """Returns the objectives (and `auto`) by which a category cannot be searched, with reasons."""
    found: dict[str, str] = {}
    for name in (AUTO, *OBJECTIVES):
        settings = ObjectiveConfig().model_copy(update={"name": name})
        settings = chosen_objective(category, settings)
        reason = objective_named(settings.name).refusal(category, settings)
        if reason is not None:
            found[name] = reason
    return found
