"""Bootstrap interval of AU-sPRO: its table against the exact value, honesty with few images."""

import numpy as np
import pytest

from dfsc_tune.errors import UserError
from dfsc_tune.metrics import Defect, au_spro_by_kind, au_spro_interval, pixel_uncertainty


def simulated_maps(generator, numbers, strength=1.5, size=24):
    """Return maps, kinds and defects of (good, logical, structural) numbers of images.

    Images differ in how noisy they are and how clearly their defects show.
    """
    kinds = ["good"] * numbers[0] + ["logical"] * numbers[1] + ["structural"] * numbers[2]
    maps, defects = [], []
    for image, kind in enumerate(kinds):
        scores = generator.standard_normal((size, size)) * generator.uniform(0.8, 1.2)
        for _ in range(0 if kind == "good" else generator.integers(1, 3)):
            top, left = generator.integers(0, size - 8, size=2)
            mask = np.zeros((size, size), bool)
            mask[top : top + 8, left : left + 6] = True
            scores[mask] += generator.normal(strength, 0.7)
            defects.append(Defect(image, mask, 24.0 if kind == "logical" else 48.0))
        maps.append(scores)
    return maps, kinds, defects


@pytest.mark.parametrize("limit", [0.01, 0.05, 0.3, 1.0])
@pytest.mark.parametrize("scale", [1.0, 0.0], ids=["varied", "constant"])
@pytest.mark.parametrize("numbers", [(12, 10, 10), (2, 1, 2)])
def test_table_agrees_with_the_exact_area(limit, scale, numbers):
    maps, kinds, defects = simulated_maps(np.random.default_rng(0), numbers, strength=2.0)
    maps = [scale * scores for scores in maps]
    table = pixel_uncertainty._tabulate(maps, defects, limit)
    exact = au_spro_by_kind(maps, kinds, defects, [limit])
    labels = np.asarray(kinds)
    for kind in ("logical", "structural"):
        once = np.isin(labels, ["good", kind]).astype(np.float64)[np.newaxis]
        found = table.au_spro(once, labels == kind, limit)[0]
        num_negatives = once[0] @ table.num_negatives
        tolerance = 0.002 + 0.5 / (limit * num_negatives)
        assert found == pytest.approx(exact[kind][limit], abs=tolerance)


def test_interval_holds_the_estimate_and_repeats():
    maps, kinds, defects = simulated_maps(np.random.default_rng(1), (25, 22, 24))
    intervals = au_spro_interval(maps, kinds, defects, fpr_limit=0.1)
    assert intervals == au_spro_interval(maps, kinds, defects, fpr_limit=0.1)
    exact = au_spro_by_kind(maps, kinds, defects, [0.1])
    for name, interval in intervals.items():
        assert 0 <= interval.low < exact[name][0.1] < interval.high <= 1
        assert interval.high - interval.low < 0.4


def test_sampled_thresholds_serve_as_well(monkeypatch):
    monkeypatch.setattr(pixel_uncertainty, "_SAMPLE_PIXELS", 5000)
    test_table_agrees_with_the_exact_area(0.3, 1.0, (12, 10, 10))


def test_weights_mean_repetition():
    """A table weighted twice gives the area of maps given twice."""
    maps, kinds, defects = simulated_maps(np.random.default_rng(2), (3, 0, 3))
    table = pixel_uncertainty._tabulate(maps, defects, 1.0)
    weights = np.array([[2.0, 0.0, 1.0, 1.0, 0.0, 2.0]])
    found = table.au_spro(weights, np.asarray(kinds) == "structural", 1.0)[0]

    order = [0, 0, 2, 3, 5, 5]
    repeated = [
        Defect(place, defect.mask, defect.saturation_area)
        for place, image in enumerate(order)
        for defect in defects
        if defect.image == image
    ]
    exact = au_spro_by_kind(
        [maps[image] for image in order], [kinds[image] for image in order], repeated, [1.0]
    )
    assert found == pytest.approx(exact["structural"][1.0], abs=0.002)


def test_one_perfect_image_claims_no_certainty():
    maps, kinds, defects = simulated_maps(np.random.default_rng(3), (2, 1, 0), strength=50.0)
    intervals = au_spro_interval(maps, kinds, defects)
    assert set(intervals) == {"logical", "mean"}
    assert intervals["mean"].low < 0.5
    assert intervals["mean"].high > 0.99


@pytest.mark.parametrize("numbers", [(5, 3, 3), (22, 21, 21)])
def test_interval_covers_the_truth(numbers, monkeypatch):
    monkeypatch.setattr(pixel_uncertainty, "_NUM_RESAMPLES", 100)
    generator = np.random.default_rng(4)
    truth = au_spro_by_kind(*simulated_maps(generator, (400, 400, 400)), [0.3])["mean"][0.3]
    num_trials, covered = 40, 0
    for _ in range(num_trials):
        problem = simulated_maps(generator, numbers)
        interval = au_spro_interval(*problem, fpr_limit=0.3)["mean"]
        covered += interval.low <= truth <= interval.high
    # 0.95 less two standard errors of this simulation.
    assert covered / num_trials >= 0.88


def test_a_limit_out_of_range_is_told():
    problem = simulated_maps(np.random.default_rng(5), (2, 2, 2))
    with pytest.raises(UserError, match="not 0"):
        au_spro_interval(*problem, fpr_limit=0)
