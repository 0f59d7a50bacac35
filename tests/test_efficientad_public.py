"""EfficientAD in our code against a straightforward one, with weights in the public layouts.

The reference below is written from the paper's tables (Batzner et al., EfficientAD, Tables 6 to 8
and Section 3), layer by layer, on a plain dictionary of tensors; it shares nothing with the package
but the weights.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor
from torch.nn import functional as F

from dfsc_tune.config import ModelConfig, ScoreConfig, TrainConfig, TrialConfig
from dfsc_tune.models.autoencoder import build_autoencoder
from dfsc_tune.models.detector import Detector
from dfsc_tune.models.pdn import build_pdn
from dfsc_tune.models.scoring import fit_normalization
from dfsc_tune.models.state_dicts import read_pdn
from dfsc_tune.models.teacher import Teacher, fit_channel_statistics, teacher_features

CHANNELS = 384
# Of the whole networks, medium ones cost too much at the paper's size.
IMAGE_SIZES = {"small": 256, "medium": 128}
# Kernel, width, padding where padded, and whether an average pool follows.
PDN = {
    "small": [(4, 128, 3, True), (4, 256, 3, True), (3, 256, 1, False), (4, None, 0, False)],
    "medium": [
        (4, 256, 3, True),
        (4, 512, 3, True),
        (1, 512, 0, False),
        (3, 512, 1, False),
        (4, None, 0, False),
        (1, None, 0, False),
    ],
}
# The names of the convolutions, in order: a Sequential's indices, or the layers' own names.
PDN_NAMES = {
    ("small", "indices"): ["0", "3", "6", "8"],
    ("small", "names"): ["conv1", "conv2", "conv3", "conv4"],
    ("medium", "indices"): ["0", "3", "6", "8", "10", "12"],
    ("medium", "names"): ["conv1", "conv2", "conv3", "conv4", "conv5", "conv6"],
}
AUTOENCODER_INDICES = [0, 2, 4, 6, 8, 10, 12, 16, 20, 24, 28, 32, 36, 38]

Weights = dict[str, Tensor]


def kernels(shapes: list[tuple[int, int, int]], seed: int) -> Iterator[tuple[Tensor, Tensor]]:
    """A random weight and bias for each (inputs, outputs, kernel size)."""
    generator = torch.Generator().manual_seed(seed)
    for inputs, outputs, size in shapes:
        scale = math.sqrt(2 / (inputs * size**2))
        weight = torch.randn(outputs, inputs, size, size, generator=generator) * scale
        yield weight, torch.randn(outputs, generator=generator) * 0.1


def pdn_weights(network: str, layout: str, outputs: int, seed: int) -> Weights:
    shapes, inputs = [], 3
    for kernel, width, _, _ in PDN[network]:
        shapes.append((inputs, width or outputs, kernel))
        inputs = width or outputs
    names = PDN_NAMES[network, layout]
    layers = zip(names, kernels(shapes, seed), strict=True)
    return {
        f"{name}.{x}": y
        for name, pair in layers
        for x, y in zip(("weight", "bias"), pair, strict=True)
    }


def autoencoder_weights(size: int) -> Weights:
    shapes = [(3, 32, 4), (32, 32, 4), (32, 64, 4), (64, 64, 4), (64, 64, 4), (64, 64, size // 32)]
    shapes += [(64, 64, 4)] * 6 + [(64, 64, 3), (64, CHANNELS, 3)]
    layers = zip(AUTOENCODER_INDICES, kernels(shapes, seed=3), strict=True)
    return {
        f"{index}.{x}": y
        for index, pair in layers
        for x, y in zip(("weight", "bias"), pair, strict=True)
    }


def reference_pdn(images: Tensor, network: str, layout: str, weights: Weights, padded: bool):
    features = images
    names = PDN_NAMES[network, layout]
    for index, (name, (_, _, padding, pooled)) in enumerate(zip(names, PDN[network], strict=True)):
        features = F.conv2d(
            features,
            weights[f"{name}.weight"],
            weights[f"{name}.bias"],
            padding=padding if padded else 0,
        )
        if index < len(names) - 1:
            features = F.relu(features)
        if pooled:
            features = F.avg_pool2d(features, 2, 2, padding=1 if padded else 0)
    return features


def reference_autoencoder(images: Tensor, weights: Weights) -> Tensor:
    size = images.shape[-1]

    def convolve(features: Tensor, place: int, **options: int) -> Tensor:
        index = AUTOENCODER_INDICES[place]
        return F.conv2d(features, weights[f"{index}.weight"], weights[f"{index}.bias"], **options)

    features = images
    for place in range(5):
        features = F.relu(convolve(features, place, stride=2, padding=1))
    features = convolve(features, 5)
    assert features.shape[-2:] == (1, 1)
    grids = {256: [3, 8, 15, 32, 63, 127], 128: [1, 4, 7, 16, 31, 63]}[size]
    for place, grid in enumerate(grids, 6):
        features = F.interpolate(features, (grid, grid), mode="bilinear")
        features = F.relu(convolve(features, place, padding=2))
    features = F.interpolate(features, (size // 4 - 8,) * 2, mode="bilinear")
    return convolve(F.relu(convolve(features, 12, padding=1)), 13, padding=1)


def reference_images(pixels: np.ndarray) -> Tensor:
    mean = torch.tensor([0.485, 0.456, 0.406]).view(3, 1, 1)
    std = torch.tensor([0.229, 0.224, 0.225]).view(3, 1, 1)
    return (torch.tensor(pixels) / 255 - mean) / std


class Reference:
    """EfficientAD from images to the combined map, on the weights given."""

    def __init__(self, network: str, layout: str, teacher: Weights, student: Weights) -> None:
        self.network, self.layout = network, layout
        self.teacher, self.student = teacher, student
        self.autoencoder = autoencoder_weights(IMAGE_SIZES[network])

    def features(self, pixels: np.ndarray) -> Tensor:
        images = reference_images(pixels)
        return reference_pdn(images, self.network, self.layout, self.teacher, padded=False)

    def fit(self, train: np.ndarray, validation: np.ndarray) -> None:
        features = self.features(train).double()
        self.mean = features.mean((0, 2, 3), keepdim=True)
        self.std = (features - self.mean).square().mean((0, 2, 3), keepdim=True).sqrt()
        self.quantiles = [
            torch.quantile(maps.double().flatten(), torch.tensor([0.9, 0.995]).double())
            for maps in self.raw_maps(validation)
        ]

    def raw_maps(self, pixels: np.ndarray) -> tuple[Tensor, Tensor]:
        images = reference_images(pixels)
        teacher = ((self.features(pixels) - self.mean) / self.std).float()
        student = reference_pdn(images, self.network, self.layout, self.student, padded=False)
        autoencoder = reference_autoencoder(images, self.autoencoder)
        local = (teacher - student[:, :CHANNELS]).square().mean(1)
        return local, (autoencoder - student[:, CHANNELS:]).square().mean(1)

    def anomaly_map(self, pixels: np.ndarray, size: tuple[int, int]) -> np.ndarray:
        normalized = [
            0.1 * (maps - low) / (high - low)
            for maps, (low, high) in zip(self.raw_maps(pixels), self.quantiles, strict=True)
        ]
        combined = 0.5 * normalized[0] + 0.5 * normalized[1]
        padded = F.pad(combined[:, None], (4, 4, 4, 4))
        return F.interpolate(padded, size, mode="bilinear")[0, 0].numpy()


def pixels_of(num: int, size: int, seed: int) -> np.ndarray:
    """Smooth images, as photographs are: noise on a coarse grid, enlarged."""
    generator = torch.Generator().manual_seed(seed)
    coarse = torch.rand(num, 3, 9, 9, generator=generator) * 255
    return F.interpolate(coarse, (size, size), mode="bicubic").clamp(0, 255).byte().numpy()


def by_index(network: str, layout: str, weights: Weights) -> Weights:
    """The same weights under a Sequential's indices, which are our own names."""
    indices = dict(zip(PDN_NAMES[network, layout], PDN_NAMES[network, "indices"], strict=True))
    renamed = (name.split(".") for name in weights)
    return {f"{indices[x]}.{y}": weights[f"{x}.{y}"] for x, y in renamed}


