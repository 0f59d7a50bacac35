"""A search space: which settings vary and how, what stays fixed, and what may be spent."""

from __future__ import annotations

import itertools
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any, Literal, Self

from pydantic import Field, ValidationError, model_validator

from dfsc_tune.config import SEARCHABLE, ObjectiveConfig, TrialConfig, group_of, searchable_values
from dfsc_tune.errors import UserError
from dfsc_tune.settings import RuleError, Settings, load, validate
from dfsc_tune.spaces.parameters import (
    AnyParameter,
    CategoricalParameter,
    FloatParameter,
    FreeParameter,
    IntParameter,
    Parameter,
    SuggestedParameter,
    Value,
)

Role = Literal["paper", "margin_0", "starting_point", "sampler"]
SPARED: tuple[Role, ...] = ("paper", "margin_0")
"""Trials that are never stopped early: the winner is compared with them at full budget."""
SamplerName = Literal["tpe", "gp", "random", "grid", "listed", "cmaes", "qmc"]

_FREE = "ema_momentum"
_FIXABLE = ("model", "loss", "train", "score")


class Budget(Settings):
    """What a search may spend on each category."""

    num_trials: Annotated[int, Field(ge=1)]
    num_steps: Annotated[int, Field(ge=1)]
    """Training steps of a trial that is not stopped early."""
    report_interval: Annotated[int, Field(ge=1)]
    grace_period: Annotated[int, Field(ge=1)]
    """ASHA: no trial is stopped before this step, nor between two reports."""
    reduction_factor: Annotated[int, Field(ge=2)] = 3
    """ASHA: of the trials that reach a rung, the best one in so many goes on."""

    @model_validator(mode="after")
    def _check(self) -> Self:
        if self.report_interval > self.num_steps:
            raise ValueError("report_interval must not exceed num_steps")
        if self.grace_period > self.num_steps:
            raise ValueError("grace_period must not exceed num_steps")
        if self.grace_period < self.report_interval:
            # The first report would be past several rungs, and Ray judge the lowest ones last.
            raise ValueError(
                f"grace_period {self.grace_period} must not be below report_interval "
                f"{self.report_interval}: a trial is judged only when it reports"
            )
        return self


class Resources(Settings):
    """What one trial is given."""

    cpus_per_trial: Annotated[int, Field(ge=1)] = 1
    gpus_per_trial: Annotated[float, Field(ge=0.0)] = 0.0
    """A fraction lets several trials share a GPU; above 1 only whole numbers."""
    deadline_seconds: Annotated[float | None, Field(gt=0.0)] = None
    """A trial that reports nothing for so long hangs and is ended; left out, ten times the slowest
    report of the run and five minutes."""

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
    """Settings of every trial, as in a trial's config (groups model, loss, train, score)."""
    parameters: dict[str, Parameter]
    """The settings that vary, by name; see `SEARCHABLE`."""
    starting_points: tuple[dict[str, Value], ...] = Field(default=(), strict=False)
    """Tried first, after the paper's setting and margin 0, which every search tries."""
    budget: Budget
    objective: ObjectiveConfig = ObjectiveConfig()
    sampler: SamplerName = "tpe"
    """Who suggests: Optuna's sampler of that name; `grid` tries every combination of categorical
    choices, in random order, and `listed` the starting points alone, both as far as num_trials
    goes."""
    resources: Resources = Resources()
    categories: dict[str, CategoryOverride] = Field(default_factory=dict)

    @model_validator(mode="after")
    def _check(self) -> Self:
        groups: list[tuple[tuple[str, ...], SearchSpace | CategoryOverride]] = [((), self)]
        groups += [(("categories", name), group) for name, group in self.categories.items()]
        if self.sampler == "listed" and not any(group.starting_points for _, group in groups):
            raise RuleError(("sampler",), "'listed' tries starting_points, and there are none")
        for path, group in groups:
            _check_fixed(group.fixed, path)
            for name, parameter in group.parameters.items():
                _check_parameter(name, parameter, path)
            parameters = {**self.parameters, **group.parameters}
            for name, parameter in parameters.items():
                _check_not_fixed(name, parameter, self.fixed, ())
                _check_not_fixed(name, parameter, group.fixed, path)
                _check_when(name, parameters, (*path, "parameters"))
            _check_sampler(self.sampler, parameters, (*path, "parameters"))
            for index, point in enumerate(group.starting_points):
                _check_point(point, parameters, (*path, "starting_points", index))
        return self

    def with_overrides(self, source: str, **groups: Mapping[str, Any]) -> SearchSpace:
        """The space with other values in some of its groups, checked as a whole.

        What the space does not say stays unsaid: `RunSettings.digest` counts only what is said.

        Args:
            source: who asks for them, for errors.
            groups: by their names here, the values that differ.

        Raises:
            UserError: a value is not allowed.
        """
        tree = merged(self.model_dump(exclude_unset=True), groups)
        return validate(SearchSpace, tree, source=source)

    def for_category(self, category: str) -> CategorySpace:
        """What holds for one category, its overrides applied."""
        override = self.categories.get(category, CategoryOverride())
        return CategorySpace(
            fixed=merged(self.fixed, override.fixed),
            parameters={**self.parameters, **override.parameters},
            starting_points=(*self.starting_points, *override.starting_points),
            sampler=self.sampler,
        )


