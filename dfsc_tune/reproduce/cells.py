"""The numbers of a table: ours with deviations, intervals and gains, and the paper's."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, replace

from scipy import stats

from dfsc_tune.metrics import LEVEL
from dfsc_tune.reproduce.judge import Splits
from dfsc_tune.reproduce.numbers import (
    UNKNOWN,
    Models,
    Number,
    average,
    best_fixed,
    choose,
    gain_of,
    number_of,
)
from dfsc_tune.reproduce.tables import Measure, PaperTable, Protocol
from dfsc_tune.training.objectives import Split

AVERAGE = "average"
"""Stands for a category: the mean over all categories of the table."""
CHOSEN, FIXED = "chosen margin", "best fixed margin"
"""Lines derived from others: the margin that the selection part chose, by category or for all."""

Lines = Mapping[str, Mapping[str, Models]]
"""The models of a table, by line, then by category."""


@dataclass(frozen=True)
class Cell:
    """One number of a table. AUROCs and areas are between 0 and 1; NaN means unknown.

    Deviations are over the seeds; 95 % intervals are for the limited number of images.
    """

    exhibit: str
    """The table's or figure's name."""
    protocol: Protocol
    category: str
    line: str
    measure: Measure
    ours: float = math.nan
    """Mean over the seeds."""
    num_seeds: int = 0
    """0 for a number that the paper cites."""
    deviation: float = math.nan
    low: float = math.nan
    high: float = math.nan
    over: str = ""
    """The line that `gain` compares with."""
    gain: float = math.nan
    """Paired by seed and by image."""
    gain_deviation: float = math.nan
    gain_low: float = math.nan
    gain_high: float = math.nan
    paper: float = math.nan
    difference: float = math.nan
    """Ours minus the paper's; unknown unless the images are all of the paper's."""
    doubt: float = math.nan
    """Half the width of the difference's 95 % interval: that of our mean minus one more training,
    by the deviation of our seeds, because the paper's number is that of one training."""


def cells_of(
    table: PaperTable,
    models: Lines,
    splits: Mapping[str, Splits],
    published: Callable[[str, str, Measure], float | None],
    comparable: bool,
) -> list[Cell]:
    """Computes all numbers of a table, protocol after protocol.

    Args:
        table: the table.
        models: the models trained for it.
        splits: the division of the images, by category, then by protocol.
        published: the paper's number for a category (or `AVERAGE`), line and measure.
        comparable: whether the images are the paper's.
    """
    bases = {line.label: line.over for line in table.lines}
    bases |= dict.fromkeys((CHOSEN, FIXED), table.lines[0].label)
    cells = []
    for protocol in next(iter(splits.values())):
        of_protocol = {category: found[protocol] for category, found in splits.items()}
        lines = dict(models)
        if table.chooses_margin:
            lines |= _choices(models, of_protocol, protocol)
        for measure in table.measures:
            for line in lines:
                over = bases.get(line) or ""
                numbers = _numbers(lines[line], lines.get(over), of_protocol, protocol, measure)
                for category, (number, gain) in numbers.items():
                    paper = published(category, line, measure)
                    # Numbers on a part of the images cannot be compared.
                    known = comparable and protocol != "holdout" and paper is not None
                    cell = Cell(
                        table.name,
                        protocol,
                        category,
                        line,
                        measure,
                        ours=number.mean,
                        num_seeds=len(number.by_seed),
                        deviation=number.deviation,
                        low=number.low,
                        high=number.high,
                        over=over,
                        gain=gain.mean,
                        gain_deviation=gain.deviation,
                        gain_low=gain.low,
                        gain_high=gain.high,
                        paper=math.nan if paper is None else paper,
                        doubt=_doubt(number) if known else math.nan,
                    )
                    difference = cell.ours - cell.paper if known else math.nan
                    cells.append(replace(cell, difference=difference))
    return cells


def _numbers(
    of_line: Mapping[str, Models],
    base: Mapping[str, Models] | None,
    splits: Mapping[str, Split],
    protocol: Protocol,
    measure: Measure,
) -> dict[str, tuple[Number, Number]]:
    """Computes a line's number and gain by category, and the average if all have one."""
    found: dict[str, tuple[Number, Number]] = {}
    for category, split in splits.items():
        number = number_of(of_line[category], split, protocol, measure)
        gain = UNKNOWN
        if base is not None:
            gain = gain_of(of_line[category], base[category], split, protocol, measure)
        if number.by_seed:
            found[category] = number, gain
    if len(found) == len(splits) > 1:
        numbers, gains = zip(*found.values(), strict=True)
        mean = average(numbers)
        if mean.by_seed:
            found[AVERAGE] = mean, average(gains)
    return found


def _choices(
    models: Lines, splits: Mapping[str, Split], protocol: Protocol
) -> Iterator[tuple[str, dict[str, Models]]]:
    """Yields the lines made by choosing among the others, if all of these are complete."""
    if not all(found.scores for of_line in models.values() for found in of_line.values()):
        return
    yield (
        CHOSEN,
        {
            category: choose(
                {line: of_line[category] for line, of_line in models.items()}, split, protocol
            )
            for category, split in splits.items()
        },
    )
    yield FIXED, best_fixed(models, splits, protocol)


def _doubt(number: Number) -> float:
    """Half the width of the 95 % interval of our mean minus a single training."""
    num_seeds = len(number.by_seed)
    if num_seeds < 2:
        return math.nan
    factor = float(stats.t.ppf((1 + LEVEL) / 2, num_seeds - 1))
    return factor * number.deviation * math.sqrt(1 + 1 / num_seeds)
