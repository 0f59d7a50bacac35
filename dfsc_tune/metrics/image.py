"""Image AUROC: how well one score per image separates good images from each kind of anomaly."""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike, NDArray

from dfsc_tune.errors import UserError

GOOD = "good"
KINDS = ("logical", "structural")
AUROCS = ("auroc_logical", "auroc_structural", "auroc_mean")
"""The names of image AUROCs in every table, as `judge` returns them."""


@dataclass(frozen=True)
class ImageAuroc:
    """Image AUROC for each kind of anomaly against the good images, and their mean.

    The mean is over the kinds present. It is not the pooled AUROC of all anomalous images.
    """

    logical: float | None
    """None if there is no logical image."""
    structural: float | None
    """None if there is no structural image."""
    mean: float


@dataclass(frozen=True)
class ScoresByKind:
    """The scores of a test set, split by kind."""

    good: NDArray[np.float64]
    """Scores of the good images, at least one."""
    anomalous: Mapping[str, NDArray[np.float64]]
    """Scores of each kind present, in the order of `KINDS`; at least one kind."""


def image_auroc(scores: ArrayLike, kinds: Sequence[str]) -> ImageAuroc:
    """Returns the image AUROC of good-vs-logical, good-vs-structural, and their mean.

    The AUROC is the share of (good, anomalous) pairs in which the anomalous image scores higher; a
    tie counts one half (the Mann-Whitney statistic). It equals the trapezoid area that
    scikit-learn's `roc_auc_score` computes.

    Args:
        scores: anomaly scores, shape (N,); higher is more anomalous.
        kinds: "good", "logical" or "structural" for each image, N entries.

    Raises:
        UserError: lengths differ, a kind is unknown, a score is not finite, or there are no good
            or no anomalous images.
    """
    parted = part_by_kind(scores, kinds)
    values = {kind: _auroc(parted.good, found) for kind, found in parted.anomalous.items()}
    return ImageAuroc(
        logical=values.get("logical"),
        structural=values.get("structural"),
        mean=float(np.mean(list(values.values()))),
    )


def part_by_kind(scores: ArrayLike, kinds: Sequence[str]) -> ScoresByKind:
    """Returns the checked scores, split by kind; see `image_auroc` for arguments and errors."""
    values = np.asarray(scores, dtype=np.float64)
    if values.ndim != 1 or len(values) != len(kinds):
        raise UserError(
            f"Each image needs one score and one kind, but the scores have shape {values.shape} "
            f"and there are {len(kinds)} kinds."
        )
    check_kinds(kinds)
    if not np.isfinite(values).all():
        index = int(np.flatnonzero(~np.isfinite(values))[0])
        raise UserError(
            f"Image scores must be finite, but the score of image {index} is {values[index]}. "
            "Check the training of this model for divergence."
        )
    labels = np.asarray(kinds)
    return ScoresByKind(
        good=values[labels == GOOD],
        anomalous={kind: values[labels == kind] for kind in KINDS if kind in kinds},
    )


def check_kinds(kinds: Sequence[str]) -> None:
    """Raises UserError unless all kinds are known and there are good and anomalous images."""
    unknown = sorted(set(kinds) - {GOOD, *KINDS})
    if unknown:
        raise UserError(
            f"The kind of an image must be one of {', '.join((GOOD, *KINDS))}, not {unknown[0]!r}."
        )
    if GOOD not in kinds:
        raise UserError("An AUROC needs good test images, but there are none.")
    if not set(kinds) & set(KINDS):
        raise UserError(
            "An AUROC needs logical or structural test images, but all images are good."
        )


def judge(scores: ArrayLike, kinds: Sequence[str]) -> dict[str, float | None]:
    """Returns the image AUROCs of labelled images by the names used in every table.

    Args:
        scores: (N,), the higher, the more anomalous.
        kinds: N times good, logical or structural.

    Returns:
        `auroc_logical`, `auroc_structural` and `auroc_mean`, the mean of the kinds present; None
        for a kind without an image.
    """
    auroc = image_auroc(scores, kinds)
    return dict(zip(AUROCS, (auroc.logical, auroc.structural, auroc.mean), strict=True))


def can_be_judged(kinds: Iterable[str]) -> bool:
    """Returns whether there are good and anomalous images, which every AUROC needs."""
    found = set(kinds)
    return GOOD in found and len(found) > 1


def _auroc(good: NDArray[np.float64], anomalous: NDArray[np.float64]) -> float:
    ordered = np.sort(good)
    below = np.searchsorted(ordered, anomalous, side="left").sum()
    not_above = np.searchsorted(ordered, anomalous, side="right").sum()
    return float(int(below) + int(not_above)) / (2 * len(good) * len(anomalous))
