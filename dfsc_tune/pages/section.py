"""Sections of a page, with figures and tables or the reason why they are empty."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

import pandas as pd
import plotly.graph_objects as go

from dfsc_tune.evaluation.tables import NO_VALUE

if TYPE_CHECKING:
    from dfsc_tune.pages.gallery import Gallery


@dataclass(frozen=True)
class Table:
    """Rows of plain text."""

    columns: Sequence[str]
    rows: Sequence[Sequence[str]]
    marked: int | None = None
    """Index of a highlighted row."""


@dataclass(frozen=True)
class Section:
    """One question and its answer."""

    key: str
    title: str
    source: str = ""
    """The images that the numbers come from: report, selection, or neither."""
    figures: Sequence[go.Figure] = ()
    notes: Sequence[str] = ()
    table: Table | None = None
    gallery: Gallery | None = None
    missing: str = ""
    """The reason why the section is empty."""

    def having(
        self, figures: Sequence[go.Figure], notes: Sequence[str] = (), table: Table | None = None
    ) -> Section:
        """Returns the section with its answer."""
        return replace(self, figures=figures, notes=notes, table=table)

    def without(self, reason: str) -> Section:
        """Returns the section with the reason why it has no answer."""
        return replace(self, missing=reason)


def shown_number(value: Any, digits: int = 3) -> str:
    """Formats a number of a table; a dash if there is none."""
    return NO_VALUE if value is None or pd.isna(value) else f"{value:,.{digits}f}"
