"""Sections about trials, with numbers of the selection part, which the search saw."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import pandas as pd

from dfsc_tune.evaluation.tables import with_interval
from dfsc_tune.metrics import Interval
from dfsc_tune.pages import figures
from dfsc_tune.pages.importance import MAX_TRIALS, MIN_TRIALS, importances
from dfsc_tune.pages.searched import Setting
from dfsc_tune.pages.section import Section, Table, shown_number
from dfsc_tune.pages.trials import CategoryTrials, sampled, with_intervals
from dfsc_tune.results import complete_trials, shown_value
from dfsc_tune.spaces.asha import judged_steps

SELECTION = "selection"
_MAX_CURVES = 120
# With more different margins than this, a table has no use.
_MAX_MARGINS = 8
_NO_VALUES = "No trial has reported a value yet."


def setting_sections(found: CategoryTrials) -> list[Section]:
    """Shows AUROC against each searched setting: the margin, then the others."""
    margin = [setting for setting in found.settings if setting.name == "margin"]
    others = [setting for setting in found.settings if setting.name != "margin"]
    return [
        _setting_section(
            found,
            Section("margin", "AUROC against the margin (the paper's Table 3)", SELECTION),
            margin,
            "This run varied no margin.",
        ),
        _setting_section(
            found,
            Section("settings", "AUROC against the other settings", SELECTION),
            others,
            "No other setting varied.",
        ),
    ]


def importance_section(found: CategoryTrials) -> Section:
    """Shows Optuna's importances."""
    section = Section("importance", "Which settings mattered", SELECTION)
    rows = importances(found.trials, found.settings) if found.settings else []
    num_complete = len(found.complete)
    if not rows:
        return section.without(
            f"This needs at least {MIN_TRIALS} trials at the full budget, with different values, "
            f"and two settings that vary; there are {num_complete} trials and "
            f"{len(found.settings)} settings."
        )
    sample = f" (a random {MAX_TRIALS} of them)" if num_complete > MAX_TRIALS else ""
    note = (
        "The importance is how far the settings of the better half of the "
        f"{num_complete:,} trials at the full budget{sample} differ from those of all, by Optuna's "
        "PED-ANOVA. The whiskers show the smallest and largest importance when the trials are "
        "resampled: where they overlap, the order means nothing."
    )
    return section.having([figures.importance_bars(rows)], [note])


def parallel_section(found: CategoryTrials) -> Section:
    """Shows parallel coordinates of the trials at the full budget."""
    section = Section("parallel", "All settings at once", SELECTION)
    complete = complete_trials(found.shown).dropna(subset="value")
    if len(complete) < 2 or not found.settings:
        return section.without(
            "This needs two trials at the full budget and a setting that varies."
        )
    notes = [
        "Each line is a trial at the full budget, orange if its AUROC is high. Drag along an axis "
        "to keep only the lines that cross it there; click the axis to undo this.",
        *found.sample_note,
    ]
    return section.having([figures.parallel(complete, found.settings, found.metric)], notes)


def history_section(found: CategoryTrials) -> Section:
    """Shows the trials' values in order of start."""
    section = Section("history", "How the search went", SELECTION)
    if not found.trials["value"].notna().any():
        return section.without(_NO_VALUES)
    best = found.complete.set_index("number")["value"].cummax()
    best = best[best.diff() != 0]
    # The line extends to the last trial.
    best = best.reindex([*best.index, len(found.trials)], method="ffill")
    notes = [
        "Only trials at the full budget can be the best; grey points are the last reports of "
        "trials stopped early. The first trials are the paper's setting and margin 0.",
        *found.sample_note,
    ]
    return section.having([figures.history(found.shown, best, found.metric)], notes)


def curves_section(found: CategoryTrials) -> Section:
    """Shows learning curves, and the steps at which ASHA stopped them."""
    section = Section("curves", "Learning curves", SELECTION)
    if found.reports.empty:
        return section.without(_NO_VALUES)
    reported = found.trials[found.trials["trial"].isin(found.reports["trial"])]
    drawn = sampled(reported, _MAX_CURVES)
    rungs = judged_steps(found.budget)[:-1] if found.budget else []
    reports = found.reports.merge(drawn[["trial", "number", "state", "label"]], on="trial")
    notes = []
    if len(drawn) < len(reported):
        notes.append(f"Drawn: {len(drawn)} of {len(reported):,} trials, a random sample.")
    return section.having([figures.learning_curves(reports, rungs, found.metric)], notes)


