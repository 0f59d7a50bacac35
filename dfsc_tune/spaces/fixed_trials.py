"""Builds search spaces of fixed trials: trainings whose settings are given in advance."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

from dfsc_tune.config import ObjectiveConfig
from dfsc_tune.settings import validate
from dfsc_tune.spaces.parameters import Value
from dfsc_tune.spaces.space import SearchSpace


def space_of_trainings(
    like: SearchSpace,
    num_trials: int,
    *,
    fixed: Mapping[str, Any],
    parameters: Mapping[str, Any],
    categories: Mapping[str, Any],
    source: str,
    objective: ObjectiveConfig | None = None,
) -> SearchSpace:
    """Returns the space of a batch of fixed trials, none of which is stopped early.

    Args:
        like: a space with the same steps and resources.
        num_trials: trials of each category.
        fixed: the settings that all of them share.
        parameters: those that vary, as from `categorical`.
        categories: of each category, its trainings as `starting_points`, and what differs for it.
        source: origin of the settings, for errors.
        objective: of the trials; that of `like` if None.

    Raises:
        UserError: the settings do not make a valid space, as when one is both fixed and varied.
    """
    tree = {
        "fixed": fixed,
        "parameters": parameters,
        "categories": categories,
        "sampler": "listed",
        "budget": like.budget.model_dump()
        | {"num_trials": num_trials, "grace_period": like.budget.num_steps},
        "objective": (objective or like.objective).model_dump(),
        "resources": like.resources.model_dump(),
    }
    return validate(SearchSpace, tree, source=source)


def categorical(points: Iterable[Mapping[str, Value]]) -> dict[str, Any]:
    """Returns the parameters that vary over some points, with the values there as their choices."""
    choices: dict[str, list[Value]] = {}
    for name, value in (item for point in points for item in point.items()):
        if value not in choices.setdefault(name, []):
            choices[name].append(value)
    return {name: {"type": "categorical", "choices": found} for name, found in choices.items()}
