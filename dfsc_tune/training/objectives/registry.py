"""The registry of objectives, and questions to the one that a category's settings name."""

from __future__ import annotations

from dfsc_tune.config import ObjectiveConfig
from dfsc_tune.data.records import Category
from dfsc_tune.errors import UserError
from dfsc_tune.training.objectives.base import Objective, Split
from dfsc_tune.training.objectives.holdout import Holdout
from dfsc_tune.training.objectives.oracle import Oracle
from dfsc_tune.training.objectives.synthetic import Synthetic

OBJECTIVES: dict[str, Objective] = {x.name: x for x in (Holdout(), Synthetic(), Oracle())}
"""`auto` takes the first of them that suits a category; `synthetic` suits any."""
AUTO = "auto"
"""The name that leaves the choice to the category's images."""


def objective_named(name: str) -> Objective:
    """The objective of a name.

    Raises:
        UserError: there is none, as in a run that a later version made.
    """
    if name not in OBJECTIVES:
        raise UserError(f"no objective '{name}'; this version knows {', '.join(OBJECTIVES)}")
    return OBJECTIVES[name]


def chosen_objective(category: Category, settings: ObjectiveConfig) -> ObjectiveConfig:
    """The settings with `auto` settled for a category."""
    if settings.name != AUTO:
        return settings
    suiting = next(x for x in OBJECTIVES.values() if x.suits(category, settings))
    return settings.model_copy(update={"name": suiting.name})


def split_test(category: Category, settings: ObjectiveConfig) -> Split:
    """Divides a category's images as the settings ask, `auto` among them.

    Raises:
        UserError: the category lacks what the objective needs.
    """
    settings = chosen_objective(category, settings)
    return objective_named(settings.name).split(category, settings)


def refusals(category: Category) -> dict[str, str]:
    """The objectives, `auto` among them, by which a category cannot be searched, and why."""
    found: dict[str, str] = {}
    for name in (AUTO, *OBJECTIVES):
        settings = ObjectiveConfig().model_copy(update={"name": name})
        settings = chosen_objective(category, settings)
        reason = objective_named(settings.name).refusal(category, settings)
        if reason is not None:
            found[name] = reason
    return found
