"""What Ray runs for a trial, without Ray: where it refuses to train, what it checks."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

from dfsc_tune.config import TrialConfig
from dfsc_tune.search import trainable
from dfsc_tune.search.messages import Report, failure_of, note_of
from dfsc_tune.training.prepare import CategoryData
from tests.support.config_checks import count_checks


@pytest.fixture
def reports(monkeypatch: pytest.MonkeyPatch) -> list[dict[str, Any]]:
    """What trials report."""
    found: list[dict[str, Any]] = []
    monkeypatch.setattr(trainable.tune, "report", found.append)
    return found


@pytest.fixture
def run(tmp_path: Path) -> Callable[[TrialConfig, dict[str, Any]], None]:
    """Runs a trial on the category's data."""

    def run_trial(config: TrialConfig, data: dict[str, Any]) -> None:
        trainable.tune_trial(
            {"trial": "0001", "trial_config": config.model_dump()},
            data=data,
            checkpoints=tmp_path / "x" / "checkpoints",
            num_threads=torch.get_num_threads(),
            device="cpu",
        )

    return run_trial


def test_a_node_that_does_not_see_the_run_trains_nothing(
    tmp_path: Path, run: Callable[..., None], reports: list[dict[str, Any]]
) -> None:
    run(TrialConfig(category="tray"), {})
    (failure,) = reports
    reason = failure_of(failure)
    assert reason is not None
    assert f"does not see the run's folder {tmp_path}/x: give --results" in reason
    assert not (tmp_path / "x").exists()


def test_a_config_is_checked_once_where_it_is_trained(
    tmp_path: Path,
    run: Callable[..., None],
    reports: list[dict[str, Any]],
    trial_config: TrialConfig,
    category_data: CategoryData,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    (tmp_path / "x").mkdir()
    (tmp_path / "x" / "run.yaml").touch()
    monkeypatch.setattr(trainable, "_fetch", lambda data: data)
    checked = count_checks(monkeypatch)
    run(trial_config, {trial_config.category: category_data.trial})
    last = Report.from_plain(reports[-1])
    assert last.progress.step == trial_config.train.num_steps
    assert last.device == "cpu"
    assert checked == [trial_config.model_dump()]


def test_a_damaged_checkpoint_is_told_with_the_first_report(
    tmp_path: Path,
    run: Callable[..., None],
    reports: list[dict[str, Any]],
    trial_config: TrialConfig,
    category_data: CategoryData,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    folder = tmp_path / "x" / "checkpoints" / "0001"
    folder.mkdir(parents=True)
    (tmp_path / "x" / "run.yaml").touch()
    (folder / "trial.pt").write_bytes(b"no checkpoint")
    monkeypatch.setattr(trainable, "_fetch", lambda data: data)
    run(trial_config, {trial_config.category: category_data.trial})
    first, second = map(note_of, reports)
    assert first is not None
    assert first.endswith(
        "trial.pt is damaged or not of this training, so the training begins anew"
    )
    assert second is None