@dataclass(frozen=True)
class CategorySpace:
    """The search space of one category."""

    fixed: Mapping[str, Any]
    parameters: Mapping[str, AnyParameter]
    starting_points: Sequence[Mapping[str, Value]]
    sampler: SamplerName

    @property
    def suggested(self) -> dict[str, SuggestedParameter]:
        """The parameters that a value is suggested for: all but the free one."""
        return {x: y for x, y in self.parameters.items() if not isinstance(y, FreeParameter)}

    def base_config(self, category: str, **settings: Any) -> TrialConfig:
        """A trial's config before any parameter is chosen; `settings` go on top."""
        tree = merged(self.fixed, {"category": category, **settings})
        if isinstance(free := self.parameters.get(_FREE), FreeParameter):
            momenta = {_FREE: free.choices[0], "extra_ema_momenta": free.choices}
            tree = merged(tree, {"train": {**momenta, "choose_ema_momentum": True}})
        return validate(TrialConfig, tree, source="fixed settings")

    def num_expected(self, num_trials: int) -> int:
        """How many points are tried where `num_trials` may be: a grid or a list may have fewer."""
        if self.sampler not in ("grid", "listed"):
            return num_trials
        return min(num_trials, len(self.first_points()) + len(self.untried_combinations()))

    def first_points(self) -> list[tuple[Role, dict[str, Value]]]:
        """What is tried before the sampler is asked, and why: complete points, none twice.

        The paper's values of what is searched come first, and these with margin 0, so that every
        search says what tuning gained; then the user's starting points. The free parameter has a
        value only in the paper's two: they are compared with, so nothing is chosen for them. Of a
        list, the starting points are all.
        """
        paper = _paper_values()
        wanted: list[tuple[Role, Mapping[str, Value]]] = []
        if self.sampler != "listed":
            wanted.append(("paper", paper))
            if "margin" in self.parameters:
                wanted.append(("margin_0", {**paper, "margin": 0.0}))
        # What a starting point leaves open is the paper's.
        suggested = {name: paper[name] for name in self.suggested}
        wanted += [("starting_point", {**suggested, **point}) for point in self.starting_points]
        points: list[tuple[Role, dict[str, Value]]] = []
        for role, values in wanted:
            point = existing_values(self.parameters, values)
            if all(point != other for _, other in points):
                points.append((role, point))
        return points

    def untried_combinations(self) -> list[dict[str, Value]]:
        """A grid's points, none twice, without those that are among the first points."""
        if self.sampler != "grid":
            return []
        seen = {tuple(point.items()) for _, point in self.first_points()}
        choices = [
            x.choices for x in self.suggested.values() if isinstance(x, CategoricalParameter)
        ]
        points: list[dict[str, Value]] = []
        for combination in itertools.product(*choices):
            values = dict(zip(self.suggested, combination, strict=True))
            point = existing_values(self.parameters, values)
            if (key := tuple(point.items())) not in seen:
                seen.add(key)
                points.append(point)
        return points


