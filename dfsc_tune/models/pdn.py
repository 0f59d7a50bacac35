"""The patch description networks (PDN) of EfficientAD, as plain sequences of layers."""

from __future__ import annotations

import functools
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from dfsc_tune.config import Network

IMAGENET_MEAN = (0.485, 0.456, 0.406)
IMAGENET_STD = (0.229, 0.224, 0.225)
_LUMA = (0.299, 0.587, 0.114)


@dataclass(frozen=True)
class _Layer:
    """One convolution, the layers after it, and its padding when a teacher is distilled."""

    width: int
    kernel: int
    padding: int = 0
    pool: bool = False


_SMALL = (_Layer(128, 4, 3, pool=True), _Layer(256, 4, 3, pool=True), _Layer(256, 3, 1))
_LAYERS: dict[Network, tuple[_Layer, ...]] = {
    "tiny": tuple(_Layer(x.width // 4, x.kernel, x.padding, x.pool) for x in _SMALL),
    "small": _SMALL,
    "medium": (
        _Layer(256, 4, 3, pool=True),
        _Layer(512, 4, 3, pool=True),
        _Layer(512, 1),
        _Layer(512, 3, 1),
    ),
}
_CHANNELS: dict[Network, int] = {"tiny": 96, "small": 384, "medium": 384}


def teacher_channels(network: Network) -> int:
    """Returns C, the channels of a teacher's feature map; a student has 2C."""
    return _CHANNELS[network]


def feature_size(image_size: int) -> int:
    """Returns height and width of the unpadded PDN's feature map: 56 for 256 pixels."""
    return image_size // 4 - 8


def build_pdn(network: Network, channels: int, padded: bool = False) -> nn.Sequential:
    """Builds a PDN from images (B, 3, S, S) to features (B, channels, h, h).

    Args:
        network: its size.
        channels: C for a teacher, 2C for a student.
        padded: with padding, as in distillation, h is S/4; without, S/4 − 8.

    Source: Batzner et al., EfficientAD, Tables 6 and 7. The indices of the layers are those of
    nelson1425/EfficientAD.
    """
    layers: list[nn.Module] = []
    width = 3
    for layer in _LAYERS[network]:
        layers.append(
            nn.Conv2d(width, layer.width, layer.kernel, padding=layer.padding if padded else 0)
        )
        layers.append(nn.ReLU())
        if layer.pool:
            layers.append(nn.AvgPool2d(2, stride=2, padding=1 if padded else 0))
        width = layer.width
    layers.append(nn.Conv2d(width, channels, 4))
    if network == "medium":
        layers += [nn.ReLU(), nn.Conv2d(channels, channels, 1)]
    return nn.Sequential(*layers)


def normalize_images(pixels: Tensor) -> Tensor:
    """Returns uint8 images as ImageNet-normalised float32 images, (B, 3, S, S) both."""
    mean, std = _imagenet_statistics(pixels.device)
    return (pixels.float() / 255 - mean) / std


@functools.cache
def _imagenet_statistics(device: torch.device) -> tuple[Tensor, Tensor]:
    """Returns mean and standard deviation, cached: a CUDA graph cannot contain their transfer."""
    with torch.inference_mode(False):
        mean, std = (torch.tensor(x, device=device) for x in (IMAGENET_MEAN, IMAGENET_STD))
        return mean.view(1, 3, 1, 1), std.view(1, 3, 1, 1)


def grayscale(pixels: Tensor) -> Tensor:
    """Returns the luma (B, 1, S, S), float32, of images (B, 3, S, S); same range (ITU-R BT.601)."""
    weights = torch.tensor(_LUMA, device=pixels.device).view(1, 3, 1, 1)
    return (pixels.float() * weights).sum(dim=1, keepdim=True)
