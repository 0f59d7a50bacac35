"""Sections about the trials: all numbers are of the selection part, which the search saw."""

from __future__ import annotations

import html
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import pandas as pd

from dfsc_tune.metrics import Interval
from dfsc_tune.pages import trial_figures
from dfsc_tune.pages.axes import Axis, searched_axes
from dfsc_tune.pages.curves import MIN_TRIALS as MIN_CURVE_TRIALS
from dfsc_tune.pages.importance import MAX_TRIALS, importances
from dfsc_tune.pages.importance import MIN_TRIALS as MIN_IMPORTANCE_TRIALS
from dfsc_tune.pages.rungs import rung_steps, rung_table
from dfsc_tune.pages.section import Section, Table, with_interval
from dfsc_tune.reference import published_margins
from dfsc_tune.results import REFERENCES, Run, best_trials, selection_interval, shown_value
from dfsc_tune.spaces.space import Budget

SELECTION = "selection"
_MAX_CURVES = 120
# More different margins than this are a curve, not a table.
_MAX_MARGINS = 8
_NO_VALUES = "No trial has reported a value yet."


@dataclass(frozen=True)
class SearchView:
    """One category's trials, made ready to be drawn."""

    category: str
    trials: pd.DataFrame
    """All, in order of their start, with `number`, `label` (best, paper, margin_0 or none) and
    `hover`."""
    shown: pd.DataFrame
    """Those drawn as points: all, or a sample that keeps the labelled ones."""
    reports: pd.DataFrame
    """Of the trials' own EMA momentum, with `value`."""
    marked: pd.DataFrame
    """The labelled trials with a value, and its interval as `low` and `high`."""
    axes: Sequence[Axis]
    metric: str
    num_images: Mapping[str, int]
    """Of the selection part, by kind."""
    budget: Budget | None
    """None for a single config, which no search has tried."""
    real_loco: bool
    """Whether the paper's numbers apply."""

    @property
    def complete(self) -> pd.DataFrame:
        """The trials that reached the full budget and a value."""
        return self.trials[(self.trials["state"] == "complete") & self.trials["value"].notna()]

    @property
    def sample_note(self) -> list[str]:
        """What a reader must know where not all trials are drawn."""
        if len(self.shown) == len(self.trials):
            return []
        return [f"Drawn: {len(self.shown):,} of {len(self.trials):,} trials, a random sample."]


def search_view(run: Run, category: str, max_points: int, real_loco: bool) -> SearchView:
    """Gathers what the sections below draw.

    Args:
        run: the run.
        category: one of its categories.
        max_points: how many trials may be drawn.
        real_loco: whether the images are MVTec LOCO AD's own.
    """
    metric = run.settings.objective.metric
    trials = run.trials[run.trials["category"] == category].reset_index(drop=True)
    trials["number"] = range(1, len(trials) + 1)
    trials["label"] = _labels(trials)
    searched = run.settings.searched[category]
    rows = trials.to_dict("records")
    trials["hover"] = pd.Series([_hover(row, searched) for row in rows], dtype=object)
    reports = run.reports[(run.reports["category"] == category) & run.reports["own_momentum"]]
    reports = reports.assign(value=reports[f"auroc_{metric}"])
    marked = trials[trials["label"].notna() & trials["value"].notna()]
    counts = run.settings.datasets[category].selection
    return SearchView(
        category=category,
        trials=trials,
        shown=_sample(trials, max_points),
        reports=reports.dropna(subset=["value"]),
        marked=_with_intervals(marked, counts, metric),
        axes=searched_axes(run, category, trials),
        metric=metric,
        num_images=counts,
        budget=run.settings.space.budget if run.settings.space else None,
        real_loco=real_loco,
    )


def parameter_sections(view: SearchView) -> list[Section]:
    """AUROC against each searched setting, margin apart and first."""
    found = []
    margin = [axis for axis in view.axes if axis.name == "margin"]
    others = [axis for axis in view.axes if axis.name != "margin"]
    for key, title, axes in (
        ("margin", "AUROC against the margin (the paper's Table 3)", margin),
        ("parameters", "AUROC against the other settings", others),
    ):
        if not axes:
            reason = "This run varied no margin." if key == "margin" else "No other setting varied."
            found.append(Section(key, title, SELECTION, missing=reason))
        elif not view.shown["value"].notna().any():
            found.append(Section(key, title, SELECTION, missing=_NO_VALUES))
        else:
            published = published_margins(view.category) if view.real_loco else {}
            drawn = tuple(
                trial_figures.against_parameter(
                    axis,
                    view.shown,
                    view.marked,
                    view.metric,
                    _means(view, axis.name) if axis.scale == "categorical" else pd.DataFrame(),
                    published if axis.name == "margin" else {},
                )
                for axis in axes
            )
            table = _margin_table(view) if key == "margin" else None
            notes = _parameter_notes(view, axes)
            found.append(Section(key, title, SELECTION, notes, drawn, table))
    return found


