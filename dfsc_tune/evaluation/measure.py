"""Measures anomaly maps on labelled images: image and pixel metrics, by kind and by defect type."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt

from dfsc_tune.data.masks import DefectMask, mask_notes, read_masks
from dfsc_tune.data.records import Category, ImageRecord
from dfsc_tune.evaluation.maps import AnomalyMap
from dfsc_tune.metrics import (
    KINDS,
    Defect,
    Interval,
    au_spro_by_group,
    image_auroc,
    image_auroc_interval,
    localization_by_kind,
    saturation_area,
)
from dfsc_tune.metrics.image import GOOD, judge
from dfsc_tune.reference import PublishedResult, published_results

FPR_LIMITS = (0.01, 0.05, 0.1, 0.3, 1.0)
AU_PRO_LIMIT = 0.3
"""The FPR limit of MVTec AD's AU-PRO."""
AU_SPRO_LIMIT = 0.05
"""The FPR limit of MVTec LOCO AD's AU-sPRO."""


@dataclass(frozen=True)
class JudgedImages:
    """The labelled images of a category on which maps are evaluated."""

    category: Category
    records: tuple[ImageRecord, ...]
    """At least one good and one anomalous image."""
    notes: tuple[str, ...]
    optimistic: bool
    """True if images that the model was trained or chosen on are among them."""


@dataclass(frozen=True)
class DefectTypeMetrics:
    """Metrics of one defect type against all good images."""

    kind: str
    defect_type: str
    num_images: int
    auroc: float
    """Image AUROC."""
    auroc_interval: Interval
    au_spro: float | None
    """Up to an FPR of 0.05; None if an anomalous image has no mask."""


@dataclass(frozen=True)
class PixelMetrics:
    """Metrics of the maps by kind (logical, structural, mean), each with all good images.

    Areas are divided by their FPR limit, so all numbers lie in 0 to 1.
    """

    pixel_auroc: dict[str, float]
    au_pro: dict[str, dict[float, float]]
    """By kind, then by FPR limit."""
    au_spro: dict[str, dict[float, float]]
    """By kind, then by FPR limit."""


@dataclass(frozen=True)
class Evaluation:
    """The metrics of anomaly maps on labelled images; all intervals are of level 95 %."""

    category: str
    num_images: dict[str, int]
    aurocs: dict[str, float | None]
    """Image AUROCs, as `metrics.image.judge` names them."""
    intervals: dict[str, Interval]
    """Of the image AUROCs, by kind."""
    pixel: PixelMetrics | None
    """None if an anomalous image has no mask."""
    defect_types: tuple[DefectTypeMetrics, ...]
    published: tuple[PublishedResult, ...]
    """The paper's results if the category is one of MVTec LOCO AD."""
    notes: tuple[str, ...]
    optimistic: bool
    """True if images that the model was trained or chosen on are among them."""


def measure(images: JudgedImages, maps: Iterable[AnomalyMap]) -> Evaluation:
    """Computes all metrics of anomaly maps; an image's score is the maximum of its map.

    Args:
        images: the labelled images.
        maps: one (H, W) for each record, in their order. They are kept in memory if all anomalous
            images have masks; else only their maxima are kept.

    Raises:
        UserError: a mask is broken or differs from its map in size, or a map is not finite.
    """
    bare = [record.name for record in images.records if record.lacks_mask]
    scores: list[float] = []
    kept: list[AnomalyMap] = []
    defects: list[Defect] = []
    oddities: dict[Path, tuple[str, ...]] = {}
    for index, (record, anomaly_map) in enumerate(zip(images.records, maps, strict=True)):
        scores.append(float(anomaly_map.max()))
        if not bare:
            kept.append(anomaly_map)
            masks = _read_masks(record, images.category, anomaly_map)
            defects += [_defect(index, mask) for mask in masks]
            oddities |= {mask.path: mask.oddities for mask in masks}
    category, notes = images.category, (*images.notes, *mask_notes(images.category, oddities))
    if bare:
        notes += (
            f"pixel metrics cannot be measured: {len(bare)} anomalous images have no mask under "
            f"ground_truth, such as '{bare[0]}'",
        )
    kinds: list[str] = [record.kind for record in images.records]
    return Evaluation(
        category=category.name,
        num_images={kind: kinds.count(kind) for kind in (GOOD, *KINDS)},
        aurocs=judge(np.array(scores), kinds),
        intervals=image_auroc_interval(scores, kinds),
        pixel=_pixel_metrics(kept, kinds, defects) if not bare else None,
        defect_types=_by_defect_type(images.records, np.array(scores), kept, defects),
        published=() if category.rendered else published_results(category.name),
        notes=notes,
        optimistic=images.optimistic,
    )


def read_defects(
    index: int, record: ImageRecord, category: Category, anomaly_map: AnomalyMap
) -> list[Defect]:
    """Reads the defects of image number `index` at the size of its map.

    Raises:
        UserError: a mask is broken or has another size.
    """
    return [_defect(index, mask) for mask in _read_masks(record, category, anomaly_map)]


def _read_masks(
    record: ImageRecord, category: Category, anomaly_map: AnomalyMap
) -> tuple[DefectMask, ...]:
    height, width = anomaly_map.shape
    return read_masks(record, category, (height, width))


def _defect(index: int, found: DefectMask) -> Defect:
    area = int(found.mask.sum())
    saturation = saturation_area(found.saturation_threshold, found.relative_saturation, area)
    return Defect(index, found.mask, saturation)


def _pixel_metrics(
    maps: Sequence[AnomalyMap], kinds: Sequence[str], defects: Sequence[Defect]
) -> PixelMetrics:
    found = localization_by_kind(maps, kinds, defects, FPR_LIMITS)
    return PixelMetrics(
        pixel_auroc={kind: one.pixel_auroc for kind, one in found.items()},
        au_pro={kind: one.au_pro for kind, one in found.items()},
        au_spro={kind: one.au_spro for kind, one in found.items()},
    )


def _by_defect_type(
    records: Sequence[ImageRecord],
    scores: npt.NDArray[np.float64],
    maps: Sequence[AnomalyMap],
    defects: Sequence[Defect],
) -> tuple[DefectTypeMetrics, ...]:
    """Returns the metrics of each defect type; pixel metrics only if maps were kept."""
    types = [GOOD if x.kind == GOOD else f"{x.kind}/{x.defect_type}" for x in records]
    areas: dict[str, dict[float, float]] = {}
    if maps:
        areas = au_spro_by_group(maps, types, defects, (AU_SPRO_LIMIT,))
    rows = []
    for name in sorted(set(types) - {GOOD}):
        kind, _, defect_type = name.partition("/")
        chosen = [index for index, found in enumerate(types) if found in (GOOD, name)]
        kinds = [records[index].kind for index in chosen]
        rows.append(
            DefectTypeMetrics(
                kind=kind,
                defect_type=defect_type,
                num_images=types.count(name),
                auroc=image_auroc(scores[chosen], kinds).mean,
                auroc_interval=image_auroc_interval(scores[chosen], kinds)["mean"],
                au_spro=areas[name][AU_SPRO_LIMIT] if maps else None,
            )
        )
    return tuple(rows)
