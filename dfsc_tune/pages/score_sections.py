"""Sections about single images: all of the report part, which no trial saw."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import pandas as pd

from dfsc_tune.data.layout import category_folder
from dfsc_tune.data.records import RENDERED_FILE
from dfsc_tune.errors import UserError
from dfsc_tune.evaluation.measure import AU_PRO_LIMIT, AU_SPRO_LIMIT, Evaluation
from dfsc_tune.metrics import Interval, image_auroc, image_auroc_interval
from dfsc_tune.metrics.image import GOOD, can_be_judged
from dfsc_tune.models.detector import load_detector
from dfsc_tune.pages.drawing import ROLE_COLORS, ROLE_NAMES
from dfsc_tune.pages.gallery import worst_images
from dfsc_tune.pages.score_figures import score_histograms, with_intervals
from dfsc_tune.pages.section import Section, Table, with_interval
from dfsc_tune.pages.thresholds import OperatingPoint, Share, operating_points
from dfsc_tune.reference import published_results
from dfsc_tune.results import Summary

REPORT = "report"


def judged_scores(scores: pd.DataFrame) -> pd.DataFrame:
    """A category's scores, or none of them where good or anomalous images are missing."""
    return scores if can_be_judged(scores["kind"]) else scores.iloc[:0]


def thresholds_section(scores: pd.DataFrame, unscored: str) -> Section:
    """Score histograms, and what each threshold catches.

    Args:
        scores: of the category's best trial; maybe none.
        unscored: why there are none.
    """
    title = "Scores and thresholds"
    if scores.empty:
        return Section("thresholds", title, REPORT, missing=unscored)
    points = operating_points(scores)
    num_good = int((scores["kind"] == GOOD).sum())
    notes = (
        f"An image above the threshold raises an alarm. With {num_good} good images, rates of "
        f"false alarms can be told apart in steps of {1 / num_good:.1%} only. All thresholds but "
        "the model's own are chosen on the very images they are counted on, so on new ones expect "
        "more false alarms: the upper limit of the interval is the safe figure.",
    )
    return Section(
        "thresholds",
        title,
        REPORT,
        notes,
        figures=(score_histograms(scores, points[0].threshold),),
        table=_threshold_table(points),
    )


def defect_types_section(scores: pd.DataFrame, unscored: str) -> Section:
    """AUROC of each defect type against all good images.

    Args:
        scores: of one category, all roles; maybe none.
        unscored: why there are none.
    """
    title = "AUROC by defect type"
    best = scores[scores["role"] == "best"]
    if best.empty:
        return Section("types", title, REPORT, missing=unscored)
    counts = best[best["kind"] != GOOD].groupby(["kind", "defect_type"]).size()
    judged = {
        role: {name: _judge_type(rows, *name) for name in counts.index}
        for role in ROLE_NAMES
        if len(rows := scores[scores["role"] == role])
    }
    types = sorted(counts.index, key=lambda name: judged["best"][name][0])
    labels = [
        f"{defect_type} ({kind}, n = {counts[kind, defect_type]})" for kind, defect_type in types
    ]
    series = [
        (
            ROLE_NAMES[role],
            ROLE_COLORS[role],
            [found[name][0] for name in types],
            [found[name][1] for name in types],
        )
        for role, found in judged.items()
    ]
    table = Table(
        ("defect type", "kind", "images", "AUROC of the best (95 % interval)"),
        [
            (name[1], name[0], str(counts[name]), with_interval(*judged["best"][name]))
            for name in types
        ],
    )
    notes = (
        "Each type against all good images, the hardest first; dashed: chance. A type of a "
        "few images says little: mind the intervals.",
    )
    figure = with_intervals(labels, series, "image AUROC")
    return Section("types", title, REPORT, notes, (figure,), table)


def gallery_section(
    model: Path, scores: pd.DataFrame, unscored: str, data: Path | None, count: int
) -> Section:
    """The worst misses and false alarms as pictures.

    Args:
        model: the folder of the best model.
        scores: of the category's best trial; maybe none.
        unscored: why there are none.
        data: the folder that holds the category; None where no pictures are asked for.
        count: how many of each to show, at most.
    """
    key, title = "gallery", "Worst misses and false alarms"
    if scores.empty:
        return Section(key, title, REPORT, missing=unscored)
    if data is None:
        return Section(key, title, REPORT, missing="No pictures were asked for.")
    try:
        detector = load_detector(model)
        gallery = worst_images(detector, scores, data, count)
    except UserError as error:
        missing = f"The images or the model cannot be read: {error}"
        return Section(key, title, REPORT, missing=missing)
    notes = [
        "Left to right: the image, the model's heat map on it, the true defect where a mask tells "
        "it. Orange is the threshold, or the image's own highest value where that is lower."
    ]
    notes += [f"not shown: {problem}" for problem in gallery.problems]
    return Section(key, title, REPORT, notes, gallery=gallery)


