"""Figures of trials: what they reached, in their order, step by step and against their settings."""

from __future__ import annotations

import html
import itertools
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import numpy as np
import pandas as pd

from dfsc_tune.pages.axes import Axis
from dfsc_tune.pages.curves import Curve, smooth
from dfsc_tune.pages.drawing import (
    BLUE,
    GREY,
    NAVY,
    ORANGE,
    RED,
    ROLE_COLORS,
    ROLE_NAMES,
    RUN_COLORS,
    SKY,
    Figure,
    errors,
    figure_of,
    rounded,
    tick_layout,
    vertical,
)
from dfsc_tune.pages.importance import Importance

STATE_STYLES = {
    "complete": {"color": BLUE, "symbol": "circle", "size": 7, "opacity": 0.75},
    "pruned": {"color": GREY, "symbol": "x", "size": 5, "opacity": 0.8},
    "running": {"color": ORANGE, "symbol": "circle-open", "size": 7, "opacity": 0.8},
    "interrupted": {"color": ORANGE, "symbol": "square-open", "size": 6, "opacity": 0.7},
    "failed": {"color": GREY, "symbol": "cross", "size": 6, "opacity": 0.8},
}
STATE_NAMES = {
    "complete": "full budget",
    "pruned": "stopped early",
    "running": "running",
    "interrupted": "interrupted",
    "failed": "failed",
}
# From low to high, to be seen on light and on dark ground.
_SCALE = [[0.0, "#5b8fd6"], [0.5, "#9a9a9a"], [1.0, ORANGE]]
_FEW_TRIALS = 20
_MAX_POINTS_OF_RUN = 1000


def history(trials: pd.DataFrame, best_so_far: pd.DataFrame, metric: str) -> Figure:
    """What each trial reached, in their order, and the best of those trained in full so far.

    Args:
        trials: with `number`, `value`, `state`, `hover`; sampled if there are many.
        best_so_far: `number` and `value` at each improvement, and at the end.
        metric: which AUROC `value` is.
    """
    data = [
        _points(part["number"], part["value"], part["hover"], state)
        for state, part in _by_state(trials)
    ]
    data.append(
        {
            "type": "scatter",
            "mode": "lines",
            "name": "best so far, full budget",
            "x": best_so_far["number"].tolist(),
            "y": rounded(best_so_far["value"]),
            "line": {"shape": "hv", "color": RED, "width": 2},
            "hoverinfo": "skip",
        }
    )
    x: dict[str, Any] = {"title": "trial, in the order of their start", "tickformat": ",d"}
    if trials["number"].max() <= _FEW_TRIALS:
        x["dtick"] = 1
    return figure_of(data, x, _value_axis(metric))


def against_parameter(
    axis: Axis,
    trials: pd.DataFrame,
    marked: pd.DataFrame,
    metric: str,
    means: pd.DataFrame,
    published: Mapping[float, float],
) -> Figure:
    """AUROC against one setting: all trials, and a curve of those trained in full.

    Args:
        axis: of the setting.
        trials: with `value`, `state`, `hover`; sampled if there are many.
        marked: the best trial and the references, with `label` and `low`, `high`, the 95 % interval
            of `value`.
        metric: which AUROC `value` is.
        means: the mean `value` of each of a few choices with its `low` and `high`, drawn instead of
            a smoothed curve; else empty.
        published: the paper's AUROC by value of the setting; may be empty.
    """
    positions = axis.positions(trials[axis.name])
    places = pd.Series(positions, index=trials.index)
    data = [
        _points(places[part.index], part["value"], part["hover"], state)
        for state, part in _by_state(trials)
    ]
    complete = (trials["state"] == "complete").to_numpy() & np.isfinite(positions)
    values = trials["value"].to_numpy(dtype=np.float64)
    if len(means):
        data.append(_means(axis, means))
    elif axis.scale != "categorical":
        curve = smooth(positions[complete], values[complete])
        data += _band(curve) if curve else []
    if published:
        data.append(_published(axis, published))
    data += _marked(axis, marked)
    ticks = axis.ticks(np.concatenate([positions, axis.positions(marked[axis.name])]))
    x = {"title": axis.title, **tick_layout(ticks)}
    return figure_of(data, x, _value_axis(metric))


