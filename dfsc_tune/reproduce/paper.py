"""The paper's numbers for the cells of its tables, and for the systems that it cites."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Sequence
from typing import Any

import numpy as np

from dfsc_tune.metrics import KINDS
from dfsc_tune.reference import CATEGORIES, paper_tables
from dfsc_tune.reproduce.cells import AVERAGE, CHOSEN, FIXED, Cell
from dfsc_tune.reproduce.tables import BY_ANOMALIB, Measure, PaperTable


def published(
    table: PaperTable,
    category: str,
    line: str,
    measure: Measure,
    categories: Collection[str] = CATEGORIES,
) -> float | None:
    """Returns the paper's number as a share; None if the paper states none.

    Args:
        table: the table.
        category: a category, or `AVERAGE`.
        line: the label of a line.
        measure: the measure.
        categories: the categories of our table. The paper's averages and its best fixed margin are
            over all five, so they are left out for fewer.
    """
    if category not in (*CATEGORIES, AVERAGE):
        return None
    if (category == AVERAGE or line == FIXED) and set(categories) != set(CATEGORIES):
        return None
    tables = paper_tables()
    line = line.removesuffix(BY_ANOMALIB)
    match table.name:
        case "table1":
            percent = _auroc(tables, category, line, measure)
        case "table2":
            percent = tables["au_spro_fpr_0.05"][category].get(line)
        case "table3":
            percent = _by_margin(tables, category, line)
        case "table4" if category == AVERAGE:
            places = [x.label for x in table.lines]
            percent = tables["image_auroc_by_ablation"][places.index(line)]["auroc"]
        case _:
            percent = None
    return None if percent is None else float(percent) / 100


def cited_cells(table: PaperTable, categories: Sequence[str], lines: Iterable[str]) -> list[Cell]:
    """Returns cells with the paper's numbers for systems that are not trained here.

    Args:
        table: the table.
        categories: the categories of our table.
        lines: labels of the lines that are trained here.
    """
    if not table.compares_methods:
        return []
    tables = paper_tables()
    systems = (
        tables["image_auroc"]["logical"][CATEGORIES[0]]
        if table.name == "table1"
        else tables["au_spro_fpr_0.05"][CATEGORIES[0]]
    )
    ours = {line.removesuffix(BY_ANOMALIB) for line in lines}
    return [
        Cell(table.name, "oracle", category, system, measure, paper=number)
        for measure in table.measures
        for system in systems
        if system not in ours
        for category in (*categories, AVERAGE)
        if (number := published(table, category, system, measure, categories)) is not None
    ]


def _auroc(tables: dict[str, Any], category: str, line: str, measure: Measure) -> float | None:
    if category == AVERAGE:
        kind = "total" if measure == "mean" else measure
        found = tables["image_auroc_averages"][kind].get(line)
        return None if found is None else float(found)
    kinds = KINDS if measure == "mean" else (measure,)
    return _mean([tables["image_auroc"][kind][category].get(line) for kind in kinds])


def _by_margin(tables: dict[str, Any], category: str, line: str) -> float | None:
    by_margin = tables["image_auroc_by_margin"]
    rows = {
        name: {f"margin {float(margin):g}": number for margin, number in of_category.items()}
        for name, of_category in by_margin.items()
    }
    means = {
        margin: np.mean([row[margin] for row in rows.values()]) for margin in rows[CATEGORIES[0]]
    }
    fixed = max(means, key=lambda margin: means[margin])
    lines = {
        name: {**row, CHOSEN: max(row.values()), FIXED: row[fixed]} for name, row in rows.items()
    }
    wanted = list(lines) if category == AVERAGE else [category]
    return _mean([lines[name].get(line) for name in wanted])


def _mean(numbers: Sequence[float | None]) -> float | None:
    """Returns the mean if all numbers are stated, else None."""
    stated = [number for number in numbers if number is not None]
    return float(np.mean(stated)) if len(stated) == len(numbers) else None
