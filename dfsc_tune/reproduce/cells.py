"""From scores to the numbers of a table: ours, how sure they are, and the paper's beside them."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np
import pandas as pd
from scipy import stats

from dfsc_tune.data.records import Category
from dfsc_tune.metrics import Interval, image_auroc, mean_image_auroc_interval
from dfsc_tune.objective import Split
from dfsc_tune.reproduce.exhibits import Exhibit, Line, Measure, setting_for
from dfsc_tune.reproduce.judge import Judged, Protocol, Splits
from dfsc_tune.results import Run

AVERAGE = "average"
"""In place of a category: the mean over all categories of the table."""
CHOSEN, FIXED = "chosen margin", "best fixed margin"
"""Lines made of others: the margin that the selection part chose, by category or for all."""
_LEVEL = 0.95

Scores = Mapping[str, float]
"""One model's scores by image."""
Aurocs = Mapping[str, float]


@dataclass(frozen=True)
class Cell:
    """One number of a table; AUROCs and areas lie in 0 to 1."""

    exhibit: str
    protocol: Protocol
    category: str
    line: str
    measure: Measure
    ours: float
    """Mean over the seeds."""
    num_seeds: int
    deviation: float
    """Standard deviation over the seeds; NaN for one."""
    low: float
    """Of the 95 % interval for want of images; NaN where it is not known."""
    high: float
    paper: float
    """What the paper states; NaN where it states nothing."""
    difference: float
    """Ours above the paper's; NaN where the images are others, or a part of the paper's."""
    doubt: float
    """Half the 95 % interval of the difference of our mean and one run of the same kind, by the
    seeds; NaN for one seed."""


@dataclass(frozen=True)
class Model:
    """A line's models of one category, one a seed."""

    scores: dict[int, Scores] = field(default_factory=dict)
    areas: dict[tuple[int, Protocol], tuple[float, Interval]] = field(default_factory=dict)


def models_of(line: Line, category: str, run: Run, judged: Judged) -> Model:
    """The trained models that make a line, as far as they are judged."""
    wanted = setting_for(line.setting, category)
    trials = run.trials[(run.trials["category"] == category) & (run.trials["state"] == "complete")]
    for name, value in wanted.items():
        trials = trials[trials[name] == value]
    model = Model()
    for row in trials.to_dict("records"):
        trial, seed = str(row["trial"]), int(row["seed"])
        scores = _of_model(judged.scores, category, trial, line)
        if len(scores):
            model.scores[seed] = dict(zip(scores["image"], scores["score"], strict=True))
        for found in _of_model(judged.areas, category, trial, line).to_dict("records"):
            interval = Interval(found["low"], found["high"], _LEVEL)
            model.areas[seed, found["protocol"]] = (found["au_spro"], interval)
    return model


def _of_model(table: pd.DataFrame, category: str, trial: str, line: Line) -> pd.DataFrame:
    if table.empty:
        return table
    return table[
        (table["category"] == category)
        & (table["trial"] == trial)
        & (table["sigmoid"] == line.scoring.sigmoid)
        & (table["ema_momentum"] == line.scoring.ema_momentum)
    ]


def choose(models: Mapping[str, Model], split: Split) -> Model:
    """Per seed, the model whose line does best on the selection part."""
    seeds = set.intersection(*(set(model.scores) for model in models.values()))
    chosen = {}
    for seed in sorted(seeds):
        by_line = {line: model.scores[seed] for line, model in models.items()}
        best = max(by_line, key=lambda line: _aurocs(by_line[line], split, "selection")["mean"])
        chosen[seed] = by_line[best]
    return Model(scores=chosen)


def best_fixed(
    models: Mapping[str, Mapping[str, Model]], splits: Mapping[str, Split]
) -> tuple[str, dict[str, Model]]:
    """The line that does best on the selection parts of all categories, and its models.

    Args:
        models: by line, then by category.
        splits: by category.
    """

    def value(line: str) -> float:
        return float(
            np.mean(
                [
                    _aurocs(scores, splits[category], "selection")["mean"]
                    for category, model in models[line].items()
                    for scores in model.scores.values()
                ]
            )
        )

    best = max(models, key=value)
    return best, dict(models[best])


@dataclass(frozen=True)
class Number:
    """A cell's own number, before it is set beside the paper's."""

    by_seed: dict[int, float]
    interval: Interval | None


def number_of(model: Model, split: Split, protocol: Protocol, measure: Measure) -> Number | None:
    """A line's number on the report part of a category; None where there is none."""
    if measure == "au_spro":
        found = {seed: area for (seed, name), area in model.areas.items() if name == protocol}
        if not found:
            return None
        lows, highs = ([getattr(x, end) for _, x in found.values()] for end in ("low", "high"))
        # The same images for all seeds: their luck does not average out.
        interval = Interval(float(np.mean(lows)), float(np.mean(highs)), _LEVEL)
        return Number({seed: area for seed, (area, _) in found.items()}, interval)
    if not model.scores:
        return None
    kinds = [record.kind for record in split.report]
    if measure != "mean" and measure not in kinds:
        return None
    by_seed = {seed: _aurocs(x, split, "report")[measure] for seed, x in model.scores.items()}
    lists = [[x[record.name] for record in split.report] for x in model.scores.values()]
    return Number(by_seed, mean_image_auroc_interval(lists, kinds)[measure])


