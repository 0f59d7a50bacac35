"""Intervals and differences of image AUROC: known values, honesty with few images, coverage."""

from statistics import NormalDist

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from dfsc_tune.errors import UserError
from dfsc_tune.metrics import (
    image_auroc,
    image_auroc_difference,
    image_auroc_interval,
    mean_image_auroc_interval,
    uncertainty,
)
from dfsc_tune.metrics.image import part_by_kind


def simulated_scores(generator, numbers, auroc=0.85):
    """Return normal scores, and kinds, of (good, logical, structural) numbers of images."""
    shift = np.sqrt(2) * NormalDist().inv_cdf(auroc)
    kinds = ["good"] * numbers[0] + ["logical"] * numbers[1] + ["structural"] * numbers[2]
    scores = generator.standard_normal(sum(numbers))
    scores[numbers[0] :] += shift
    return scores, kinds


def width(interval):
    return interval.high - interval.low


def hanley_mcneil_variance(auroc, number):
    """Return the variance of an AUROC of so many images of each kind (Radiology 143 (1982) 29)."""
    both_anomalous_above, above_both_good = auroc / (2 - auroc), 2 * auroc**2 / (1 + auroc)
    around = both_anomalous_above + above_both_good - 2 * auroc**2
    return (auroc * (1 - auroc) + (number - 1) * around) / number**2


def test_score_interval_solves_its_equation():
    found = uncertainty.newcombe_interval(0.8, 20, 30)
    z = NormalDist().inv_cdf(0.975)
    for limit in (found.low, found.high):
        # At equal numbers of images the variance is Hanley and McNeil's.
        variance = hanley_mcneil_variance(limit, 25) * 25 * 25 / (20 * 30)
        assert abs(0.8 - limit) == pytest.approx(z * np.sqrt(variance), rel=1e-9)


def test_score_interval_of_one_pair_is_wilsons():
    z = NormalDist().inv_cdf(0.975)
    found = uncertainty.newcombe_interval(1.0, 1, 1)
    assert (found.low, found.high) == pytest.approx((1 / (1 + z**2), 1.0))
    mirrored = uncertainty.newcombe_interval(0.0, 1, 1)
    assert (mirrored.low, mirrored.high) == pytest.approx((0.0, 1 - found.low))


def test_perfect_separation_of_few_images_claims_no_certainty():
    kinds = ["good"] * 2 + ["logical"] * 2 + ["structural"] * 2
    intervals = image_auroc_interval([0.0, 1.0, 2.0, 3.0, 4.0, 5.0], kinds)
    for interval in intervals.values():
        assert interval.low < 0.5
        assert interval.high == 1.0


def test_interval_narrows_with_images():
    generator = np.random.default_rng(5)
    widths = []
    for number in (5, 20, 80):
        scores, kinds = simulated_scores(generator, (number, number, number))
        interval = image_auroc_interval(scores, kinds)["mean"]
        assert 0 <= interval.low < image_auroc(scores, kinds).mean < interval.high <= 1
        widths.append(width(interval))
    assert widths == sorted(widths, reverse=True)


def test_interval_of_absent_kind_is_absent():
    scores, kinds = simulated_scores(np.random.default_rng(1), (9, 0, 7))
    intervals = image_auroc_interval(scores, kinds)
    assert set(intervals) == {"structural", "mean"}
    assert intervals["mean"].low == pytest.approx(intervals["structural"].low)
    assert intervals["mean"].high == pytest.approx(intervals["structural"].high)


def test_each_call_says_the_same():
    scores, kinds = simulated_scores(np.random.default_rng(2), (15, 8, 8), auroc=0.7)
    assert image_auroc_interval(scores, kinds) == image_auroc_interval(scores, kinds)
    first, again = (image_auroc_difference(scores, scores[::-1], kinds) for _ in range(2))
    assert first == again


@pytest.mark.parametrize(
    ("numbers", "auroc"), [((5, 5, 5), 0.9), ((10, 4, 4), 0.97), ((40, 30, 30), 0.8)]
)
def test_interval_covers_the_truth(numbers, auroc, monkeypatch):
    monkeypatch.setattr(uncertainty, "_NUM_RESAMPLES", 200)
    generator = np.random.default_rng(7)
    num_trials, covered = 150, 0
    for _ in range(num_trials):
        scores, kinds = simulated_scores(generator, numbers, auroc)
        interval = image_auroc_interval(scores, kinds)["mean"]
        covered += interval.low <= auroc <= interval.high
    # 0.95 less two standard errors of this simulation.
    assert covered / num_trials >= 0.914


def test_difference_of_a_configuration_with_itself():
    scores, kinds = simulated_scores(np.random.default_rng(3), (20, 20, 20))
    found = image_auroc_difference(scores, 3 * scores + 1, kinds)
    assert (found.value, found.p_value) == (0.0, 1.0)
    assert found.interval.low <= 0 <= found.interval.high


