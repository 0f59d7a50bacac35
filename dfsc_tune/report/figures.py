"""Figures of trials as plain Plotly specifications; colours of text and grid are the page's.

Text that comes from a run is escaped, for Plotly reads a little HTML in its labels.
"""

from __future__ import annotations

import html
import itertools
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from dfsc_tune.metrics import Interval
from dfsc_tune.report.axes import Axis
from dfsc_tune.report.curves import Curve, smooth
from dfsc_tune.report.importance import Importance

Figure = dict[str, Any]

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
KIND_COLORS = {"good": BLUE, "logical": ORANGE, "structural": PINK}
_NUM_DIGITS = 5
_NUM_BINS = 40
# From low to high, to be seen on light and on dark ground.
_SCALE = [[0.0, "#5b8fd6"], [0.5, "#9a9a9a"], [1.0, ORANGE]]
_FEW_TRIALS = 20
_MAX_POINTS_OF_RUN = 1000
# Scores that span more than this factor are drawn on a log scale.
_LOG_SPREAD = 30


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
            "y": _rounded(best_so_far["value"]),
            "line": {"shape": "hv", "color": RED, "width": 2},
            "hoverinfo": "skip",
        }
    )
    x: dict[str, Any] = {"title": "trial, in the order of their start", "tickformat": ",d"}
    if trials["number"].max() <= _FEW_TRIALS:
        x["dtick"] = 1
    return _figure(data, x, _value_axis(metric))


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
    x = {"title": axis.title, **_tick_layout(ticks)}
    return _figure(data, x, _value_axis(metric))


def importance_bars(found: Sequence[Importance]) -> Figure:
    """Each setting's share in the variance, with its range over resampled trials."""
    rows = list(reversed(found))
    bars = {
        "type": "bar",
        "orientation": "h",
        "y": [row.name for row in rows],
        "x": _rounded(row.share for row in rows),
        "error_x": _errors(
            [row.share for row in rows], [row.low for row in rows], [row.high for row in rows], GREY
        ),
        "marker": {"color": BLUE},
        "hovertemplate": "%{y}: %{x:.2f}<extra></extra>",
    }
    x = {"title": "share in the variance of AUROC", "range": [0, 1]}
    return _figure([bars], x, {"automargin": True}, height=90 + 45 * len(rows), hovermode="closest")


