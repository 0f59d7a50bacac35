"""A reproduced table, as text for the terminal and as an HTML page."""

from __future__ import annotations

import math
from collections.abc import Sequence
from pathlib import Path

import plotly.graph_objects as go

from dfsc_tune.metrics import Interval
from dfsc_tune.pages.figures import with_intervals
from dfsc_tune.pages.html import render_template
from dfsc_tune.pages.section import Section, Table
from dfsc_tune.reproduce.cells import Cell
from dfsc_tune.reproduce.reproduction import Reproduction
from dfsc_tune.storage.atomic import write_text

_MEASURES = {
    "logical": "image AUROC, logical",
    "structural": "image AUROC, structural",
    "mean": "image AUROC, mean of logical and structural",
    "au_spro": "AU-sPRO up to an FPR of 0.05, mean of logical and structural",
}
_TITLES = {
    "oracle": "on all test images, as the paper (oracle: optimistic)",
    "synthetic": "on all test images, chosen by synthetic anomalies (synthetic)",
    "holdout": "on the test images that took no part in choosing (holdout)",
}
_COLUMNS = ("", "", "ours", "over seeds", "over images", "gain", "paper", "difference")
_MISSING = "–"
LEGEND = (
    "ours: mean over seeds; over seeds, and ± after a gain: standard deviation between trainings; "
    "over images: 95 % interval of the mean for the limited number of test images; gain: paired by "
    "seed and image; difference: ours minus the paper's, ± half its 95 % interval by the deviation "
    "of our seeds, as the paper's number is that of one training"
)


def shown_tables(cells: Sequence[Cell]) -> list[Section]:
    """Makes a table in percent and a figure for each protocol and measure."""
    groups: dict[tuple[str, str], list[Cell]] = {}
    for cell in cells:
        groups.setdefault((cell.protocol, cell.measure), []).append(cell)
    return [
        Section(
            key=f"{protocol}-{measure}",
            title=f"{_MEASURES[measure]}, in percent, {_TITLES[protocol]}",
            figures=_figures(found),
            table=Table(_COLUMNS, _rows(found)),
        )
        for (protocol, measure), found in groups.items()
    ]


def write_page(found: Reproduction) -> Path:
    """Writes the table as one HTML page beside its runs; returns the file."""
    target = found.folder / f"{found.table.name}.html"
    page = render_template(
        "reproduction.html",
        title=found.table.title,
        legend=LEGEND,
        notes=found.notes,
        sections=shown_tables(found.cells),
    )
    write_text(target, page)
    return target


def _rows(cells: Sequence[Cell]) -> list[tuple[str, ...]]:
    """Makes one row for each cell, category by category; names each category once."""
    order = list(dict.fromkeys(cell.category for cell in cells))
    rows: list[tuple[str, ...]] = []
    before = ""
    for cell in sorted(cells, key=lambda cell: order.index(cell.category)):
        rows.append(
            (
                cell.category if cell.category != before else "",
                cell.line if cell.num_seeds else f"{cell.line} (cited)",
                _percent(cell.ours),
                _over_seeds(cell),
                _interval(cell.low, cell.high),
                _gain(cell),
                _percent(cell.paper),
                _difference(cell),
            )
        )
        before = cell.category
    return rows


def _figures(cells: Sequence[Cell]) -> list[go.Figure]:
    """Draws our numbers of one measure with the images' intervals, one colour for each line."""
    ours = [cell for cell in cells if cell.num_seeds and math.isfinite(cell.low)]
    estimates = [
        (cell.category, cell.line, cell.ours, Interval(cell.low, cell.high)) for cell in ours
    ]
    # Guessing has an AUROC of one half, and an AU-sPRO near 0.
    chance = None if cells[0].measure == "au_spro" else 0.5
    figure = with_intervals(estimates, "ours as a share, mean over seeds", chance=chance)
    return [] if figure is None else [figure]


def _percent(value: float) -> str:
    return _MISSING if math.isnan(value) else f"{100 * value:.2f}"


def _over_seeds(cell: Cell) -> str:
    if math.isnan(cell.deviation):
        return f"{cell.num_seeds} seed" if cell.num_seeds else _MISSING
    return f"±{100 * cell.deviation:.2f} ({cell.num_seeds} seeds)"


def _interval(low: float, high: float, sign: str = "") -> str:
    if math.isnan(low):
        return _MISSING
    return f"{100 * low:{sign}.1f} to {100 * high:{sign}.1f}"


def _gain(cell: Cell) -> str:
    """Formats the gain of a line over another, over seeds and over images."""
    if math.isnan(cell.gain):
        return _MISSING
    seeds = "" if math.isnan(cell.gain_deviation) else f" ±{100 * cell.gain_deviation:.2f}"
    known = not math.isnan(cell.gain_low)
    images = f" ({_interval(cell.gain_low, cell.gain_high, '+')})" if known else ""
    return f"{100 * cell.gain:+.2f}{seeds}{images} over {cell.over}"


def _difference(cell: Cell) -> str:
    if math.isnan(cell.difference):
        return _MISSING
    doubt = "" if math.isnan(cell.doubt) else f" ±{100 * cell.doubt:.2f}"
    return f"{100 * cell.difference:+.2f}{doubt}"
