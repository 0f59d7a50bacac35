"""Pixel metrics from one pass, by kind and by group, against those computed one by one."""

import numpy as np
import pytest
from hypothesis import given

from dfsc_tune.errors import UserError
from dfsc_tune.metrics import (
    Defect,
    au_spro,
    au_spro_by_group,
    au_spro_by_kind,
    localization,
    localization_by_kind,
)
from tests.support.pixel_maps import pixel_problems, quickly

LIMITS = (0.01, 0.3, 1.0)


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


@pytest.fixture(params=[1.0, 0.0], ids=["varied", "constant"])
def case(request):
    maps, kinds, defects = simulated_maps(np.random.default_rng(3), (6, 5, 4))
    return [request.param * scores for scores in maps], kinds, defects


@quickly
@given(pixel_problems())
def test_one_pass_gives_the_same_au_spro(problem):
    maps, defects, _ = problem
    assert localization(maps, defects, LIMITS).au_spro == pytest.approx(
        au_spro(maps, defects, LIMITS)
    )


def test_limits_need_not_hold_one(case):
    maps, _, defects = case
    found = localization(maps, defects, (0.05,))
    assert list(found.au_pro) == list(found.au_spro) == [0.05]


def test_each_kind_is_judged_with_all_good_images(case):
    maps, kinds, defects = case
    found = localization_by_kind(maps, kinds, defects, LIMITS)
    spro = au_spro_by_kind(maps, kinds, defects, LIMITS)
    assert list(found) == ["logical", "structural", "mean"]
    for kind, one in found.items():
        assert one.au_spro == pytest.approx(spro[kind])
    for numbers in ([one.pixel_auroc for one in found.values()],
                    [one.au_pro[0.3] for one in found.values()]):  # fmt: skip
        assert numbers[2] == pytest.approx((numbers[0] + numbers[1]) / 2)


def test_a_kind_that_is_missing_leaves_the_mean_to_the_other():
    maps, kinds, defects = simulated_maps(np.random.default_rng(0), (4, 0, 4))
    found = localization_by_kind(maps, kinds, defects)
    assert list(found) == ["structural", "mean"]
    assert found["mean"] == found["structural"]


def test_groups_may_bear_any_name(case):
    maps, kinds, defects = case
    groups = [kind if kind == "good" else f"{kind}/scratch" for kind in kinds]
    areas = au_spro_by_group(maps, groups, defects, LIMITS)
    by_kind = au_spro_by_kind(maps, kinds, defects, LIMITS)
    assert set(areas) == {"logical/scratch", "structural/scratch"}
    for kind in ("logical", "structural"):
        assert areas[f"{kind}/scratch"] == by_kind[kind]


@pytest.mark.parametrize(
    "function",
    [
        au_spro_by_group,
        au_spro_by_kind,
        localization_by_kind,
    ],
)
def test_groups_and_defects_must_agree(function):
    maps, kinds, defects = simulated_maps(np.random.default_rng(0), (2, 2, 2))
    with pytest.raises(UserError, match="5 kinds for 6 maps"):
        function(maps, kinds[:-1], defects)
    with pytest.raises(UserError, match="Image 0 is of kind 'dent' but has no defect"):
        function(maps, ["dent", *kinds[1:]], defects)
    with pytest.raises(UserError, match="Image 2 is of kind 'good' but has a defect"):
        function(maps, [*kinds[:2], "good", *kinds[3:]], defects)