@pytest.mark.parametrize("padded", [False, True])
@pytest.mark.parametrize("layout", ["indices", "names"])
@pytest.mark.parametrize("network", ["small", "medium"])
def test_a_public_teacher_gives_the_public_features(
    tmp_path: Path, network: str, layout: str, padded: bool
) -> None:
    weights = pdn_weights(network, layout, CHANNELS, seed=1)
    torch.save(weights, tmp_path / "teacher.pth")
    ours = build_pdn(network, CHANNELS, padded=padded)
    ours.load_state_dict(read_pdn(tmp_path / "teacher.pth", network).state_dict())
    images = reference_images(pixels_of(1, 96, seed=0))
    with torch.inference_mode():
        expected = reference_pdn(images, network, layout, weights, padded)
        assert expected.shape[-1] == (24 if padded else 16)
        torch.testing.assert_close(ours(images), expected, atol=1e-5, rtol=0)


@pytest.mark.parametrize(("network", "layout"), [("small", "indices"), ("medium", "names")])
@torch.inference_mode()
def test_public_weights_give_the_public_anomaly_maps(
    tmp_path: Path, network: str, layout: str
) -> None:
    size = IMAGE_SIZES[network]
    teacher_weights = pdn_weights(network, layout, CHANNELS, seed=1)
    student_weights = pdn_weights(network, layout, 2 * CHANNELS, seed=2)
    train, validation, test = (pixels_of(1, size, seed) for seed in range(3))
    reference = Reference(network, layout, teacher_weights, student_weights)
    reference.fit(train, validation)

    torch.save(teacher_weights, tmp_path / "teacher.pth")
    teacher = Teacher(read_pdn(tmp_path / "teacher.pth", network))
    fit_channel_statistics(teacher, teacher_features(teacher, train))
    student = build_pdn(network, 2 * CHANNELS)
    student.load_state_dict(by_index(network, layout, student_weights))
    model = ModelConfig(network=network, image_size=size, instance_norm_relu=False)
    autoencoder = build_autoencoder(model).eval()
    autoencoder.load_state_dict(reference.autoencoder)
    score = ScoreConfig(sigmoid=False)
    config = TrialConfig(category="any", model=model, score=score, train=TrainConfig())
    parts = (config, teacher, student, autoencoder)
    raw = Detector(*parts, None, 0.0).difference_maps(validation)
    ours = Detector(*parts, fit_normalization(raw, score), 0.0)

    maps = ours.difference_maps(test)
    for found, expected in zip((maps.local, maps.global_), reference.raw_maps(test), strict=True):
        torch.testing.assert_close(found, expected, atol=1e-5, rtol=1e-5)
    sizes = np.array([[150, 210]], dtype=np.int32)
    (found,) = ours.anomaly_maps(maps, sizes)
    expected_map = reference.anomaly_map(test, (150, 210))
    np.testing.assert_allclose(found, expected_map, atol=1e-5, rtol=0)
    assert ours.scores(maps, sizes)[0] == pytest.approx(expected_map.max(), abs=1e-5)
    # Maps of nothing would agree too.
    assert expected_map.std() > 0.01
