"""What a page is made of: sections with figures and tables, or the reason why there is nothing."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from dfsc_tune.metrics import Interval
from dfsc_tune.pages.drawing import Figure
from dfsc_tune.pages.gallery import Gallery


@dataclass(frozen=True)
class Table:
    """Rows of plain text."""

    columns: Sequence[str]
    rows: Sequence[Sequence[str]]
    marked: int | None = None
    """A row that stands out."""


@dataclass(frozen=True)
class Section:
    """One question and its answer."""

    key: str
    title: str
    source: str = ""
    """Which images the numbers come from: report, selection, or neither."""
    notes: Sequence[str] = ()
    figures: Sequence[Figure] = ()
    table: Table | None = None
    gallery: Gallery | None = None
    missing: str = ""
    """Why the section is empty."""


def with_interval(value: float | None, interval: Interval | None) -> str:
    """A number and its interval, as everywhere on the page."""
    if value is None:
        return "–"
    return f"{value:.3f}" + (f" ({interval.low:.3f} to {interval.high:.3f})" if interval else "")
