"""Batches of trainings as search spaces, at a given scale."""

from __future__ import annotations

import functools
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

from dfsc_tune.config import ModelConfig, Network
from dfsc_tune.models.teacher_files import known_teachers
from dfsc_tune.reproduce.tables import MOST_SEEDS, Batch, setting_for
from dfsc_tune.spaces.fixed_trials import categorical, space_of_trainings
from dfsc_tune.spaces.parameters import Value
from dfsc_tune.spaces.space import SearchSpace, merged

_LARGER: dict[Network, Network] = {"tiny": "small", "small": "medium", "medium": "medium"}
_MEDIUM_TEACHER = "anomalib-medium"


@dataclass(frozen=True)
class Scale:
    """The size of trainings: a search space, without what it searches."""

    space: SearchSpace
    num_seeds: int
    teacher: str | None = None
    """A teacher for the space's network; None for the space's own."""
    photographs: str | None = None
    """A folder for EfficientAD's penalty; None leaves it out."""

    @property
    def model(self) -> ModelConfig:
        """The space's network and image size."""
        return self.space.for_category("any").base_config("any").model


def batch_space(batch: Batch, categories: Iterable[str], scale: Scale) -> SearchSpace:
    """Makes a search space of a batch: its trainings for each category, seed after seed.

    Raises:
        UserError: the scale fixes a setting that the batch varies.
    """
    trainings: dict[str, list[dict[str, Value]]] = {
        category: [
            {**setting_for(setting, category), "seed": seed}
            for seed in range(MOST_SEEDS)
            for setting in batch.settings
        ]
        for category in categories
    }
    return space_of_trainings(
        scale.space,
        len(batch.settings) * scale.num_seeds,
        fixed=functools.reduce(merged, (scale.space.fixed, batch.fixed, _of_scale(batch, scale))),
        parameters=categorical(point for points in trainings.values() for point in points),
        categories={name: {"starting_points": points} for name, points in trainings.items()},
        # All test images: parts of them are judged afterwards, on the same trainings.
        objective=scale.space.objective.model_copy(update={"name": "oracle"}),
        source=f"the scale of batch '{batch.name}'",
    )


def _of_scale(batch: Batch, scale: Scale) -> dict[str, Any]:
    """Returns the fixed settings of a batch that depend on the scale."""
    network = _LARGER[scale.model.network] if batch.larger_network else scale.model.network
    model: dict[str, Any] = {"network": network}
    if not batch.larger_network and scale.teacher is not None:
        model["teacher"] = scale.teacher
    elif batch.larger_network:
        there = network == "medium" and _MEDIUM_TEACHER in known_teachers()
        model["teacher"] = _MEDIUM_TEACHER if there else None
    penalty = {"penalty_images": scale.photographs} if batch.penalty and scale.photographs else {}
    return {"model": model, "train": penalty}
