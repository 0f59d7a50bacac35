"""The loss of the paper (Eq. 1 to 7): distances, the hard-feature loss and the DFSC constraint."""

from __future__ import annotations

import math
from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor

from dfsc_tune.config import LossConfig


class Losses(NamedTuple):
    """The terms of Eq. 7, each a scalar tensor."""

    student_autoencoder: Tensor
    teacher_autoencoder: Tensor
    teacher_student: Tensor
    dfsc: Tensor
    penalty: Tensor
    total: Tensor


def hard_mask(values: Tensor, quantile: float) -> Tensor:
    """Marks, per image, the entries at or above the image's own quantile (Eq. 2 and 3).

    Args:
        values: (B, ...) squared differences; no gradient flows through the mask.
        quantile: in [0, 1).

    Returns:
        Booleans of the same shape; at least one is set per image. The threshold is the linearly
        interpolated quantile. Comparing with the smallest value above it marks the same entries,
        ties included, without sorting all values.
    """
    flat = values.detach().flatten(1)
    count = flat.shape[1] - math.ceil(quantile * (flat.shape[1] - 1))
    threshold = flat.topk(count, dim=1, sorted=False).values.amin(dim=1)
    return values.detach() >= threshold.view(-1, *(1,) * (values.dim() - 1))


def hard_feature_loss(teacher: Tensor, student: Tensor, hard_quantile: float) -> Tensor:
    """d_TS over hard features: the mean of (T − S^T)² over entries ≥ τ, a scalar.

    Args:
        teacher: (B, C, H, W).
        student: (B, C, H, W), the student's answer to the teacher.
        hard_quantile: q of τ, taken over each image's C·H·W entries.

    A masked mean equals selecting the entries, in value and gradient, and keeps shapes static.
    """
    squared = (teacher - student).square()
    mask = hard_mask(squared, hard_quantile)
    return (squared * mask).sum() / mask.sum()


def dfsc_distance(
    teacher: Tensor, autoencoder: Tensor, quantile: float, order: str = "mask_first"
) -> Tensor:
    """D(h, w), the channel distance of the distinctive features (Eq. 3 to 5): (B, H, W), 0 to 2.

    Args:
        teacher: (B, C, H, W).
        autoencoder: (B, C, H, W).
        quantile: q' of τ', taken over each image's C·H·W entries.
        order: `mask_first` masks, then L2-normalises over channels; `normalize_first` does the
            reverse.

    At positions without a selected channel, D is 0 and has no gradient.
    """
    mask = hard_mask((teacher - autoencoder).square(), quantile)
    if order == "mask_first":
        difference = F.normalize(teacher * mask, dim=1) - F.normalize(autoencoder * mask, dim=1)
    else:
        difference = (F.normalize(teacher, dim=1) - F.normalize(autoencoder, dim=1)) * mask
    distance: Tensor = torch.linalg.vector_norm(difference, dim=1)
    return distance


def dfsc_loss(teacher: Tensor, autoencoder: Tensor, config: LossConfig) -> Tensor:
    """L_DFSC (Eq. 6): the mean over positions of max(m − D, 0), a scalar."""
    distance = dfsc_distance(teacher, autoencoder, config.quantile, config.constraint_order)
    return F.relu(config.margin - distance).mean()


def total_loss(
    teacher: Tensor,
    student: Tensor,
    autoencoder: Tensor,
    config: LossConfig,
    *,
    augmented: tuple[Tensor, Tensor] | None = None,
    penalty: Tensor | None = None,
) -> Losses:
    """Computes L_total (Eq. 7) and its terms.

    Args:
        teacher: T, (B, C, H, W), normalised; a constant.
        student: S, (B, 2C, H, W): the answer to the teacher, then the answer to the autoencoder.
        autoencoder: A, (B, C, H, W).
        config: margin, quantiles, alpha and the choices that the paper leaves open.
        augmented: with EfficientAD's colour jitter, T and S of the jittered image that A was given,
            (B, C, H, W) and (B, 2C, H, W); they replace T and S in d_TA, d_SA and the constraint.
        penalty: the student's answer to the teacher for photographs, (B, C, H, W); its mean square
            is added, as in EfficientAD.
    """
    channels = teacher.shape[1]
    teacher_student = hard_feature_loss(teacher, student[:, :channels], config.hard_quantile)
    global_teacher, global_student = augmented if augmented else (teacher, student)
    target = autoencoder.detach() if config.detach_autoencoder else autoencoder
    student_autoencoder = (global_student[:, channels:] - target).square().mean()
    teacher_autoencoder = (global_teacher - autoencoder).square().mean()
    zero = torch.zeros((), device=teacher.device)
    # At m = 0 the hinge is 0 everywhere, so it need not be computed.
    dfsc = dfsc_loss(global_teacher, autoencoder, config) if config.margin > 0 else zero
    penalty_loss = zero if penalty is None else penalty.square().mean()
    total = (
        student_autoencoder
        + teacher_autoencoder
        + teacher_student
        + config.alpha * dfsc
        + penalty_loss
    )
    return Losses(
        student_autoencoder, teacher_autoencoder, teacher_student, dfsc, penalty_loss, total
    )
