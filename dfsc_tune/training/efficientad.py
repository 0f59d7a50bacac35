"""EfficientAD's two extras that the paper leaves out: the autoencoder's colour jitter, the penalty.

Only the baselines EfficientAD-S and EfficientAD-M use them.
"""

from __future__ import annotations

import torch
from torch import Tensor

from dfsc_tune.models.pdn import grayscale

_JITTER_LOW, _JITTER_HIGH = 0.8, 1.2
_GRAYSCALE_PROBABILITY = 0.3


def color_jitter(pixels: Tensor) -> Tensor:
    """Scales brightness, contrast or saturation, one at random, by a factor from 0.8 to 1.2.

    Args:
        pixels: (B, 3, S, S) uint8.

    Returns:
        (B, 3, S, S) uint8. Randomness comes from torch's global generator.

    Source: Batzner et al., EfficientAD, Algorithm 1.
    """
    images = pixels.float()
    factor = float(torch.empty(()).uniform_(_JITTER_LOW, _JITTER_HIGH))
    anchor = (
        torch.zeros_like(images),
        grayscale(images).mean(dim=(2, 3), keepdim=True),
        grayscale(images),
    )[int(torch.randint(3, ()))]
    jittered = anchor + factor * (images - anchor)
    return jittered.round().clamp(0, 255).to(torch.uint8)


def random_grayscale(pixels: Tensor) -> Tensor:
    """Turns images to grey with probability 0.3, as EfficientAD does to its penalty images."""
    if float(torch.rand(())) >= _GRAYSCALE_PROBABILITY:
        return pixels
    return grayscale(pixels).round().to(torch.uint8).expand_as(pixels)