def stops_section(found: CategoryTrials) -> Section:
    """Lists the steps at which ASHA stopped trials, and the values of these trials."""
    section = Section("stops", "Where ASHA stopped trials", SELECTION)
    stopped = found.trials[(found.trials["state"] == "pruned") & found.trials["value"].notna()]
    if stopped.empty or found.budget is None:
        return section.without("ASHA stopped no trial, or this run is not a search.")
    rows = []
    for step, here in stopped.groupby("step"):
        values = found.reports.loc[found.reports["step"] == step, "value"]
        rows.append(
            (
                f"{step:,}",
                f"{len(values):,}",
                f"{len(here):,}",
                shown_number(values.median()),
                shown_number(values.max()),
                shown_number(here["value"].max()),
            )
        )
    columns = ("step", "trials there", "stopped", "median", "best", "best of the stopped")
    note = (
        f"A trial continues if it is among the best 1 in {found.budget.reduction_factor} of those "
        "that reached the same step; the paper's setting and margin 0 are never stopped."
    )
    return section.having([], [note], Table(columns, rows))


def trials_section(found: CategoryTrials, limit: int) -> Section:
    """Lists the trials in a table that the page can filter."""
    section = Section("trials", "Trials", SELECTION)
    if found.trials.empty:
        return section.without("No trial has started yet.")
    order = found.trials.assign(full=found.trials["state"] == "complete").sort_values(
        ["full", "value", "number"], ascending=[False, False, True]
    )
    names = [setting.name for setting in found.settings]
    rows = [
        (
            str(row["number"]),
            str(row["trial"]),
            str(row["role"]),
            str(row["state"]),
            shown_number(row["value"]),
            shown_number(row["auroc_logical"]),
            shown_number(row["auroc_structural"]),
            f"{row['step']:,}",
            shown_number(row["seconds"], 0),
            *(shown_value(row[name]) for name in names),
        )
        for row in order.head(limit).to_dict("records")
    ]
    columns = (
        "#", "trial", "role", "state", f"AUROC, {found.metric}", "logical", "structural",
        "step", "seconds", *names,
    )  # fmt: skip
    notes = []
    if len(order) > limit:
        notes.append(f"The first {limit:,} of {len(order):,} trials, full budget and best first.")
    notes.append(
        "AUROCs at each trial's last report: differences within their intervals "
        f"({_typical_interval(found.marked)}) are noise."
    )
    return section.having([], notes, Table(columns, rows))


def _setting_section(
    found: CategoryTrials, section: Section, settings: Sequence[Setting], none_varied: str
) -> Section:
    if not settings:
        return section.without(none_varied)
    if not found.shown["value"].notna().any():
        return section.without(_NO_VALUES)
    drawn = [
        figures.against_setting(
            setting,
            found.shown,
            found.marked,
            found.metric,
            found.published if setting.name == "margin" else {},
        )
        for setting in settings
    ]
    notes = [
        "Points: trials; diamonds with 95 % intervals: the best, the paper's setting, margin 0. "
        "The other settings vary, too, and the search samples promising values more densely.",
        *found.sample_note,
    ]
    return section.having(drawn, notes, _margin_table(found) if section.key == "margin" else None)


def _margin_table(found: CategoryTrials) -> Table | None:
    """Lists the mean AUROC of each margin beside the paper's; None with too many margins.

    All trials share their images, so a mean over trials has the same interval as one trial.
    """
    if not 0 < found.complete["margin"].nunique() <= _MAX_MARGINS:
        return None
    groups = found.complete.groupby("margin", sort=True)
    means = groups[["value", "auroc_logical", "auroc_structural"]].mean().reset_index()
    means = with_intervals(means, found.num_images, found.metric)
    rows = [
        (
            shown_value(row["margin"]),
            str(count),
            with_interval(row["value"], Interval(row["low"], row["high"])),
            shown_number(found.published.get(row["margin"])),
        )
        for row, count in zip(means.to_dict("records"), groups.size(), strict=True)
    ]
    columns = ("margin", "trials in full", f"AUROC, {found.metric} (95 % interval)", "published")
    kept = 4 if found.published else 3
    return Table(columns[:kept], [row[:kept] for row in rows])


def _typical_interval(marked: pd.DataFrame) -> str:
    if marked.empty:
        return "none known yet"
    row: dict[Any, Any] = marked.iloc[0].to_dict()
    return f"such as {row['value']:.3f}, {row['low']:.3f} to {row['high']:.3f}"
