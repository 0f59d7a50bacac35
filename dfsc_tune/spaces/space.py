"""A search space: the parameters, the fixed settings, the budget and a trial's resources."""

from __future__ import annotations

import itertools
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any, Literal, Self

from pydantic import Field, model_validator

from dfsc_tune.config import ObjectiveConfig, TrialConfig, paper_values
from dfsc_tune.errors import UserError
from dfsc_tune.settings import RuleError, Settings, load, validate
from dfsc_tune.spaces.checks import (
    check_fixed,
    check_not_fixed,
    check_parameter,
    check_point,
    check_when,
)
from dfsc_tune.spaces.parameters import (
    FREE,
    AnyParameter,
    CategoricalParameter,
    FreeParameter,
    Parameter,
    SuggestedParameter,
    Value,
    existing_values,
)
from dfsc_tune.spaces.sampler import SamplerName, check_sampler
from dfsc_tune.storage.places import shipped_folder

Role = Literal["paper", "margin_0", "starting_point", "sampler"]
REFERENCES: dict[str, str] = {"paper": "the paper's setting", "margin_0": "margin 0"}
"""The roles that the best trial is compared with, and their names for people. Such trials are never
stopped early."""

_LEAST_GPU_SHARE = 0.001


class Budget(Settings):
    """The budget of a search for each category."""

    num_trials: Annotated[int, Field(ge=1, le=1_000_000)]
    num_steps: Annotated[int, Field(ge=1, le=1_000_000_000)]
    """Training steps of a trial that is not stopped early."""
    report_interval: Annotated[int, Field(ge=1)]
    grace_period: Annotated[int, Field(ge=1)]
    """ASHA: no trial is stopped before this step, nor between two reports."""
    reduction_factor: Annotated[int, Field(ge=2)] = 3
    """ASHA: of the trials that reach a rung, the best 1 in `reduction_factor` go on."""

    @model_validator(mode="after")
    def _check(self) -> Self:
        if self.report_interval > self.num_steps:
            raise ValueError("report_interval must not exceed num_steps")
        if self.grace_period > self.num_steps:
            raise ValueError("grace_period must not exceed num_steps")
        if self.grace_period < self.report_interval:
            # Else the first report would pass several rungs, and Ray would judge the lowest last.
            raise ValueError(
                f"grace_period {self.grace_period} must not be below report_interval "
                f"{self.report_interval}: a trial is judged only when it reports"
            )
        return self


class Resources(Settings):
    """The resources of one trial."""

    cpus_per_trial: Annotated[int, Field(ge=1)] = 1
    gpus_per_trial: Annotated[float, Field(ge=0.0)] = 0.0
    """A fraction lets several trials share a GPU; above 1 it must be a whole number."""
    deadline_seconds: Annotated[float | None, Field(gt=0.0)] = None
    """A trial that reports nothing for this long is taken to hang, and is ended. By default, ten
    times the slowest report of the run plus five minutes."""

    @model_validator(mode="after")
    def _check(self) -> Self:
        if 0 < self.gpus_per_trial < _LEAST_GPU_SHARE:
            raise ValueError(f"gpus_per_trial must be 0 or at least {_LEAST_GPU_SHARE}")
        if self.gpus_per_trial > 1 and not self.gpus_per_trial.is_integer():
            raise ValueError("gpus_per_trial above 1 must be a whole number")
        return self


class CategoryOverride(Settings):
    """The differences for one category; its parameters replace those of the same name."""

    fixed: dict[str, Any] = Field(default_factory=dict)
    parameters: dict[str, Parameter] = Field(default_factory=dict)
    starting_points: tuple[dict[str, Value], ...] = Field(default=(), strict=False)


