"""Computes the targets of a distillation once: a backbone's features of all photographs."""

from __future__ import annotations

import functools
import itertools
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor
from torch.nn import functional as F

from dfsc_tune.config import Network
from dfsc_tune.errors import UserError
from dfsc_tune.models.distill_config import DistillConfig
from dfsc_tune.models.pdn import grayscale, teacher_channels
from dfsc_tune.teachers.backbones import Backbone

_BATCH = 8
_COLOUR, _GREY = 0, 1


@dataclass(frozen=True)
class Window:
    """The cells of the PDN's padded grid that are predicted: a separate square for each image."""

    grid: int
    """Side of the whole grid, in cells."""
    size: int
    """Side of the square, in cells."""
    top: npt.NDArray[np.int64]
    """(B,) its first row in each image."""
    left: npt.NDArray[np.int64]

    @classmethod
    def whole(cls, grid: int, num_images: int) -> Window:
        """Returns the window of the whole grid for each image."""
        zeros = np.zeros(num_images, np.int64)
        return cls(grid, grid, zeros, zeros)


@dataclass(frozen=True)
class Targets:
    """The PDN's targets: a backbone's features of all photographs, at the backbone's resolution."""

    maps: Sequence[npt.NDArray[np.float16]]
    """For each layer (2, N, C_l, h_l, w_l): in colour, then in grey; the C_l add up to C."""
    mean: Tensor
    """(1, C, 1, 1), over the colour images at the PDN's grid."""
    std: Tensor

    def batch(
        self,
        indices: npt.NDArray[np.int64],
        grey: npt.NDArray[np.bool_],
        window: Window,
        device: str,
    ) -> Tensor:
        """Returns normalised targets (B, C, size, size) of photographs, each in colour or grey."""
        raw = _resized_maps(self.maps, indices, grey.astype(np.int64), window, device)
        return (raw - self.mean.to(device)) / self.std.to(device)


def kept_channels(widths: Sequence[int], channels: int) -> list[npt.NDArray[np.int64]]:
    """Chooses the channels to learn of each layer: `channels` in all, evenly over the layers.

    Args:
        widths: the channels of each layer.
        channels: C, those of the teacher.

    Raises:
        UserError: the layers have fewer channels in all.
    """
    total = sum(widths)
    if total < channels:
        raise UserError(
            f"these layers have {total} channels, but the teacher needs {channels}; "
            "add more with --layers"
        )
    chosen = np.arange(channels) * total // channels
    ends = np.cumsum([0, *widths])
    return [
        chosen[(chosen >= low) & (chosen < high)] - low for low, high in itertools.pairwise(ends)
    ]


def feature_shapes(backbone: Backbone, network: Network) -> list[tuple[int, int, int]]:
    """Returns (C_l, h_l, w_l) of each wanted layer, counting the channels that a teacher learns.

    Raises:
        UserError: the layers have too few channels for the network.
    """
    size = backbone.image_size
    with torch.inference_mode():
        maps = backbone(torch.zeros(1, 3, size, size, device=backbone.mean.device))
    kept = kept_channels([x.shape[1] for x in maps], teacher_channels(network))
    return [(len(chosen), x.shape[2], x.shape[3]) for chosen, x in zip(kept, maps, strict=True)]


def compute_features(
    backbone: Backbone,
    batches: Iterator[npt.NDArray[np.uint8]],
    maps: Sequence[npt.NDArray[np.float16]],
    config: DistillConfig,
    device: str,
) -> Iterator[int]:
    """Fills `maps` with the backbone's features in colour and in grey; yields the number done.

    Args:
        backbone: frozen, on the device.
        batches: uint8 photographs (b, 3, size, size) at the backbone's size, N in all.
        maps: arrays to fill; for each layer (2, N, C_l, h_l, w_l).
        config: network and precision.
        device: where the backbone is.
    """
    done = 0
    for pixels in batches:
        images = torch.from_numpy(pixels).to(device).float()
        grey = grayscale(images).round().expand_as(images)
        end = done + len(pixels)
        for variant, given in ((_COLOUR, images), (_GREY, grey)):
            with torch.inference_mode(), config.precision(device):
                found = backbone(given.contiguous(memory_format=torch.channels_last))
            kept = kept_channels([x.shape[1] for x in found], teacher_channels(config.network))
            for target, features, chosen in zip(maps, found, kept, strict=True):
                target[variant, done:end] = features.float().cpu().numpy()[:, chosen]
        done = end
        yield done


def fit_targets(maps: Sequence[npt.NDArray[np.float16]], grid: int, device: str) -> Targets:
    """Computes the mean and population std per channel over all colour images and positions."""
    num_images = maps[0].shape[1]
    total = squares = torch.zeros(1, dtype=torch.float64, device=device)
    for start in range(0, num_images, _BATCH):
        indices = np.arange(start, min(start + _BATCH, num_images))
        window = Window.whole(grid, len(indices))
        batch = _resized_maps(maps, indices, np.zeros_like(indices), window, device)
        total = total + batch.sum(dim=(0, 2, 3), dtype=torch.float64)
        squares = squares + batch.square().sum(dim=(0, 2, 3), dtype=torch.float64)
    mean = total / (num_images * grid**2)
    # Clipped, as rounding may make a constant channel's variance negative.
    variance = (squares / (num_images * grid**2) - mean.square()).clamp(min=1e-12)
    return Targets(
        maps, mean.float().cpu().view(1, -1, 1, 1), variance.sqrt().float().cpu().view(1, -1, 1, 1)
    )


def _resized_maps(
    maps: Sequence[npt.NDArray[np.float16]],
    indices: npt.NDArray[np.int64],
    variants: npt.NDArray[np.int64],
    window: Window,
    device: str,
) -> Tensor:
    """Returns the windows of the maps, resized bilinearly to the grid, (B, C, size, size).

    A bilinear resize is the product of linear maps of rows and columns, so only the windows need be
    computed.
    """
    parts = []
    for layer in maps:
        features = torch.from_numpy(layer[variants, indices]).to(device).float()
        height, width = features.shape[2:]
        rows = _linear_resize(height, window.grid)[_cells(window.top, window.size)]
        columns = _linear_resize(width, window.grid)[_cells(window.left, window.size)]
        columns = columns.to(device).transpose(1, 2)[:, None]
        parts.append(rows.to(device)[:, None] @ features @ columns)
    return torch.cat(parts, dim=1)


def _cells(first: npt.NDArray[np.int64], size: int) -> Tensor:
    return torch.from_numpy(first)[:, None] + torch.arange(size)


@functools.cache
def _linear_resize(size: int, grid: int) -> Tensor:
    """Returns the matrix (grid, size) that resizes a row of `size` values linearly to `grid`."""
    return F.interpolate(torch.eye(size)[None], size=grid, mode="linear")[0].T.contiguous()
