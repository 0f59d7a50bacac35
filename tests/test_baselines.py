"""anomalib's PatchCore and STFPM as lines of our tables; training them needs the extra."""

from __future__ import annotations

import sys
from pathlib import Path
from types import ModuleType, SimpleNamespace
from typing import Any

import numpy as np
import pandas as pd
import pytest
import torch
from torch import Tensor, nn

from dfsc_tune.config import TrialConfig
from dfsc_tune.models.pdn import normalize_images
from dfsc_tune.reproduce import baselines
from dfsc_tune.reproduce.baselines import (
    Baseline,
    Method,
    baseline_maps,
    judge_baselines,
    train_baseline,
)
from dfsc_tune.reproduce.numbers import Models
from dfsc_tune.reproduce.tables import PROTOCOLS
from dfsc_tune.results import Run
from dfsc_tune.teachers.backbones import BACKBONES, Backbone
from dfsc_tune.training.prepare import CategoryData, prepare_category
from tests.support.commands import invoke
from tests.support.synthetic_run import run_settings
from tests.support.trays import CATEGORY, make_masked_tray

BASELINES = Baseline("PatchCore"), Baseline("STFPM")
LITE = "efficientnet-lite0"


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
@pytest.mark.parametrize("backbone", [None, LITE])
@pytest.mark.parametrize("method", ["PatchCore", "STFPM"])
@pytest.mark.usefixtures("unpretrained")
def test_a_baseline_scores_and_maps_each_image(
    method: Method, backbone: str | None, category_data: CategoryData
) -> None:
    if backbone:
        pytest.importorskip("efficientnet_lite_pytorch", reason="the extra 'distill' is missing")
    baseline = Baseline(method, backbone)
    train, images = (
        normalize_images(torch.tensor(x.pixels))
        for x in (category_data.trial.train, category_data.trial.selection)
    )
    sizes = category_data.trial.selection.sizes.copy()
    sizes[0] = (50, 70)
    first, again = (
        list(baseline_maps(train_baseline(baseline, train, seed=1), images, sizes))
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


@pytest.mark.usefixtures("small_backbone")
def test_baselines_are_trained_once_for_what_is_asked(
    trial_config: TrialConfig, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(baselines, "train_baseline", lambda *_: Brightness())
    data = make_masked_tray(tmp_path / "data")
    settings = run_settings(
        (CATEGORY,),
        data=str(data),
        base_configs={CATEGORY: trial_config.model_dump()},
        datasets={CATEGORY: prepare_category(trial_config, data).summary()},
    )
    run = Run(tmp_path, settings, pd.DataFrame(), pd.DataFrame(), pd.DataFrame())
    trained: list[str] = []

    def say(text: str) -> None:
        if text.startswith("training"):
            trained.append(text)

    def judged(*areas: str, baselines: tuple[Baseline, ...] = BASELINES) -> Models:
        folder = tmp_path / "baselines"
        lines = judge_baselines(run, data, folder, baselines, 1, areas=areas, device="cpu", say=say)
        assert list(lines) == [x.label for x in baselines]
        return lines[baselines[0].label][CATEGORY]

    without, again = judged(), judged()
    assert without == again
    assert len(without.scores[0]) == 12
    assert without.areas == {}
    assert len(trained) == len(BASELINES)
    measured, again = judged(CATEGORY), judged(CATEGORY)
    assert measured == again
    assert measured.scores == without.scores
    assert set(measured.areas) == {(0, protocol) for protocol in PROTOCOLS}
    assert len(trained) == 2 * len(BASELINES)
    other = judged(baselines=(Baseline("PatchCore", LITE),))
    assert other.areas == {}
    assert len(trained) == 2 * len(BASELINES) + 1


@pytest.fixture
def small_backbone(monkeypatch: pytest.MonkeyPatch) -> Backbone:
    """In the place of every pretrained one."""
    layers = {k: nn.Sequential(nn.Conv2d(4, 4, 3), nn.BatchNorm2d(4)) for k in range(11)}
    backbone = Backbone(BACKBONES[LITE], nn.Conv2d(3, 4, 3), layers, (4, 10))
    monkeypatch.setattr(baselines, "load_backbone", lambda name, layers: backbone)
    return backbone


def test_a_backbone_sees_images_as_it_was_trained_on(small_backbone: Backbone) -> None:
    network = baselines._network(Baseline("PatchCore", LITE))
    pixels = torch.randint(0, 256, (2, 3, 64, 64), dtype=torch.uint8)
    features, found = small_backbone.normalize(pixels), {}
    for name, module in network["backbone"].named_children():
        found[name] = features = module(features)
    assert len(network["layers"]) == 2
    for name, expected in zip(network["layers"], small_backbone(pixels), strict=True):
        torch.testing.assert_close(found[name], expected)


def test_a_student_begins_anew(small_backbone: Backbone) -> None:
    before = small_backbone.stem.weight.clone()
    fresh = baselines._untrained(nn.Sequential(small_backbone.stem))
    assert all(x.requires_grad for x in fresh.parameters())
    assert not torch.equal(fresh[0].weight, before)
    assert torch.equal(small_backbone.stem.weight, before)
    assert not small_backbone.stem.weight.requires_grad


def test_without_anomalib_the_way_to_it_is_told(
    monkeypatch: pytest.MonkeyPatch, data_folder: Path
) -> None:
    monkeypatch.setitem(sys.modules, "anomalib", None)
    asked = ["reproduce", "table1", "--data", str(data_folder), "--space", "smoke", "--baselines"]
    result = invoke(*asked)
    assert result.exit_code == 2
    assert "pip install '.[baselines]'" in result.stderr


@pytest.mark.parametrize(
    ("options", "told"),
    [
        (["table1", "--backbone", LITE], "add --baselines"),
        (["table3", "--baselines"], "belongs to table1 and table2"),
        (["table1", "--baselines", "--backbone", "vgg"], "choose efficientnet-lite0, or leave"),
    ],
)
def test_baselines_that_cannot_be_are_refused_first(
    options: list[str], told: str, data_folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "anomalib.models", ModuleType("anomalib.models"))
    monkeypatch.setitem(sys.modules, "anomalib", ModuleType("anomalib"))
    asked = ["reproduce", *options, "--data", str(data_folder), "--space", "smoke"]
    result = invoke(*asked)
    assert result.exit_code == 2
    assert told in " ".join(result.stderr.split())
