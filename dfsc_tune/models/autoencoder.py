"""The autoencoder of EfficientAD with the paper's instance norms and leading decoder ReLU."""

from __future__ import annotations

from torch import Tensor, nn

from dfsc_tune.config import ModelConfig
from dfsc_tune.models.pdn import feature_size, teacher_channels

_WIDTHS = (32, 32, 64, 64, 64)
_CODE = 64
_DROPOUT = 0.2
# The tiny autoencoder is narrowed less than the tiny PDN: its code must still describe an image.
_TINY_DIVISOR = 2


def build_autoencoder(model: ModelConfig) -> nn.Sequential:
    """Builds an autoencoder from images (B, 3, S, S) to features (B, C, h, h) with a 1×1 code.

    Source: Batzner et al., EfficientAD, Table 8; `instance_norm_relu` adds the paper's Section 4.1
    changes: instance norm before each ReLU (not on the 1×1 code, where it is undefined) and a ReLU
    before the decoder.
    """
    divisor = _TINY_DIVISOR if model.network == "tiny" else 1
    widths = [width // divisor for width in _WIDTHS]
    code = _CODE // divisor
    return nn.Sequential(*_encoder(model, widths, code), *_decoder(model, code))


def _encoder(model: ModelConfig, widths: list[int], code: int) -> list[nn.Module]:
    layers: list[nn.Module] = []
    previous = 3
    for width in widths:
        layers.append(nn.Conv2d(previous, width, 4, stride=2, padding=1))
        layers += _activation(model, width)
        previous = width
    layers.append(nn.Conv2d(previous, code, model.image_size // 32))
    return layers


def _decoder(model: ModelConfig, width: int) -> list[nn.Module]:
    size = model.image_size
    layers: list[nn.Module] = [nn.ReLU()] if model.instance_norm_relu else []
    for grid in (
        size // 64 - 1,
        size // 32,
        size // 16 - 1,
        size // 8,
        size // 4 - 1,
        size // 2 - 1,
    ):
        layers += [_Resize(grid), nn.Conv2d(width, width, 4, padding=2)]
        layers += _activation(model, width)
        layers.append(nn.Dropout(_DROPOUT))
    layers += [_Resize(feature_size(size)), nn.Conv2d(width, width, 3, padding=1)]
    layers += _activation(model, width)
    layers.append(nn.Conv2d(width, teacher_channels(model.network), 3, padding=1))
    return layers


def _activation(model: ModelConfig, width: int) -> list[nn.Module]:
    return [nn.InstanceNorm2d(width), nn.ReLU()] if model.instance_norm_relu else [nn.ReLU()]


class _Resize(nn.Module):
    """Bilinear resize to a square grid."""

    def __init__(self, size: int) -> None:
        super().__init__()
        self.size = size

    def forward(self, features: Tensor) -> Tensor:
        return nn.functional.interpolate(features, size=(self.size, self.size), mode="bilinear")
