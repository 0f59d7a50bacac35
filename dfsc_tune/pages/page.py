"""The report: one self-contained HTML page of a run, that opens without a network."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pandas as pd

from dfsc_tune.errors import UserError
from dfsc_tune.evaluation.evaluate import evaluate_model
from dfsc_tune.evaluation.measure import Evaluation
from dfsc_tune.metrics import Interval, image_auroc, image_auroc_interval
from dfsc_tune.models.detector import load_detector
from dfsc_tune.pages.comparison import CategoryComparison, comparison_figures, comparison_table
from dfsc_tune.pages.drawing import ROLE_COLORS, ROLE_NAMES, Figure
from dfsc_tune.pages.html import render_template
from dfsc_tune.pages.score_figures import with_intervals
from dfsc_tune.pages.score_sections import (
    defect_types_section,
    gallery_section,
    is_real_loco,
    judged_scores,
    paper_section,
    pixel_section,
    thresholds_section,
    why_unscored,
)
from dfsc_tune.pages.section import Section, Table, with_interval
from dfsc_tune.pages.trial_sections import (
    curves_section,
    history_section,
    importance_section,
    parallel_section,
    parameter_sections,
    rungs_section,
    search_view,
    trials_section,
)
from dfsc_tune.results import (
    MODELS,
    Run,
    Summary,
    best_trials,
    describe,
    shown_duration,
    shown_value,
    summary_of,
)
from dfsc_tune.storage.atomic import write_text

PAGE = "report.html"
# What all categories of a page share, so that it stays small and quick to open.
_MAX_POINTS, _MAX_POINTS_OF_ONE, _MIN_POINTS_OF_ONE = 5000, 2000, 300
_MAX_PICTURES, _MAX_PICTURES_OF_ONE, _MIN_PICTURES_OF_ONE = 60, 8, 2
_MAX_ROWS = 200


@dataclass(frozen=True)
class Card:
    """A category's result at a glance."""

    category: str
    value: str
    """The honest number, or what there is instead."""
    interval: str
    details: Sequence[tuple[str, str]]
    sentences: Sequence[str]
    optimistic: bool


@dataclass(frozen=True)
class CategoryPage:
    """Everything about one category."""

    name: str
    card: Card
    sections: Sequence[Section]


def write_report(
    run: Run,
    data: Path | None,
    target: Path,
    *,
    pictures: bool = True,
    pixel: bool = False,
) -> None:
    """Writes the page.

    Args:
        run: the run, finished or not.
        data: the folder that holds the categories; None leaves out what needs it.
        target: the HTML file.
        pictures: whether to show the worst misses and false alarms.
        pixel: whether to measure pixel metrics too, which scores all images of the report part.

    Raises:
        UserError: the target cannot be written.
    """
    categories = run.settings.categories
    pages = [
        _category_page(run, name, data, pictures, pixel, len(categories)) for name in categories
    ]
    page = render_template(
        "page.html",
        title=run.folder.name,
        settings=run.settings,
        facts=_facts(run),
        warnings=_warnings(run),
        overview=_overview(run, categories),
        pages=pages,
        failures=_failures(run.trials),
        settings_text=run.settings.to_yaml(),
    )
    write_text(target, page)


def write_comparison(
    comparisons: Sequence[CategoryComparison], runs: Sequence[Run], target: Path
) -> None:
    """Writes runs side by side as one HTML page.

    Args:
        comparisons: from `compare_runs`.
        runs: the same runs.
        target: the HTML file.
    """
    shown = [
        {
            "category": comparison.category,
            "notes": comparison.notes,
            "table": comparison_table(comparison),
            "figures": comparison_figures(comparison, runs),
        }
        for comparison in comparisons
    ]
    facts = [(run.folder.name, f"started {run.settings.created}") for run in runs]
    page = render_template(
        "compare.html", title=f"{len(runs)} runs compared", facts=facts, comparisons=shown
    )
    write_text(target, page)


