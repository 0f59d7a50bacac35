"""Maps and scores against an independent numpy reference and hand-computed cases."""

import numpy as np
import pytest
import torch
from scipy.ndimage import map_coordinates
from torch import nn
from torch.nn import functional as F

from dfsc_tune.config import ScoreConfig
from dfsc_tune.models.pdn import normalize_images
from dfsc_tune.models.scoring import (
    DifferenceMaps,
    MapNormalization,
    anomaly_maps,
    combined_maps,
    difference_maps,
    fit_normalization,
    image_scores,
    logit_of_complement,
)

PLAIN = MapNormalization((0.0, 0.1), (0.0, 0.1))  # Maps a value x to x itself.


def random_maps(num: int = 3, size: int = 6, scale: float = 1.0) -> DifferenceMaps:
    generator = torch.Generator().manual_seed(0)
    local, global_ = torch.rand(2, num, size, size, generator=generator) * scale
    return DifferenceMaps(local, global_)


def resize(image: np.ndarray, height: int, width: int) -> np.ndarray:
    """Bilinear, half-pixel centres, edges repeated: what torch's interpolate does."""
    rows = (np.arange(height) + 0.5) * image.shape[0] / height - 0.5
    columns = (np.arange(width) + 0.5) * image.shape[1] / width - 0.5
    grid = np.meshgrid(rows, columns, indexing="ij")
    return map_coordinates(image, grid, order=1, mode="nearest")


def reference_map(local: np.ndarray, global_: np.ndarray, size: tuple[int, int]) -> np.ndarray:
    """Sigmoid, mean, zero padding by 4, resize: as METHOD states it, on the map itself."""
    combined = (1 / (1 + np.exp(-local)) + 1 / (1 + np.exp(-global_))) / 2
    return resize(np.pad(combined, 4), *size)


def sizes(*values: tuple[int, int]) -> np.ndarray:
    return np.array(values, dtype=np.int32)


def test_scores_equal_the_reference_for_mixed_sizes() -> None:
    maps = random_maps()
    wanted = [(20, 31), (9, 12), (20, 31)]
    scores = image_scores(maps, PLAIN, sizes(*wanted), ScoreConfig())
    produced = anomaly_maps(maps, PLAIN, sizes(*wanted), ScoreConfig())
    for index, size in enumerate(wanted):
        expected = reference_map(
            maps.local[index].double().numpy(), maps.global_[index].double().numpy(), size
        )
        probability = 1 / (1 + np.exp(-produced[index].astype(np.float64)))
        assert produced[index].shape == size
        np.testing.assert_allclose(probability, expected, atol=1e-6)
        assert scores[index] == pytest.approx(np.log(expected.max() / (1 - expected.max())))


@pytest.mark.parametrize("sigmoid", [True, False])
@pytest.mark.parametrize("size", [(14, 14), (1, 1), (9, 200), (57, 23), (1100, 1600)])
def test_a_score_is_the_maximum_of_the_whole_map(size: tuple[int, int], sigmoid: bool) -> None:
    maps, config = random_maps(5), ScoreConfig(sigmoid=sigmoid)
    scores = image_scores(maps, PLAIN, sizes(*[size] * 5), config)
    combined = combined_maps(maps, PLAIN, config)[:, None]
    whole = F.interpolate(combined, size=size, mode="bilinear").flatten(1)
    expected = logit_of_complement(whole.amin(1)) if sigmoid else whole.amax(1)
    np.testing.assert_allclose(scores, expected.numpy(), rtol=1e-12)


def test_without_sigmoid_the_maps_are_averaged_plainly() -> None:
    maps = random_maps(1)
    (produced,) = anomaly_maps(maps, PLAIN, sizes((14, 14)), ScoreConfig(sigmoid=False))
    mean = (maps.local[0] + maps.global_[0]).double().numpy() / 2
    np.testing.assert_allclose(produced, np.pad(mean, 4), atol=1e-6)


def test_scores_do_not_saturate() -> None:
    # At 50 and beyond a float64 sigmoid is exactly 1: ranking by the map itself would tie.
    peaks = torch.tensor([50.0, 60.0, 300.0, 700.0]).view(4, 1, 1).expand(4, 6, 6)
    maps = DifferenceMaps(peaks, peaks)
    scores = image_scores(maps, PLAIN, sizes(*[(14, 14)] * 4), ScoreConfig())
    assert np.isfinite(scores).all()
    assert (np.diff(scores) > 0).all()
    assert scores[0] == pytest.approx(50, abs=0.1)


def test_anomaly_maps_are_finite_where_padded() -> None:
    (produced,) = anomaly_maps(random_maps(1), PLAIN, sizes((140, 140)), ScoreConfig())
    assert np.isfinite(produced).all()
    assert produced[0, 0] < -30


def test_normalization_takes_the_two_quantiles_of_all_positions() -> None:
    maps = random_maps(4)
    config = ScoreConfig(low_quantile=0.5, high_quantile=0.9)
    normalization = fit_normalization(maps, config)
    assert normalization.local == pytest.approx(np.quantile(maps.local.numpy(), (0.5, 0.9)))
    assert normalization.global_ == pytest.approx(np.quantile(maps.global_.numpy(), (0.5, 0.9)))


def test_the_two_quantiles_are_mapped_to_0_and_a_tenth() -> None:
    normalization = MapNormalization((2.0, 4.0), (10.0, 20.0))
    flat = DifferenceMaps(torch.full((2, 6, 6), 2.0), torch.full((2, 6, 6), 10.0))
    flat.local[1], flat.global_[1] = 4.0, 20.0
    config = ScoreConfig(sigmoid=False)
    scores = image_scores(flat, normalization, sizes((14, 14), (14, 14)), config)
    assert scores == pytest.approx([0.0, 0.1])


def test_constant_validation_maps_do_not_divide_by_zero() -> None:
    constant = DifferenceMaps(torch.ones(2, 6, 6), torch.ones(2, 6, 6))
    normalization = fit_normalization(constant, ScoreConfig())
    assert np.isfinite(
        image_scores(constant, normalization, sizes((14, 14), (14, 14)), ScoreConfig())
    ).all()


def test_difference_maps_are_channel_means_of_squares() -> None:
    class Student(nn.Module):
        def forward(self, images: torch.Tensor) -> torch.Tensor:
            return torch.cat([images, 2 * images], dim=1)

    class Autoencoder(nn.Module):
        def forward(self, images: torch.Tensor) -> torch.Tensor:
            return 5 * images

    pixels = torch.randint(0, 256, (5, 3, 4, 4), dtype=torch.uint8)
    teacher = torch.rand(5, 3, 4, 4)
    first, second = difference_maps(
        [Student(), nn.Sequential(Student())], Autoencoder(), pixels, teacher, batch_size=2
    )
    images = normalize_images(pixels)
    torch.testing.assert_close(first.local, (teacher - images).square().mean(dim=1))
    torch.testing.assert_close(first.global_, (3 * images).square().mean(dim=1))
    assert torch.equal(first.local, second.local)