def is_real_loco(data: Path | None, category: str) -> bool:
    """Whether the folder holds MVTec LOCO AD's own images of a category, not rendered ones."""
    if data is None or not published_results(category):
        return False
    try:
        folder = category_folder(data, category)
    except UserError:
        return False
    return not (folder / RENDERED_FILE).exists()


def paper_section(
    category: str, summary: Summary | None, real_loco: bool, evaluation: Evaluation | None
) -> Section:
    """One's own numbers beside the paper's Tables 1 and 2, for the real MVTec LOCO AD only.

    Args:
        category: its name.
        summary: what the search found for it.
        real_loco: from `is_real_loco`.
        evaluation: with pixel metrics, where they were asked for.
    """
    key, title = "paper", "Beside the paper's Tables 1 and 2"
    published = published_results(category)
    missing = ""
    if not published:
        missing = "The paper has no numbers for this category: it is none of MVTec LOCO AD."
    elif summary is None:
        missing = why_unscored(summary)
    elif not real_loco:
        missing = (
            "These images are rendered, or no longer there to tell: under the same name as MVTec "
            "LOCO AD's they are others, so the paper's numbers do not apply."
        )
    if missing or summary is None:
        return Section(key, title, REPORT, missing=missing)
    own_spro = "not measured (give --pixel)"
    if evaluation is not None and evaluation.pixel is not None:
        own_spro = f"{evaluation.pixel.au_spro['mean'][AU_SPRO_LIMIT]:.3f}"
    kinds = ("logical", "structural", "mean")
    rows = [
        (
            "this run's best",
            *(
                with_interval(summary.aurocs[f"auroc_{kind}"], summary.intervals.get(kind))
                for kind in kinds
            ),
            own_spro,
        )
    ]
    rows += [
        (
            f"{one.method}, published",
            *(f"{one.image_auroc[kind]:.3f}" for kind in kinds),
            f"{one.au_spro:.3f}",
        )
        for one in published
    ]
    notes = (
        "The paper chose each category's margin on the whole test set and reports on it; the run's "
        + (
            "numbers are of the same kind (oracle): optimistic."
            if summary.optimistic
            else "numbers come from the part of the test set that its search did not see."
        ),
    )
    columns = ("", *(f"image AUROC, {kind}" for kind in kinds), f"AU-sPRO, FPR ≤ {AU_SPRO_LIMIT}")
    return Section(key, title, REPORT, notes, table=Table(columns, rows, marked=0))


def pixel_section(evaluation: Evaluation | None, unmeasured: str) -> Section:
    """How well the heat maps find the defects' places.

    Args:
        evaluation: of the best model on the report part; None where there is none.
        unmeasured: why there are no pixel metrics, if there are none.
    """
    key, title = "pixel", "Where the defects are: pixel metrics"
    if evaluation is None or evaluation.pixel is None:
        missing = f"No pixel metrics: {unmeasured.rstrip('.')}."
        return Section(key, title, REPORT, missing=missing)
    pixel = evaluation.pixel
    kinds = [kind for kind in ("logical", "structural", "mean") if kind in pixel.pixel_auroc]
    rows = [
        (
            kind,
            f"{pixel.pixel_auroc[kind]:.3f}",
            f"{pixel.au_pro[kind][AU_PRO_LIMIT]:.3f}",
            f"{pixel.au_spro[kind][AU_SPRO_LIMIT]:.3f}",
        )
        for kind in kinds
    ]
    columns = (
        "",
        "pixel AUROC",
        f"AU-PRO, FPR ≤ {AU_PRO_LIMIT}",
        f"AU-sPRO, FPR ≤ {AU_SPRO_LIMIT}",
    )
    return Section(key, title, REPORT, table=Table(columns, rows))


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
    """Why a category has no scores of the report part."""
    if summary is not None:
        return (
            "There are no good or no defective test images to score: put both into test/good and "
            "test/<defect type>, and dfsc-tune evaluate measures the model on them."
        )
    return (
        "No image of the report part has been scored yet: that is done when a search ends, for the "
        "best trial at the full budget."
    )
