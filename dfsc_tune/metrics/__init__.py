"""Measures how well anomaly scores and maps find defects, and how sure one may be of it."""

from dfsc_tune.metrics.image import KINDS, ImageAuroc, image_auroc
from dfsc_tune.metrics.pixel import (
    Defect,
    au_pro,
    au_spro,
    au_spro_by_kind,
    pixel_auroc,
    saturation_area,
)
from dfsc_tune.metrics.pixel_uncertainty import au_spro_interval
from dfsc_tune.metrics.uncertainty import (
    Difference,
    Interval,
    hanley_mcneil_standard_error,
    image_auroc_difference,
    image_auroc_interval,
)

__all__ = [
    "KINDS",
    "Defect",
    "Difference",
    "ImageAuroc",
    "Interval",
    "au_pro",
    "au_spro",
    "au_spro_by_kind",
    "au_spro_interval",
    "hanley_mcneil_standard_error",
    "image_auroc",
    "image_auroc_difference",
    "image_auroc_interval",
    "pixel_auroc",
    "saturation_area",
]
