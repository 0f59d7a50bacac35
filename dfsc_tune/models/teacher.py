"""The frozen teacher: its weights, and its features, normalised per channel."""

from __future__ import annotations

from collections.abc import Iterable
from hashlib import sha256
from typing import cast

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor, nn

from dfsc_tune.config import FeatureDtype, ModelConfig, Network
from dfsc_tune.models.pdn import build_pdn, feature_size, normalize_images, teacher_channels
from dfsc_tune.models.state_dicts import pdn_sha256, read_pdn
from dfsc_tune.models.teacher_files import check_by_card, teacher_path

_RANDOM_SEED = 0
_MIN_STD = 1e-6


class Teacher(nn.Module):
    """A frozen PDN whose output is normalised per channel over a category's training images."""

    mean: Tensor
    std: Tensor

    def __init__(self, pdn: nn.Sequential) -> None:
        super().__init__()
        self.pdn = pdn
        channels = cast(nn.Conv2d, pdn[-1]).out_channels
        self.register_buffer("mean", torch.zeros(1, channels, 1, 1))
        self.register_buffer("std", torch.ones(1, channels, 1, 1))
        self.eval().requires_grad_(False)

    def forward(self, images: Tensor) -> Tensor:
        """Normalised features (B, C, h, h) of ImageNet-normalised images (B, 3, S, S)."""
        return cast(Tensor, (self.pdn(images) - self.mean) / self.std)


def load_teacher(model: ModelConfig) -> Teacher:
    """Loads the teacher that the settings name (see `teacher_path`), not yet normalised.

    Raises:
        UserError: there is no such teacher, or its weights cannot be read or belong to another
            network.
    """
    path = teacher_path(model)
    if path is None:
        return Teacher(_random_pdn(model.network))
    check_by_card(path)
    return Teacher(read_pdn(path, model.network))


def teacher_identity(teacher: Teacher) -> str:
    """Returns the sha256 of the PDN's weights: different teachers' results are not comparable."""
    return pdn_sha256(teacher.pdn)


def channel_statistics_sha256(teacher: Teacher) -> str:
    """Returns the sha256 of the means and standard deviations that normalise its features."""
    statistics = torch.cat([teacher.mean, teacher.std]).cpu().numpy()
    return sha256(statistics.tobytes()).hexdigest()


def fit_channel_statistics(teacher: Teacher, features: npt.NDArray[np.float32]) -> None:
    """Sets the teacher's mean and population std per channel.

    Args:
        teacher: changed in place.
        features: (N, C, h, h), its raw output for all training images.
    """
    # In float64, image by image: a float32 sum over a million entries loses digits.
    count = features.size / features.shape[1]
    mean = _channel_sum(image for image in features) / count
    centred = (image.astype(np.float64) - mean[:, None, None] for image in features)
    variance = _channel_sum(image**2 for image in centred) / count
    teacher.mean.copy_(torch.from_numpy(mean).view(1, -1, 1, 1))
    teacher.std.copy_(torch.from_numpy(np.sqrt(variance)).view(1, -1, 1, 1))
    # A dead channel is constant; dividing by one leaves it at 0.
    teacher.std[teacher.std < _MIN_STD] = 1.0


def teacher_features(
    teacher: Teacher,
    pixels: npt.NDArray[np.uint8],
    batch_size: int = 16,
    device: str = "cpu",
    dtype: FeatureDtype = "float32",
) -> npt.NDArray[np.floating]:
    """Computes the teacher's features (N, C, h, h) of uint8 images (N, 3, S, S) in batches.

    They are computed in float32 and kept in `dtype`.
    """
    teacher = teacher.to(device)
    size = feature_size(pixels.shape[-1])
    # One array from the start: joining a list of batches would take the memory twice.
    features = np.empty((len(pixels), teacher.mean.shape[1], size, size), dtype)
    with torch.inference_mode():
        for start in range(0, len(pixels), batch_size):
            # A copy: the array may be shared read-only memory.
            batch = torch.tensor(pixels[start : start + batch_size], device=device)
            features[start : start + batch_size] = teacher(normalize_images(batch)).cpu().numpy()
    return features


def _channel_sum(images: Iterable[npt.NDArray[np.floating]]) -> npt.NDArray[np.float64]:
    total = np.float64(0)
    for image in images:
        total = total + image.sum(axis=(1, 2), dtype=np.float64)
    return cast("npt.NDArray[np.float64]", total)


def _random_pdn(network: Network) -> nn.Sequential:
    pdn = build_pdn(network, teacher_channels(network))
    generator = torch.Generator().manual_seed(_RANDOM_SEED)
    for layer in pdn:
        if isinstance(layer, nn.Conv2d):
            nn.init.kaiming_normal_(layer.weight, nonlinearity="relu", generator=generator)
            assert layer.bias is not None
            nn.init.zeros_(layer.bias)
    return pdn
