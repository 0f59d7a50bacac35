"""Floating-point operations of a step: what a throughput is guessed from before it is measured."""

from __future__ import annotations

import torch
from torch.utils.flop_counter import FlopCounterMode

from dfsc_tune.config import ModelConfig, TrialConfig
from dfsc_tune.models.autoencoder import build_autoencoder
from dfsc_tune.models.pdn import build_pdn, feature_size, teacher_channels
from dfsc_tune.training.losses import total_loss


def step_flops(model: ModelConfig) -> int:
    """Floating-point operations of one step with cached teacher features, forward and backward."""
    channels, size = teacher_channels(model.network), feature_size(model.image_size)
    # Without numbers: only shapes count.
    with torch.device("meta"), FlopCounterMode(display=False) as counter:
        student, autoencoder = build_pdn(model.network, 2 * channels), build_autoencoder(model)
        images = torch.empty(1, 3, model.image_size, model.image_size)
        features = torch.empty(1, channels, size, size)
        losses = total_loss(
            features, student(images), autoencoder(images), TrialConfig(category="any").loss
        )
        losses.total.backward()
    return int(counter.get_total_flops())
