"""The interface of an objective: its needs, its split of the images, its judgement, its words."""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import ClassVar

import numpy as np
import numpy.typing as npt

from dfsc_tune.config import Metric, ObjectiveConfig
from dfsc_tune.data.records import Category, ImageRecord
from dfsc_tune.errors import UserError
from dfsc_tune.metrics.image import judge


@dataclass(frozen=True)
class Split:
    """A category's images: those that judge the search, and those of the published numbers."""

    selection: tuple[ImageRecord, ...]
    """Labelled images that the search sees."""
    report: tuple[ImageRecord, ...]
    """Labelled images that the published numbers come from."""
    notes: tuple[str, ...] = ()
    """Sentences that the user should read."""
    anomalies: Mapping[str, int] = field(default_factory=dict)
    """Anomalies to make from good validation images for the selection part: how many, by recipe."""


class Objective(ABC):
    """A way to judge the trials of a search.

    Objectives hold no state: `OBJECTIVES` has one instance of each, and trials carry theirs.
    """

    name: ClassVar[str]
    """The word for it in settings, on the command line and in every table."""
    optimistic: ClassVar[bool] = False
    """The published numbers come from images that the search selected on."""
    judges_validation: ClassVar[bool] = False
    """The good validation images belong to the selection part; a report scores them once, for this
    and for the normalisation of the maps."""
    early_every: ClassVar[int] = 1
    """Before a training's last report, one image in so many of each defect type is looked at."""
    value_of: ClassVar[str] = ""
    """Words to follow the value that the search saw, such as "of synthetic anomalies"."""

    def suits(self, category: Category, settings: ObjectiveConfig) -> bool:
        """Says whether `auto` may choose it for a category."""
        return False

    @abstractmethod
    def refusal(self, category: Category, settings: ObjectiveConfig) -> str | None:
        """A sentence on what a category lacks to be searched by it, with the way out; else None."""

    @abstractmethod
    def divide(self, category: Category, settings: ObjectiveConfig) -> Split:
        """The split of a category that it does not refuse; `split` is what callers use.

        Trials see the training and validation images and the selection part, and nothing else.
        """

    def split(self, category: Category, settings: ObjectiveConfig) -> Split:
        """The checked split of a category.

        Raises:
            UserError: the category lacks what the objective needs.
        """
        if (reason := self.refusal(category, settings)) is not None:
            raise UserError(reason)
        split = self.divide(category, settings)
        shared = {x.name for x in split.selection} & {x.name for x in split.report}
        assert self.optimistic or not shared, f"{self.name} selects and reports on the same images"
        return replace(split, notes=(self.warning, *split.notes)) if self.optimistic else split

    def judge(
        self, scores: npt.NDArray[np.float64], kinds: Sequence[str], defect_types: Sequence[str]
    ) -> dict[str, float | None]:
        """The image AUROCs of a report, by the names in `AUROCS`.

        Args:
            scores: (N,), the higher, the more anomalous.
            kinds: N times good, logical or structural.
            defect_types: N names; of synthetic anomalies their recipes'.
        """
        return judge(scores, kinds)

    def early(self, defect_types: Sequence[str]) -> list[int]:
        """The indices of the images that judge a training under way.

        Args:
            defect_types: of the selection part, without validation images.
        """
        seen: Counter[str] = Counter()
        chosen = []
        for index, defect_type in enumerate(defect_types):
            if seen[defect_type] % self.early_every == 0:
                chosen.append(index)
            seen[defect_type] += 1
        return chosen

    def num_scored(
        self, num_validation: int, num_selection: int, num_steps: int, report_interval: int
    ) -> int:
        """How many images a report scores, in the mean over a training's reports.

        Args:
            num_validation: good validation images, which every report scores.
            num_selection: images of the selection part besides these.
            num_steps: of a training.
            report_interval: steps between two reports.
        """
        num_reports = math.ceil(num_steps / report_interval)
        early = num_selection / self.early_every
        return num_validation + round((early * (num_reports - 1) + num_selection) / num_reports)

    @property
    def report_images(self) -> str:
        """The images of the report part in a word or two, for the end of a phrase."""
        if self.optimistic:
            return f"the images it was SELECTED ON ({self.name}: optimistic)"
        return "unseen"

    @property
    def warning(self) -> str:
        """The sentence that goes with all numbers of an optimistic objective."""
        return (
            f"{self.name}: selected and reported on the same test images, so the numbers are "
            "optimistic"
        )


def objective_value(aurocs: Mapping[str, float | None], metric: Metric) -> float:
    """The number to maximise, in 0 to 1, of what `Objective.judge` returns."""
    value = aurocs[f"auroc_{metric}"]
    assert value is not None, "the split was checked: the metric can be measured"
    return value


def place_of(category: Category) -> str:
    """The category and its folder, as refusals name it."""
    return f"category '{category.name}' in {category.root}"
