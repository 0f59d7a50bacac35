"""Draws the table of a run's best and running trials for a terminal."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping

from rich.table import Table
from rich.text import Text

from dfsc_tune.results import shown_value
from dfsc_tune.results.status import TrialLine


def trial_table(lines: Iterable[TrialLine]) -> Table:
    """Returns the table with a row for each line, the best trials in green."""
    table = Table(box=None, pad_edge=False, header_style="bold")
    for column in ("category", "trial", "step", "AUROC", "settings"):
        table.add_column(column, no_wrap=column != "settings")
    for line in lines:
        # Texts, or names with brackets would be read as markup.
        cells = (Text(cell) for cell in (line.category, *cells_of(line)))
        table.add_row(*cells, style="green" if line.label == "best" else "")
    return table


def cells_of(line: TrialLine) -> tuple[str, str, str, str]:
    """Returns the cells of a trial beside its category."""
    return (
        line.label,
        f"{line.step}/{line.num_steps}",
        shown_auroc(line.value),
        shown_settings(line.settings),
    )


def shown_auroc(value: float | None) -> str:
    """Returns an AUROC with three digits, or a dash before the first report."""
    return "–" if value is None or math.isnan(value) else f"{value:.3f}"


def shown_settings(settings: Mapping[str, object]) -> str:
    """Returns the settings of a trial in one line."""
    return " ".join(f"{name}={shown_value(value)}" for name, value in settings.items())
