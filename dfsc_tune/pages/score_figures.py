"""Figures of what models are worth: how their scores lie, and AUROCs with their intervals."""

from __future__ import annotations

import html
from collections.abc import Sequence

import numpy as np
import pandas as pd

from dfsc_tune.metrics import Interval
from dfsc_tune.pages.axes import Axis
from dfsc_tune.pages.drawing import (
    BLUE,
    GREY,
    ORANGE,
    PINK,
    RED,
    Figure,
    errors,
    figure_of,
    rounded,
    tick_layout,
    vertical,
)

KIND_COLORS = {"good": BLUE, "logical": ORANGE, "structural": PINK}
_NUM_BINS = 40
# Scores that span more than this factor are drawn on a log scale.
_LOG_SPREAD = 30


def with_intervals(
    rows: Sequence[str],
    series: Sequence[tuple[str, str, Sequence[float | None], Sequence[Interval | None]]],
    title: str,
    chance: float | None = 0.5,
) -> Figure:
    """Values with their intervals, a row a label, a colour a series.

    Args:
        rows: the labels from the top.
        series: each its name, its colour, and a value and interval a row, None where missing.
        title: of the value axis.
        chance: a dashed line at what guessing would reach; None leaves it out.
    """
    data = []
    step = 0.5 / max(len(series), 1)
    for index, (name, color, values, intervals) in enumerate(series):
        shown = [
            (place, value, interval)
            for place, (value, interval) in enumerate(zip(values, intervals, strict=True))
            if value is not None and interval is not None
        ]
        offset = (index - (len(series) - 1) / 2) * step
        found = [value for _, value, _ in shown]
        data.append(
            {
                "type": "scatter",
                "mode": "markers",
                "name": html.escape(name),
                "x": rounded(found),
                "y": [place + offset for place, _, _ in shown],
                "error_x": errors(
                    found, [x.low for _, _, x in shown], [x.high for _, _, x in shown]
                ),
                "marker": {"color": color, "size": 9},
                "text": [
                    f"{html.escape(rows[place])}: {value:.3f} ({x.low:.3f}–{x.high:.3f})"
                    for place, value, x in shown
                ],
                "hovertemplate": "%{text}<extra></extra>",
            }
        )
    y = {
        "tickvals": list(range(len(rows))),
        "ticktext": [html.escape(row) for row in rows],
        "range": [len(rows) - 0.4, -0.6],
        "automargin": True,
        "zeroline": False,
    }
    height = 110 + max(len(rows), 2) * (22 + 14 * len(series))
    figure = figure_of(data, {"title": title}, y, height=height, hovermode="closest")
    if chance is not None:
        figure["layout"]["shapes"] = [vertical(chance, GREY, dash="dash")]
    return figure


def score_histograms(scores: pd.DataFrame, threshold: float) -> Figure:
    """How the scores of each kind of image lie, one above the other, and a threshold through all.

    Args:
        scores: of one detector, with `kind` and `score`.
        threshold: where the line stands at first; the page moves it.
    """
    values = scores["score"]
    # The threshold needs a place on the axis too.
    lowest = max(min(float(values.min()), threshold), 0.0)
    spread = float(values.max()) > _LOG_SPREAD * lowest > 0
    axis = Axis("image score", "log" if spread else "linear")
    positions = axis.positions(values)
    edges = np.linspace(positions.min(), positions.max(), _NUM_BINS + 1)
    kinds = [kind for kind in KIND_COLORS if (scores["kind"] == kind).any()]
    data, layout = [], {}
    for index, kind in enumerate(kinds):
        counts, _ = np.histogram(positions[(scores["kind"] == kind).to_numpy()], edges)
        suffix = str(index + 1) if index else ""
        data.append(
            {
                "type": "bar",
                "name": f"{kind} ({counts.sum()})",
                "x": rounded((edges[:-1] + edges[1:]) / 2),
                "y": counts.tolist(),
                "width": float(edges[1] - edges[0]) or 1.0,
                "yaxis": f"y{suffix}",
                "marker": {"color": KIND_COLORS[kind]},
                "hovertemplate": f"{kind}: %{{y}} images<extra></extra>",
            }
        )
        top = 1 - index / len(kinds)
        domain = [top - 0.9 / len(kinds), top]
        layout[f"yaxis{suffix}"] = {
            "domain": domain,
            "title": {"text": kind},
            "rangemode": "tozero",
        }
    line = float(axis.positions(pd.Series([threshold]))[0])
    x = {"title": axis.title, "anchor": f"y{suffix}", **tick_layout(axis.ticks(positions))}
    figure = figure_of(data, x, {})
    figure["layout"] |= layout | {
        "height": 130 * len(kinds) + 70,
        "bargap": 0.05,
        "showlegend": False,
        "shapes": [vertical(line, RED, dash="solid", width=2)],
        "meta": {"scale": axis.scale},
    }
    return figure
