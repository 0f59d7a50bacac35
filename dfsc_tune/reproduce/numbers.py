"""Computes numbers from models' scores, with deviations over seeds and intervals for images."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np

from dfsc_tune.data.records import ImageRecord
from dfsc_tune.metrics import (
    image_auroc,
    mean_image_auroc_difference,
    mean_image_auroc_interval,
)
from dfsc_tune.reproduce.judge import Judged, Model, named
from dfsc_tune.reproduce.tables import Line, Measure, Protocol, setting_for
from dfsc_tune.results import Run, complete_trials
from dfsc_tune.training.objectives import Split, objective_named, objective_value

Scores = dict[str, float]
"""Scores of one model by image."""


@dataclass(frozen=True)
class Models:
    """A line's models of one category, one for each seed."""

    scores: dict[int, Scores] = field(default_factory=dict)
    areas: dict[tuple[int, Protocol], float] = field(default_factory=dict)
    """AU-sPRO on the protocol's report part, if it was measured."""

    @classmethod
    def of(cls, judged: Judged, by_seed: Mapping[int, Model]) -> Models:
        """Collects the models of some identities, as far as they are judged."""
        models = cls()
        for seed, model in by_seed.items():
            scores = judged.scores.of(model)
            if len(scores):
                models.scores[seed] = dict(zip(scores["image"], scores["score"], strict=True))
            for row in judged.areas.of(model).to_dict("records"):
                models.areas[seed, row["protocol"]] = row["au_spro"]
        return models


@dataclass(frozen=True)
class Number:
    """A quantity of models of several seeds on the same images."""

    by_seed: dict[int, float]
    low: float = math.nan
    """Lower end of the 95 % interval for the number of images; NaN if unknown."""
    high: float = math.nan

    @property
    def mean(self) -> float:
        """Mean over the seeds; NaN without any."""
        return float(np.mean(list(self.by_seed.values()))) if self.by_seed else math.nan

    @property
    def deviation(self) -> float:
        """Standard deviation over the seeds; NaN for one."""
        values = list(self.by_seed.values())
        return float(np.std(values, ddof=1)) if len(values) > 1 else math.nan


UNKNOWN = Number({})
"""A number that was not measured."""


def models_of(line: Line, category: str, run: Run, judged: Judged) -> Models:
    """Collects the trained models of a line, as far as they are judged."""
    wanted = setting_for(line.setting, category)
    trials = complete_trials(run.trials[run.trials["category"] == category])
    for name, value in wanted.items():
        trials = trials[trials[name] == value]
    return Models.of(
        judged,
        {
            int(row["seed"]): named(category, str(row["trial"]), line.scoring)
            for row in trials.to_dict("records")
        },
    )


def choose(by_line: Mapping[str, Models], split: Split, protocol: Protocol) -> Models:
    """Chooses for each seed the model that does best on the selection part."""
    seeds = set.intersection(*(set(models.scores) for models in by_line.values()))
    chosen = {}
    for seed in sorted(seeds):
        found = {line: models.scores[seed] for line, models in by_line.items()}
        chosen[seed] = max(
            found.values(), key=lambda scores: _selection_value(scores, split, protocol)
        )
    return Models(scores=chosen)


def best_fixed(
    by_line: Mapping[str, Mapping[str, Models]], splits: Mapping[str, Split], protocol: Protocol
) -> dict[str, Models]:
    """Chooses the line that does best on the selection parts of all categories.

    Args:
        by_line: models by line, then by category.
        splits: the protocol's splits by category.
        protocol: the protocol.

    Returns:
        The models of that line, by category.
    """

    def value(line: str) -> float:
        found = [
            _selection_value(scores, splits[category], protocol)
            for category, models in by_line[line].items()
            for scores in models.scores.values()
        ]
        return float(np.mean(found))

    return dict(by_line[max(by_line, key=value)])


def number_of(models: Models, split: Split, protocol: Protocol, measure: Measure) -> Number:
    """Computes a line's number on the report part of a category."""
    by_seed = _by_seed(models, split, protocol, measure)
    if not by_seed or measure == "au_spro":
        return Number(by_seed)
    lists = [_in_order(scores, split.report) for scores in models.scores.values()]
    kinds = [record.kind for record in split.report]
    interval = mean_image_auroc_interval(lists, kinds)[measure]
    return Number(by_seed, interval.low, interval.high)


def gain_of(
    models: Models, base: Models, split: Split, protocol: Protocol, measure: Measure
) -> Number:
    """Computes the gain of a line over another, paired by seed and by image."""
    values, others = (_by_seed(x, split, protocol, measure) for x in (models, base))
    seeds = sorted(set(values) & set(others))
    by_seed = {s: values[s] - others[s] for s in seeds}
    if not seeds or measure == "au_spro":
        return Number(by_seed)
    kinds = [record.kind for record in split.report]
    ours, theirs = ([_in_order(x.scores[s], split.report) for s in seeds] for x in (models, base))
    interval = mean_image_auroc_difference(ours, theirs, kinds)[measure]
    return Number(by_seed, interval.low, interval.high)


def _by_seed(
    models: Models, split: Split, protocol: Protocol, measure: Measure
) -> dict[int, float]:
    """Measures the model of each seed on the report part; empty if that is unknown."""
    if measure == "au_spro":
        return {seed: area for (seed, name), area in models.areas.items() if name == protocol}
    if measure != "mean" and not any(record.kind == measure for record in split.report):
        return {}
    return {s: auroc(scores, split.report, measure) for s, scores in models.scores.items()}


def average(numbers: Sequence[Number]) -> Number:
    """Averages over categories, for each seed that all have; their images are independent."""
    seeds = set.intersection(*(set(number.by_seed) for number in numbers))
    if not seeds:
        return UNKNOWN
    by_seed = {seed: float(np.mean([x.by_seed[seed] for x in numbers])) for seed in sorted(seeds)}
    below = math.hypot(*(x.mean - x.low for x in numbers)) / len(numbers)
    above = math.hypot(*(x.high - x.mean for x in numbers)) / len(numbers)
    # Not the mean of these means: a category may have seeds that others lack.
    middle = float(np.mean(list(by_seed.values())))
    return Number(by_seed, middle - below, middle + above)


def auroc(scores: Scores, records: Sequence[ImageRecord], measure: Measure = "mean") -> float:
    """Computes an image AUROC of images that have the kinds for it."""
    found = image_auroc(_in_order(scores, records), [record.kind for record in records])
    value = getattr(found, measure)
    assert value is not None, "the images have the kind"
    return float(value)


def _selection_value(scores: Scores, split: Split, protocol: Protocol) -> float:
    """The value of a model that a search with that objective would have seen."""
    records = split.selection
    found = objective_named(protocol).judge(
        np.array(_in_order(scores, records)),
        [record.kind for record in records],
        [record.defect_type for record in records],
    )
    return objective_value(found, "mean")


def _in_order(scores: Scores, records: Sequence[ImageRecord]) -> list[float]:
    return [scores[record.name] for record in records]
