"""AU-sPRO, AU-PRO and pixel AUROC against reference results, brute force and scikit-learn."""

import time

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy import ndimage
from sklearn.metrics import roc_auc_score

from dfsc_tune.errors import UserError
from dfsc_tune.metrics import (
    Defect,
    areas,
    au_spro,
    au_spro_by_kind,
    image_auroc,
    localization,
    saturation_area,
)
from tests.support.pixel_maps import LIMITS, pixel_problems, quickly, reference_case


@pytest.mark.parametrize("index", range(4))
def test_agrees_with_the_official_tool(index):
    maps, defects, expected = reference_case(index)
    result = au_spro(maps, defects, LIMITS)
    for limit in LIMITS:
        assert result[limit] == pytest.approx(expected["au_spro_exact"][str(limit)], abs=1e-9)
        assert result[limit] == pytest.approx(expected["au_spro_official"][str(limit)], abs=1e-3)
    in_float32 = au_spro(maps.astype(np.float32), defects, LIMITS)
    assert in_float32 == pytest.approx(result, abs=1e-4)


@pytest.mark.parametrize("index", range(4))
def test_image_auroc_agrees_with_the_official_tool(index):
    maps, defects, expected = reference_case(index)
    anomalous = {defect.image for defect in defects}
    kinds = ["structural" if image in anomalous else "good" for image in range(len(maps))]
    result = image_auroc(maps.max(axis=(1, 2)), kinds)
    assert result.mean == pytest.approx(expected["image_auroc_official"], abs=1e-12)


def brute_force(maps, regions, limit):
    """Return the AU-sPRO by visiting every threshold; regions as (image, mask, saturation)."""
    negative = [np.ones(scores.shape, bool) for scores in maps]
    for image, mask, _ in regions:
        negative[image] &= ~mask
    values = np.unique(np.concatenate([scores.ravel() for scores in maps]).astype(np.float64))
    num_negatives = sum(mask.sum() for mask in negative)
    rates, heights = [], []
    for threshold in [*values[::-1], -np.inf]:
        above = [scores > threshold for scores in maps]
        false = sum((found & mask).sum() for found, mask in zip(above, negative, strict=True))
        rates.append(false / num_negatives)
        heights.append(
            np.mean([min((above[i] & mask).sum() / full, 1.0) for i, mask, full in regions])
        )
    area = 0.0
    for left, right, start, end in zip(rates, rates[1:], heights, heights[1:], strict=False):
        if right > left and left < limit:
            stop = min(right, limit)
            end = start + (end - start) * (stop - left) / (right - left)
            area += (stop - left) * (start + end) / 2
    return area / limit


@quickly
@given(pixel_problems(), st.sampled_from([3, 10, 10**9]))
def test_agrees_with_brute_force_in_any_slicing(problem, slice_pixels):
    maps, defects, limit = problem
    regions = [(defect.image, defect.mask, defect.saturation_area) for defect in defects]
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(areas, "_SLICE_PIXELS", slice_pixels)
        result = au_spro(maps, defects, [limit])
    assert result[limit] == pytest.approx(brute_force(maps, regions, limit), abs=1e-12)


@quickly
@given(pixel_problems())
def test_au_pro_agrees_with_brute_force(problem):
    maps, defects, limit = problem
    union = {}
    for defect in defects:
        union[defect.image] = union.get(defect.image, False) | defect.mask
    regions = []
    for image, mask in union.items():
        labels, number = ndimage.label(mask, structure=np.ones((3, 3)))
        regions += [
            (image, labels == label, (labels == label).sum()) for label in range(1, number + 1)
        ]
    result = localization(maps, defects, [limit]).au_pro[limit]
    assert result == pytest.approx(brute_force(maps, regions, limit), abs=1e-12)


@quickly
@given(pixel_problems())
def test_pixel_auroc_agrees_with_scikit_learn(problem):
    maps, defects, _ = problem
    masks = [np.zeros(scores.shape, bool) for scores in maps]
    for defect in defects:
        masks[defect.image] |= defect.mask
    expected = roc_auc_score(
        np.concatenate([mask.ravel() for mask in masks]),
        np.concatenate([scores.ravel() for scores in maps]).astype(np.float64),
    )
    assert localization(maps, defects).pixel_auroc == pytest.approx(expected, abs=1e-12)