def test_difference_sees_a_clear_winner_and_is_antisymmetric():
    scores, kinds = simulated_scores(np.random.default_rng(4), (60, 50, 50), auroc=0.97)
    noise = np.random.default_rng(5).standard_normal(scores.size)
    found = image_auroc_difference(scores, noise, kinds)
    assert found.value == pytest.approx(
        image_auroc(scores, kinds).mean - image_auroc(noise, kinds).mean
    )
    assert found.interval.low > 0.2
    assert found.p_value < 0.001
    mirrored = image_auroc_difference(noise, scores, kinds)
    assert mirrored.value == pytest.approx(-found.value)
    assert mirrored.interval.low == pytest.approx(-found.interval.high)


def test_difference_of_few_images_claims_no_certainty():
    kinds = ["good"] * 2 + ["logical"] * 2
    best, worst = [0.0, 1.0, 2.0, 3.0], [3.0, 2.0, 1.0, 0.0]
    found = image_auroc_difference(best, worst, kinds)
    assert found.value == 1.0
    assert found.interval.low < 0.5
    assert found.p_value > 0.05
    both_perfect = image_auroc_difference(best, [0.0, 2.0, 5.0, 4.0], kinds)
    assert both_perfect.value == 0.0
    assert width(both_perfect.interval) > 0.5


def test_pairing_narrows_the_difference():
    generator = np.random.default_rng(6)
    scores, kinds = simulated_scores(generator, (60, 40, 40))
    alike = scores + 0.1 * generator.standard_normal(scores.size)
    unlike, _ = simulated_scores(generator, (60, 40, 40))
    paired = image_auroc_difference(scores, alike, kinds).interval
    unpaired = image_auroc_difference(scores, unlike, kinds).interval
    assert width(paired) < 0.5 * width(unpaired)


@settings(max_examples=40, deadline=None, database=None, derandomize=True)
@given(st.integers(0, 2**32 - 1))
def test_swapping_ranks_flips_the_sign_of_an_image_contribution(seed):
    """The p-value's shortcut against swapping the ranks and measuring again."""
    generator = np.random.default_rng(seed)
    kinds = ["good"] * 4 + ["logical"] * 3 + ["structural"] * 2
    first, second = (
        uncertainty._ranked(part_by_kind(generator.integers(6, size=9), kinds)) for _ in range(2)
    )
    contributions = uncertainty._contributions_to_difference(first, second)

    swap = generator.integers(2, size=9).astype(bool)
    ranks = np.stack([np.concatenate([p.good, *p.anomalous.values()]) for p in (first, second)])
    swapped = np.where(swap, ranks[::-1], ranks)
    expected = image_auroc(swapped[0], kinds).mean - image_auroc(swapped[1], kinds).mean
    assert (1 - 2 * swap) @ contributions == pytest.approx(expected, abs=1e-12)


def test_correlations_agree_with_delong():
    """DeLong's covariance, from its definition by placement values."""
    generator = np.random.default_rng(8)
    scores, kinds = simulated_scores(generator, (12, 9, 9))
    other = scores + generator.standard_normal(scores.size)
    parted = [part_by_kind(values, kinds) for values in (scores, other)]
    found = uncertainty._Comparison(parted)._delong_covariance()
    good, logical = [], []
    for values in (scores, other):
        wins = (values[12:21] > values[:12, None]).astype(float)
        good.append(wins.mean(axis=1))
        logical.append(wins.mean(axis=0))
    expected = np.cov(good) / 12 + np.cov(logical) / 9
    np.testing.assert_allclose(found[np.ix_([0, 2], [0, 2])], expected, atol=1e-12)


def test_difference_checks_both_score_lists():
    scores, kinds = simulated_scores(np.random.default_rng(0), (5, 5, 5))
    with pytest.raises(UserError, match="one score and one kind"):
        image_auroc_difference(scores, scores[:-1], kinds)
    with pytest.raises(UserError, match="finite"):
        image_auroc_difference(scores, np.full(15, np.nan), kinds)


def test_the_mean_of_equal_models_is_as_sure_as_one() -> None:
    generator = np.random.default_rng(0)
    scores, kinds = simulated_scores(generator, (30, 30, 30))
    twice = mean_image_auroc_interval([scores, scores], kinds)
    for name, once in image_auroc_interval(scores, kinds).items():
        assert (twice[name].low, twice[name].high) == pytest.approx((once.low, once.high))
    # Other models err otherwise on the same images: their mean is surer.
    others = [scores + generator.normal(scale=2, size=90) for _ in range(4)]
    means = mean_image_auroc_interval(others, kinds)
    assert width(means["mean"]) < width(image_auroc_interval(others[0], kinds)["mean"])
