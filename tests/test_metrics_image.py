"""Image AUROC against scikit-learn, its invariances, and its errors."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn.metrics import roc_auc_score

from dfsc_tune.errors import UserError
from dfsc_tune.metrics import KINDS, image_auroc

quickly = settings(max_examples=60, deadline=None, database=None, derandomize=True)


@st.composite
def scored_images(draw):
    """Scores on a coarse grid, so that ties abound, with all three kinds present."""
    numbers = [draw(st.integers(1, 6)) for _ in range(3)]
    kinds = [
        kind for kind, number in zip(("good", *KINDS), numbers, strict=True) for _ in range(number)
    ]
    kinds = draw(st.permutations(kinds))
    scores = draw(st.lists(st.integers(-4, 4), min_size=len(kinds), max_size=len(kinds)))
    return np.array(scores, dtype=np.float64), kinds


@quickly
@given(scored_images())
def test_agrees_with_scikit_learn_under_ties(test_set):
    scores, kinds = test_set
    result = image_auroc(scores, kinds)
    for kind in KINDS:
        chosen = [index for index, found in enumerate(kinds) if found in ("good", kind)]
        labels = [kinds[index] == kind for index in chosen]
        expected = roc_auc_score(labels, scores[chosen])
        assert getattr(result, kind) == pytest.approx(expected, abs=1e-12)
    assert result.mean == pytest.approx((result.logical + result.structural) / 2, abs=1e-12)


@quickly
@given(scored_images(), st.randoms(use_true_random=False))
def test_only_the_order_of_scores_matters(test_set, random):
    scores, kinds = test_set
    result = image_auroc(scores, kinds)
    order = list(range(len(kinds)))
    random.shuffle(order)
    assert image_auroc(scores[order], [kinds[index] for index in order]) == result
    assert image_auroc(np.exp(scores) + 3, kinds) == result
    reversed_scores = image_auroc(-scores, kinds)
    assert reversed_scores.mean == pytest.approx(1 - result.mean, abs=1e-12)


def test_mean_is_not_the_pooled_auroc():
    scores = [0.0, 1.0, 0.5, 2.0, 2.0, 2.0]
    kinds = ["good", "good", "logical", "structural", "structural", "structural"]
    result = image_auroc(scores, kinds)
    assert (result.logical, result.structural, result.mean) == (0.5, 1.0, 0.75)
    pooled = roc_auc_score([kind != "good" for kind in kinds], scores)
    assert pooled == pytest.approx(0.875)


def test_absent_kind_is_none_and_left_out_of_the_mean():
    result = image_auroc([0.0, 1.0, 0.5], ["good", "good", "structural"])
    assert (result.logical, result.structural, result.mean) == (None, 0.5, 0.5)


def test_equal_scores_give_one_half():
    assert image_auroc(np.ones(3, np.float32), ["good", "logical", "logical"]).mean == 0.5


@pytest.mark.parametrize(
    ("scores", "kinds", "message"),
    [
        ([0.0, 1.0], ["good"], "one score and one kind"),
        ([[0.0, 1.0]], ["good"], "one score and one kind"),
        ([0.0, 1.0], ["good", "broken"], "must be one of good, logical, structural"),
        ([0.0, 1.0], ["logical", "logical"], "needs good test images"),
        ([0.0, 1.0], ["good", "good"], "needs logical or structural"),
        ([0.0, np.nan], ["good", "logical"], "score of image 1 is nan"),
        ([np.inf, 0.0], ["good", "logical"], "score of image 0 is inf"),
    ],
)
def test_mistakes_are_told(scores, kinds, message):
    with pytest.raises(UserError, match=message):
        image_auroc(scores, kinds)
