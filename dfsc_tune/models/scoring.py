"""Turns feature differences into anomaly maps and image scores, as EfficientAD and the paper do.

The local map shows where teacher and student disagree, the global map where student and autoencoder
do. Each is normalised by two quantiles of the good validation images' maps and passed through a
sigmoid (the paper's addition); then the two are averaged.
"""

from __future__ import annotations

import functools
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from dfsc_tune.config import ScoreConfig
from dfsc_tune.models.pdn import normalize_images
from dfsc_tune.models.speed import autocast

# Unpadded PDN maps lack 4 cells on each side of the image's S/4 grid.
_PADDING = 4
_LOW_VALUE, _HIGH_VALUE = 0.0, 0.1
_MIN_SPREAD = 1e-12
_RESIZE_BATCH = 8
_SCORE_BATCH = 64


@dataclass(frozen=True)
class DifferenceMaps:
    """Raw maps of some images, (N, h, h) float32 each."""

    local: Tensor
    global_: Tensor

    def __getitem__(self, part: slice) -> DifferenceMaps:
        return DifferenceMaps(self.local[part], self.global_[part])


@dataclass(frozen=True)
class MapNormalization:
    """The two quantiles q_a, q_b of the local and of the global map over good validation images."""

    local: tuple[float, float]
    global_: tuple[float, float]


def joined_maps(parts: Sequence[DifferenceMaps]) -> DifferenceMaps:
    """Returns the maps of several lists of images, joined in their order."""
    return DifferenceMaps(
        torch.cat([part.local for part in parts]), torch.cat([part.global_ for part in parts])
    )


@torch.inference_mode()
def difference_maps(
    students: Sequence[nn.Module],
    autoencoder: nn.Module,
    pixels: Tensor,
    teacher_features: Tensor,
    batch_size: int = 16,
    dtype: torch.dtype = torch.float32,
) -> list[DifferenceMaps]:
    """Returns the raw maps of all images for each student.

    Args:
        students: moving averages of one training, which share the autoencoder's forward pass.
        autoencoder: in evaluation mode.
        pixels: (N, 3, S, S) uint8, on any device.
        teacher_features: (N, C, h, h), normalised, on the same device.
        batch_size: images in a forward pass.
        dtype: number format of the networks; differences are taken in float32.
    """
    channels = teacher_features.shape[1]
    maps: list[list[DifferenceMaps]] = [[] for _ in students]
    for start in range(0, len(pixels), batch_size):
        images = normalize_images(pixels[start : start + batch_size])
        teacher = teacher_features[start : start + batch_size].float()
        with autocast(dtype, images.device.type):
            reconstructed = autoencoder(images).float()
            answers = [student(images).float() for student in students]
        for index, answer in enumerate(answers):
            local = (teacher - answer[:, :channels]).square().mean(dim=1)
            global_ = (reconstructed - answer[:, channels:]).square().mean(dim=1)
            maps[index].append(DifferenceMaps(local, global_))
    return [joined_maps(parts) for parts in maps]


def fit_normalization(validation: DifferenceMaps, config: ScoreConfig) -> MapNormalization:
    """Returns the quantiles of the good validation images' maps, over all their positions."""
    quantiles = (config.low_quantile, config.high_quantile)

    def fit(maps: Tensor) -> tuple[float, float]:
        low, high = np.quantile(maps.double().cpu().numpy(), quantiles)
        return float(low), float(high)

    return MapNormalization(fit(validation.local), fit(validation.global_))


def image_scores(
    maps: DifferenceMaps,
    normalization: MapNormalization,
    sizes: npt.NDArray[np.int32],
    config: ScoreConfig,
) -> npt.NDArray[np.float64]:
    """Returns the maximum of each image's anomaly map at the image's original size, (N,).

    Args:
        maps: of N images.
        normalization: from the same networks' validation maps.
        sizes: (N, 2) original heights and widths.
        config: with or without sigmoid.
    """
    combined = combined_maps(maps, normalization, config)
    scores = np.empty(len(sizes))
    for size, indices in _by_size(sizes, _SCORE_BATCH):
        values = _extreme_values(combined[torch.from_numpy(indices)], *size)
        # The complement 1 − m is smallest where the map m is largest.
        found = logit_of_complement(values.amin(1)) if config.sigmoid else values.amax(1)
        scores[indices] = found.cpu().numpy()
    return scores