def importance_section(view: SearchView) -> Section:
    """Optuna's importances."""
    key, title = "importance", "Which settings mattered"
    found = importances(view.trials, view.axes) if view.axes else []
    if not found:
        missing = (
            f"This takes at least {MIN_IMPORTANCE_TRIALS} trials at the full budget, of different "
            "values, and two settings that vary; there are "
            f"{len(view.complete)} trials and {len(view.axes)} settings."
        )
        return Section(key, title, SELECTION, missing=missing)
    num_complete = len(view.complete)
    notes = (
        f"Shares in the variance of AUROC between the {num_complete:,} trials at the full budget, "
        "by Optuna's fANOVA"
        + (f" (a random {MAX_TRIALS} of them)" if num_complete > MAX_TRIALS else "")
        + ". The whiskers' ends are the least and the largest share when the trials are resampled: "
        "where they overlap, the order says nothing. Noise of training and images is shared out "
        "too.",
    )
    return Section(key, title, SELECTION, notes, (trial_figures.importance_bars(found),))


def parallel_section(view: SearchView) -> Section:
    """Parallel coordinates of the trials at the full budget."""
    key, title = "parallel", "All settings at once"
    complete = view.shown[(view.shown["state"] == "complete") & view.shown["value"].notna()]
    if len(complete) < 2 or not view.axes:
        missing = "This takes two trials at the full budget and a setting that varies."
        return Section(key, title, SELECTION, missing=missing)
    notes = [
        "A line is a trial at the full budget, orange where its AUROC is high. Drag along an axis "
        "to keep only the lines that cross there; click the axis to let go.",
        *view.sample_note,
    ]
    return Section(
        key, title, SELECTION, notes, (trial_figures.parallel(complete, view.axes, view.metric),)
    )


def history_section(view: SearchView) -> Section:
    """What the trials reached in their order."""
    key, title = "history", "How the search went"
    if not view.trials["value"].notna().any():
        return Section(key, title, SELECTION, missing=_NO_VALUES)
    best = view.complete.assign(value=view.complete["value"].cummax())
    best = best[best["value"].diff() != 0]
    if len(best):
        end = best.iloc[[-1]].assign(number=len(view.trials))
        best = pd.concat([best, end])
    notes = [
        "Only trials at the full budget can be the best: what an early-stopped one had reached at "
        "its last report is shown in grey. The first trials are the paper's setting and margin 0.",
        *view.sample_note,
    ]
    figure = trial_figures.history(view.shown, best, view.metric)
    return Section(key, title, SELECTION, notes, (figure,))


def curves_section(view: SearchView) -> Section:
    """Learning curves, and where ASHA stopped them."""
    key, title = "curves", "Learning curves"
    if view.reports.empty:
        return Section(key, title, SELECTION, missing=_NO_VALUES)
    reported = view.trials[view.trials["trial"].isin(view.reports["trial"])]
    drawn = _sample(reported, _MAX_CURVES)
    columns = ["trial", "number", "state", "label"]
    curves = view.reports.merge(drawn[columns], on="trial")
    notes = []
    if len(drawn) < len(reported):
        notes.append(f"Drawn: {len(drawn)} of {len(reported):,} trials, a random sample.")
    rungs = rung_steps(view.budget) if view.budget else []
    figure = trial_figures.learning_curves(curves, rungs, view.metric)
    return Section(key, title, SELECTION, notes, (figure,))


def rungs_section(view: SearchView) -> Section:
    """ASHA's rungs as a table."""
    key, title = "rungs", "ASHA's rungs"
    found = rung_table(view.trials, view.reports, view.budget) if view.budget else []
    if not found or view.budget is None:
        missing = "ASHA compared no trials: none reached a rung, or this run was no search."
        return Section(key, title, SELECTION, missing=missing)
    rows = [
        (
            f"{rung.step:,}",
            f"{rung.reached:,}",
            f"{rung.stopped:,}",
            f"{rung.median:.3f}",
            f"{rung.best:.3f}",
            "–" if rung.highest_stopped is None else f"{rung.highest_stopped:.3f}",
        )
        for rung in found
    ]
    columns = ("step", "trials judged", "stopped", "median", "best", "best of the stopped")
    notes = (
        f"At a rung a trial goes on if it is among the best 1 in {view.budget.reduction_factor} "
        "of those that have come so far; the paper's setting is never stopped.",
    )
    return Section(key, title, SELECTION, notes, table=Table(columns, rows))


