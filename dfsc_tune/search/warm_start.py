"""Starting points from earlier runs: the best settings of the most similar categories."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
from rich.console import Console

from dfsc_tune.config import searchable_values
from dfsc_tune.data.fingerprint import content_digest
from dfsc_tune.errors import UserError
from dfsc_tune.models.detector import Detector, load_detector
from dfsc_tune.models.teacher import Teacher, teacher_identity
from dfsc_tune.results import MODELS
from dfsc_tune.search.request import SearchRequest
from dfsc_tune.spaces.parameters import (
    AnyParameter,
    FloatParameter,
    IntParameter,
    Value,
    existing_values,
)
from dfsc_tune.spaces.space import CategoryOverride, CategorySpace
from dfsc_tune.training.prepare import CategoryData

_MOST_SIMILAR = 3


@dataclass(frozen=True)
class EarlierBest:
    """The best model that an earlier run saved for a category."""

    name: str
    """The run and its category, for people."""
    detector: Detector


def with_warm_start(
    request: SearchRequest, data: Mapping[str, CategoryData], console: Console
) -> SearchRequest:
    """The request with the best settings of similar categories among its starting points.

    Of each new category, those of the three most similar ones of the runs in `warm_start`, unless
    they were chosen on images that the new search reports on.

    Args:
        request: what to search; `warm_start` names the runs.
        data: the new categories, read.
        console: told what each category starts with.

    Raises:
        UserError: a run has no model, or a model is damaged.
    """
    if not request.warm_start:
        return request
    if request.space.sampler == "listed":
        raise UserError(
            "sampler 'listed' tries only the points in its space, so it cannot be warm-started"
        )
    earlier = [best for run in request.warm_start for best in _saved_models(run)]
    categories: dict[str, dict[str, Any]] = {}
    for category, read in data.items():
        ranked = ranked_by_similarity(_without_seen(earlier, read, console), read.trial.teacher)
        nearest = ranked[:_MOST_SIMILAR]
        space = request.space.for_category(category)
        override = request.space.categories.get(category, CategoryOverride())
        points = [starting_point(space, searchable_values(x.detector.config)) for x, _ in nearest]
        categories[category] = {"starting_points": [*override.starting_points, *points]}
        found = ", ".join(f"{best.name} ({_shown(distance)})" for best, distance in nearest)
        console.print(f"{category} starts with the best of {found or 'no run'}")
    warmed = request.space.with_overrides("warm start", categories=categories)
    return replace(request, space=warmed)


def ranked_by_similarity(
    earlier: Sequence[EarlierBest], teacher: Teacher
) -> list[tuple[EarlierBest, float]]:
    """Earlier categories, the most similar first, with their distances.

    Args:
        earlier: in the order that ties keep.
        teacher: with the channel statistics of the new category's training images.
    """
    identity = teacher_identity(teacher)
    distances = [
        channel_distance(teacher, best.detector.teacher)
        if teacher_identity(best.detector.teacher) == identity
        else np.inf
        for best in earlier
    ]
    return sorted(zip(earlier, distances, strict=True), key=lambda pair: pair[1])


def channel_distance(one: Teacher, other: Teacher) -> float:
    """Computes the distance of two categories in a teacher's features; 0 if they are alike.

    It is the 2-Wasserstein distance of normal distributions, channel by channel, in units of the
    channel's pooled standard deviation, as root mean square over the channels.

    Args:
        one: a teacher with the channel statistics of one category.
        other: the same one with another category's.
    """
    means, stds = (
        np.stack([getattr(x, name).double().flatten().numpy() for x in (one, other)])
        for name in ("mean", "std")
    )
    squares = np.diff(means, axis=0) ** 2 + np.diff(stds, axis=0) ** 2
    return float(np.sqrt((squares / (stds**2).mean(axis=0)).mean()))


def starting_point(space: CategorySpace, values: Mapping[str, Value]) -> dict[str, Value]:
    """Makes a point of a space from an earlier trial: searched settings, within their ranges.

    Args:
        space: what the new search varies.
        values: every searchable setting of the trial.
    """
    inside = {name: _moved_inside(x, values[name]) for name, x in space.suggested.items()}
    return existing_values(
        space.parameters, {name: x for name, x in inside.items() if x is not None}
    )


def _moved_inside(parameter: AnyParameter, value: Value) -> Value | None:
    """Returns the nearest value that a parameter allows; None if there is none."""
    if isinstance(parameter, FloatParameter | IntParameter) and isinstance(value, int | float):
        nearest = min(max(value, parameter.low), parameter.high)
        return nearest if isinstance(parameter, FloatParameter) else round(nearest)
    return value if parameter.contains(value) else None


def _saved_models(run: Path) -> list[EarlierBest]:
    folders = sorted(path.parent for path in run.glob(f"{MODELS}/*/model.yaml"))
    if not folders:
        raise UserError(
            f"the run {run} has no model to start from; continue it with `dfsc-tune resume {run}`, "
            "or name another run"
        )
    return [EarlierBest(f"{run.name}/{path.name}", load_detector(path)) for path in folders]


def _without_seen(
    earlier: Sequence[EarlierBest], data: CategoryData, console: Console
) -> list[EarlierBest]:
    """Drops those chosen on images of this search's report part, which must stay unseen."""
    if data.objective.optimistic:
        return list(earlier)
    kept = {content_digest(record.path) for record in data.split.report}
    seen = {x.name for x in earlier if not kept.isdisjoint(x.detector.selection_digests)}
    for name in sorted(seen):
        console.print(
            f"note: {data.category.name}: {name} was chosen on images that this search reports on, "
            "so it is not used as a starting point",
        )
    return [x for x in earlier if x.name not in seen]


def _shown(distance: float) -> str:
    return f"distance {distance:.2f}" if np.isfinite(distance) else "with another teacher"