def anomaly_maps(
    maps: DifferenceMaps,
    normalization: MapNormalization,
    sizes: npt.NDArray[np.int32],
    config: ScoreConfig,
) -> list[npt.NDArray[np.float32]]:
    """Returns each image's anomaly map at its original size: N arrays (H, W)."""
    combined = combined_maps(maps, normalization, config)
    arrays: dict[int, npt.NDArray[np.float32]] = {}
    for size, indices in _by_size(sizes, _RESIZE_BATCH):
        chosen = combined[torch.from_numpy(indices)][:, None]
        resized = F.interpolate(chosen, size=size, mode="bilinear")[:, 0]
        values = logit_of_complement(resized) if config.sigmoid else resized
        arrays.update(zip(indices.tolist(), values.float().cpu().numpy(), strict=True))
    return [arrays[index] for index in range(len(sizes))]


def _by_size(
    sizes: npt.NDArray[np.int32], batch_size: int
) -> Iterator[tuple[tuple[int, int], npt.NDArray[np.int64]]]:
    """Yields each size with the indices of its images, one batch at a time."""
    for height, width in np.unique(sizes, axis=0).tolist():
        same = np.flatnonzero((sizes == (height, width)).all(axis=1))
        for indices in np.split(same, range(batch_size, len(same), batch_size)):
            yield (height, width), indices


def _extreme_values(maps: Tensor, height: int, width: int) -> Tensor:
    """Returns some values of the bilinearly resized maps, their extremes among them, (N, values).

    Between four neighbouring cells the resized map is bilinear, so its extremes over the pixels
    there lie at the four outermost pixels. Only these few of millions need be computed.
    """
    (top, bottom, down), (left, right, across) = (
        _outermost_pixels(cells, pixels, maps.device)
        for cells, pixels in zip(maps.shape[1:], (height, width), strict=True)
    )
    rows = torch.lerp(maps[:, top], maps[:, bottom], down[:, None])
    return torch.lerp(rows[:, :, left], rows[:, :, right], across).flatten(1)


@functools.lru_cache(maxsize=64)
def _outermost_pixels(
    cells: int, pixels: int, device: torch.device
) -> tuple[Tensor, Tensor, Tensor]:
    """Finds the first and the last pixel between any two cells' centres, along one axis.

    Returns:
        For each such pixel, the cells before and after it, and the weight of the latter, as in
        PyTorch's bilinear resize.
    """
    place = ((torch.arange(pixels, dtype=torch.float64) + 0.5) * cells / pixels - 0.5).clamp(min=0)
    before = place.long()
    changes, end = before[1:] != before[:-1], torch.ones(1, dtype=torch.bool)
    outermost = torch.cat([end, changes]) | torch.cat([changes, end])
    before, place = before[outermost], place[outermost]
    after = (before + 1).clamp(max=cells - 1)
    return before.to(device), after.to(device), (place - before).to(device)


def combined_maps(
    maps: DifferenceMaps, normalization: MapNormalization, config: ScoreConfig
) -> Tensor:
    """Returns the average of local and global map on the S/4 grid, (N, S/4, S/4) float64.

    With the sigmoid, 1 − m is computed instead of the map m, and its logit is the final map. In
    floating point, m itself is exactly 1 wherever the normalised maps are large, and ties there
    would spoil every ranking. Padding and resizing are linear, so they may be applied to 1 − m.
    """
    local = _normalized(maps.local, normalization.local)
    global_ = _normalized(maps.global_, normalization.global_)
    if config.sigmoid:
        combined, outside = (torch.sigmoid(-local) + torch.sigmoid(-global_)) / 2, 1.0
    else:
        combined, outside = (local + global_) / 2, 0.0
    return F.pad(combined, (_PADDING,) * 4, value=outside)


def logit_of_complement(complement: Tensor) -> Tensor:
    """Returns the logit of m, given 1 − m."""
    # The map is 0 in the padding and exactly 1 at a huge difference: both logits stay finite.
    limits = torch.finfo(complement.dtype)
    # Tensors, as an exporter writes a plain number as float32, in which 1 - eps is 1.
    smallest, largest = complement.new_tensor(limits.tiny), complement.new_tensor(1 - limits.eps)
    complement = complement.clamp(smallest, largest)
    return torch.log1p(-complement) - complement.log()


def _normalized(maps: Tensor, quantiles: tuple[float, float]) -> Tensor:
    low, high = quantiles
    share = (maps.double() - low) / max(high - low, _MIN_SPREAD)
    return _LOW_VALUE + (_HIGH_VALUE - _LOW_VALUE) * share
