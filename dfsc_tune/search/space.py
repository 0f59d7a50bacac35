"""A search space: which settings vary and how, what stays fixed, and what may be spent."""

from __future__ import annotations

import itertools
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any, Literal, Self

from pydantic import Field, ValidationError, model_validator

from dfsc_tune import config
from dfsc_tune.config import (
    SEARCHABLE,
    ObjectiveConfig,
    RuleError,
    Settings,
    TrialConfig,
    searchable_group,
    searchable_values,
)
from dfsc_tune.errors import UserError

Value = float | int | str | bool

_FIXABLE = ("model", "loss", "train", "score", "seed")


class _Range(Settings):
    """What real and whole numbers between two bounds share."""

    low: float
    high: float
    scale: str = "linear"

    @model_validator(mode="after")
    def _check(self) -> Self:
        if not (math.isfinite(self.low) and math.isfinite(self.high)):
            raise ValueError("low and high must be finite")
        if self.low >= self.high:
            raise ValueError(
                f"the range is empty: low ({self.low}) must lie below high ({self.high})"
            )
        if self.scale == "log" and self.low <= 0:
            raise ValueError("scale 'log' needs low above 0")
        if self.scale == "log_complement" and self.high >= 1:
            raise ValueError("scale 'log_complement' needs high below 1")
        return self

    def contains(self, value: Value) -> bool:
        """Whether the value can be suggested."""
        is_number = isinstance(value, int | float) and not isinstance(value, bool)
        return is_number and self.low <= float(value) <= self.high

    def bounds(self) -> tuple[Value, ...]:
        """Values that must be allowed for all between them to be."""
        return (self.low, self.high)


class FloatParameter(_Range):
    """A real number between two bounds, both included.

    `log` spreads suggestions evenly over the logarithm; `log_complement` over that of 1 − x, for
    quantiles and momenta that matter near 1.
    """

    type: Literal["float"] = "float"
    scale: Literal["linear", "log", "log_complement"] = "linear"


class IntParameter(_Range):
    """A whole number between two bounds, both included."""

    type: Literal["int"] = "int"
    low: int
    high: int
    scale: Literal["linear", "log"] = "linear"

    def contains(self, value: Value) -> bool:
        """Whether the value can be suggested."""
        return isinstance(value, int) and super().contains(value)


class CategoricalParameter(Settings):
    """One of some values."""

    type: Literal["categorical"] = "categorical"
    choices: Annotated[tuple[Value, ...], Field(min_length=1, strict=False)]

    @model_validator(mode="after")
    def _check(self) -> Self:
        if len(set(map(repr, self.choices))) < len(self.choices):
            raise ValueError("a choice is given twice")
        return self

    def contains(self, value: Value) -> bool:
        """Whether the value can be suggested."""
        return value in self.choices

    def bounds(self) -> tuple[Value, ...]:
        """Values that must be allowed."""
        return self.choices


Parameter = Annotated[
    FloatParameter | IntParameter | CategoricalParameter, Field(discriminator="type")
]


class Budget(Settings):
    """What a search may spend on each category."""

    num_trials: Annotated[int, Field(ge=1)]
    num_steps: Annotated[int, Field(ge=1)]
    """Training steps of a trial that is not stopped early."""
    report_interval: Annotated[int, Field(ge=1)]
    grace_period: Annotated[int, Field(ge=1)]
    """ASHA: no trial is stopped before this step."""
    reduction_factor: Annotated[int, Field(ge=2)] = 3
    """ASHA: of the trials that reach a rung, the best one in so many goes on."""

    @model_validator(mode="after")
    def _check(self) -> Self:
        if self.report_interval > self.num_steps:
            raise ValueError("report_interval must not exceed num_steps")
        if self.grace_period > self.num_steps:
            raise ValueError("grace_period must not exceed num_steps")
        return self


class Resources(Settings):
    """What one trial is given."""

    cpus_per_trial: Annotated[int, Field(ge=1)] = 1
    gpus_per_trial: Annotated[float, Field(ge=0.0)] = 0.0
    """A fraction lets several trials share a GPU; above 1 only whole numbers."""

    @model_validator(mode="after")
    def _check(self) -> Self:
        if self.gpus_per_trial > 1 and not self.gpus_per_trial.is_integer():
            raise ValueError("gpus_per_trial above 1 must be a whole number")
        return self


class CategoryOverride(Settings):
    """What differs for one category; parameters given here replace those of the same name."""

    fixed: dict[str, Any] = Field(default_factory=dict)
    parameters: dict[str, Parameter] = Field(default_factory=dict)
    starting_points: tuple[dict[str, Value], ...] = Field(default=(), strict=False)


class SearchSpace(Settings):
    """One YAML file of `search_spaces/`."""

    fixed: dict[str, Any] = Field(default_factory=dict)
    """Settings of every trial, as in a trial's config (groups model, loss, train, score; seed)."""
    parameters: dict[str, Parameter]
    """The settings that vary, by name; see `SEARCHABLE`."""
    starting_points: tuple[dict[str, Value], ...] = Field(default=(), strict=False)
    """Tried first, after the paper's setting and margin 0, which every search tries."""
    budget: Budget
    objective: ObjectiveConfig = ObjectiveConfig()
    sampler: Literal["tpe", "random", "grid"] = "tpe"
    """`grid` tries every combination of categorical choices, as far as num_trials goes."""
    resources: Resources = Resources()
    categories: dict[str, CategoryOverride] = Field(default_factory=dict)

    @model_validator(mode="after")
    def _check(self) -> Self:
        groups: list[tuple[tuple[str, ...], SearchSpace | CategoryOverride]] = [((), self)]
        groups += [(("categories", name), group) for name, group in self.categories.items()]
        for path, group in groups:
            _check_fixed(group.fixed, path)
            for name, parameter in group.parameters.items():
                _check_parameter(name, parameter, path)
                if self.sampler == "grid" and not isinstance(parameter, CategoricalParameter):
                    raise RuleError(
                        (*path, "parameters", name), "sampler 'grid' needs type 'categorical'"
                    )
            parameters = {**self.parameters, **group.parameters}
            for name in parameters:
                _check_not_fixed(name, self.fixed, ())
                _check_not_fixed(name, group.fixed, path)
            for index, point in enumerate(group.starting_points):
                _check_point(point, parameters, (*path, "starting_points", index))
        return self

    def for_category(self, category: str) -> CategorySpace:
        """What holds for one category, its overrides applied."""
        override = self.categories.get(category, CategoryOverride())
        return CategorySpace(
            fixed=_merged(self.fixed, override.fixed),
            parameters={**self.parameters, **override.parameters},
            starting_points=(*self.starting_points, *override.starting_points),
            grid=self.sampler == "grid",
        )


