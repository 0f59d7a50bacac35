"""anomalib's PatchCore and STFPM as lines of our tables; training them needs the extra."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pandas as pd
import pytest
from conftest import CATEGORY
from test_evaluate import make_masked_tray
from torch import Tensor, nn
from typer.testing import CliRunner

from dfsc_tune.cli import app
from dfsc_tune.config import TrialConfig
from dfsc_tune.prepare import CategoryData, prepare_category
from dfsc_tune.reproduce import baselines
from dfsc_tune.reproduce.baselines import BASELINES, baseline_maps, judge_baselines, train_baseline
from dfsc_tune.reproduce.exhibits import PROTOCOLS
from dfsc_tune.reproduce.numbers import Models
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


class Brightness(nn.Module):
    """In a baseline's place: how bright an image is."""

    def forward(self, images: Tensor) -> SimpleNamespace:
        anomaly_map = images.mean(dim=1, keepdim=True)
        return SimpleNamespace(pred_score=anomaly_map.amax(dim=(1, 2, 3)), anomaly_map=anomaly_map)


def test_baselines_are_trained_once_for_what_is_asked(
    trial_config: TrialConfig, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(baselines, "train_baseline", lambda *_: Brightness())
    data = make_masked_tray(tmp_path / "data")
    settings = {
        "categories": [CATEGORY],
        "data": str(data),
        "base_configs": {CATEGORY: trial_config.model_dump(mode="json")},
        "datasets": {CATEGORY: prepare_category(trial_config, data).summary()},
    }
    run = Run(tmp_path, settings, pd.DataFrame(), pd.DataFrame(), pd.DataFrame())
    said: list[str] = []

    def judged(*areas: str) -> Models:
        lines = judge_baselines(
            run, data, tmp_path / "baselines", 1, areas=areas, device="cpu", say=said.append
        )
        return lines[BASELINES[0]][CATEGORY]

    without, again = judged(), judged()
    assert without == again
    assert len(without.scores[0]) == 12
    assert without.areas == {}
    assert len(said) == len(BASELINES)
    measured, again = judged(CATEGORY), judged(CATEGORY)
    assert measured == again
    assert measured.scores == without.scores
    assert set(measured.areas) == {(0, protocol) for protocol in PROTOCOLS}
    assert len(said) == 2 * len(BASELINES)


def test_without_anomalib_the_way_to_it_is_told(
    monkeypatch: pytest.MonkeyPatch, data_folder: Path
) -> None:
    monkeypatch.setattr(baselines.importlib.util, "find_spec", lambda name: None)
    asked = ["reproduce", "table1", "--data", str(data_folder), "--space", "smoke", "--baselines"]
    result = CliRunner().invoke(app, asked)
    assert result.exit_code == 2
    assert "pip install '.[baselines]'" in result.stderr