def existing_values(
    parameters: Mapping[str, AnyParameter], values: Mapping[str, Value]
) -> dict[str, Value]:
    """The values of those parameters that exist beside the others (`when`)."""
    existing: dict[str, Value] = {}
    for name, parameter in parameters.items():
        if name in values and parameter.exists(existing):
            existing[name] = values[name]
    return existing


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
    return load(find_space(name), SearchSpace)


def _shipped_folder() -> Path:
    # An installed package carries the folder inside; a checkout has it at its top.
    package = Path(__file__).parents[1]
    installed = package / "search_spaces"
    return installed if installed.is_dir() else package.parent / "search_spaces"


def _check_fixed(fixed: Mapping[str, Any], path: tuple[str, ...]) -> None:
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


def _check_parameter(
    name: str,
    parameter: AnyParameter,
    path: tuple[str, ...],
) -> None:
    if name not in SEARCHABLE:
        raise RuleError(
            (*path, "parameters", name), f"cannot be searched; choose from {', '.join(SEARCHABLE)}"
        )
    if isinstance(parameter, FreeParameter) and name != _FREE:
        raise RuleError((*path, "parameters", name), f"only {_FREE} can be of type 'free'")
    ends = ("low", "high") if isinstance(parameter, FloatParameter | IntParameter) else ()
    for index, value in enumerate(parameter.bounds()):
        step = (ends[index],) if ends else ("choices", index)
        _check_value(name, value, (*path, "parameters", name, *step))


def _check_not_fixed(
    name: str, parameter: AnyParameter, fixed: Mapping[str, Any], path: tuple[str, ...]
) -> None:
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


def _check_point(
    point: Mapping[str, Value],
    parameters: Mapping[str, AnyParameter],
    path: tuple[str | int, ...],
) -> None:
    for name, value in point.items():
        if name not in parameters:
            raise RuleError((*path, name), "is no parameter of this space")
        if isinstance(parameters[name], FreeParameter):
            raise RuleError((*path, name), "is free: each trial is scored at all its choices")
        if not parameters[name].contains(value):
            raise RuleError((*path, name), "lies outside the parameter's range", value)
    existing = existing_values(parameters, {**_paper_values(), **point})
    for name in point:
        if name not in existing:
            raise RuleError((*path, name), "does not exist beside this point's other values")


def _paper_values() -> dict[str, Value]:
    """Every searchable setting as in the paper: the defaults of a config."""
    return dict(searchable_values(TrialConfig(category="any")))


def _check_sampler(
    sampler: SamplerName, parameters: Mapping[str, AnyParameter], path: tuple[str | int, ...]
) -> None:
    """Refuses what a sampler cannot search."""
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


def _check_when(
    name: str, parameters: Mapping[str, AnyParameter], path: tuple[str | int, ...]
) -> None:
    """Refuses conditions on what cannot decide: only a categorical parameter further up can."""
    above = dict(itertools.takewhile(lambda item: item[0] != name, parameters.items()))
    for other, wanted in parameters[name].when.items():
        where = (*path, name, "when", other)
        if not isinstance(parent := above.get(other), CategoricalParameter):
            raise RuleError(where, "is no categorical parameter that stands above this one")
        for value in wanted:
            if not parent.contains(value):
                raise RuleError(where, f"is no choice of {other}", value)


def merged(below: Mapping[str, Any], above: Mapping[str, Any]) -> dict[str, Any]:
    """A tree of settings with another one's values on top, group by group."""
    tree = dict(below)
    for key, value in above.items():
        both = isinstance(value, Mapping) and isinstance(tree.get(key), Mapping)
        tree[key] = merged(tree[key], value) if both else value
    return tree
