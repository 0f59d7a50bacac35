"""Sections about the trials: all numbers are of the selection part, which the search saw."""

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
from dfsc_tune.results import shown_value
from dfsc_tune.spaces.asha import judged_steps

SELECTION = "selection"
_MAX_CURVES = 120
# More different margins than this are a cloud, not a table.
_MAX_MARGINS = 8
_NO_VALUES = "No trial has reported a value yet."


def setting_sections(found: CategoryTrials) -> list[Section]:
    """AUROC against each searched setting, margin apart and first."""
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
    """Optuna's importances."""
    section = Section("importance", "Which settings mattered", SELECTION)
    rows = importances(found.trials, found.settings) if found.settings else []
    num_complete = len(found.complete)
    if not rows:
        return section.without(
            f"This takes at least {MIN_TRIALS} trials at the full budget, of different values, and "
            f"two settings that vary; there are {num_complete} trials and {len(found.settings)} "
            "settings."
        )
    sample = f" (a random {MAX_TRIALS} of them)" if num_complete > MAX_TRIALS else ""
    note = (
        f"How far the settings of the better half of the {num_complete:,} trials at the full budget"
        f"{sample} differ from those of all, by Optuna's PED-ANOVA. The whiskers end at the least "
        "and the largest importance when the trials are resampled: where they overlap, the order "
        "says nothing."
    )
    return section.having([figures.importance_bars(rows)], [note])


def parallel_section(found: CategoryTrials) -> Section:
    """Parallel coordinates of the trials at the full budget."""
    section = Section("parallel", "All settings at once", SELECTION)
    complete = found.shown[(found.shown["state"] == "complete") & found.shown["value"].notna()]
    if len(complete) < 2 or not found.settings:
        return section.without(
            "This takes two trials at the full budget and a setting that varies."
        )
    notes = [
        "A line is a trial at the full budget, orange where its AUROC is high. Drag along an axis "
        "to keep only the lines that cross there; click the axis to let go.",
        *found.sample_note,
    ]
    return section.having([figures.parallel(complete, found.settings, found.metric)], notes)


def history_section(found: CategoryTrials) -> Section:
    """The trials' values in the order of their start."""
    section = Section("history", "How the search went", SELECTION)
    if not found.trials["value"].notna().any():
        return section.without(_NO_VALUES)
    best = found.complete.set_index("number")["value"].cummax()
    best = best[best.diff() != 0]
    # The line goes on to the last trial.
    best = best.reindex([*best.index, len(found.trials)], method="ffill")
    notes = [
        "Only trials at the full budget can be the best: what an early-stopped one had reached at "
        "its last report is shown in grey. The first trials are the paper's setting and margin 0.",
        *found.sample_note,
    ]
    return section.having([figures.history(found.shown, best, found.metric)], notes)


def curves_section(found: CategoryTrials) -> Section:
    """Learning curves, and where ASHA stopped them."""
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
    """The steps at which ASHA stopped trials, and what the stopped ones had reached."""
    section = Section("stops", "Where ASHA stopped trials", SELECTION)
    stopped = found.trials[(found.trials["state"] == "pruned") & found.trials["value"].notna()]
    if stopped.empty or found.budget is None:
        return section.without("ASHA stopped no trial, or this run was no search.")
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
        f"A trial goes on if it is among the best 1 in {found.budget.reduction_factor} of those "
        "that have come as far; the paper's setting and margin 0 are never stopped."
    )
    return section.having([], [note], Table(columns, rows))


def trials_section(found: CategoryTrials, limit: int) -> Section:
    """The trials as a table that the page can filter."""
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
        "The other settings vary too, and the search tries more where it hopes for more.",
        *found.sample_note,
    ]
    return section.having(drawn, notes, _margin_table(found) if section.key == "margin" else None)


def _margin_table(found: CategoryTrials) -> Table | None:
    """The mean AUROC of each margin beside the paper's, where there are few; else None.

    Trials share their images, so a mean of several is as uncertain about these as one is.
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