def importance_bars(found: Sequence[Importance]) -> Figure:
    """Each setting's share in the variance, with its range over resampled trials."""
    rows = list(reversed(found))
    bars = {
        "type": "bar",
        "orientation": "h",
        "y": [row.name for row in rows],
        "x": rounded(row.share for row in rows),
        "error_x": errors(
            [row.share for row in rows], [row.low for row in rows], [row.high for row in rows], GREY
        ),
        "marker": {"color": BLUE},
        "hovertemplate": "%{y}: %{x:.2f}<extra></extra>",
    }
    x = {"title": "share in the variance of AUROC", "range": [0, 1]}
    return figure_of(
        [bars], x, {"automargin": True}, height=90 + 45 * len(rows), hovermode="closest"
    )


def parallel(trials: pd.DataFrame, axes: Sequence[Axis], metric: str) -> Figure:
    """Parallel coordinates of the settings and of what came of them; drag along an axis to filter.

    Args:
        trials: those that reached the full budget, with `value`.
        axes: of the settings, at least one.
        metric: which AUROC `value` is.
    """
    positions = np.stack([axis.positions(trials[axis.name]) for axis in axes])
    usable = np.isfinite(positions).all(axis=0)
    values = rounded(trials["value"].to_numpy()[usable])
    dimensions = []
    for axis, places in zip(axes, positions[:, usable], strict=True):
        ticks = axis.ticks(places)
        dimension: dict[str, Any] = {"label": axis.name, "values": rounded(places)}
        if ticks:
            dimension |= {"tickvals": ticks[0], "ticktext": [html.escape(x) for x in ticks[1]]}
        dimensions.append(dimension)
    dimensions.append({"label": f"AUROC, {metric}", "values": values})
    lines = {
        "type": "parcoords",
        "dimensions": dimensions,
        "line": {"color": values, "colorscale": _SCALE},
    }
    layout = {"height": 380, "margin": {"l": 60, "r": 60, "t": 50, "b": 24}}
    return {"data": [lines], "layout": layout}


def learning_curves(curves: pd.DataFrame, rungs: Sequence[int], metric: str) -> Figure:
    """What trials reached step by step; a cross ends those that ASHA stopped.

    Args:
        curves: the reports to draw, with `step`, `value`, `trial`, `number`, `state` and `label`
            (of the best trial and the references, else none).
        rungs: the steps at which ASHA compares.
        metric: which AUROC `value` is.
    """
    data: list[dict[str, Any]] = []
    plain = curves[curves["label"].isna()]
    for state, part in plain.groupby("state", sort=True):
        color = STATE_STYLES[str(state)]["color"]
        data.append(_lines(part, STATE_NAMES[str(state)], str(color), width=1, opacity=0.4))
    pruned = (
        curves[curves["state"] == "pruned"]
        .sort_values("step")
        .drop_duplicates("trial", keep="last")
    )
    if len(pruned):
        data.append(
            {
                "type": "scatter",
                "mode": "markers",
                "name": "stopped by ASHA",
                "x": pruned["step"].tolist(),
                "y": rounded(pruned["value"]),
                "marker": {"symbol": "x", "size": 6, "color": GREY},
                "hovertemplate": "stopped at step %{x}: %{y:.3f}<extra></extra>",
            }
        )
    for role, name in ROLE_NAMES.items():
        part = curves[curves["label"] == role]
        if len(part):
            data.append(_lines(part, name, ROLE_COLORS[role], width=3, opacity=1))
    title = "training step" + (" (dotted: ASHA's rungs)" if rungs else "")
    x = {"title": title, "rangemode": "tozero"}
    shapes = [vertical(step, GREY, dash="dot") for step in rungs]
    return figure_of(data, x, _value_axis(metric), shapes=shapes)


def values_of_runs(tables: Sequence[tuple[str, pd.DataFrame]]) -> Figure:
    """The trials at the full budget of several runs against their margin.

    Args:
        tables: each run's name, which others may share, and its trials.
    """
    data = []
    for color, (name, trials) in zip(itertools.cycle(RUN_COLORS), tables, strict=False):
        sampled = trials.sample(min(len(trials), _MAX_POINTS_OF_RUN), random_state=0)
        data.append(
            {
                "type": "scatter",
                "mode": "markers",
                "name": html.escape(name),
                "x": rounded(sampled["margin"]),
                "y": rounded(sampled["value"]),
                "marker": {"color": color, "size": 8, "opacity": 0.75},
                "hovertemplate": "margin %{x}: %{y:.3f}<extra></extra>",
            }
        )
    return figure_of(data, {"title": "margin"}, {"title": "AUROC, selection part"})


