"""Measures how well anomaly scores and maps find defects, and the uncertainty of these measures."""

from dfsc_tune.metrics.image import KINDS, ImageAuroc, image_auroc
from dfsc_tune.metrics.localization import Localization, localization, localization_by_kind
from dfsc_tune.metrics.pixel import (
    Defect,
    au_spro,
    au_spro_by_group,
    au_spro_by_kind,
    saturation_area,
)
from dfsc_tune.metrics.uncertainty import (
    LEVEL,
    Difference,
    Interval,
    image_auroc_difference,
    image_auroc_interval,
    mean_image_auroc_difference,
    mean_image_auroc_interval,
    newcombe_interval,
)

__all__ = [
    "KINDS",
    "LEVEL",
    "Defect",
    "Difference",
    "ImageAuroc",
    "Interval",
    "Localization",
    "au_spro",
    "au_spro_by_group",
    "au_spro_by_kind",
    "image_auroc",
    "image_auroc_difference",
    "image_auroc_interval",
    "localization",
    "localization_by_kind",
    "mean_image_auroc_difference",
    "mean_image_auroc_interval",
    "newcombe_interval",
    "saturation_area",
]
