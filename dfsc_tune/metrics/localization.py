"""Pixel AUROC, AU-PRO and AU-sPRO together, from a single pass over the sorted pixels."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike

from dfsc_tune.metrics.areas import mean_heights
from dfsc_tune.metrics.image import KINDS
from dfsc_tune.metrics.pixel import (
    Defect,
    by_limit,
    check_kinds_match,
    checked_limits,
    checked_maps,
    pro_steps,
    recall_steps,
    scores_within,
    spro_steps,
    unions,
    with_good,
)


@dataclass(frozen=True)
class Localization:
    """Metrics of finding the pixels of defects with anomaly maps; each number is in [0, 1]."""

    pixel_auroc: float
    """AUROC of all pixels of all images pooled; a tie counts one half."""
    au_pro: dict[float, float]
    """By FPR limit."""
    au_spro: dict[float, float]
    """By FPR limit."""


def localization(
    anomaly_maps: Sequence[ArrayLike],
    defects: Sequence[Defect],
    fpr_limits: Sequence[float] = (0.05,),
) -> Localization:
    """Returns pixel AUROC and AU-PRO of the defects' unions, and AU-sPRO, from a single pass.

    Arguments and errors are those of `au_spro`.
    """
    maps = checked_maps(anomaly_maps)
    masks = unions(maps, defects)
    curves = [recall_steps(maps, masks), pro_steps(maps, masks), spro_steps(maps, defects)]
    limits = [*checked_limits(fpr_limits), 1.0]
    recall, pro, spro = mean_heights(maps, scores_within(maps, masks), curves, limits)
    return Localization(
        pixel_auroc=by_limit(limits, recall)[1.0],
        au_pro=by_limit(fpr_limits, pro[:-1]),
        au_spro=by_limit(fpr_limits, spro[:-1]),
    )


def localization_by_kind(
    anomaly_maps: Sequence[ArrayLike],
    kinds: Sequence[str],
    defects: Sequence[Defect],
    fpr_limits: Sequence[float] = (0.05,),
) -> dict[str, Localization]:
    """Returns `localization` of each kind present, with all good images, and "mean" over them.

    Arguments and errors are those of `au_spro_by_kind`.
    """
    check_kinds_match(kinds, len(anomaly_maps), defects)
    found = {
        kind: localization(*with_good(anomaly_maps, kinds, defects, kind), fpr_limits)
        for kind in KINDS
        if kind in kinds
    }
    return {**found, "mean": _mean(list(found.values()), fpr_limits)}


def _mean(found: Sequence[Localization], fpr_limits: Sequence[float]) -> Localization:
    return Localization(
        pixel_auroc=float(np.mean([one.pixel_auroc for one in found])),
        au_pro={
            limit: float(np.mean([one.au_pro[limit] for one in found])) for limit in fpr_limits
        },
        au_spro={
            limit: float(np.mean([one.au_spro[limit] for one in found])) for limit in fpr_limits
        },
    )
