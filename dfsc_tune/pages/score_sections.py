"""Sections about scores of the report part, whose images no trial saw."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import pandas as pd

from dfsc_tune.data.layout import category_folder
from dfsc_tune.data.records import RENDERED_FILE
from dfsc_tune.errors import UserError
from dfsc_tune.evaluation.measure import PixelMetrics
from dfsc_tune.evaluation.tables import metric_rows, with_interval
from dfsc_tune.metrics import Interval, image_auroc, image_auroc_interval
from dfsc_tune.metrics.image import GOOD, can_be_judged
from dfsc_tune.pages.figures import ROLE_COLORS, ROLE_NAMES, scores_by_kind, with_intervals
from dfsc_tune.pages.section import Section, Table
from dfsc_tune.pages.thresholds import OperatingPoint, Share, operating_points
from dfsc_tune.reference import PublishedResult, published_results
from dfsc_tune.results import Summary

REPORT = "report"


def judged_scores(scores: pd.DataFrame) -> pd.DataFrame:
    """Returns a category's scores; none if good or anomalous images are missing."""
    return scores if can_be_judged(scores["kind"]) else scores.iloc[:0]


def thresholds_section(scores: pd.DataFrame, unscored: str) -> Section:
    """Shows the scores of all images, and what each threshold catches.

    Args:
        scores: the scores of the category's best trial; may be empty.
        unscored: the reason if they are empty.
    """
    section = Section("thresholds", "Scores and thresholds", REPORT)
    if scores.empty:
        return section.without(unscored)
    points = operating_points(scores)
    num_good = int((scores["kind"] == GOOD).sum())
    note = (
        f"An image above the threshold raises an alarm. With {num_good} good images, rates of "
        f"false alarms can be measured only in steps of {1 / num_good:.1%}. All thresholds except "
        "the model's own are chosen on the same images that are counted here, so expect more false "
        "alarms on new images: the upper limit of the interval is the safe number."
    )
    figure = scores_by_kind(scores, points[0].threshold)
    return section.having([figure], [note], _threshold_table(points))


def defect_types_section(scores: pd.DataFrame, unscored: str) -> Section:
    """Shows the AUROC of each defect type against all good images.

    Args:
        scores: the scores of one category, with all roles; may be empty.
        unscored: the reason if they are empty.
    """
    section = Section("types", "AUROC by defect type", REPORT)
    best = scores[scores["role"] == "best"]
    if best.empty:
        return section.without(unscored)
    counts = best[best["kind"] != GOOD].groupby(["kind", "defect_type"]).size()
    judged = {
        role: {name: _judge_type(rows, *name) for name in counts.index}
        for role in ROLE_NAMES
        if len(rows := scores[scores["role"] == role])
    }
    types = sorted(counts.index, key=lambda name: judged["best"][name][0])
    estimates = [
        (f"{name[1]} ({name[0]}, n = {counts[name]})", ROLE_NAMES[role], *found[name])
        for role, found in judged.items()
        for name in types
    ]
    figure = with_intervals(estimates, "image AUROC", ROLE_COLORS)
    assert figure is not None
    table = Table(
        ("defect type", "kind", "images", "AUROC of the best (95 % interval)"),
        [
            (name[1], name[0], str(counts[name]), with_interval(*judged["best"][name]))
            for name in types
        ],
    )
    note = (
        "Each type against all good images, the hardest first; dashed: chance. A type with few "
        "images says little: mind the intervals."
    )
    return section.having([figure], [note], table)


