"""Comparison of runs by category, paired by image where they judged the same images."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import pandas as pd
import plotly.graph_objects as go

from dfsc_tune.errors import UserError
from dfsc_tune.evaluation.tables import NO_VALUE, with_interval
from dfsc_tune.metrics import KINDS, Interval, image_auroc_difference
from dfsc_tune.metrics.image import can_be_judged
from dfsc_tune.pages.figures import values_of_runs, with_intervals
from dfsc_tune.pages.section import Table
from dfsc_tune.results import Run, Summary, complete_trials, shown_value, summary_of

_MAX_POINTS_OF_RUN = 1000


@dataclass(frozen=True)
class Gap:
    """The mean AUROC of a run's best trial minus that of the first run's."""

    value: float
    interval: Interval
    p_value: float | None
    """That of the permutation test on the common images; None if the runs are not paired."""
    num_images: int
    """Number of images that neither search saw; 0 if the runs are not paired."""


@dataclass(frozen=True)
class Entry:
    """One run in the comparison of a category."""

    run: str
    summary: Summary | None
    """None if the run has no scores for the category yet."""
    gap: Gap | None
    """None for the first run, and if there is nothing to compare."""
    num_trials: int


@dataclass(frozen=True)
class CategoryComparison:
    """One category in all runs that searched it."""

    category: str
    entries: Sequence[Entry]
    notes: Sequence[str]


def compare_runs(runs: Sequence[Run]) -> list[CategoryComparison]:
    """Compares runs in each category that at least two of them share.

    Raises:
        UserError: fewer than two runs, a run twice, or no category in common.
    """
    if len(runs) < 2:
        raise UserError("a comparison needs at least two runs; name a second one")
    if len({run.folder.resolve() for run in runs}) < len(runs):
        raise UserError("a run is named twice; name each run once")
    categories = dict.fromkeys(name for run in runs for name in run.settings.categories)
    shared = {name: [run for run in runs if name in run.settings.categories] for name in categories}
    found = [_compare(name, holders) for name, holders in shared.items() if len(holders) > 1]
    if not found:
        parts = "; ".join(
            f"{run.folder.name}: {', '.join(run.settings.categories)}" for run in runs
        )
        raise UserError(f"these runs share no category ({parts}); compare runs that do")
    return found


def comparison_table(comparison: CategoryComparison) -> Table:
    """Makes a table of text for one category, with one row for each run."""
    settings = [entry.summary.settings for entry in comparison.entries if entry.summary]
    names = list(dict.fromkeys(name for group in settings for name in group))
    rows = [_row(entry, names) for entry in comparison.entries]
    kinds = (f"AUROC, {kind}" for kind in ("mean", *KINDS))
    gap = ("above the first", "on the same images")
    columns = ("run", *kinds, *gap, "trials", *(f"best {name}" for name in names))
    return Table(columns, rows)


def comparison_figures(comparison: CategoryComparison, runs: Sequence[Run]) -> list[go.Figure]:
    """Draws the runs' AUROCs with intervals, and their trials against the margin."""
    estimates = [
        (entry.run, kind, summary.aurocs[f"auroc_{kind}"], summary.intervals.get(kind))
        for kind in ("mean", *KINDS)
        for entry in comparison.entries
        if (summary := entry.summary) is not None
    ]
    aurocs = with_intervals(estimates, "image AUROC, report part")
    tables = [
        complete_trials(run.trials[run.trials["category"] == comparison.category]).assign(run=name)
        for run, name in zip(runs, _names(runs), strict=True)
    ]
    found = [] if aurocs is None else [aurocs]
    if any(trials["margin"].nunique() > 1 for trials in tables):
        sampled = (x.sample(min(len(x), _MAX_POINTS_OF_RUN), random_state=0) for x in tables)
        found.append(values_of_runs(pd.concat(sampled)))
    return found


