"""All figures of the pages, drawn with Plotly; the page adds colours for light and dark."""

from __future__ import annotations

import html
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import numpy as np
import pandas as pd
import plotly.express as px
import plotly.graph_objects as go

from dfsc_tune.metrics import Interval
from dfsc_tune.pages.importance import Importance
from dfsc_tune.pages.searched import Setting

# Close to Okabe and Ito's colours, which colour-blind readers can tell apart.
BLUE, ORANGE, GREEN, PINK, SKY, RED, GREY = (
    "#2b8cc4", "#e69f00", "#009e73", "#cc79a7", "#56b4e9", "#d55e00", "#8a929c",
)  # fmt: skip
ROLE_NAMES = {"best": "the best", "paper": "paper's setting", "margin_0": "margin 0"}
ROLE_COLORS = dict(zip(ROLE_NAMES.values(), (RED, GREEN, PINK), strict=True))
RUN_COLORS = (BLUE, ORANGE, PINK, GREEN, RED, SKY, GREY)
STATE_NAMES = {
    "failed": "failed",
    "interrupted": "interrupted",
    "running": "running",
    "pruned": "stopped early",
    "complete": "full budget",
}
_STATE_COLORS = dict(zip(STATE_NAMES.values(), (GREY, ORANGE, ORANGE, GREY, BLUE), strict=True))
_STATE_SYMBOLS = dict(
    zip(STATE_NAMES.values(), ("cross", "square-open", "circle-open", "x", "circle"), strict=True)
)
_KIND_COLORS = {"good": BLUE, "logical": ORANGE, "structural": PINK}
# From low to high; visible on light and dark backgrounds.
_SCALE = ["#5b8fd6", "#9a9a9a", ORANGE]
# Scores that span more than this factor are drawn on a log scale.
_LOG_SPREAD = 30


def history(trials: pd.DataFrame, best: pd.Series, metric: str) -> go.Figure:
    """Draws the value of each trial in order, and the best so far of those trained in full.

    Args:
        trials: those to draw, as `CategoryTrials` has them.
        best: the best value so far, by the number of the trial that reached it.
        metric: the AUROC that `value` is.
    """
    figure = _points(trials, "number", metric)
    figure.add_scatter(
        x=best.index,
        y=best,
        name="best so far, full budget",
        mode="lines",
        line={"shape": "hv", "color": RED, "width": 2},
        hoverinfo="skip",
    )
    return _finished(figure.update_xaxes(title="trial, in order of start"))


def against_setting(
    setting: Setting,
    trials: pd.DataFrame,
    marked: pd.DataFrame,
    metric: str,
    published: Mapping[float, float],
) -> go.Figure:
    """Draws AUROC against one setting, with the intervals of the best trial and the references.

    Args:
        setting: of the horizontal axis.
        trials: those to draw, as `CategoryTrials` has them.
        marked: the best trial and the references, with the 95 % interval of `value`.
        metric: the AUROC that `value` is.
        published: the paper's AUROC by value of the setting; may be empty.
    """
    figure = _points(trials.assign(x=setting.places(trials)), "x", metric)
    marks = marked.assign(
        x=setting.places(marked),
        role=marked["label"].map(ROLE_NAMES),
        above=marked["high"] - marked["value"],
        below=marked["value"] - marked["low"],
    )
    of_roles = px.scatter(
        marks,
        x="x",
        y="value",
        color="role",
        color_discrete_map=ROLE_COLORS,
        error_y="above",
        error_y_minus="below",
        template="none",
    )
    of_roles.update_traces(
        marker={"size": 11, "symbol": "diamond", "line": {"width": 1, "color": "#fff"}},
        hovertemplate="%{fullData.name}: %{y:.3f}<extra></extra>",
    )
    figure.add_traces(of_roles.data)
    if published:
        figure.add_scatter(
            x=list(published),
            y=list(published.values()),
            name="published, Table 3",
            mode="lines+markers",
            line={"color": SKY, "dash": "dash"},
            marker={"symbol": "star", "size": 9},
        )
    figure.update_xaxes(title=setting.title, **setting.axis)
    return _finished(figure)


