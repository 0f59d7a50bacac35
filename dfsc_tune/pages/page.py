"""Pages: one for a run, one for a comparison; each is one HTML file that needs no network."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import pandas as pd
import plotly.graph_objects as go

from dfsc_tune.errors import UserError
from dfsc_tune.evaluation.measure import PixelMetrics
from dfsc_tune.metrics import image_auroc, image_auroc_interval
from dfsc_tune.pages.comparison import CategoryComparison, comparison_figures, comparison_table
from dfsc_tune.pages.figures import ROLE_COLORS, ROLE_NAMES, with_intervals
from dfsc_tune.pages.head import Card, card_of, facts_of, optimistic_objectives, warnings_of
from dfsc_tune.pages.html import render_template
from dfsc_tune.pages.score_sections import (
    defect_types_section,
    gallery_section,
    is_real_loco,
    judged_scores,
    metrics_section,
    thresholds_section,
    why_unscored,
)
from dfsc_tune.pages.section import Section, Table
from dfsc_tune.pages.trial_sections import (
    curves_section,
    history_section,
    importance_section,
    parallel_section,
    setting_sections,
    stops_section,
    trials_section,
)
from dfsc_tune.pages.trials import category_trials
from dfsc_tune.reference import published_results
from dfsc_tune.results import MODELS, Run, Summary, summary_of
from dfsc_tune.storage.atomic import write_text

PAGE = "report.html"
# Limits that all categories of a page share, so that it stays small and opens quickly.
_MAX_POINTS, _MAX_POINTS_OF_ONE, _MIN_POINTS_OF_ONE = 5000, 2000, 300
_MAX_PICTURES, _MAX_PICTURES_OF_ONE, _MIN_PICTURES_OF_ONE = 60, 8, 2
_MAX_ROWS = 200


@dataclass(frozen=True)
class CategoryPage:
    """Everything about one category."""

    name: str
    card: Card
    sections: Sequence[Section]


def write_page(
    run: Run,
    data: Path | None,
    target: Path,
    *,
    pictures: bool = True,
    pixel: bool = False,
) -> None:
    """Writes a run as one HTML page.

    Args:
        run: the run, finished or not.
        data: the folder that holds the categories; None leaves out all that needs it.
        target: the HTML file.
        pictures: whether to show the worst misses and false alarms.
        pixel: whether to measure pixel metrics, too, which scores all images of the report part.

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
        optimistic=", ".join(optimistic_objectives(run)),
        facts=facts_of(run),
        warnings=warnings_of(run),
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
    maps, pixel_notes = _pixel_metrics(model, data if pixel else None, category, summary)
    num_points = _share(_MAX_POINTS, num_categories, _MIN_POINTS_OF_ONE, _MAX_POINTS_OF_ONE)
    num_pictures = _share(
        _MAX_PICTURES, 2 * num_categories, _MIN_PICTURES_OF_ONE, _MAX_PICTURES_OF_ONE
    )
    real_loco = is_real_loco(data, category)
    published = published_results(category) if real_loco else ()
    unscored = why_unscored(summary)
    found = category_trials(run, category, num_points, real_loco)
    sections = [
        thresholds_section(best, unscored),
        defect_types_section(scores, unscored),
        gallery_section(model, best, unscored, data if pictures else None, num_pictures),
        metrics_section(summary, published, maps, pixel_notes),
        *setting_sections(found),
        importance_section(found),
        parallel_section(found),
        history_section(found),
        curves_section(found),
        stops_section(found),
        trials_section(found, _share(5 * _MAX_ROWS, num_categories, 50, _MAX_ROWS)),
    ]
    return CategoryPage(category, card_of(run, category, summary), sections)


def _pixel_metrics(
    model: Path, data: Path | None, category: str, summary: Summary | None
) -> tuple[PixelMetrics | None, Sequence[str]]:
    """Measures pixel metrics of the best model, with notes; None and the reasons if it cannot."""
    if data is None:
        return None, ["not requested (dfsc-tune report RUN --pixel measures them)"]
    # Only pixel metrics need PyTorch.
    from dfsc_tune.evaluation.evaluate import evaluate_model
    from dfsc_tune.models.detector import load_detector

    try:
        found = evaluate_model(
            load_detector(model),
            data,
            category,
            include_selection=summary is not None and summary.optimistic,
        )
    except UserError as error:
        return None, [str(error)]
    return found.pixel, found.notes


def _overview(run: Run, categories: Sequence[str]) -> go.Figure | None:
    """Draws the best trial, the paper's setting and margin 0 of each category."""
    estimates = []
    for role, name in ROLE_NAMES.items():
        for category in categories:
            rows = judged_scores(run.scores[run.scores["category"] == category])
            rows = rows[rows["role"] == role]
            kinds = rows["kind"].tolist()
            if kinds:
                value = image_auroc(rows["score"], kinds).mean
                interval = image_auroc_interval(rows["score"], kinds)["mean"]
                estimates.append((category, name, value, interval))
    return with_intervals(estimates, "mean image AUROC", ROLE_COLORS)


def _failures(trials: pd.DataFrame) -> Table | None:
    """Makes a table of failed trials by reason, the commonest first."""
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


def _share(total: int, parts: int, least: int, most: int) -> int:
    return min(max(total // parts, least), most)