def _compare(category: str, runs: Sequence[Run]) -> CategoryComparison:
    summaries = [summary_of(run, category) for run in runs]
    first, first_summary = runs[0], summaries[0]
    entries = []
    for index, (run, name, summary) in enumerate(zip(runs, _names(runs), summaries, strict=True)):
        gap = None
        judged = summary and summary.intervals and first_summary and first_summary.intervals
        if index and summary and first_summary and judged:
            gap = _gap(category, run, summary, first, first_summary)
        num_trials = int((run.trials["category"] == category).sum())
        entries.append(Entry(name, summary, gap, num_trials))
    return CategoryComparison(category, entries, _notes(category, runs, entries))


def _names(runs: Sequence[Run]) -> list[str]:
    """The runs' names, or their folders where two share a name."""
    names = [run.folder.name for run in runs]
    return names if len(set(names)) == len(names) else [str(run.folder) for run in runs]


def _gap(category: str, run: Run, summary: Summary, first: Run, of_first: Summary) -> Gap:
    ours, theirs = _best_scores(run, category), _best_scores(first, category)
    common = ours.merge(theirs, on="image", suffixes=("_ours", "_theirs"))
    kinds = common["kind_ours"].tolist()
    if _same_images([run, first], category) and can_be_judged(kinds):
        found = image_auroc_difference(common["score_ours"], common["score_theirs"], kinds)
        return Gap(found.value, found.interval, found.p_value, len(common))
    ours_mean, theirs_mean = _mean(summary), _mean(of_first)
    low, high = summary.intervals["mean"], of_first.intervals["mean"]
    value = ours_mean - theirs_mean
    # The images are independent, so half-widths combine like the sides of a right triangle.
    below = math.hypot(ours_mean - low.low, high.high - theirs_mean)
    above = math.hypot(low.high - ours_mean, theirs_mean - high.low)
    return Gap(value, Interval(value - below, value + above), None, 0)


def _best_scores(run: Run, category: str) -> pd.DataFrame:
    rows = run.scores[(run.scores["category"] == category) & (run.scores["role"] == "best")]
    return rows[["image", "kind", "score"]]


def _mean(summary: Summary) -> float:
    value = summary.aurocs["auroc_mean"]
    assert value is not None, "scores hold good and anomalous images"
    return value


def _same_images(runs: Sequence[Run], category: str) -> bool:
    return len({run.settings.datasets[category].fingerprint for run in runs}) == 1


def _notes(category: str, runs: Sequence[Run], entries: Sequence[Entry]) -> list[str]:
    """The reasons why numbers of these runs are hard to compare."""
    notes = []
    if not _same_images(runs, category):
        notes.append(
            "the runs had different images, so those are not paired: their difference holds the "
            "images' luck too"
        )
    for entry in entries:
        if entry.summary is None:
            notes.append(f"{entry.run} has no scores for this category yet")
        elif entry.summary.optimistic:
            notes.append(
                f"{entry.run} reports on the images it selected on ({entry.summary.objective}): "
                "optimistic"
            )
    if len({run.settings.datasets[category].teacher_sha256 for run in runs}) > 1:
        notes.append("the runs had different teachers")
    return notes


def _row(entry: Entry, names: Sequence[str]) -> list[str]:
    summary = entry.summary
    if summary is None:
        return [
            entry.run,
            *(NO_VALUE for _ in range(5)),
            str(entry.num_trials),
            *(NO_VALUE for _ in names),
        ]
    aurocs = [
        with_interval(summary.aurocs[f"auroc_{kind}"], summary.intervals.get(kind))
        for kind in ("mean", *KINDS)
    ]
    settings = [
        shown_value(summary.settings[name]) if name in summary.settings else NO_VALUE
        for name in names
    ]
    return [entry.run, *aurocs, *_gap_texts(entry.gap), str(entry.num_trials), *settings]


def _gap_texts(gap: Gap | None) -> tuple[str, str]:
    if gap is None:
        return NO_VALUE, NO_VALUE
    text = f"{gap.value:+.3f} ({gap.interval.low:+.3f} to {gap.interval.high:+.3f})"
    if gap.p_value is None:
        return text, "not paired"
    return text, f"{gap.num_images}, p = {gap.p_value:.2g}"
