"""The objective `holdout`: labelled images are divided into a selection and a report part."""

from __future__ import annotations

import random
from collections import defaultdict
from collections.abc import Iterator, Sequence

from dfsc_tune.config import ObjectiveConfig
from dfsc_tune.data.records import Category, ImageRecord
from dfsc_tune.metrics.image import GOOD, KINDS, can_be_judged
from dfsc_tune.training.objectives.base import Objective, Split, place_of
from dfsc_tune.training.objectives.labelled import lacking_labels

_MIN_ANOMALIES = 5
# In two experiments, fewer labelled anomalies chose worse than synthetic ones (results/LOG.md).
_MANY_ANOMALIES = 40


class Holdout(Objective):
    """Divides each defect type, and the good images, by `selection_share`.

    The seed decides which image goes where; a type with a single image goes to the selection part.
    """

    name = "holdout"

    def suits(self, category: Category, settings: ObjectiveConfig) -> bool:
        """Asks for five anomalies beyond the objective's other needs."""
        num_anomalies = sum(record.kind != GOOD for record in category.test)
        return num_anomalies >= _MIN_ANOMALIES and self.refusal(category, settings) is None

    def refusal(self, category: Category, settings: ObjectiveConfig) -> str | None:
        """Refuses a category that lacks labels, or has no images for both parts."""
        lacking = lacking_labels(category, self.name, settings.metric, num_good=2)
        if lacking is not None:
            return lacking
        _, report = _parts(category, settings)
        if not can_be_judged(record.kind for record in report):
            return (
                f"{place_of(category)} has a single image of each defect type, so none is left to "
                "report on; add labelled anomalies or use the objective 'oracle'"
            )
        return None

    def divide(self, category: Category, settings: ObjectiveConfig) -> Split:
        """Divides the test images into the two parts, each in their order."""
        selection, report = _parts(category, settings)
        return Split(selection, report, tuple(_notes(selection, report)))


def _parts(
    category: Category, settings: ObjectiveConfig
) -> tuple[tuple[ImageRecord, ...], tuple[ImageRecord, ...]]:
    """Returns the selection part and the report part."""
    groups: dict[str, list[ImageRecord]] = defaultdict(list)
    for record in category.test:
        groups[f"{record.kind}/{record.defect_type}"].append(record)
    selection: set[str] = set()
    for key, records in sorted(groups.items()):
        shuffled = sorted(records, key=lambda record: record.name)
        random.Random(f"{settings.split_seed}/{category.name}/{key}").shuffle(shuffled)
        most = max(len(shuffled) - 1, 1)
        count = min(max(round(settings.selection_share * len(shuffled)), 1), most)
        selection.update(record.name for record in shuffled[:count])
    return (
        tuple(record for record in category.test if record.name in selection),
        tuple(record for record in category.test if record.name not in selection),
    )


def _notes(selection: Sequence[ImageRecord], report: Sequence[ImageRecord]) -> Iterator[str]:
    for kind in KINDS:
        in_selection = sum(record.kind == kind for record in selection)
        in_report = sum(record.kind == kind for record in report)
        if in_selection + in_report == 0:
            yield f"no {kind} anomalies: nothing can be said about them"
        elif in_report == 0:
            yield (
                f"too few {kind} anomalies to keep some out of the search: "
                "their final scores cannot be given"
            )
    count = sum(record.kind != GOOD for record in selection)
    if count < _MANY_ANOMALIES:
        yield (
            f"only {count} labelled anomalies choose the best trial; in experiments, anomalies "
            "made from good images (--objective synthetic) chose better, and they leave all labels "
            "for the final scores"
        )
