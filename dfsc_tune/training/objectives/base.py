"""The interface of an objective: needs, split of the images, image AUROCs, and words for people."""

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
    """A category's labelled images: the selection part and the report part."""

    selection: tuple[ImageRecord, ...]
    """Labelled images that the search sees."""
    report: tuple[ImageRecord, ...]
    """Labelled images that the final scores come from."""
    notes: tuple[str, ...] = ()
    """Sentences that the user should read."""
    anomalies: Mapping[str, int] = field(default_factory=dict)
    """Numbers of anomalies to make, by recipe, from good validation images for the selection."""


class Objective(ABC):
    """A way to judge the trials of a search.

    Objectives hold no state: `OBJECTIVES` has one instance of each, and trials carry theirs.
    """

    name: ClassVar[str]
    """The objective's name in settings, on the command line and in every table."""
    optimistic: ClassVar[bool] = False
    """True if the final scores come from images that the search selected on."""
    judges_validation: ClassVar[bool] = False
    """True if the good validation images belong to the selection part; a report scores them once,
    for this and for the normalisation of the maps."""
    early_every: ClassVar[int] = 1
    """Reports before a training's last one score 1 in `early_every` images of each defect type."""
    value_of: ClassVar[str] = ""
    """The words after the value that the search saw, such as "of synthetic anomalies"."""

    def suits(self, category: Category, settings: ObjectiveConfig) -> bool:
        """Returns whether `auto` may choose this objective for a category."""
        return False

    @abstractmethod
    def refusal(self, category: Category, settings: ObjectiveConfig) -> str | None:
        """Returns a sentence on what a category lacks for this objective, with the way out.

        None means that the category can be searched.
        """

    @abstractmethod
    def divide(self, category: Category, settings: ObjectiveConfig) -> Split:
        """Splits a category that `refusal` accepts; callers use `split`.

        Trials see the training and validation images and the selection part, and nothing else.
        """

    def split(self, category: Category, settings: ObjectiveConfig) -> Split:
        """Splits a category and checks the split.

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
        """Returns the image AUROCs of a report, by the names in `AUROCS`.

        Args:
            scores: (N,), the higher, the more anomalous.
            kinds: N times good, logical or structural.
            defect_types: N names; those of synthetic anomalies are their recipes'.
        """
        return judge(scores, kinds)

    def early_indices(self, defect_types: Sequence[str]) -> list[int]:
        """Returns the indices of the images scored before a training's last report.

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
        """Returns the mean number of images that the reports of a training score.

        Args:
            num_validation: good validation images, which every report scores.
            num_selection: images of the selection part besides these.
            num_steps: of the training.
            report_interval: steps between two reports.
        """
        num_reports = math.ceil(num_steps / report_interval)
        early = num_selection / self.early_every
        return num_validation + round((early * (num_reports - 1) + num_selection) / num_reports)

    @property
    def report_images(self) -> str:
        """The images of the report part, as words to end a phrase."""
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
    """Returns the number to maximise, in 0 to 1, among the AUROCs of `Objective.judge`."""
    value = aurocs[f"auroc_{metric}"]
    assert value is not None, "the split was checked: the metric can be measured"
    return value


def place_of(category: Category) -> str:
    """Returns the category and its folder, as refusals name them."""
    return f"category '{category.name}' in {category.root}"
