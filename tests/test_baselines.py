"""anomalib's PatchCore and STFPM as lines of our tables; skipped where the extra is absent."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
from conftest import CATEGORY
from typer.testing import CliRunner

from dfsc_tune.cli import app
from dfsc_tune.config import TrialConfig
from dfsc_tune.prepare import CategoryData
from dfsc_tune.reproduce import baselines
from dfsc_tune.reproduce.baselines import BASELINES, baseline_maps, judge_baselines, train_baseline
from dfsc_tune.results import Run


@pytest.fixture
def unpretrained(monkeypatch: pytest.MonkeyPatch) -> None:
    """Backbones of random weights: nothing is downloaded in a test."""
    pytest.importorskip("anomalib", reason="the extra 'baselines' is not installed")
    import timm

    real = timm.create_model

    def create(*arguments: Any, **options: Any) -> Any:
        return real(*arguments, **{**options, "pretrained": False})

    monkeypatch.setattr(timm, "create_model", create)
    monkeypatch.setattr(baselines, "_STFPM_EPOCHS", 2)


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("line", BASELINES)
@pytest.mark.usefixtures("unpretrained")
def test_a_baseline_scores_and_maps_each_image(line: str, category_data: CategoryData) -> None:
    train, images = category_data.trial.train, category_data.trial.selection
    sizes = images.sizes.copy()
    sizes[0] = (50, 70)
    first, again = (
        list(baseline_maps(train_baseline(line, train.pixels, seed=1), images.pixels, sizes))
        for _ in range(2)
    )
    assert [x.shape for _, x in first] == [tuple(size) for size in sizes.tolist()]
    assert np.isfinite([score for score, _ in first]).all()
    assert [score for score, _ in first] == pytest.approx([score for score, _ in again])


@pytest.mark.filterwarnings("ignore")
@pytest.mark.usefixtures("unpretrained")
def test_baselines_are_trained_once(
    trial_config: TrialConfig, category_data: CategoryData, data_folder: Path, tmp_path: Path
) -> None:
    settings = {
        "categories": [CATEGORY],
        "base_configs": {CATEGORY: trial_config.model_dump(mode="json")},
        "datasets": {CATEGORY: category_data.summary()},
    }
    nothing = pd.DataFrame()
    run = Run(tmp_path, settings, nothing, nothing, nothing)
    said: list[str] = []
    found = [
        judge_baselines(
            run, data_folder, tmp_path / "baselines", 1, areas=True, device="cpu", say=said.append
        )
        for _ in range(2)
    ]
    assert found[0] == found[1]
    # Without masks no area is measured, and each call looks anew.
    assert [len(found[0][line][CATEGORY].scores[0]) for line in BASELINES] == [12, 12]


def test_without_anomalib_the_way_to_it_is_told(
    monkeypatch: pytest.MonkeyPatch, data_folder: Path
) -> None:
    monkeypatch.setattr(baselines.importlib.util, "find_spec", lambda name: None)
    asked = ["reproduce", "table1", "--data", str(data_folder), "--space", "smoke", "--baselines"]
    result = CliRunner().invoke(app, asked)
    assert result.exit_code == 2
    assert "pip install '.[baselines]'" in result.stderr
