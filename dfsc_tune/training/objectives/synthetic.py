"""The objective `synthetic`: selection by anomalies made from good images, not by test images."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Sequence
from typing import get_args

import numpy as np
import numpy.typing as npt

from dfsc_tune.config import ObjectiveConfig, StructuralRecipe
from dfsc_tune.data.records import Category
from dfsc_tune.metrics.image import GOOD, KINDS, can_be_judged, image_auroc
from dfsc_tune.training.objectives.base import Objective, Split, place_of


class Synthetic(Objective):
    """Judges by the good validation images and by anomalies made from them."""

    name = "synthetic"
    judges_validation = True
    # Scoring all of them at each report would cost a short training more than its steps.
    early_every = 4
    value_of = "of synthetic anomalies"

    def suits(self, category: Category, settings: ObjectiveConfig) -> bool:
        """Returns True: it needs no labels, and its refusal says what else is missing."""
        return True

    def refusal(self, category: Category, settings: ObjectiveConfig) -> str | None:
        """Refuses a category with fewer than two good validation images."""
        if (num_good := len(category.validation)) < 2:
            if num_defective := _num_without_good(category):
                return (
                    f"{place_of(category)} has no good test images to tell its {num_defective} "
                    "defective ones from, and too few good images to do without: put some good "
                    "ones into test/good"
                )
            return (
                f"{place_of(category)} has {num_good} validation image, and synthetic anomalies "
                "are made from two or more; add good images to validation/good"
            )
        return None

    def divide(self, category: Category, settings: ObjectiveConfig) -> Split:
        """Returns all test images as the report part, and anomalies to make for the selection."""
        return Split(
            selection=(),
            report=category.test,
            notes=tuple(_notes(category)),
            anomalies=anomalies_per_recipe(settings.recipes, settings.per_kind),
        )

    def judge(
        self, scores: npt.NDArray[np.float64], kinds: Sequence[str], defect_types: Sequence[str]
    ) -> dict[str, float | None]:
        """Returns the image AUROCs, in which all recipes of a kind have equal weight.

        Otherwise the recipes that find room for many anomalies in a category would decide alone.
        """
        names = np.where(np.asarray(kinds) == GOOD, GOOD, np.asarray(defect_types))
        found: dict[str, float | None] = {}
        for kind in KINDS:
            of_kind = sorted(set(names[np.asarray(kinds) == kind]))
            chosen = [np.isin(names, (GOOD, recipe)) for recipe in of_kind]
            aurocs = [image_auroc(scores[x], np.asarray(kinds)[x].tolist()).mean for x in chosen]
            found[f"auroc_{kind}"] = float(np.mean(aurocs)) if aurocs else None
        present = [value for value in found.values() if value is not None]
        return {**found, "auroc_mean": float(np.mean(present))}


def anomalies_per_recipe(recipes: Sequence[str], per_kind: int) -> dict[str, int]:
    """Divides the anomalies of each kind equally among its recipes, rounded up."""
    structural = get_args(StructuralRecipe)
    num_recipes = Counter(name in structural for name in recipes)
    return {name: -(-per_kind // num_recipes[name in structural]) for name in recipes}


def _num_without_good(category: Category) -> int:
    """Returns the number of defective test images if there are no good ones, else 0."""
    num_defective = sum(record.kind != GOOD for record in category.test)
    return num_defective if num_defective == len(category.test) else 0


def _notes(category: Category) -> Iterator[str]:
    yield (
        "synthetic: the search is judged by anomalies made from good images, and sees no test image"
    )
    if num_defective := _num_without_good(category):
        yield (
            f"there are no good test images to tell the {num_defective} defective ones from, so "
            "nothing can be said of real defects; put some into test/good"
        )
    elif not can_be_judged(record.kind for record in category.test):
        yield (
            "without good and anomalous test images, nothing can be said of real defects; put some "
            "of both into test/good and test/<defect type>"
        )