@quickly
@given(pixel_problems(), st.randoms(use_true_random=False))
def test_invariances_and_bounds(problem, random):
    maps, defects, limit = problem
    result = au_spro(maps, defects, [limit])[limit]
    assert 0 <= result <= 1

    monotone = [np.arctan(scores.astype(np.float64) - 2) ** 3 for scores in maps]
    assert au_spro(monotone, defects, [limit])[limit] == pytest.approx(result, abs=1e-12)

    order = list(range(len(maps)))
    random.shuffle(order)
    moved = [
        Defect(order.index(defect.image), defect.mask, defect.saturation_area)
        for defect in reversed(defects)
    ]
    reordered = au_spro([maps[image] for image in order], moved, [limit])[limit]
    assert reordered == pytest.approx(result, abs=1e-12)


@quickly
@given(pixel_problems(), st.floats(0.05, 1.0))
def test_saturating_earlier_never_lowers_the_area(problem, factor):
    maps, defects, limit = problem
    earlier = [Defect(d.image, d.mask, d.saturation_area * factor) for d in defects]
    result = au_spro(maps, defects, [limit])[limit]
    assert au_spro(maps, earlier, [limit])[limit] >= result - 1e-12


def one_defect(shape=(10, 10), saturation=4.0, image=0):
    mask = np.zeros(shape, bool)
    mask[:2, :2] = True
    return Defect(image, mask, saturation)


def test_perfect_maps_give_one_and_inverted_maps_zero():
    defect = one_defect()
    perfect = defect.mask.astype(np.float64)
    perfect_result = au_spro([perfect, np.zeros((5, 8))], [defect], LIMITS)
    assert all(perfect_result[limit] == pytest.approx(1.0, abs=limit) for limit in LIMITS)
    noise = np.random.default_rng(0).random((10, 10)) * 0.5
    assert set(au_spro([perfect + noise], [defect], LIMITS).values()) == {1.0}
    assert au_spro([noise - perfect], [defect], LIMITS)[1.0] == pytest.approx(0.0, abs=1e-12)


def test_tied_pixels_act_together_as_one_sloped_step():
    constant = [np.full((10, 10), 0.3, np.float32), np.full((3, 4), 0.3, np.float32)]
    result = localization(constant, [one_defect()], LIMITS)
    for areas_under in (result.au_spro, result.au_pro):
        assert areas_under == pytest.approx({limit: limit / 2 for limit in LIMITS})
    assert result.pixel_auroc == pytest.approx(0.5)
    # Even where saturation would let a part of the tied pixels suffice.
    saturated = au_spro(constant, [one_defect(saturation=1.0)], LIMITS)
    assert saturated == pytest.approx({limit: limit / 2 for limit in LIMITS})


def test_pixels_that_touch_at_a_corner_are_one_region():
    mask = np.zeros((6, 6), bool)
    mask[0, 0] = mask[1, 1] = mask[5, 0] = True
    scores = np.zeros((6, 6))
    scores[0, 0] = 2.0
    scores[3:] = 1.0
    # Found first: half of one region of two, of which the other is the corner pixel.
    regions = [(0, np.eye(6, dtype=bool) & (np.arange(6) < 2), 2), (0, mask & (scores == 1), 1)]
    result = localization([scores], [Defect(0, mask, 1.0)], [0.3]).au_pro[0.3]
    assert result == pytest.approx(brute_force([scores], regions, 0.3), abs=1e-12)


def test_float32_is_compared_exactly_with_float64():
    """A float64 score between two float32 neighbours must not be rounded onto either."""
    low, high = np.float32(1.0), np.nextafter(np.float32(1.0), np.float32(2.0))
    between = (float(low) + float(high)) / 2
    negatives = np.array([[low, high]], np.float32)
    mask = np.array([[True, False]])
    found = au_spro([negatives, np.array([[between, 0.0]])], [Defect(1, mask, 1.0)], [1.0])[1.0]
    assert found == pytest.approx(2 / 3)