def _category_page(
    run: Run, category: str, data: Path | None, pictures: bool, pixel: bool, num_categories: int
) -> CategoryPage:
    summary = summary_of(run, category)
    scores = judged_scores(run.scores[run.scores["category"] == category])
    best = scores[scores["role"] == "best"]
    model = run.folder / MODELS / category
    evaluation, unmeasured = _evaluate(model, data if pixel else None, category, summary)
    num_points = _share(_MAX_POINTS, num_categories, _MIN_POINTS_OF_ONE, _MAX_POINTS_OF_ONE)
    num_pictures = _share(
        _MAX_PICTURES, 2 * num_categories, _MIN_PICTURES_OF_ONE, _MAX_PICTURES_OF_ONE
    )
    real_loco = is_real_loco(data, category)
    unscored = why_unscored(summary)
    view = search_view(run, category, num_points, real_loco)
    margin, others = parameter_sections(view)
    sections = [
        thresholds_section(best, unscored),
        defect_types_section(scores, unscored),
        gallery_section(model, best, unscored, data if pictures else None, num_pictures),
        pixel_section(evaluation, unmeasured),
        paper_section(category, summary, real_loco, evaluation),
        margin,
        others,
        importance_section(view),
        parallel_section(view),
        history_section(view),
        curves_section(view),
        rungs_section(view),
        trials_section(view, _share(5 * _MAX_ROWS, num_categories, 50, _MAX_ROWS)),
    ]
    return CategoryPage(category, _card(run, category, summary), sections)


def _evaluate(
    model: Path, data: Path | None, category: str, summary: Summary | None
) -> tuple[Evaluation | None, str]:
    """Pixel metrics of the best model on the report part, or None and why there are none."""
    if data is None:
        return None, "they were not asked for (dfsc-tune report RUN --pixel measures them)"
    try:
        found = evaluate_model(
            load_detector(model),
            data,
            category,
            include_selection=summary is not None and summary.optimistic,
        )
    except UserError as error:
        return None, str(error)
    return found, "; ".join(found.notes) if found.pixel is None else ""


def _card(run: Run, category: str, summary: Summary | None) -> Card:
    trials = run.trials[run.trials["category"] == category]
    effort = [("trials", _count_states(trials)), ("time of all trials", _hours(run, trials))]
    if summary is None:
        best = best_trials(trials).to_dict("records")
        sentence = "no trial has reached the full budget yet"
        if best:
            sentence = (
                f"best so far: trial {best[0]['trial']}, of which the search saw "
                f"{best[0]['value']:.3f}; numbers on unseen images come when the run ends"
            )
        return Card(category, "no result yet", "", effort, [sentence], optimistic=False)
    metric = run.settings.objective.metric
    kinds = [kind for kind in ("logical", "structural", "mean") if kind != metric]
    value = summary.aurocs[f"auroc_{metric}"]
    interval = summary.intervals[metric] if value is not None else None
    judged_on, *sentences = describe(summary)
    details = [
        *(
            (
                f"image AUROC, {kind}",
                with_interval(summary.aurocs[f"auroc_{kind}"], summary.intervals.get(kind)),
            )
            for kind in kinds
        ),
        ("best settings", _settings_text(summary.settings)),
        ("trial", f"{summary.trial} ({summary.role})"),
        *effort,
    ]
    return Card(
        category=category,
        value="unknown" if value is None else f"{value:.3f}",
        interval=f"{interval.low:.3f} to {interval.high:.3f}" if interval else "",
        details=details,
        # The AUROCs themselves stand apart.
        sentences=[
            f"{metric} {judged_on.rstrip(':')}" if value is not None else judged_on,
            *(x for x in sentences if not x.startswith("  ")),
            *_unlike_parts(value, summary),
        ],
        optimistic=summary.optimistic,
    )


def _unlike_parts(value: float | None, summary: Summary) -> list[str]:
    """What a reader must know where unseen images scored outside the search's own interval."""
    seen = summary.selection_interval
    if value is None or seen.low <= value <= seen.high:
        return []
    word = "easier" if value > seen.high else "harder"
    return [
        f"the unseen images turned out {word} than those that the search saw: compare settings "
        "only on the same images"
    ]


