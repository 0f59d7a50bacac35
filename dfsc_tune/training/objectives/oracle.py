"""The objective `oracle`: the paper's protocol, which selects and reports on the same images."""

from __future__ import annotations

from dfsc_tune.config import ObjectiveConfig
from dfsc_tune.data.records import Category
from dfsc_tune.training.objectives.base import Objective, Split
from dfsc_tune.training.objectives.labelled import lacking_labels


class Oracle(Objective):
    """Gives all labelled images to both parts."""

    name = "oracle"
    optimistic = True

    def refusal(self, category: Category, settings: ObjectiveConfig) -> str | None:
        """Refuses a category that lacks labels; one good test image is enough."""
        return lacking_labels(category, self.name, settings.metric, num_good=1)

    def divide(self, category: Category, settings: ObjectiveConfig) -> Split:
        """Returns all test images as both parts."""
        return Split(selection=category.test, report=category.test)