def average(numbers: Sequence[Number]) -> Number:
    """The mean over categories: of each seed that all have, with their images independent."""
    seeds = set.intersection(*(set(number.by_seed) for number in numbers))
    by_seed = {seed: float(np.mean([x.by_seed[seed] for x in numbers])) for seed in sorted(seeds)}
    intervals = [number.interval for number in numbers if number.interval is not None]
    if len(intervals) < len(numbers) or not by_seed:
        return Number(by_seed, None)
    middles = [float(np.mean(list(number.by_seed.values()))) for number in numbers]
    pairs = list(zip(middles, intervals, strict=True))
    below = math.hypot(*(middle - x.low for middle, x in pairs)) / len(pairs)
    above = math.hypot(*(x.high - middle for middle, x in pairs)) / len(pairs)
    middle = float(np.mean(middles))
    return Number(by_seed, Interval(middle - below, middle + above, _LEVEL))


def cells_of(
    exhibit: Exhibit,
    models: Mapping[str, Mapping[str, Model]],
    categories: Mapping[str, Category],
    splits: Mapping[str, Splits],
    published: Callable[[str, str, Measure], float | None],
    comparable: bool,
) -> list[Cell]:
    """All numbers of a table, protocol after protocol.

    Args:
        exhibit: which.
        models: by line, then by category.
        categories: by name.
        splits: by category, then by protocol.
        published: the paper's number of a category (or `AVERAGE`), line and measure.
        comparable: whether the images are those of the paper.
    """
    cells: list[Cell] = []
    protocols = list(next(iter(splits.values())))
    for protocol in protocols:
        of_protocol = {name: found[protocol] for name, found in splits.items()}
        lines = dict(models)
        if exhibit.chooses_margin:
            lines |= _choices(models, of_protocol)
        for measure in exhibit.measures:
            for line, by_category in lines.items():
                numbers = {
                    name: number
                    for name, model in by_category.items()
                    if (number := number_of(model, of_protocol[name], protocol, measure))
                }
                if len(numbers) == len(categories) > 1:
                    numbers[AVERAGE] = average(list(numbers.values()))
                cells += [
                    _cell(exhibit.name, protocol, name, line, measure, number,
                          published(name, line, measure), comparable and protocol == "oracle")
                    for name, number in numbers.items()
                    if number.by_seed
                ]  # fmt: skip
    return cells


def _choices(
    models: Mapping[str, Mapping[str, Model]], splits: Mapping[str, Split]
) -> dict[str, dict[str, Model]]:
    """The lines made by choosing among the others, where all of these are there."""
    complete = all(model.scores for of_line in models.values() for model in of_line.values())
    if not complete:
        return {}
    chosen = {
        category: choose({line: of_line[category] for line, of_line in models.items()}, split)
        for category, split in splits.items()
    }
    _, fixed = best_fixed(models, splits)
    return {CHOSEN: chosen, FIXED: fixed}


def _cell(
    exhibit: str,
    protocol: Protocol,
    category: str,
    line: str,
    measure: Measure,
    number: Number,
    paper: float | None,
    comparable: bool,
) -> Cell:
    values = list(number.by_seed.values())
    ours = float(np.mean(values))
    deviation = float(np.std(values, ddof=1)) if len(values) > 1 else math.nan
    stated = math.nan if paper is None else paper
    return Cell(
        exhibit=exhibit,
        protocol=protocol,
        category=category,
        line=line,
        measure=measure,
        ours=ours,
        num_seeds=len(values),
        deviation=deviation,
        low=number.interval.low if number.interval else math.nan,
        high=number.interval.high if number.interval else math.nan,
        paper=stated,
        difference=ours - stated if comparable else math.nan,
        doubt=_doubt(deviation, len(values)),
    )


def _doubt(deviation: float, num_seeds: int) -> float:
    """Half the 95 % interval of our mean less a single run, which the paper's number is."""
    if num_seeds < 2:
        return math.nan
    factor = float(stats.t.ppf((1 + _LEVEL) / 2, num_seeds - 1))
    return factor * deviation * math.sqrt(1 + 1 / num_seeds)


def _aurocs(scores: Scores, split: Split, part: str) -> Aurocs:
    records = split.selection if part == "selection" else split.report
    found = image_auroc([scores[x.name] for x in records], [x.kind for x in records])
    return {
        name: value
        for name, value in (
            ("logical", found.logical),
            ("structural", found.structural),
            ("mean", found.mean),
        )
        if value is not None
    }


def table(cells: Iterable[Cell]) -> pd.DataFrame:
    """The cells as a table, a row each."""
    return pd.DataFrame([vars(cell) for cell in cells])
