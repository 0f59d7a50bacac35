"""The losses against hand-computed cases and independent float64 references."""

import math

import numpy as np
import pytest
import torch
from torch import Tensor

from dfsc_tune.config import LossConfig
from dfsc_tune.progress import LOSSES
from dfsc_tune.training.losses import (
    Losses,
    dfsc_distance,
    dfsc_loss,
    hard_feature_loss,
    hard_mask,
    total_loss,
)


def features(seed: int, channels: int = 6, size: int = 5, batch: int = 1) -> Tensor:
    generator = torch.Generator().manual_seed(seed)
    return torch.randn(batch, channels, size, size, generator=generator, dtype=torch.float64)


def reference_distance(
    teacher: np.ndarray, autoencoder: np.ndarray, quantile: float, mask_first: bool
) -> np.ndarray:
    """Eq. 3 to 5 position by position, for one image (C, H, W)."""
    squared = (teacher - autoencoder) ** 2
    mask = squared >= np.quantile(squared, quantile)
    distance = np.zeros(teacher.shape[1:])
    for h, w in np.ndindex(*distance.shape):
        t, a, chosen = teacher[:, h, w], autoencoder[:, h, w], mask[:, h, w]
        if mask_first:
            t, a = t * chosen, a * chosen
        t, a = (x / max(np.sqrt((x**2).sum()), 1e-12) for x in (t, a))
        if not mask_first:
            t, a = t * chosen, a * chosen
        distance[h, w] = np.sqrt(((t - a) ** 2).sum())
    return distance


@pytest.mark.parametrize("quantile", [0.0, 0.3, 0.5, 0.9, 0.99, 0.999])
@pytest.mark.parametrize("count", [7, 100, 1001])
def test_hard_mask_marks_what_lies_at_or_above_the_quantile(quantile: float, count: int) -> None:
    values = torch.randn(2, count, 1, 1, generator=torch.Generator().manual_seed(count)).double()
    expected = [row >= np.quantile(row, quantile) for row in values.numpy()]
    np.testing.assert_array_equal(hard_mask(values, quantile).numpy(), np.stack(expected))


def test_hard_mask_includes_ties() -> None:
    values = torch.tensor([[1.0, 3.0, 3.0, 2.0, 3.0]])
    assert hard_mask(values, 0.99).tolist() == [[False, True, True, False, True]]


def test_hard_feature_loss_by_hand() -> None:
    teacher = torch.zeros(1, 1, 1, 4)
    student = torch.tensor([1.0, 2.0, 3.0, 4.0]).view(1, 1, 1, 4)
    # Squares 1, 4, 9, 16; the median is 6.5; 9 and 16 are hard.
    assert hard_feature_loss(teacher, student, 0.5).item() == pytest.approx(12.5)


def test_hard_feature_loss_equals_boolean_selection_in_value_and_gradient() -> None:
    teacher, student = features(0), features(1).requires_grad_()
    (ours,) = torch.autograd.grad(hard_feature_loss(teacher, student, 0.9), student)
    squared = (teacher - student) ** 2
    selected = squared[squared >= torch.quantile(squared.detach(), 0.9)].mean()
    (reference,) = torch.autograd.grad(selected, student)
    torch.testing.assert_close(ours, reference)


@pytest.mark.parametrize("order", ["mask_first", "normalize_first"])
@pytest.mark.parametrize("quantile", [0.0, 0.5, 0.9, 0.99])
def test_dfsc_distance_equals_the_reference(order: str, quantile: float) -> None:
    teacher, autoencoder = features(2), features(3)
    expected = reference_distance(
        teacher[0].numpy(), autoencoder[0].numpy(), quantile, order == "mask_first"
    )
    distance = dfsc_distance(teacher, autoencoder, quantile, order)
    np.testing.assert_allclose(distance[0].numpy(), expected, atol=1e-12)


def test_each_image_of_a_batch_has_its_own_threshold() -> None:
    teacher, autoencoder = features(4, batch=2), features(5, batch=2)
    autoencoder[1] *= 100
    whole = dfsc_distance(teacher, autoencoder, 0.9)
    for index in range(2):
        one = dfsc_distance(teacher[index : index + 1], autoencoder[index : index + 1], 0.9)
        torch.testing.assert_close(whole[index : index + 1], one)


def test_masked_first_the_distance_spans_zero_to_two() -> None:
    # One selected channel: of opposite sign the two unit vectors are 2 apart, of the same sign 0.
    teacher = torch.tensor([3.0, 0.1]).view(1, 2, 1, 1)
    assert dfsc_distance(teacher, -teacher, 0.9).item() == pytest.approx(2)
    assert dfsc_distance(teacher, 2 * teacher, 0.9).item() == pytest.approx(0, abs=1e-6)


