"""The samplers' names, and the parameters that each of them cannot search."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Literal

from dfsc_tune.settings import RuleError
from dfsc_tune.spaces.parameters import AnyParameter, CategoricalParameter, FreeParameter

SamplerName = Literal["tpe", "gp", "random", "grid", "listed", "cmaes", "qmc"]


def check_sampler(
    sampler: SamplerName, parameters: Mapping[str, AnyParameter], path: tuple[str | int, ...]
) -> None:
    """Refuses parameters that a sampler cannot search."""
    suggested = {x: y for x, y in parameters.items() if not isinstance(y, FreeParameter)}
    if not suggested:
        raise RuleError(path, "nothing to search: a parameter that is not free is needed")
    if sampler == "cmaes" and all(isinstance(x, CategoricalParameter) for x in suggested.values()):
        raise RuleError(path, "sampler 'cmaes' needs a parameter of type 'float' or 'int'")
    for name, parameter in suggested.items():
        if sampler == "grid" and not isinstance(parameter, CategoricalParameter):
            raise RuleError((*path, name), "sampler 'grid' needs type 'categorical'")
        if sampler in ("gp", "cmaes", "qmc") and parameter.when:
            rule = f"sampler '{sampler}' cannot search conditions; use tpe, random or grid"
            raise RuleError((*path, name, "when"), rule)