def learning_curves(reports: pd.DataFrame, rungs: Sequence[int], metric: str) -> go.Figure:
    """Draws the trials' values by step; a cross marks those that ASHA stopped.

    Args:
        reports: those to draw, with `step`, `value`, and of their trial `number`, `state`, `label`.
        rungs: the steps at which ASHA compares.
        metric: the AUROC that `value` is.
    """
    # One trace holds all curves of a kind; rows without a value separate them.
    gaps = reports.drop_duplicates("number").assign(step=np.nan, value=np.nan)
    curves = pd.concat([reports, gaps]).sort_values(["number", "step"], na_position="last")
    names = curves["label"].map(ROLE_NAMES).fillna(curves["state"].map(STATE_NAMES))
    figure = px.line(
        curves.assign(name=names),
        x="step",
        y="value",
        color="name",
        color_discrete_map=_STATE_COLORS | ROLE_COLORS,
        category_orders={"name": [*STATE_NAMES.values(), *ROLE_NAMES.values()]},
        hover_data={"number": True, "value": ":.3f", "name": False},
        labels={"number": "trial"},
        template="none",
    )
    figure.for_each_trace(
        lambda trace: trace.update(
            line={"width": 3 if trace.name in ROLE_COLORS else 1},
            opacity=1 if trace.name in ROLE_COLORS else 0.4,
        )
    )
    stopped = reports[reports["state"] == "pruned"].sort_values("step")
    last = stopped.drop_duplicates("number", keep="last")
    figure.add_scatter(
        x=last["step"],
        y=last["value"],
        name="stopped by ASHA",
        mode="markers",
        marker={"symbol": "x", "size": 6, "color": GREY},
    )
    for step in rungs:
        figure.add_vline(step, line={"dash": "dot", "width": 1, "color": GREY})
    title = "training step" + (" (dotted: ASHA compares)" if rungs else "")
    figure.update_xaxes(title=title, rangemode="tozero")
    return _finished(figure.update_yaxes(title=f"AUROC, {metric}"))


def importance_bars(found: Sequence[Importance]) -> go.Figure:
    """Draws each setting's importance, with its range over resampled trials."""
    frame = pd.DataFrame(
        {
            "setting": row.name,
            "importance": row.share,
            "above": row.high - row.share,
            "below": row.share - row.low,
        }
        for row in found
    )
    figure = px.bar(
        frame,
        x="importance",
        y="setting",
        error_x="above",
        error_x_minus="below",
        color_discrete_sequence=[BLUE],
        hover_data={"importance": ":.2f"},
        template="none",
    )
    figure.update_traces(error_x_color=GREY)
    figure.update_xaxes(title="importance, as a share of 1", range=[0, 1])
    figure.update_yaxes(autorange="reversed", title=None, automargin=True)
    return _finished(figure, height=90 + 45 * len(found))


def parallel(trials: pd.DataFrame, settings: Sequence[Setting], metric: str) -> go.Figure:
    """Draws one line for each trial across one axis for each setting; dragging filters them.

    Args:
        trials: those that reached the full budget, with `value`.
        settings: the settings; at least one.
        metric: the AUROC that `value` is.
    """
    dimensions: list[dict[str, Any]] = [
        {"label": setting.name, **setting.dimension(trials)} for setting in settings
    ]
    dimensions.append({"label": f"AUROC, {metric}", "values": trials["value"]})
    lines = go.Parcoords(
        dimensions=dimensions, line={"color": trials["value"], "colorscale": _SCALE}
    )
    figure = go.Figure(lines, layout={"template": "none"})
    return _finished(figure, margin={"l": 60, "r": 60, "t": 50, "b": 24})


def scores_by_kind(scores: pd.DataFrame, threshold: float) -> go.Figure:
    """Draws each image as a point at its score, one row for each kind of image.

    Args:
        scores: of one detector, with `kind`, `defect_type`, `image` and `score`.
        threshold: the first position of the line; the page moves it.
    """
    lowest = min(float(scores["score"].min()), threshold)
    spread = float(scores["score"].max()) > _LOG_SPREAD * lowest > 0
    counts = scores["kind"].value_counts()
    names = {kind: f"{kind} ({counts[kind]})" for kind in _KIND_COLORS if kind in counts}
    figure = px.strip(
        _escaped(scores.assign(name=scores["kind"].map(names))),
        x="score",
        y="name",
        color="kind",
        color_discrete_map=_KIND_COLORS,
        category_orders={"name": list(names.values())},
        hover_name="image",
        hover_data={"defect_type": True, "score": ":.4g", "name": False, "kind": False},
        log_x=spread,
        template="none",
    )
    figure.update_traces(jitter=0.9, marker={"size": 6, "opacity": 0.7}, width=0.8)
    figure.add_vline(threshold, line={"color": RED, "width": 2})
    figure.update_xaxes(title="image score" + (" (log scale)" if spread else ""))
    figure.update_yaxes(title=None, automargin=True)
    return _finished(figure, height=100 * len(names) + 70, showlegend=False, boxmode="overlay")


