"""The numbers of a table: ours, how sure they are, what they gain, and the paper's beside them."""

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
"""In place of a category: the mean over all categories of the table."""
CHOSEN, FIXED = "chosen margin", "best fixed margin"
"""Lines made of others: the margin that the selection part chose, by category or for all."""

Lines = Mapping[str, Mapping[str, Models]]
"""The models of a table: by line, then by category."""


@dataclass(frozen=True)
class Cell:
    """One number of a table. AUROCs and areas lie in 0 to 1; NaN is what is not known.

    Deviations are over the seeds; intervals, of level 95 %, are for want of images.
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
    """0 for what the paper cites."""
    deviation: float = math.nan
    low: float = math.nan
    high: float = math.nan
    over: str = ""
    """The line that the gain is over."""
    gain: float = math.nan
    """Paired by seed and by image."""
    gain_deviation: float = math.nan
    gain_low: float = math.nan
    gain_high: float = math.nan
    paper: float = math.nan
    difference: float = math.nan
    """Ours above the paper's; unknown where the images are others, or only some of the paper's."""
    doubt: float = math.nan
    """Half the 95 % interval of the difference of our mean and one run of the same setting, as our
    seeds vary: the paper's number is of one."""


def cells_of(
    table: PaperTable,
    models: Lines,
    splits: Mapping[str, Splits],
    published: Callable[[str, str, Measure], float | None],
    comparable: bool,
) -> list[Cell]:
    """All numbers of a table, protocol after protocol.

    Args:
        table: which.
        models: that were trained for it.
        splits: by category, then by protocol.
        published: the paper's number of a category (or `AVERAGE`), line and measure.
        comparable: whether the images are those of the paper.
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
                    # Part of the images is no test set to compare on.
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
    """A line's number and gain of each category that has one, and the average if all have."""
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
    """The lines made by choosing among the others, where all of these are there."""
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
    """Half the 95 % interval of our mean less a single run."""
    num_seeds = len(number.by_seed)
    if num_seeds < 2:
        return math.nan
    factor = float(stats.t.ppf((1 + LEVEL) / 2, num_seeds - 1))
    return factor * number.deviation * math.sqrt(1 + 1 / num_seeds)