def trials_section(view: SearchView, limit: int) -> Section:
    """The trials as a table that the page can filter."""
    key, title = "trials", "Trials"
    if view.trials.empty:
        return Section(key, title, SELECTION, missing="No trial has started yet.")
    order = view.trials.assign(full=view.trials["state"] == "complete").sort_values(
        ["full", "value", "number"], ascending=[False, False, True]
    )
    names = [axis.name for axis in view.axes]
    rows = [
        (
            str(row["number"]),
            str(row["trial"]),
            str(row["role"]),
            str(row["state"]),
            _number(row["value"]),
            _number(row["auroc_logical"]),
            _number(row["auroc_structural"]),
            f"{row['step']:,}",
            _number(row["seconds"], 0),
            *(shown_value(row[name]) for name in names),
        )
        for row in order.head(limit).to_dict("records")
    ]
    columns = (
        "#", "trial", "role", "state", f"AUROC, {view.metric}", "logical", "structural",
        "step", "seconds", *names,
    )  # fmt: skip
    notes = (
        [f"The first {limit:,} of {len(order):,} trials, full budget and best first."]
        if len(order) > limit
        else []
    )
    notes.append(
        "AUROCs at each trial's last report: differences within their intervals "
        f"({_typical_interval(view)}) are noise."
    )
    return Section(key, title, SELECTION, notes, table=Table(columns, rows))


def _labels(trials: pd.DataFrame) -> pd.Series:
    """Which trials stand out: the best, and the references at their full budget."""
    labels = pd.Series([None] * len(trials), index=trials.index, dtype=object)
    for role in REFERENCES:
        labels[(trials["role"] == role) & (trials["state"] == "complete")] = role
    labels[trials["trial"].isin(best_trials(trials)["trial"])] = "best"
    return labels


def _sample(trials: pd.DataFrame, limit: int) -> pd.DataFrame:
    """All trials, or a random sample of so many that keeps the labelled ones; in their order."""
    if len(trials) <= limit:
        return trials
    plain = trials[trials["label"].isna()]
    kept = plain.sample(limit - (len(trials) - len(plain)), random_state=0)
    return pd.concat([trials[trials["label"].notna()], kept]).sort_values("number")


def _hover(row: Mapping[Any, Any], searched: Sequence[str]) -> str:
    settings = "<br>".join(f"{name} {html.escape(shown_value(row[name]))}" for name in searched)
    return f"trial {row['number']}, {html.escape(str(row['role']))}<br>{settings}"


def _with_intervals(rows: pd.DataFrame, num_images: Mapping[str, int], metric: str) -> pd.DataFrame:
    """The rows with the 95 % interval of `value` as `low` and `high`."""
    found = [
        selection_interval({str(name): value for name, value in row.items()}, num_images, metric)
        for row in rows.to_dict("records")
    ]
    return rows.assign(low=[x.low for x in found], high=[x.high for x in found])


def _means(view: SearchView, name: str) -> pd.DataFrame:
    """The mean of the trials at the full budget for each value of a setting, with intervals.

    Trials share their images, so a mean of several is as uncertain about these as one is.
    """
    numbers = ["value", "auroc_logical", "auroc_structural"]
    groups = view.complete.groupby(name, sort=True)
    means = groups[numbers].mean().assign(num_trials=groups.size()).reset_index()
    return _with_intervals(means, view.num_images, view.metric)


def _margin_table(view: SearchView) -> Table | None:
    """The mean AUROC of each margin beside the paper's, where there are few; else None."""
    if not 0 < view.complete["margin"].nunique() <= _MAX_MARGINS:
        return None
    means = _means(view, "margin")
    published = published_margins(view.category) if view.real_loco else {}
    rows = [
        (
            shown_value(row["margin"]),
            str(row["num_trials"]),
            with_interval(row["value"], Interval(row["low"], row["high"])),
            _number(published.get(row["margin"])),
        )
        for row in means.to_dict("records")
    ]
    columns = ["margin", "trials in full", f"AUROC, {view.metric} (95 % interval)", "published"]
    return Table(columns, rows) if published else Table(columns[:3], [row[:3] for row in rows])


def _parameter_notes(view: SearchView, axes: Sequence[Axis]) -> list[str]:
    notes = [
        "Points: trials; diamonds with 95 % intervals: the best, the paper's setting, margin 0. "
        "The other settings vary too, and the search tries more where it hopes for more.",
        *view.sample_note,
    ]
    if any(axis.scale != "categorical" for axis in axes):
        if len(view.complete) >= MIN_CURVE_TRIALS:
            notes.append(
                "The curve is a smoothed mean of the trials at the full budget; its band is what "
                "other trials could have made of it. The noise of the images, which moves all "
                "trials together, is not in it: see the diamonds' intervals."
            )
        else:
            notes.append(
                f"No curve: that takes {MIN_CURVE_TRIALS} trials at the full budget, and there are "
                f"{len(view.complete)}."
            )
    return notes


def _typical_interval(view: SearchView) -> str:
    if view.marked.empty:
        return "none known yet"
    row = view.marked.iloc[0]
    return f"such as {row['value']:.3f}, {row['low']:.3f} to {row['high']:.3f}"


def _number(value: Any, digits: int = 3) -> str:
    return "–" if value is None or pd.isna(value) else f"{value:,.{digits}f}"
