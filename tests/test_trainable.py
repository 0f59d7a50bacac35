"""What Ray runs for a trial, without Ray: where it refuses to train."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch

from dfsc_tune.config import TrialConfig
from dfsc_tune.search import trainable


def test_a_node_that_does_not_see_the_run_trains_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    reports: list[dict[str, Any]] = []
    monkeypatch.setattr(trainable.tune, "report", reports.append)
    config = {"category": "tray", "trial": "0001", "trial_config": TrialConfig(category="tray")}
    trainable.tune_trial(
        config | {"trial_config": config["trial_config"].model_dump()},
        data={},
        checkpoints=tmp_path / "x" / "checkpoints",
        num_threads=torch.get_num_threads(),
        device="cpu",
    )
    (failure,) = reports
    assert f"does not see the run's folder {tmp_path}/x: give --results" in failure["failure"]
    assert not (tmp_path / "x").exists()
