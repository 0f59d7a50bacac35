"""Checks that a category has the labelled test images that some objectives need."""

from __future__ import annotations

from dfsc_tune.config import Metric
from dfsc_tune.data.records import Category
from dfsc_tune.metrics.image import GOOD
from dfsc_tune.training.objectives.base import place_of


def lacking_labels(category: Category, name: str, metric: Metric, num_good: int) -> str | None:
    """Returns a sentence on the labelled images that a category lacks; None if it has them.

    Args:
        category: the category to search.
        name: the objective's name.
        metric: the metric that it maximises.
        num_good: the number of good test images that it needs.
    """
    where = place_of(category)
    kinds: list[str] = [record.kind for record in category.test]
    if not set(kinds) - {GOOD}:
        return (
            f"{where} has no labelled anomalies in its test folder, which the objective '{name}' "
            "needs; add some under test/<defect type>/"
        )
    if metric != "mean" and metric not in kinds:
        return (
            f"{where} has no {metric} anomalies, so metric '{metric}' cannot be measured; use "
            "another metric or declare its defect types in dataset.yaml"
        )
    if (found := kinds.count(GOOD)) < num_good:
        return (
            f"{where} has {found} good test images, and the objective '{name}' needs at least "
            f"{num_good}; move some good images to test/good"
        )
    return None
