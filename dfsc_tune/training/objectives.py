"""What a trial is judged by: which test images it may see, and the number made of its scores."""

from __future__ import annotations

import math
import random
from collections import Counter, defaultdict
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import get_args

import numpy as np
import numpy.typing as npt

from dfsc_tune.config import Metric, ObjectiveConfig, ObjectiveName
from dfsc_tune.data.records import Category, ImageRecord
from dfsc_tune.errors import UserError
from dfsc_tune.metrics import KINDS, image_auroc
from dfsc_tune.metrics.image import GOOD, can_be_judged

_MIN_ANOMALIES = 5
# In two studies fewer labelled ones chose worse than synthetic ones (results/LOG.md).
_MANY_ANOMALIES = 40
EARLY = 4
"""One synthetic anomaly in so many judges a training under way; all of them its last report."""


@dataclass(frozen=True)
class Split:
    """The labelled test images: what the search sees, and what the published numbers come from."""

    selection: tuple[ImageRecord, ...]
    """Empty where the search is judged by anomalies made from good images."""
    report: tuple[ImageRecord, ...]
    notes: tuple[str, ...]


def chosen_objective(category: Category, objective: ObjectiveConfig) -> ObjectiveConfig:
    """The objective with `auto` settled: `holdout` where labels suffice for it, else `synthetic`.

    They do with five anomalies, and whatever else `holdout` asks for.
    """
    if objective.name != "auto":
        return objective
    holdout = objective.model_copy(update={"name": "holdout"})
    try:
        split_test(category, holdout)
        enough = sum(record.kind != "good" for record in category.test) >= _MIN_ANOMALIES
    except UserError:
        enough = False
    return holdout if enough else objective.model_copy(update={"name": "synthetic"})


def split_test(category: Category, objective: ObjectiveConfig) -> Split:
    """Divides a category's test images as the objective demands.

    `holdout` divides each defect type, and the good images, by `selection_share`, in an order that
    the seed decides; a type with a single image goes to the selection part. `synthetic` keeps all
    for the report part. `oracle` gives all images to both parts.

    Raises:
        UserError: the objective cannot be measured on these images.
    """
    objective = chosen_objective(category, objective)
    if objective.name == "synthetic":
        _check_synthetic(category)
        return Split((), category.test, tuple(_synthetic_notes(category)))
    kinds: set[str] = {record.kind for record in category.test}
    _check_measurable(category, objective, kinds)
    if objective.name == "oracle":
        note = (
            "oracle: selected and reported on the same test images, so the numbers are optimistic"
        )
        return Split(category.test, category.test, (note,))
    groups: dict[str, list[ImageRecord]] = defaultdict(list)
    for record in category.test:
        groups[f"{record.kind}/{record.defect_type}"].append(record)
    selection: set[str] = set()
    for key, records in sorted(groups.items()):
        shuffled = sorted(records, key=lambda record: record.name)
        random.Random(f"{objective.split_seed}/{category.name}/{key}").shuffle(shuffled)
        most = max(len(shuffled) - 1, 1)
        count = min(max(round(objective.selection_share * len(shuffled)), 1), most)
        selection.update(record.name for record in shuffled[:count])
    chosen = tuple(record for record in category.test if record.name in selection)
    rest = tuple(record for record in category.test if record.name not in selection)
    if not can_be_judged(record.kind for record in rest):
        raise UserError(
            f"{_where(category)} has a single image of each defect type, so none is left to report "
            "on; add labelled anomalies or use the objective 'oracle'"
        )
    return Split(chosen, rest, tuple(_holdout_notes(chosen, rest)))


def refusals(category: Category) -> dict[ObjectiveName, str]:
    """The objectives by which a category cannot be searched, and why."""
    found: dict[ObjectiveName, str] = {}
    for objective in get_args(ObjectiveName):
        try:
            split_test(category, ObjectiveConfig(name=objective))
        except UserError as error:
            found[objective] = str(error)
    return found


