"""Judges a trained model on a category's labelled test images: image and pixel metrics."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt

from dfsc_tune.data.fingerprint import content_digest
from dfsc_tune.data.layout import read_category
from dfsc_tune.data.masks import DefectMask, read_masks
from dfsc_tune.data.records import Category, ImageRecord
from dfsc_tune.detector import Detector
from dfsc_tune.errors import UserError
from dfsc_tune.metrics import (
    KINDS,
    Defect,
    Interval,
    au_pro,
    au_spro_by_kind,
    image_auroc,
    image_auroc_interval,
    pixel_auroc,
    saturation_area,
)
from dfsc_tune.metrics.image import GOOD
from dfsc_tune.objective import judge
from dfsc_tune.prepare import prepare_images

FPR_LIMITS = (0.01, 0.05, 0.1, 0.3, 1.0)


@dataclass(frozen=True)
class DefectTypeAuroc:
    """Image AUROC of one defect type against all good images."""

    kind: str
    defect_type: str
    num_images: int
    auroc: float


@dataclass(frozen=True)
class PixelMetrics:
    """Metrics of the anomaly maps; areas are divided by their limit, so all lie in 0 to 1."""

    pixel_auroc: float
    au_pro: dict[float, float]
    """By FPR limit."""
    au_spro: dict[str, dict[float, float]]
    """By kind (logical, structural, mean), then by FPR limit."""


@dataclass(frozen=True)
class Evaluation:
    """What a model is worth on some images."""

    category: str
    num_images: dict[str, int]
    aurocs: dict[str, float | None]
    intervals: dict[str, Interval]
    """95 % intervals, by kind."""
    defect_types: tuple[DefectTypeAuroc, ...]
    pixel: PixelMetrics | None
    """None where an anomalous image has no mask."""
    notes: tuple[str, ...]
    optimistic: bool
    """Whether images that the model was chosen on are among them."""


def evaluate(
    detector: Detector,
    data: Path,
    category_name: str,
    *,
    include_selection: bool = False,
    device: str = "cpu",
) -> Evaluation:
    """Scores the labelled test images of a category and measures them.

    Images that the model was chosen on, recognised by their content, are left out unless asked for.

    Raises:
        UserError: the data cannot be read, or no good or no anomalous image is left.
    """
    category = read_category(data, category_name)
    chosen_on = set(detector.selection_digests)
    seen = {x.name for x in category.test if content_digest(x.path) in chosen_on}
    records = [x for x in category.test if include_selection or x.name not in seen]
    kinds: list[str] = [record.kind for record in records]
    if GOOD not in kinds or not set(kinds) - {GOOD}:
        raise UserError(
            f"category '{category_name}' in {data} has no good or no anomalous test image left "
            f"({len(seen)} were used to choose the model); add some, or give --include-selection"
        )
    images = prepare_images(records, detector.teacher, detector.config.model, device)
    maps = detector.difference_maps(images.pixels, images.features, device)
    scores = detector.scores(maps, images.sizes)
    masks = [
        read_masks(record, category, (int(size[0]), int(size[1])))
        for record, size in zip(records, images.sizes, strict=True)
    ]
    pixel, missing = (
        None,
        sum(kind != GOOD and not found for kind, found in zip(kinds, masks, strict=True)),
    )
    if not missing:
        pixel = _pixel_metrics(detector.anomaly_maps(maps, images.sizes), kinds, masks)
    return Evaluation(
        category=category_name,
        num_images={kind: kinds.count(kind) for kind in (GOOD, *KINDS)},
        aurocs=judge(scores, kinds),
        intervals=image_auroc_interval(scores, kinds),
        defect_types=_by_defect_type(records, scores),
        pixel=pixel,
        notes=_notes(category, seen, missing, include_selection),
        optimistic=bool(seen) and include_selection,
    )


def _by_defect_type(
    records: Sequence[ImageRecord], scores: npt.NDArray[np.float64]
) -> tuple[DefectTypeAuroc, ...]:
    rows = []
    for kind, defect_type in sorted({(x.kind, x.defect_type) for x in records if x.kind != GOOD}):
        chosen = [
            index
            for index, record in enumerate(records)
            if record.kind == GOOD or (record.kind, record.defect_type) == (kind, defect_type)
        ]
        auroc = image_auroc(scores[chosen], [records[index].kind for index in chosen]).mean
        num_images = sum(record.defect_type == defect_type for record in records)
        rows.append(DefectTypeAuroc(kind, defect_type, num_images, auroc))
    return tuple(rows)


def _pixel_metrics(
    maps: list[npt.NDArray[np.float32]],
    kinds: list[str],
    masks: Sequence[tuple[DefectMask, ...]],
) -> PixelMetrics:
    defects = [
        Defect(
            image,
            found.mask,
            saturation_area(
                found.saturation_threshold, found.relative_saturation, int(found.mask.sum())
            ),
        )
        for image, of_image in enumerate(masks)
        for found in of_image
    ]
    unions = [
        np.logical_or.reduce([found.mask for found in of_image]) if of_image else None
        for of_image in masks
    ]
    return PixelMetrics(
        pixel_auroc=pixel_auroc(maps, unions),
        au_pro=au_pro(maps, defects, FPR_LIMITS),
        au_spro=au_spro_by_kind(maps, kinds, defects, FPR_LIMITS),
    )


def _notes(
    category: Category, seen: set[str], missing: int, include_selection: bool
) -> tuple[str, ...]:
    notes = list(category.notes)
    if seen and include_selection:
        notes.append(
            f"{len(seen)} of these images were used to choose the model: the numbers are optimistic"
        )
    elif seen:
        notes.append(f"left out {len(seen)} images that were used to choose the model")
    if missing:
        notes.append(
            f"no pixel metrics: {missing} anomalous images have no mask under ground_truth/"
        )
    return tuple(notes)