def _overview(run: Run, categories: Sequence[str]) -> Figure | None:
    """The best, the paper's setting and margin 0 of each category on the report part."""
    series = []
    for role in ROLE_NAMES:
        values: list[float | None] = []
        intervals: list[Interval | None] = []
        for category in categories:
            rows = judged_scores(run.scores[run.scores["category"] == category])
            rows = rows[rows["role"] == role]
            kinds = rows["kind"].tolist()
            values.append(image_auroc(rows["score"], kinds).mean if kinds else None)
            intervals.append(image_auroc_interval(rows["score"], kinds)["mean"] if kinds else None)
        if any(value is not None for value in values):
            series.append((ROLE_NAMES[role], ROLE_COLORS[role], values, intervals))
    title = "mean image AUROC"
    return with_intervals(list(categories), series, title) if series else None


def _facts(run: Run) -> list[tuple[str, str]]:
    """The run at a glance."""
    settings, space = run.settings, run.settings.space
    facts = [
        ("started", settings.created),
        ("trials", _count_states(run.trials)),
        ("time of all trials", _hours(run, run.trials)),
        ("objective", f"{run.objective}, {settings.objective.metric} AUROC"),
        ("sampler", space.sampler if space else None),
        ("steps of a trial", f"{space.budget.num_steps:,}" if space else None),
        ("data", settings.data or "the built-in data"),
        ("machine", settings.hardware.processor),
        ("GPUs", ", ".join(settings.hardware.gpus) or "none"),
    ]
    return [(name, str(value)) for name, value in facts if value]


def _warnings(run: Run) -> list[str]:
    """What a reader must know before the numbers."""
    states = run.trials["state"].value_counts()
    found = []
    if run.settings.objective.name == "oracle":
        found.append(
            "OPTIMISTIC: the objective 'oracle' selected and reported on the same test images. "
            "Every number of this page is better than what new images will show."
        )
    if states.get("running", 0):
        found.append(
            f"{states['running']} trials were running when this page was made: the run goes on, or "
            "was killed. Make the page again when it has ended."
        )
    if states.get("interrupted", 0):
        found.append(f"The run was interrupted: {states['interrupted']} trials did not end.")
    if states.get("failed", 0):
        found.append(f"{states['failed']} trials failed: see the reasons at the end of the page.")
    for category, read in run.settings.datasets.items():
        found += [f"{category}: {note}" for note in read.notes if "oracle" not in note]
    return found


def _failures(trials: pd.DataFrame) -> Table | None:
    """Failed trials by reason, the commonest first."""
    failed = trials[trials["state"] == "failed"]
    if failed.empty:
        return None
    reasons = failed["error"].fillna("unknown")
    groups = failed.groupby(["category", reasons], sort=False)["trial"]
    rows = sorted(
        (
            (str(category), str(len(names)), str(reason), _some(names.tolist()))
            for (category, reason), names in groups
        ),
        key=lambda row: -int(row[1]),
    )
    return Table(("category", "trials", "reason", "which"), rows[:_MAX_ROWS])


def _some(names: Sequence[str], count: int = 5) -> str:
    more = f" and {len(names) - count} more" if len(names) > count else ""
    return ", ".join(names[:count]) + more


def _count_states(trials: pd.DataFrame) -> str:
    words = {"complete": "at full budget", "pruned": "stopped early"}
    counts = trials["state"].value_counts()
    states = ", ".join(f"{count:,} {words.get(str(x), x)}" for x, count in counts.items())
    return f"{len(trials):,}" + (f" ({states})" if states else "")


def _hours(run: Run, trials: pd.DataFrame) -> str:
    """Time spent in trials; also in GPU-hours, by each one's share of a GPU, where on one."""
    on_gpu = trials["device"].fillna("").str.startswith("cuda")
    gpu_hours = float(trials.loc[on_gpu, "seconds"].sum()) / 3600
    share = run.settings.gpus_per_trial or 1.0
    text = shown_duration(float(trials["seconds"].sum()))
    return f"{text}, {gpu_hours * share:.2f} GPU-hours" if on_gpu.any() else f"{text} on CPUs"


def _settings_text(settings: Mapping[str, Any]) -> str:
    return ", ".join(f"{name} {shown_value(value)}" for name, value in settings.items())


def _share(total: int, parts: int, least: int, most: int) -> int:
    return min(max(total // parts, least), most)