def judge_synthetic(
    scores: npt.NDArray[np.float64], kinds: Sequence[str], recipes: Sequence[str]
) -> dict[str, float | None]:
    """Like `judge`, of synthetic anomalies: each recipe counts alike within its kind.

    Else those recipes that find room for many anomalies in a category would decide alone.

    Args:
        scores: (N,).
        kinds: N times good, logical or structural.
        recipes: N names of recipes; anything for good images.
    """
    names = np.where(np.asarray(kinds) == GOOD, GOOD, np.asarray(recipes))
    found: dict[str, float | None] = {}
    for kind in KINDS:
        of_kind = sorted(set(names[np.asarray(kinds) == kind]))
        chosen = [np.isin(names, (GOOD, recipe)) for recipe in of_kind]
        aurocs = [image_auroc(scores[x], np.asarray(kinds)[x].tolist()).mean for x in chosen]
        found[f"auroc_{kind}"] = float(np.mean(aurocs)) if aurocs else None
    present = [value for value in found.values() if value is not None]
    return {**found, "auroc_mean": float(np.mean(present))}


def early_anomalies(recipes: Sequence[str]) -> list[int]:
    """Which images judge a training under way: the good ones and a quarter of each recipe's.

    Scoring them all at each report would cost a short training more than its steps do.

    Args:
        recipes: N names of recipes; `good` for good images.
    """
    seen: Counter[str] = Counter()
    chosen = []
    for index, recipe in enumerate(recipes):
        if recipe == GOOD or seen[recipe] % EARLY == 0:
            chosen.append(index)
        seen[recipe] += 1
    return chosen


def num_judged(num_anomalies: int, num_steps: int, report_interval: int) -> int:
    """How many synthetic anomalies a report looks at, in the mean over a training's reports."""
    num_reports = math.ceil(num_steps / report_interval)
    early = num_anomalies / EARLY
    return round((early * (num_reports - 1) + num_anomalies) / num_reports)


def objective_value(aurocs: Mapping[str, float | None], metric: Metric) -> float:
    """The number to maximise, in 0 to 1, of what `judge` returns."""
    value = aurocs[f"auroc_{metric}"]
    assert value is not None, "split_test has checked that the metric can be measured"
    return value


def _check_measurable(category: Category, objective: ObjectiveConfig, kinds: set[str]) -> None:
    where = _where(category)
    if not kinds - {"good"}:
        raise UserError(
            f"{where} has no labelled anomalies in its test folder, which the objective "
            f"'{objective.name}' needs; add some under test/<defect type>/"
        )
    if objective.metric != "mean" and objective.metric not in kinds:
        raise UserError(
            f"{where} has no {objective.metric} anomalies, so metric '{objective.metric}' cannot "
            f"be measured; use another metric or declare its defect types in dataset.yaml"
        )
    num_good = sum(record.kind == "good" for record in category.test)
    needed = 2 if objective.name == "holdout" else 1
    if num_good < needed:
        raise UserError(
            f"{where} has {num_good} good test images, and the objective '{objective.name}' needs "
            f"at least {needed}; move some good images to test/good"
        )


def _check_synthetic(category: Category) -> None:
    num_good = len(category.validation)
    if num_good < 2:
        raise UserError(
            f"{_where(category)} has {num_good} validation image, and synthetic anomalies are made "
            "from two or more; add good images to validation/good"
        )


def _synthetic_notes(category: Category) -> Iterator[str]:
    yield (
        "synthetic: the search is judged by anomalies made from good images, and sees no test image"
    )
    if not can_be_judged(record.kind for record in category.test):
        yield (
            "without good and anomalous test images, nothing can be said of real defects; put some "
            "of both into test/good and test/<defect type>"
        )


def _holdout_notes(
    selection: Sequence[ImageRecord], report: Sequence[ImageRecord]
) -> Iterator[str]:
    for kind in ("logical", "structural"):
        in_selection = sum(record.kind == kind for record in selection)
        in_report = sum(record.kind == kind for record in report)
        if in_selection + in_report == 0:
            yield f"no {kind} anomalies: nothing can be said about them"
        elif in_report == 0:
            yield (
                f"too few {kind} anomalies to keep some out of the search: "
                "no honest number for them can be given"
            )
    count = sum(record.kind != "good" for record in selection)
    if count < _MANY_ANOMALIES:
        yield (
            f"only {count} labelled anomalies choose; in the studies so far anomalies made from "
            "good images chose better (--objective synthetic), and left all labels for the numbers"
        )


def _where(category: Category) -> str:
    return f"category '{category.name}' in {category.root}"