def test_positions_without_a_selected_channel_add_the_margin_and_no_gradient() -> None:
    teacher = torch.zeros(1, 2, 1, 2)
    autoencoder = torch.tensor([[5.0, 0.1], [0.1, 0.1]]).view(1, 2, 1, 2).requires_grad_()
    loss = dfsc_loss(teacher, autoencoder, LossConfig(margin=0.5, quantile=0.9))
    # Position 0: D = 1 exceeds the margin; position 1 has nothing selected: D = 0, adds 0.5.
    assert loss.item() == pytest.approx(0.25)
    (gradient,) = torch.autograd.grad(loss, autoencoder)
    assert gradient.abs().sum() == 0


@pytest.mark.parametrize("order", ["mask_first", "normalize_first"])
def test_no_gradient_is_nan_where_nothing_is_selected(order: str) -> None:
    teacher, autoencoder = features(6, 16, 12), features(7, 16, 12)
    autoencoder[:, :, 0] = teacher[:, :, 0]
    autoencoder.requires_grad_()
    # Few entries selected, so many positions are empty; more than one in some of the others.
    config = LossConfig(margin=2.0, quantile=0.95, constraint_order=order)
    assert (dfsc_distance(teacher, autoencoder, 0.95, order) == 0).any()
    (gradient,) = torch.autograd.grad(dfsc_loss(teacher, autoencoder, config), autoencoder)
    assert torch.isfinite(gradient).all()
    assert gradient.abs().sum() > 0


def test_gradient_of_the_constraint_agrees_with_finite_differences() -> None:
    teacher, autoencoder = features(8, 4, 2), features(9, 4, 2).requires_grad_()
    config = LossConfig(margin=2.0, quantile=0.5)
    assert torch.autograd.gradcheck(lambda x: dfsc_loss(teacher, x, config), autoencoder)


def test_margin_zero_is_no_constraint() -> None:
    teacher, student, autoencoder = features(10), features(11, 12), features(12)
    without = total_loss(teacher, student, autoencoder, LossConfig(margin=0.0))
    constraint = dfsc_loss(teacher, autoencoder, LossConfig(margin=0.0))
    assert without.dfsc.item() == constraint.item() == 0
    plain = without.student_autoencoder + without.teacher_autoencoder + without.teacher_student
    assert without.total.item() == pytest.approx(plain.item())


def test_total_loss_is_the_sum_of_equation_7() -> None:
    teacher, student, autoencoder = features(13), features(14, 12), features(15)
    config = LossConfig(margin=1.2, alpha=3.0, quantile=0.9, hard_quantile=0.8)
    losses = total_loss(teacher, student, autoencoder, config)
    t, s, a = (x[0].numpy() for x in (teacher, student, autoencoder))
    squared = (t - s[:6]) ** 2
    hard = squared[squared >= np.quantile(squared, 0.8)].mean()
    constraint = np.maximum(1.2 - reference_distance(t, a, 0.9, True), 0).mean()
    expected = ((s[6:] - a) ** 2).mean() + ((t - a) ** 2).mean() + hard + 3 * constraint
    assert losses.total.item() == pytest.approx(expected, rel=1e-12)


def test_detaching_keeps_d_sa_from_moving_the_autoencoder() -> None:
    teacher, student = features(16), features(17, 12)
    for detach in (False, True):
        autoencoder = features(18).requires_grad_()
        config = LossConfig(margin=0.0, detach_autoencoder=detach)
        losses = total_loss(teacher, student, autoencoder, config)
        (gradient,) = torch.autograd.grad(losses.total, autoencoder)
        pull = 2 * (autoencoder - teacher) / autoencoder.numel()
        if not detach:
            pull = pull + 2 * (autoencoder - student[:, 6:]) / autoencoder.numel()
        torch.testing.assert_close(gradient, pull)


def test_penalty_and_augmented_terms_enter_the_total() -> None:
    teacher, student, autoencoder = features(19), features(20, 12), features(21)
    other = (features(22), features(23, 12))
    config = LossConfig(margin=0.0)
    losses = total_loss(
        teacher,
        student,
        autoencoder,
        config,
        augmented=other,
        penalty=torch.full((1, 6, 5, 5), 2.0),
    )
    assert losses.penalty.item() == 4
    assert losses.teacher_autoencoder.item() == pytest.approx(
        (other[0] - autoencoder).square().mean().item()
    )
    plain = total_loss(teacher, student, autoencoder, config)
    assert losses.teacher_student.item() == plain.teacher_student.item()
    assert math.isfinite(losses.total.item())


def test_the_tables_name_the_losses_as_the_training_does() -> None:
    assert Losses._fields == LOSSES
