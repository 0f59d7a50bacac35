"""One category's trials, prepared for the sections about them."""

from __future__ import annotations

import html
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import pandas as pd

from dfsc_tune.pages.searched import Setting, searched_settings
from dfsc_tune.reference import published_margins
from dfsc_tune.results import (
    REFERENCES,
    Run,
    best_trials,
    complete_trials,
    selection_interval,
    shown_value,
)
from dfsc_tune.spaces.space import Budget


@dataclass(frozen=True)
class CategoryTrials:
    """One category's trials and reports; all numbers are of the selection part."""

    trials: pd.DataFrame
    """All trials in order of start, with `number`, `label` (best, paper, margin_0 or none) and
    `hover`."""
    shown: pd.DataFrame
    """The trials drawn as points: all, or a sample that keeps the labelled ones."""
    reports: pd.DataFrame
    """The reports with each trial's own EMA momentum, with `value`."""
    marked: pd.DataFrame
    """The labelled trials with a value, with its 95 % interval as `low` and `high`."""
    settings: Sequence[Setting]
    metric: str
    num_images: Mapping[str, int]
    """Number of images of the selection part, by kind."""
    budget: Budget | None
    """None for a single training."""
    published: Mapping[float, float]
    """The paper's mean AUROC by margin; empty if it does not apply."""

    @property
    def complete(self) -> pd.DataFrame:
        """The trials that reached the full budget and a value."""
        return complete_trials(self.trials).dropna(subset="value")

    @property
    def sample_note(self) -> list[str]:
        """A note if only a sample of the trials is drawn."""
        if len(self.shown) == len(self.trials):
            return []
        return [f"Drawn: {len(self.shown):,} of {len(self.trials):,} trials, a random sample."]


def category_trials(run: Run, category: str, max_points: int, real_loco: bool) -> CategoryTrials:
    """Collects the data for the sections about trials.

    Args:
        run: the run.
        category: one of its categories.
        max_points: largest number of trials to draw.
        real_loco: whether the images are MVTec LOCO AD's own.
    """
    metric = run.settings.objective.metric
    trials = run.trials[run.trials["category"] == category].reset_index(drop=True)
    trials["number"] = range(1, len(trials) + 1)
    trials["label"] = _labels(trials)
    trials["hover"] = _hover(trials, run.settings.searched[category])
    reports = run.reports[(run.reports["category"] == category) & run.reports["own_momentum"]]
    reports = reports.assign(value=reports[f"auroc_{metric}"])
    marked = trials[trials["label"].notna() & trials["value"].notna()]
    counts = run.settings.datasets[category].selection
    return CategoryTrials(
        trials=trials,
        shown=sampled(trials, max_points),
        reports=reports.dropna(subset=["value"]),
        marked=with_intervals(marked, counts, metric),
        settings=searched_settings(run, category, trials),
        metric=metric,
        num_images=counts,
        budget=run.settings.space.budget if run.settings.space else None,
        published=published_margins(category) if real_loco else {},
    )


def sampled(trials: pd.DataFrame, limit: int) -> pd.DataFrame:
    """Returns all trials, or a random sample that keeps the labelled ones, in order."""
    if len(trials) <= limit:
        return trials
    plain = trials[trials["label"].isna()]
    kept = plain.sample(limit - (len(trials) - len(plain)), random_state=0)
    return pd.concat([trials[trials["label"].notna()], kept]).sort_values("number")


def with_intervals(rows: pd.DataFrame, num_images: Mapping[str, int], metric: str) -> pd.DataFrame:
    """Adds the 95 % interval of `value` to the rows, as `low` and `high`."""
    found = [
        selection_interval({str(name): value for name, value in row.items()}, num_images, metric)
        for row in rows.to_dict("records")
    ]
    return rows.assign(low=[x.low for x in found], high=[x.high for x in found])


def _labels(trials: pd.DataFrame) -> pd.Series:
    """Labels the best trial, and the references at the full budget."""
    labels = pd.Series([None] * len(trials), index=trials.index, dtype=object)
    for role in REFERENCES:
        labels[(trials["role"] == role) & (trials["state"] == "complete")] = role
    labels[trials["trial"].isin(best_trials(trials)["trial"])] = "best"
    return labels


def _hover(trials: pd.DataFrame, searched: Sequence[str]) -> pd.Series:
    """Formats each trial's searched settings for Plotly's labels, one line for each."""
    lines = [
        "".join(f"<br>{name} {html.escape(shown_value(value))}" for name, value in row.items())
        for row in trials[list(searched)].to_dict("records")
    ]
    return pd.Series(lines, index=trials.index, dtype=object)
