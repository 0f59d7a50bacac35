"""Fixtures: a small data set of generated images, and settings that train on it in a second."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from dfsc_tune.config import ModelConfig, TrainConfig, TrialConfig
from dfsc_tune.training.prepare import CategoryData, prepare_category

SHARED = Path(__file__).parents[1].parent / "shared"
CATEGORY = "tray"
_SIZE = (96, 128)


@pytest.fixture(autouse=True)
def _one_thread() -> None:
    # Results are compared bit by bit, and small tensors gain nothing from threads.
    torch.set_num_threads(1)


def draw_tray(path: Path, rng: np.random.Generator, kind: str) -> None:
    """Two bright squares on a grey ground; logical lacks one, structural has a scratch."""
    height, width = _SIZE
    image = rng.normal(90, 4, (height, width, 3))
    for index, left in enumerate((20, 76)):
        top = 30 + int(rng.integers(-4, 5))
        if not (kind == "logical" and index == 1):
            image[top : top + 32, left : left + 32] += (110, 60, -20)
    if kind == "structural":
        row = int(rng.integers(20, 70))
        image[row : row + 5, 10:118] = 250
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(image.clip(0, 255).astype(np.uint8)).save(path)


def make_tray(root: Path, category: str = CATEGORY, num_train: int = 6, num_test: int = 4) -> Path:
    """A category in MVTec LOCO's layout, without masks."""
    rng = np.random.default_rng(0)
    folders = {
        "train/good": ("good", num_train),
        "validation/good": ("good", 3),
        "test/good": ("good", num_test),
        "test/logical_anomalies": ("logical", num_test),
        "test/structural_anomalies": ("structural", num_test),
    }
    for folder, (kind, count) in folders.items():
        for index in range(count):
            draw_tray(root / category / folder / f"{index:03d}.png", rng, kind)
    return root


@pytest.fixture(scope="module")
def few_importances() -> Iterator[None]:
    """Most of the time of a report page is in its importances, which have a test of their own."""
    from dfsc_tune.pages import importance

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(importance, "_NUM_RESAMPLES", 1)
        yield


@pytest.fixture(scope="session")
def data_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_tray(tmp_path_factory.mktemp("data"))


@pytest.fixture(scope="session")
def trial_config(data_folder: Path) -> TrialConfig:
    return TrialConfig(
        category=CATEGORY,
        data=str(data_folder),
        model=ModelConfig(network="tiny", image_size=128, teacher="random"),
        train=TrainConfig(
            num_steps=8,
            report_interval=4,
            learning_rate=1e-3,
            ema_momentum=0.9,
            extra_ema_momenta=(0.0,),
        ),
    )


@pytest.fixture(scope="session")
def category_data(trial_config: TrialConfig, data_folder: Path) -> CategoryData:
    return prepare_category(trial_config, data_folder)
