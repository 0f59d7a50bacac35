"""The shipped teacher against random features, on a small built-in category."""

from __future__ import annotations

from pathlib import Path

import pytest

from dfsc_tune.config import LossConfig, ModelConfig, ObjectiveConfig, TrainConfig, TrialConfig
from dfsc_tune.data.builtin import Counts, make_dataset
from dfsc_tune.training.prepare import prepare_category
from dfsc_tune.training.trial import run_trial

CATEGORY = "pushpins"
NUM_STEPS = 240
# Measured: 0.536 and 0.712, each with a standard error of about 0.07.
LEAST_DIFFERENCE = 0.1


@pytest.mark.slow
def test_the_shipped_teacher_finds_more_logical_defects_than_random_features(
    tmp_path: Path,
) -> None:
    counts = Counts(train=40, validation=8, test_good=30, logical=30, structural=1)
    make_dataset(tmp_path, [CATEGORY], counts, height=128, workers=1)
    aurocs = {}
    for teacher in ("random", None):
        config = TrialConfig(
            category=CATEGORY,
            objective=ObjectiveConfig(name="oracle", metric="logical"),
            model=ModelConfig(network="tiny", image_size=128, teacher=teacher),
            loss=LossConfig(margin=0.4),
            train=TrainConfig(
                num_steps=NUM_STEPS,
                report_interval=NUM_STEPS,
                learning_rate=1e-3,
                ema_momentum=0.95,
            ),
        )
        data = prepare_category(config, tmp_path)
        folder = tmp_path / f"trial-{teacher}"
        aurocs[teacher] = run_trial(config, data.trial, lambda progress: None, folder).value
    assert aurocs[None] > aurocs["random"] + LEAST_DIFFERENCE
