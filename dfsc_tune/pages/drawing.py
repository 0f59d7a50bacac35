"""What all figures are drawn with: colours, and the pieces of a plain Plotly specification.

Colours of text and grid are the page's. Text that comes from a run is escaped, for Plotly reads a
little HTML in its labels.
"""

from __future__ import annotations

import html
from collections.abc import Iterable, Sequence
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray

Figure = dict[str, Any]
"""`data` and `layout`, as Plotly takes them."""

# Near Okabe and Ito's colours, told apart by colour-blind readers too.
BLUE, NAVY, ORANGE, GREEN, PINK, SKY, RED, GREY = (
    "#2b8cc4",
    "#3f6fd8",
    "#e69f00",
    "#009e73",
    "#cc79a7",
    "#56b4e9",
    "#d55e00",
    "#8a929c",
)
ROLE_COLORS = {"best": RED, "paper": GREEN, "margin_0": PINK}
ROLE_NAMES = {"best": "the best", "paper": "paper's setting", "margin_0": "margin 0"}
RUN_COLORS = (BLUE, ORANGE, PINK, GREEN, RED, SKY, GREY)
_NUM_DIGITS = 5


def figure_of(
    data: Sequence[dict[str, Any]],
    x: dict[str, Any],
    y: dict[str, Any],
    height: int = 380,
    **layout: Any,
) -> Figure:
    """A figure of some traces; titles of axes are escaped, further keys are the layout's."""
    return {
        "data": list(data),
        "layout": {
            "xaxis": _with_title(x),
            "yaxis": _with_title(y),
            "height": height,
            "margin": {"l": 56, "r": 12, "t": 12, "b": 48},
            "legend": {"orientation": "h", "y": 1.02, "yanchor": "bottom", "x": 0},
            **layout,
        },
    }


def _with_title(axis: dict[str, Any]) -> dict[str, Any]:
    return axis | ({"title": {"text": html.escape(axis["title"])}} if "title" in axis else {})


def tick_layout(ticks: tuple[list[float], list[str]] | None) -> dict[str, Any]:
    """What an axis is given of its ticks, places and texts; nothing leaves them to Plotly."""
    if ticks is None:
        return {}
    places, texts = ticks
    return {"tickvals": places, "ticktext": [html.escape(text) for text in texts]}


def errors(
    values: Sequence[float], low: Sequence[float], high: Sequence[float], color: str | None = None
) -> dict[str, Any]:
    """Plotly's error bars from values and their intervals; in the marker's colour if none given."""
    return {
        "type": "data",
        "symmetric": False,
        "array": rounded(h - v for v, h in zip(values, high, strict=True)),
        "arrayminus": rounded(v - x for v, x in zip(values, low, strict=True)),
        "thickness": 1.5,
        **({"color": color} if color else {}),
        "width": 4,
    }


def vertical(x: float, color: str, dash: str, width: int = 1) -> dict[str, Any]:
    """A line over the whole height."""
    line = {"dash": dash, "width": width, "color": color}
    return {"type": "line", "x0": x, "x1": x, "y0": 0, "y1": 1, "yref": "paper", "line": line}


def rounded(values: Iterable[float] | NDArray[np.float64] | pd.Series) -> list[float | None]:
    """Numbers as short as the eye needs; what is not finite becomes a gap."""
    return [float(f"{x:.{_NUM_DIGITS}g}") if np.isfinite(x) else None for x in values]
