"""Carries out a study: its search space at some scale, begun, gone on with, or there already."""

from __future__ import annotations

import signal
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

from rich.console import Console

from dfsc_tune.config import ModelConfig, Network, validate
from dfsc_tune.errors import UserError
from dfsc_tune.models.teacher_files import known_teachers
from dfsc_tune.reproduce.exhibits import MOST_SEEDS, Study, setting_for
from dfsc_tune.results import Run, load
from dfsc_tune.search.parameters import Value
from dfsc_tune.search.request import SearchRequest
from dfsc_tune.search.resume import resume_search
from dfsc_tune.search.space import SearchSpace
from dfsc_tune.search.tuner import run_search

_LARGER: dict[Network, Network] = {"tiny": "small", "small": "medium", "medium": "medium"}
_MEDIUM_TEACHER = "anomalib-medium"
_SETTINGS = "run.yaml"


@dataclass(frozen=True)
class Scale:
    """How large trainings are: of a search space, all but what it searches."""

    space: SearchSpace
    num_seeds: int
    teacher: str | None = None
    """Of the space's network, if not the space's own."""
    photographs: str | None = None
    """A folder for EfficientAD's penalty; None leaves it out."""

    @property
    def model(self) -> ModelConfig:
        """The space's network and image size."""
        return self.space.for_category("").base_config("").model


def study_space(study: Study, categories: Iterable[str], scale: Scale) -> SearchSpace:
    """A study as a search space: its trainings listed for each category, seed after seed.

    Raises:
        UserError: what the scale fixes is what the study varies.
    """
    listed: dict[str, list[dict[str, Value]]] = {
        category: [
            {**setting_for(setting, category), "seed": seed}
            for seed in range(MOST_SEEDS)
            for setting in study.settings
        ]
        for category in categories
    }
    choices: dict[str, list[Value]] = {}
    for point in (point for points in listed.values() for point in points):
        for name, value in point.items():
            if value not in choices.setdefault(name, []):
                choices[name].append(value)
    budget = scale.space.budget.model_dump()
    budget |= {
        "num_trials": len(study.settings) * scale.num_seeds,
        "grace_period": budget["num_steps"],
    }
    tree = {
        "fixed": _merged(scale.space.fixed, study.fixed, _of_scale(study, scale)),
        "parameters": {
            name: {"type": "categorical", "choices": found} for name, found in choices.items()
        },
        "categories": {name: {"starting_points": points} for name, points in listed.items()},
        "sampler": "listed",
        "budget": budget,
        # All test images: parts of them are judged afterwards, on the same trainings.
        "objective": scale.space.objective.model_copy(update={"name": "oracle"}).model_dump(),
        "resources": scale.space.resources.model_dump(),
    }
    return validate(SearchSpace, tree, source=f"the scale of study '{study.name}'")


def carry_out(request: SearchRequest, console: Console) -> tuple[Run, signal.Signals | None]:
    """Trains what of a list is not trained yet; the run, and the signal that broke it off if so.

    Args:
        request: with the list as its space, and where its run is.
        console: for progress.

    Raises:
        UserError: a run of that name has other settings; or as `run_search`.
    """
    folder = request.results / request.name
    interrupted_by = None
    if not (folder / _SETTINGS).exists():
        interrupted_by = run_search(request, console).interrupted_by
    else:
        run = load(folder)
        space = _check_same(request, run)
        num_ended = int((~run.trials["state"].isin(["running", "interrupted"])).sum())
        num_trials = max(request.space.budget.num_trials, space.budget.num_trials)
        if num_ended < num_trials * len(request.categories):
            interrupted_by = resume_search(
                folder,
                request.data,
                console,
                num_trials=num_trials,
                gpus=request.gpus,
                address=request.address,
                device=request.device,
            ).interrupted_by
    return load(folder), interrupted_by


def _check_same(request: SearchRequest, run: Run) -> SearchSpace:
    """The space of a run begun before; refuses one of other trainings, categories or data."""
    space = validate(SearchSpace, run.settings["space"], source=f"{run.folder}/{_SETTINGS}")
    before = (_trainings(space), tuple(run.settings["categories"]), run.settings["data"])
    if before != (_trainings(request.space), request.categories, request.data_name):
        raise UserError(
            f"the run in {run.folder} was begun with other settings, categories or data; ask for "
            "the same, or choose another --name"
        )
    return space


def _trainings(space: SearchSpace) -> dict[str, Any]:
    """What a space says of its trainings, but for how many and where they run."""
    tree = space.model_dump(mode="json")
    del tree["budget"]["num_trials"], tree["resources"]
    return tree


def _of_scale(study: Study, scale: Scale) -> dict[str, Any]:
    """What of a study's fixed settings depends on the scale."""
    network = _LARGER[scale.model.network] if study.larger_network else scale.model.network
    model: dict[str, Any] = {"network": network}
    if not study.larger_network and scale.teacher is not None:
        model["teacher"] = scale.teacher
    elif study.larger_network:
        there = network == "medium" and _MEDIUM_TEACHER in known_teachers()
        model["teacher"] = _MEDIUM_TEACHER if there else None
    penalty = {"penalty_images": scale.photographs} if study.penalty and scale.photographs else {}
    return {"model": model, "train": penalty}


def _merged(*trees: Mapping[str, Any]) -> dict[str, Any]:
    """Trees of settings, two levels deep, later ones on top."""
    merged: dict[str, Any] = {}
    for tree in trees:
        for group, settings in tree.items():
            below = merged.get(group)
            if isinstance(settings, Mapping) and isinstance(below, Mapping):
                settings = {**below, **settings}
            merged[group] = settings
    return merged