class SearchSpace(Settings):
    """A search space, as a YAML file of `search_spaces/` holds it."""

    fixed: dict[str, Any] = Field(default_factory=dict)
    """Settings of every trial, as in a trial's config (groups model, loss, train, score)."""
    parameters: dict[str, Parameter]
    """The settings that vary, by name; see `SEARCHABLE`."""
    starting_points: tuple[dict[str, Value], ...] = Field(default=(), strict=False)
    """Settings to try first, after the paper's setting and margin 0, which every search tries."""
    budget: Budget
    objective: ObjectiveConfig = ObjectiveConfig()
    sampler: SamplerName = "tpe"
    """The source of suggestions: one of Optuna's samplers; `grid`, which tries every combination of
    categorical choices in random order; or `listed`, which tries the starting points alone. The
    latter two end at num_trials at the latest."""
    resources: Resources = Resources()
    categories: dict[str, CategoryOverride] = Field(default_factory=dict)

    @model_validator(mode="after")
    def _check(self) -> Self:
        groups: list[tuple[tuple[str, ...], SearchSpace | CategoryOverride]] = [((), self)]
        groups += [(("categories", name), group) for name, group in self.categories.items()]
        if self.sampler == "listed" and not any(group.starting_points for _, group in groups):
            raise RuleError(("sampler",), "'listed' tries starting_points, and there are none")
        for path, group in groups:
            check_fixed(group.fixed, path)
            for name, parameter in group.parameters.items():
                check_parameter(name, parameter, path)
            parameters = {**self.parameters, **group.parameters}
            for name, parameter in parameters.items():
                check_not_fixed(name, parameter, self.fixed, ())
                check_not_fixed(name, parameter, group.fixed, path)
                check_when(name, parameters, (*path, "parameters"))
            check_sampler(self.sampler, parameters, (*path, "parameters"))
            for index, point in enumerate(group.starting_points):
                check_point(point, parameters, (*path, "starting_points", index))
        return self

    def with_overrides(self, source: str, **groups: Mapping[str, Any]) -> SearchSpace:
        """Returns the space with other values in some of its groups, checked as a whole.

        Settings that the space leaves out stay left out, as `RunSettings.digest` counts only those
        that are given.

        Args:
            source: the origin of the values, for errors.
            groups: the values that differ, by the names of their groups here.

        Raises:
            UserError: a value is not allowed.
        """
        tree = merged(self.model_dump(exclude_unset=True), groups)
        return validate(SearchSpace, tree, source=source)

    def for_category(self, category: str) -> CategorySpace:
        """Returns the search space of one category, its overrides applied."""
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
        """The parameters for which values are suggested: all but the free one."""
        return {x: y for x, y in self.parameters.items() if not isinstance(y, FreeParameter)}

    def base_config(self, category: str, **settings: Any) -> TrialConfig:
        """Returns a trial's config before any parameter is chosen; `settings` replace its own."""
        tree = merged(self.fixed, {"category": category, **settings})
        if isinstance(free := self.parameters.get(FREE), FreeParameter):
            momenta = {FREE: free.choices[0], "extra_ema_momenta": free.choices}
            tree = merged(tree, {"train": {**momenta, "choose_ema_momentum": True}})
        return validate(TrialConfig, tree, source="fixed settings")

    def num_expected(self, num_trials: int) -> int:
        """Returns the number of points tried: `num_trials`, or fewer for a small grid or list."""
        if self.sampler not in ("grid", "listed"):
            return num_trials
        return min(num_trials, len(self.first_points()) + len(self.untried_combinations()))

    def first_points(self) -> list[tuple[Role, dict[str, Value]]]:
        """Returns the points tried before the sampler is asked, complete, none twice, with roles.

        First come the paper's values of the searched settings, and the same with margin 0, so that
        every search tells what tuning gained; then the user's starting points. The free parameter
        has a value in the paper's two points only: others are compared with them, so no value is
        chosen for them. The sampler `listed` tries the starting points alone.
        """
        paper = paper_values()
        wanted: list[tuple[Role, Mapping[str, Value]]] = []
        if self.sampler != "listed":
            wanted.append(("paper", paper))
            if "margin" in self.parameters:
                wanted.append(("margin_0", {**paper, "margin": 0.0}))
        # Settings that a starting point leaves out have the paper's values.
        suggested = {name: paper[name] for name in self.suggested}
        wanted += [("starting_point", {**suggested, **point}) for point in self.starting_points]
        points: list[tuple[Role, dict[str, Value]]] = []
        for role, values in wanted:
            point = existing_values(self.parameters, values)
            if all(point != other for _, other in points):
                points.append((role, point))
        return points

    def untried_combinations(self) -> list[dict[str, Value]]:
        """Returns a grid's points, none twice, without those among the first points."""
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


def find_space(name: str) -> Path:
    """Returns the file of a search space, given its path or the name of a shipped one."""
    if Path(name).is_file():
        return Path(name)
    shipped = {path.stem: path for path in sorted(shipped_folder("search_spaces").glob("*.yaml"))}
    if Path(name).stem in shipped and len(Path(name).parts) == 1:
        return shipped[Path(name).stem]
    raise UserError(
        f"no search space '{name}'; give a YAML file or one of {', '.join(shipped) or 'none'}"
    )


def load_space(name: str) -> SearchSpace:
    """Reads a search space by path or name; UserError names file, line and dotted path."""
    return load(find_space(name), SearchSpace)


def merged(below: Mapping[str, Any], above: Mapping[str, Any]) -> dict[str, Any]:
    """Returns a tree of settings with another one's values on top, group by group."""
    tree = dict(below)
    for key, value in above.items():
        both = isinstance(value, Mapping) and isinstance(tree.get(key), Mapping)
        tree[key] = merged(tree[key], value) if both else value
    return tree
