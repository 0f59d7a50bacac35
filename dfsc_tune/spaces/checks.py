"""Rules that a search space's file must keep, checked before anything runs."""

from __future__ import annotations

import itertools
from collections.abc import Mapping
from typing import Any

from pydantic import ValidationError

from dfsc_tune.config import SEARCHABLE, TrialConfig, group_of, paper_values
from dfsc_tune.settings import RuleError
from dfsc_tune.spaces.parameters import (
    FREE,
    AnyParameter,
    CategoricalParameter,
    FloatParameter,
    FreeParameter,
    IntParameter,
    Value,
    existing_values,
)

_FIXABLE = ("model", "loss", "train", "score")


def check_fixed(fixed: Mapping[str, Any], path: tuple[str, ...]) -> None:
    """Refuses fixed settings that belong elsewhere, or that no config allows."""
    for group in fixed:
        if group == "seed":
            raise RuleError((*path, "fixed", group), "cannot be fixed here; give it by --seed")
        if group not in _FIXABLE:
            raise RuleError(
                (*path, "fixed", group), f"cannot be fixed here; choose from {', '.join(_FIXABLE)}"
            )
    for name in ("num_steps", "report_interval"):
        if name in (fixed.get("train") or {}):
            raise RuleError((*path, "fixed", "train", name), "belongs under budget")
    try:
        TrialConfig.model_validate({**fixed, "category": "any"})
    except ValidationError as error:
        raise RuleError.first_of(error, (*path, "fixed")) from error


def check_parameter(
    name: str,
    parameter: AnyParameter,
    path: tuple[str, ...],
) -> None:
    """Refuses a parameter that cannot be searched, or whose range no config allows."""
    if name not in SEARCHABLE:
        raise RuleError(
            (*path, "parameters", name), f"cannot be searched; choose from {', '.join(SEARCHABLE)}"
        )
    if isinstance(parameter, FreeParameter) and name != FREE:
        raise RuleError((*path, "parameters", name), f"only {FREE} can be of type 'free'")
    ends = ("low", "high") if isinstance(parameter, FloatParameter | IntParameter) else ()
    for index, value in enumerate(parameter.bounds()):
        step = (ends[index],) if ends else ("choices", index)
        _check_value(name, value, (*path, "parameters", name, *step))


def check_not_fixed(
    name: str, parameter: AnyParameter, fixed: Mapping[str, Any], path: tuple[str, ...]
) -> None:
    """Refuses a parameter that is also fixed."""
    of_name = SEARCHABLE[name]
    group = fixed if of_name is None else fixed.get(of_name) or {}
    where = (*path, "fixed", *([of_name] if of_name else ()))
    if name in group:
        raise RuleError((*where, name), "is searched already")
    if isinstance(parameter, FreeParameter) and "extra_ema_momenta" in group:
        raise RuleError((*where, "extra_ema_momenta"), f"belongs under parameters.{name}.choices")


def _check_value(name: str, value: Value, path: tuple[str | int, ...]) -> None:
    """Refuses a value that the setting itself does not allow."""
    tree: dict[str, Any] = {"category": "any"}
    group_of(tree, name)[name] = value
    try:
        TrialConfig.model_validate(tree)
    except ValidationError as error:
        raise RuleError.first_of(error, path, with_loc=False) from error


def check_point(
    point: Mapping[str, Value],
    parameters: Mapping[str, AnyParameter],
    path: tuple[str | int, ...],
) -> None:
    """Refuses a starting point that does not lie in the space."""
    for name, value in point.items():
        if name not in parameters:
            raise RuleError((*path, name), "is not a parameter of this space")
        if isinstance(parameters[name], FreeParameter):
            raise RuleError((*path, name), "is free: each trial is scored at all its choices")
        if not parameters[name].contains(value):
            raise RuleError((*path, name), "lies outside the parameter's range", value)
    existing = existing_values(parameters, {**paper_values(), **point})
    for name in point:
        if name not in existing:
            raise RuleError((*path, name), "does not exist with this point's other values")


def check_when(
    name: str, parameters: Mapping[str, AnyParameter], path: tuple[str | int, ...]
) -> None:
    """Refuses conditions on anything but a categorical parameter above this one."""
    above = dict(itertools.takewhile(lambda item: item[0] != name, parameters.items()))
    for other, wanted in parameters[name].when.items():
        where = (*path, name, "when", other)
        if not isinstance(parent := above.get(other), CategoricalParameter):
            raise RuleError(where, "is not a categorical parameter that stands above this one")
        for value in wanted:
            if not parent.contains(value):
                raise RuleError(where, f"is not a choice of {other}", value)