@dataclass(frozen=True)
class CategorySpace:
    """The search space of one category."""

    fixed: Mapping[str, Any]
    parameters: Mapping[str, FloatParameter | IntParameter | CategoricalParameter]
    starting_points: Sequence[Mapping[str, Value]]
    grid: bool

    def base_config(self, category: str, **settings: Any) -> TrialConfig:
        """A trial's config before any parameter is chosen; `settings` go on top."""
        tree = _merged(self.fixed, {"category": category, **settings})
        return config.validate(TrialConfig, tree, source="fixed settings")

    def num_expected(self, num_trials: int) -> int:
        """How many points are tried where `num_trials` may be: a grid may have fewer."""
        return min(num_trials, len(self.first_points())) if self.grid else num_trials

    def first_points(self) -> list[dict[str, Value]]:
        """What is tried before the sampler is asked: complete points, none twice.

        The paper's values of what is searched come first, and these with margin 0, so that every
        search says what tuning gained; then the user's starting points; with sampler `grid`, then
        all combinations.
        """
        # The defaults of a config are the paper's; what a point leaves open is too.
        defaults = searchable_values(TrialConfig(category=""))
        paper: dict[str, Value] = {name: defaults[name] for name in self.parameters}
        points: list[dict[str, Value]] = [paper]
        if "margin" in self.parameters:
            points.append({**paper, "margin": 0.0})
        points += [{**paper, **point} for point in self.starting_points]
        if self.grid:
            choices = [
                parameter.choices
                for parameter in self.parameters.values()
                if isinstance(parameter, CategoricalParameter)
            ]
            points += [
                dict(zip(self.parameters, combination, strict=True))
                for combination in itertools.product(*choices)
            ]
        return [point for index, point in enumerate(points) if point not in points[:index]]


def find_space(name: str) -> Path:
    """The file of a search space given by its path or by the name of one that comes with us."""
    if Path(name).is_file():
        return Path(name)
    shipped = {path.stem: path for path in sorted(_shipped_folder().glob("*.yaml"))}
    if Path(name).stem in shipped and len(Path(name).parts) == 1:
        return shipped[Path(name).stem]
    raise UserError(
        f"no search space '{name}'; give a YAML file or one of {', '.join(shipped) or 'none'}"
    )


def load_space(name: str) -> SearchSpace:
    """Reads a search space by path or name; UserError names file, line and dotted path."""
    return config.load(find_space(name), SearchSpace)


def _shipped_folder() -> Path:
    # An installed package carries the folder inside; a checkout has it at its top.
    package = Path(__file__).parents[1]
    installed = package / "search_spaces"
    return installed if installed.is_dir() else package.parent / "search_spaces"


def _check_fixed(fixed: Mapping[str, Any], path: tuple[str, ...]) -> None:
    for group in fixed:
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


def _check_parameter(
    name: str,
    parameter: FloatParameter | IntParameter | CategoricalParameter,
    path: tuple[str, ...],
) -> None:
    if name not in SEARCHABLE:
        raise RuleError(
            (*path, "parameters", name), f"cannot be searched; choose from {', '.join(SEARCHABLE)}"
        )
    ends = ("low", "high") if not isinstance(parameter, CategoricalParameter) else ()
    for index, value in enumerate(parameter.bounds()):
        step = (ends[index],) if ends else ("choices", index)
        _check_value(name, value, (*path, "parameters", name, *step))


def _check_not_fixed(name: str, fixed: Mapping[str, Any], path: tuple[str, ...]) -> None:
    if name in (fixed.get(SEARCHABLE[name]) or {}):
        raise RuleError((*path, "fixed", SEARCHABLE[name], name), "is searched already")


def _check_value(name: str, value: Value, path: tuple[str | int, ...]) -> None:
    """Refuses a value that the setting itself does not allow."""
    try:
        TrialConfig.model_validate({"category": "any", searchable_group(name): {name: value}})
    except ValidationError as error:
        raise RuleError.first_of(error, path, with_loc=False) from error


def _check_point(
    point: Mapping[str, Value],
    parameters: Mapping[str, FloatParameter | IntParameter | CategoricalParameter],
    path: tuple[str | int, ...],
) -> None:
    for name, value in point.items():
        if name not in parameters:
            raise RuleError((*path, name), "is no parameter of this space")
        if not parameters[name].contains(value):
            raise RuleError((*path, name), "lies outside the parameter's range", value)


def _merged(below: Mapping[str, Any], above: Mapping[str, Any]) -> dict[str, Any]:
    merged = dict(below)
    for key, value in above.items():
        both = isinstance(value, Mapping) and isinstance(merged.get(key), Mapping)
        merged[key] = _merged(merged[key], value) if both else value
    return merged