def _points(x: pd.Series, y: pd.Series, hover: pd.Series, state: str) -> dict[str, Any]:
    return {
        "type": "scatter",
        "mode": "markers",
        "name": STATE_NAMES[state],
        "x": rounded(x),
        "y": rounded(y),
        "text": hover.tolist(),
        "hovertemplate": "%{text}<br>AUROC %{y:.3f}<extra></extra>",
        "marker": STATE_STYLES[state],
    }


def _marked(axis: Axis, marked: pd.DataFrame) -> Iterable[dict[str, Any]]:
    for row in marked.to_dict("records"):
        x = float(axis.positions(pd.Series([row[axis.name]]))[0])
        value = float(row["value"])
        if np.isfinite(x):
            yield {
                "type": "scatter",
                "mode": "markers",
                "name": ROLE_NAMES[str(row["label"])],
                "x": rounded([x]),
                "y": rounded([value]),
                "error_y": errors([value], [float(row["low"])], [float(row["high"])]),
                "marker": {
                    "color": ROLE_COLORS[str(row["label"])],
                    "size": 11,
                    "symbol": "diamond",
                    "line": {"width": 1, "color": "#fff"},
                },
                "hovertemplate": f"{ROLE_NAMES[str(row['label'])]}: {value:.3f} "
                f"({row['low']:.3f}–{row['high']:.3f})<extra></extra>",
            }


def _means(axis: Axis, means: pd.DataFrame) -> dict[str, Any]:
    values = means["value"].tolist()
    return {
        "type": "scatter",
        "mode": "lines+markers",
        "name": "mean, 95 % interval",
        "x": rounded(axis.positions(means[axis.name])),
        "y": rounded(values),
        "error_y": errors(values, means["low"].tolist(), means["high"].tolist()),
        "line": {"color": BLUE, "width": 2},
        "hovertemplate": "mean %{y:.3f}<extra></extra>",
    }


def _published(axis: Axis, published: Mapping[float, float]) -> dict[str, Any]:
    return {
        "type": "scatter",
        "mode": "lines+markers",
        "name": "published, Table 3",
        "x": rounded(axis.positions(pd.Series(list(published)))),
        "y": rounded(published.values()),
        "line": {"color": SKY, "dash": "dash"},
        "marker": {"symbol": "star", "size": 9},
        "hovertemplate": "published: %{y:.3f}<extra></extra>",
    }


def _band(curve: Curve) -> list[dict[str, Any]]:
    x = rounded(curve.positions)
    common = {"type": "scatter", "mode": "lines", "x": x, "hoverinfo": "skip"}
    edge = {**common, "line": {"width": 0}, "showlegend": False}
    return [
        {**edge, "y": rounded(curve.low)},
        {
            **edge,
            "y": rounded(curve.high),
            "fill": "tonexty",
            "fillcolor": "rgba(128,160,200,0.35)",
        },
        {
            **common,
            "y": rounded(curve.values),
            "name": "smoothed, with 95 % band",
            "line": {"color": NAVY, "width": 3},
        },
    ]


def _lines(part: pd.DataFrame, name: str, color: str, width: int, opacity: float) -> dict[str, Any]:
    """One trace of many curves, parted by gaps."""
    x: list[Any] = []
    y: list[Any] = []
    text: list[Any] = []
    for number, curve in part.sort_values("step").groupby("number"):
        x += [*curve["step"].tolist(), None]
        y += [*rounded(curve["value"]), None]
        text += [int(str(number))] * (len(curve) + 1)
    return {
        "type": "scatter",
        "mode": "lines",
        "name": name,
        "x": x,
        "y": y,
        "text": text,
        "line": {"color": color, "width": width},
        "opacity": opacity,
        "hovertemplate": "trial %{text}, step %{x}: %{y:.3f}<extra></extra>",
    }


def _by_state(trials: pd.DataFrame) -> Iterable[tuple[str, pd.DataFrame]]:
    """The parts of a table, those in front last; trials that never reported have no place."""
    for state in reversed(STATE_STYLES):
        part = trials[(trials["state"] == state) & trials["value"].notna()]
        if len(part):
            yield state, part


def _value_axis(metric: str) -> dict[str, Any]:
    return {"title": f"AUROC, {metric}"}