def gallery_section(
    model: Path, scores: pd.DataFrame, unscored: str, data: Path | None, count: int
) -> Section:
    """Shows the worst misses and false alarms as pictures.

    Args:
        model: the folder of the best model.
        scores: the scores of the category's best trial; may be empty.
        unscored: the reason if they are empty.
        data: the folder that holds the category; None for no pictures.
        count: largest number of each to show.
    """
    section = Section("gallery", "Worst misses and false alarms", REPORT)
    if scores.empty:
        return section.without(unscored)
    if data is None:
        return section.without("Pictures were not requested.")
    # Only pictures need PyTorch.
    from dfsc_tune.models.detector import load_detector
    from dfsc_tune.pages.gallery import worst_images

    try:
        gallery = worst_images(load_detector(model), scores, data, count)
    except UserError as error:
        return section.without(f"The images or the model cannot be read: {error}")
    notes = [
        "Left to right: the image, the model's heat map on it, and the true defect if there is a "
        "mask. Orange marks the threshold, or the image's own highest value if that is lower.",
        *(f"not shown: {problem}" for problem in gallery.problems),
    ]
    return replace(section, notes=notes, gallery=gallery)


def is_real_loco(data: Path | None, category: str) -> bool:
    """True if the folder holds MVTec LOCO AD's own images of a category, not rendered ones."""
    if data is None or not published_results(category):
        return False
    try:
        folder = category_folder(data, category)
    except UserError:
        return False
    return not (folder / RENDERED_FILE).exists()


def metrics_section(
    summary: Summary | None,
    published: Sequence[PublishedResult],
    pixel: PixelMetrics | None,
    pixel_notes: Sequence[str],
) -> Section:
    """Shows all metrics by kind of defect, beside the paper's Tables 1 and 2 if they apply.

    Args:
        summary: the category's summary; None while there is none.
        published: the paper's numbers, for the real MVTec LOCO AD only.
        pixel: metrics of the best model's maps; None if there are none.
        pixel_notes: oddities of the masks, or the reasons why there are no such metrics.
    """
    section = Section("metrics", "All metrics by kind of defect", REPORT)
    if summary is None:
        return section.without(why_unscored(summary))
    columns, *rows = metric_rows(summary.aurocs, summary.intervals, published, pixel)
    notes = []
    if published:
        notes.append(
            "Published: in the paper, which chose each category's margin on the whole test set and "
            "reports on it; the run's "
            + (
                f"numbers are of the same kind ({summary.objective}): optimistic."
                if summary.optimistic
                else "numbers come from the part of the test set that its search did not see."
            )
        )
    if pixel is None:
        notes.append(f"No pixel metrics: {'; '.join(pixel_notes).rstrip('.')}.")
    else:
        notes += pixel_notes
    return section.having([], notes, Table(columns, rows, marked=0))


def _judge_type(rows: pd.DataFrame, kind: str, defect_type: str) -> tuple[float, Interval]:
    chosen = rows[
        (rows["kind"] == GOOD) | ((rows["kind"] == kind) & (rows["defect_type"] == defect_type))
    ]
    kinds = chosen["kind"].tolist()
    scores = chosen["score"].to_numpy()
    return image_auroc(scores, kinds).mean, image_auroc_interval(scores, kinds)["mean"]


def _threshold_table(points: Sequence[OperatingPoint]) -> Table:
    kinds = list(points[0].shares)
    names = {GOOD: "false alarms on good images"}
    columns = ("threshold", "", *(names.get(kind, f"{kind} defects caught") for kind in kinds))
    rows = [
        (
            point.label,
            f"{point.threshold:.4g}",
            *(_share(point.shares[kind]) for kind in kinds),
        )
        for point in points
    ]
    return Table(columns, rows, marked=0)


def _share(share: Share) -> str:
    return (
        f"{share.count / share.total:.0%} ({share.interval.low:.0%} to {share.interval.high:.0%}), "
        f"{share.count} of {share.total}"
    )


def why_unscored(summary: Summary | None) -> str:
    """Says why a category has no scores of the report part."""
    if summary is not None:
        return (
            "There are no good or no defective test images to score: put some into test/good and "
            "test/<defect type>, and dfsc-tune evaluate measures the model on them."
        )
    return (
        "No image of the report part has been scored yet: a search scores them at its end, with "
        "the best trial at the full budget."
    )
