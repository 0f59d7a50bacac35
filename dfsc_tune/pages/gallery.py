"""The gallery: a model's worst misses and false alarms, with heat maps and true defects."""

from __future__ import annotations

import base64
import io
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pandas as pd
from numpy.typing import NDArray
from PIL import Image

from dfsc_tune.data.images import DecodedImages, decode_images, decode_thumbnail
from dfsc_tune.data.layout import read_category
from dfsc_tune.data.masks import read_masks
from dfsc_tune.data.records import Category, ImageRecord
from dfsc_tune.errors import UserError
from dfsc_tune.evaluation.heatmap import overlay
from dfsc_tune.metrics.image import GOOD
from dfsc_tune.models.detector import Detector

_LONGEST = 320
_QUALITY = 80
_DEFECT_COLOR = np.array([255.0, 60.0, 160.0])
# Another processor sums in another order; a changed image or model changes scores far more.
_SAME_SCORE = 1e-3


@dataclass(frozen=True)
class Picture:
    """One image as the page shows it; its three pictures are data URIs of JPEGs."""

    name: str
    kind: str
    defect_type: str
    score: float
    threshold: float
    image: str
    heat: str
    mask: str | None
    """None for good images and for those without a mask."""
    note: str = ""

    @property
    def alarm(self) -> bool:
        """True if the model calls the image anomalous."""
        return self.score > self.threshold


@dataclass(frozen=True)
class Gallery:
    """The hardest images of the report part."""

    misses: tuple[Picture, ...]
    """Anomalous images, the lowest scores first."""
    false_alarms: tuple[Picture, ...]
    """Good images, the highest scores first."""
    problems: tuple[str, ...]
    """Reasons why some images could not be shown."""


def worst_images(detector: Detector, scores: pd.DataFrame, data: Path, count: int) -> Gallery:
    """Finds the anomalous images with the lowest scores and the good ones with the highest.

    Args:
        detector: the best model of a category.
        scores: its rows of `scores.parquet`.
        data: the folder that holds the category.
        count: largest number of each to show.

    Raises:
        UserError: the category's folder is missing or cannot be read.
    """
    category = read_category(data, detector.config.category)
    records = {record.name: record for record in category.test}
    size = detector.config.model.image_size
    good = scores["kind"] == GOOD
    # Ties are broken by name, so that a page made twice is the same.
    missed = scores[~good].sort_values(["score", "image"]).head(count)
    alarms = scores[good].sort_values(["score", "image"], ascending=[False, True]).head(count)
    drawings, problems = [], []
    for row in pd.concat([missed, alarms]).to_dict("records"):
        try:
            drawings.append(
                _drawing(category, records, str(row["image"]), float(row["score"]), size)
            )
        except UserError as error:
            problems.append(str(error))
    pictures = _judged(detector, drawings) if drawings else []
    return Gallery(
        tuple(picture for picture in pictures if picture.kind != GOOD),
        tuple(picture for picture in pictures if picture.kind == GOOD),
        tuple(problems),
    )


@dataclass(frozen=True, eq=False)
class _Drawing:
    """One image, read but not scored yet."""

    record: ImageRecord
    stored: float
    """Its score in the run's table."""
    decoded: DecodedImages
    thumbnail: NDArray[np.uint8]
    mask: str | None


def _drawing(
    category: Category,
    records: Mapping[str, ImageRecord],
    name: str,
    stored: float,
    image_size: int,
) -> _Drawing:
    if name not in records:
        raise UserError(f"'{name}' is no longer in the data folder")
    record = records[name]
    decoded = decode_images([record], image_size)
    thumbnail = decode_thumbnail(record.path, _LONGEST)
    mask = _mask_picture(category, record, thumbnail, decoded.original_sizes[0].tolist())
    return _Drawing(record, stored, decoded, thumbnail, mask)


def _judged(detector: Detector, drawings: Sequence[_Drawing]) -> list[Picture]:
    """Makes the pictures with their heat maps, scoring all images at once."""
    pixels = np.concatenate([drawing.decoded.pixels for drawing in drawings])
    sizes = np.concatenate([drawing.decoded.original_sizes for drawing in drawings])
    shown_sizes = np.array([drawing.thumbnail.shape[1:] for drawing in drawings], dtype=np.int32)
    differences = detector.difference_maps(pixels)
    scores = detector.scores(differences, sizes).tolist()
    maps = detector.anomaly_maps(differences, shown_sizes)
    return [
        Picture(
            name=drawing.record.name,
            kind=drawing.record.kind,
            defect_type=drawing.record.defect_type,
            score=drawing.stored,
            threshold=detector.threshold,
            image=_jpeg(Image.fromarray(drawing.thumbnail.transpose(1, 2, 0))),
            # Scaled to the threshold, the map of a miss would be blank.
            heat=_jpeg(overlay(drawing.thumbnail, anomaly_map, min(detector.threshold, score))),
            mask=drawing.mask,
            note=_changed(score, drawing.stored),
        )
        for drawing, score, anomaly_map in zip(drawings, scores, maps, strict=True)
    ]


def _changed(score: float, stored: float) -> str:
    if abs(score - stored) <= _SAME_SCORE * max(1.0, abs(stored)):
        return ""
    return f"scores {score:.4g} now: the image or the model has changed since the run"


def _mask_picture(
    category: Category, record: ImageRecord, thumbnail: NDArray[np.uint8], size: Sequence[int]
) -> str | None:
    """Draws the image in grey with its defects in colour; None without a mask."""
    if not record.mask_paths:
        return None
    height, width = thumbnail.shape[1:]
    share = np.zeros((height, width))
    for defect in read_masks(record, category, (size[0], size[1])):
        mask = Image.fromarray(defect.mask.astype(np.uint8) * 255)
        share = np.maximum(share, np.asarray(mask.resize((width, height), Image.Resampling.BOX)))
    gray = np.repeat(thumbnail.mean(axis=0)[..., None] * 0.6 + 60, 3, axis=2)
    opacity = (share / 255 * 0.75)[..., None]
    mixed = gray * (1 - opacity) + _DEFECT_COLOR * opacity
    return _jpeg(Image.fromarray(mixed.clip(0, 255).astype(np.uint8)))


def _jpeg(image: Image.Image) -> str:
    buffer = io.BytesIO()
    image.save(buffer, format="JPEG", quality=_QUALITY, optimize=True)
    return "data:image/jpeg;base64," + base64.b64encode(buffer.getvalue()).decode("ascii")