def test_by_kind_parts_the_anomalous_images_and_shares_the_good_ones():
    generator = np.random.default_rng(3)
    maps = list(generator.standard_normal((5, 10, 10)))
    kinds = ["logical", "good", "structural", "good", "structural"]
    defects = [one_defect(image=2), one_defect(image=0), one_defect(image=4), one_defect(image=4)]
    result = au_spro_by_kind(maps, kinds, defects, LIMITS)
    logical = au_spro([maps[0], maps[1], maps[3]], [one_defect()], LIMITS)
    structural = au_spro(
        maps[1:], [one_defect(image=1), one_defect(image=3), one_defect(image=3)], LIMITS
    )
    assert result["logical"] == pytest.approx(logical)
    assert result["structural"] == pytest.approx(structural)
    mean = {limit: (logical[limit] + structural[limit]) / 2 for limit in LIMITS}
    assert result["mean"] == pytest.approx(mean)


@pytest.mark.parametrize(
    ("threshold", "relative", "area", "expected"),
    [
        (0.37, True, 100, 37),
        (0.37, True, 101, 37),
        (1.0, True, 7, 7),
        (0.37, True, 2, 1),
        (40, False, 100, 40),
        (5000, False, 100, 100),
    ],
)
def test_saturation_area(threshold, relative, area, expected):
    assert saturation_area(threshold, relative, area) == expected


@pytest.mark.parametrize(("threshold", "relative"), [(0, False), (-1, True), (1.5, True)])
def test_saturation_threshold_out_of_range(threshold, relative):
    with pytest.raises(UserError, match=f"not {threshold}"):
        saturation_area(threshold, relative, 10)


def spoilt(value):
    scores = np.zeros((10, 10), np.float32)
    scores[3, 4] = value
    return scores


GOOD_MAP = np.zeros((10, 10))


@pytest.mark.parametrize(
    ("maps", "defects", "limits", "message"),
    [
        ([spoilt(np.nan)], [one_defect()], [0.05], "map 0 holds NaN or infinity"),
        ([GOOD_MAP, spoilt(np.inf)], [one_defect()], [0.05], "map 1 holds NaN or infinity"),
        ([spoilt(-np.inf)], [one_defect()], [0.05], "map 0 holds NaN or infinity"),
        ([np.zeros((1, 10, 10))], [one_defect()], [0.05], "must have shape"),
        ([GOOD_MAP], [one_defect((10, 9))], [0.05], r"mask has \(10, 9\) and the map \(10, 10\)"),
        ([GOOD_MAP], [], [0.05], "at least one defect"),
        ([GOOD_MAP], [one_defect(image=1)], [0.05], "names image 1, but there are 1"),
        ([GOOD_MAP], [Defect(0, GOOD_MAP > 0, 1.0)], [0.05], "empty mask"),
        ([GOOD_MAP], [Defect(0, GOOD_MAP, 1.0)], [0.05], "must be boolean"),
        ([GOOD_MAP], [Defect(0, GOOD_MAP == 0, 1.0)], [0.05], "Every pixel is defective"),
        ([GOOD_MAP], [one_defect(saturation=0.0)], [0.05], "saturation area must be above 0"),
        ([GOOD_MAP], [one_defect(saturation=np.nan)], [0.05], "saturation area must be above 0"),
        ([GOOD_MAP], [one_defect()], [0.0], r"must be in \(0, 1\], not 0.0"),
        ([GOOD_MAP], [one_defect()], [1.1], r"must be in \(0, 1\], not 1.1"),
        ([GOOD_MAP], [one_defect()], [], "at least one FPR limit"),
    ],
)
def test_mistakes_are_told(maps, defects, limits, message):
    for metric in (au_spro, localization):
        with pytest.raises(UserError, match=message):
            metric(maps, defects, limits)


@pytest.mark.slow
def test_sixty_large_maps_take_seconds():
    """The official tool takes 77.5 s for this; the bound leaves room for a busy machine."""
    generator = np.random.default_rng(0)
    maps = list(generator.standard_normal((60, 550, 800), dtype=np.float32))
    mask = np.zeros((550, 800), bool)
    mask[100:250, 200:400] = True
    defects = [Defect(image, mask, float(mask.sum())) for image in range(40)]
    start = time.perf_counter()
    au_spro(maps, defects, [0.05])
    assert time.perf_counter() - start < 10