def with_intervals(
    estimates: Iterable[tuple[str, str, float | None, Interval | None]],
    title: str,
    colors: Mapping[str, str] | None = None,
    chance: float | None = 0.5,
) -> go.Figure | None:
    """Draws values with their intervals, one row for each label, one colour for each series.

    Args:
        estimates: for each its row (from the top), series, value and interval; those without value
            or interval are left out.
        title: title of the value axis.
        colors: colours by series; None for a default.
        chance: value of guessing, drawn as a dashed line; None for no line.

    Returns:
        The figure, or None if there is nothing to draw.
    """
    frame = pd.DataFrame(
        {
            "row": row,
            "series": series,
            "value": value,
            "above": interval.high - value,
            "below": value - interval.low,
            "text": f"{value:.3f} ({interval.low:.3f} to {interval.high:.3f})",
        }
        for row, series, value, interval in estimates
        if value is not None and interval is not None
    )
    if frame.empty:
        return None
    frame = _escaped(frame)
    rows, num_series = frame["row"].unique(), frame["series"].nunique()
    figure = px.scatter(
        frame,
        x="value",
        y="row",
        color="series",
        color_discrete_map=dict(colors or {}),
        color_discrete_sequence=RUN_COLORS,
        error_x="above",
        error_x_minus="below",
        orientation="h",
        hover_name="row",
        hover_data={"text": True, "row": False, "value": False, "series": False},
        labels={"text": "value"},
        template="none",
    )
    figure.update_traces(marker_size=9)
    figure.update_xaxes(title=title)
    figure.update_yaxes(
        title=None,
        automargin=True,
        autorange="reversed",
        categoryorder="array",
        categoryarray=list(rows),
    )
    if chance is not None:
        figure.add_vline(chance, line={"dash": "dash", "width": 1, "color": GREY})
    height = 110 + max(len(rows), 2) * (22 + 14 * num_series)
    return _finished(figure, height=height, scattermode="group", scattergap=0.4)


def values_of_runs(trials: pd.DataFrame) -> go.Figure:
    """Draws the full-budget trials of several runs against their margin.

    Args:
        trials: the trials of all runs, with `run`, `margin` and `value`.
    """
    figure = px.scatter(
        _escaped(trials[["run", "margin", "value"]]),
        x="margin",
        y="value",
        color="run",
        color_discrete_sequence=RUN_COLORS,
        labels={"value": "AUROC, selection part"},
        template="none",
    )
    return _finished(figure.update_traces(marker={"size": 8, "opacity": 0.75}))


def _points(trials: pd.DataFrame, x: str, metric: str) -> go.Figure:
    """Draws one point for each trial that has reported, by state."""
    shown = trials[trials["value"].notna()]
    figure = px.scatter(
        shown.assign(state=shown["state"].map(STATE_NAMES)),
        x=x,
        y="value",
        color="state",
        symbol="state",
        color_discrete_map=_STATE_COLORS,
        symbol_map=_STATE_SYMBOLS,
        category_orders={"state": list(STATE_NAMES.values())},
        custom_data=["number", "role", "hover"],
        template="none",
    )
    figure.update_traces(
        marker={"size": 7, "opacity": 0.75},
        hovertemplate="trial %{customdata[0]}, %{customdata[1]}%{customdata[2]}<br>"
        "AUROC %{y:.3f}<extra></extra>",
    )
    return figure.update_yaxes(title=f"AUROC, {metric}")


def _escaped(frame: pd.DataFrame) -> pd.DataFrame:
    """Escapes the texts of a table, because Plotly interprets some HTML in labels."""
    texts = frame.select_dtypes(["object", "string"])
    plain = texts.map(lambda x: html.escape(x) if isinstance(x, str) else x)
    return frame.assign(**{str(name): plain[name] for name in plain})


def _finished(figure: go.Figure, **layout: Any) -> go.Figure:
    """Applies the layout that all figures share."""
    return figure.update_layout(
        {
            "height": 380,
            "margin": {"l": 56, "r": 12, "t": 12, "b": 48},
            "legend": {
                "orientation": "h", "y": 1.02, "yanchor": "bottom", "x": 0, "title": {"text": ""},
            },
            **layout,
        }
    )  # fmt: skip