def parallel(trials: pd.DataFrame, axes: Sequence[Axis], metric: str) -> Figure:
    """Parallel coordinates of the settings and of what came of them; drag along an axis to filter.

    Args:
        trials: those that reached the full budget, with `value`.
        axes: of the settings.
        metric: which AUROC `value` is.
    """
    dimensions = []
    usable = np.ones(len(trials), bool)
    for axis in axes:
        usable &= np.isfinite(axis.positions(trials[axis.name]))
    kept = trials[usable]
    for axis in axes:
        positions = axis.positions(kept[axis.name])
        ticks = axis.ticks(positions)
        dimension: dict[str, Any] = {"label": axis.name, "values": _rounded(positions)}
        if ticks:
            dimension |= {"tickvals": ticks[0], "ticktext": [html.escape(x) for x in ticks[1]]}
        dimensions.append(dimension)
    dimensions.append({"label": f"AUROC, {metric}", "values": _rounded(kept["value"])})
    lines = {
        "type": "parcoords",
        "dimensions": dimensions,
        "line": {"color": _rounded(kept["value"]), "colorscale": _SCALE},
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
                "y": _rounded(pruned["value"]),
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
    shapes = [_vertical(step, GREY, dash="dot") for step in rungs]
    return _figure(data, x, _value_axis(metric), shapes=shapes)


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
                "x": _rounded(found),
                "y": [place + offset for place, _, _ in shown],
                "error_x": _errors(
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
    figure = _figure(data, {"title": title}, y, height=height, hovermode="closest")
    if chance is not None:
        figure["layout"]["shapes"] = [_vertical(chance, GREY, dash="dash")]
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
                "x": _rounded((edges[:-1] + edges[1:]) / 2),
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
    x = {"title": axis.title, "anchor": f"y{suffix}", **_tick_layout(axis.ticks(positions))}
    figure = _figure(data, x, {})
    figure["layout"] |= layout | {
        "height": 130 * len(kinds) + 70,
        "bargap": 0.05,
        "showlegend": False,
        "shapes": [_vertical(line, RED, dash="solid", width=2)],
        "meta": {"scale": axis.scale},
    }
    return figure


def values_of_runs(tables: Mapping[str, pd.DataFrame]) -> Figure:
    """The trials at the full budget of several runs against their margin.

    Args:
        tables: the trials of each run, by its name.
    """
    data = []
    for color, (name, trials) in zip(itertools.cycle(RUN_COLORS), tables.items(), strict=False):
        sampled = trials.sample(min(len(trials), _MAX_POINTS_OF_RUN), random_state=0)
        data.append(
            {
                "type": "scatter",
                "mode": "markers",
                "name": html.escape(name),
                "x": _rounded(sampled["margin"]),
                "y": _rounded(sampled["value"]),
                "marker": {"color": color, "size": 8, "opacity": 0.75},
                "hovertemplate": "margin %{x}: %{y:.3f}<extra></extra>",
            }
        )
    return _figure(data, {"title": "margin"}, {"title": "AUROC, selection part"})


def _points(x: pd.Series, y: pd.Series, hover: pd.Series, state: str) -> dict[str, Any]:
    return {
        "type": "scatter",
        "mode": "markers",
        "name": STATE_NAMES[state],
        "x": _rounded(x),
        "y": _rounded(y),
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
                "x": _rounded([x]),
                "y": _rounded([value]),
                "error_y": _errors([value], [float(row["low"])], [float(row["high"])]),
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
        "x": _rounded(axis.positions(means[axis.name])),
        "y": _rounded(values),
        "error_y": _errors(values, means["low"].tolist(), means["high"].tolist()),
        "line": {"color": BLUE, "width": 2},
        "hovertemplate": "mean %{y:.3f}<extra></extra>",
    }


def _published(axis: Axis, published: Mapping[float, float]) -> dict[str, Any]:
    return {
        "type": "scatter",
        "mode": "lines+markers",
        "name": "published, Table 3",
        "x": _rounded(axis.positions(pd.Series(list(published)))),
        "y": _rounded(published.values()),
        "line": {"color": SKY, "dash": "dash"},
        "marker": {"symbol": "star", "size": 9},
        "hovertemplate": "published: %{y:.3f}<extra></extra>",
    }


def _band(curve: Curve) -> list[dict[str, Any]]:
    x = _rounded(curve.positions)
    common = {"type": "scatter", "mode": "lines", "x": x, "hoverinfo": "skip"}
    edge = {**common, "line": {"width": 0}, "showlegend": False}
    return [
        {**edge, "y": _rounded(curve.low)},
        {
            **edge,
            "y": _rounded(curve.high),
            "fill": "tonexty",
            "fillcolor": "rgba(128,160,200,0.35)",
        },
        {
            **common,
            "y": _rounded(curve.values),
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
        y += [*_rounded(curve["value"]), None]
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


def _figure(
    data: Sequence[dict[str, Any]],
    x: dict[str, Any],
    y: dict[str, Any],
    height: int = 380,
    **layout: Any,
) -> Figure:
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


def _value_axis(metric: str) -> dict[str, Any]:
    return {"title": f"AUROC, {metric}"}


def _tick_layout(ticks: tuple[list[float], list[str]] | None) -> dict[str, Any]:
    if ticks is None:
        return {}
    places, texts = ticks
    return {"tickvals": places, "ticktext": [html.escape(text) for text in texts]}


def _errors(
    values: Sequence[float], low: Sequence[float], high: Sequence[float], color: str | None = None
) -> dict[str, Any]:
    """Plotly's error bars from values and their intervals; in the marker's colour if none given."""
    return {
        "type": "data",
        "symmetric": False,
        "array": _rounded(h - v for v, h in zip(values, high, strict=True)),
        "arrayminus": _rounded(v - x for v, x in zip(values, low, strict=True)),
        "thickness": 1.5,
        **({"color": color} if color else {}),
        "width": 4,
    }


def _vertical(x: float, color: str, dash: str, width: int = 1) -> dict[str, Any]:
    """A line over the whole height."""
    line = {"dash": dash, "width": width, "color": color}
    return {"type": "line", "x0": x, "x1": x, "y0": 0, "y1": 1, "yref": "paper", "line": line}


def _rounded(values: Iterable[float] | NDArray[np.float64] | pd.Series) -> list[float | None]:
    """Numbers as short as the eye needs; what is not finite becomes a gap."""
    return [float(f"{x:.{_NUM_DIGITS}g}") if np.isfinite(x) else None for x in values]
