"""Fixtures: a small data set of generated images, and settings that train on it in a second."""

from __future__ import annotations

import signal
from pathlib import Path

import pytest
import torch

from dfsc_tune.config import ModelConfig, TrainConfig, TrialConfig
from dfsc_tune.training.prepare import CategoryData, prepare_category
from tests.support.trays import CATEGORY, make_tray

# Commands that tests start would inherit that nohup, or a shell's background, has these ignored.
signal.signal(signal.SIGINT, signal.default_int_handler)
signal.signal(signal.SIGHUP, signal.SIG_DFL)


def pytest_xdist_auto_num_workers(config: pytest.Config) -> int:
    """Two processes for the suite; none, but pytest's own, for what is named or debugged."""
    named = any(".py" in argument for argument in config.args)
    return 0 if named or config.option.keyword else 2


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Puts files with slow tests first, so that at the end no process waits for the other."""
    slow = {item.path for item in items if item.get_closest_marker("slow")}
    items.sort(key=lambda item: item.path not in slow)


@pytest.fixture(autouse=True)
def _one_thread() -> None:
    # Results are compared bit by bit, and small tensors gain nothing from threads.
    torch.set_num_threads(1)


@pytest.fixture(scope="session")
def photographs() -> Path:
    """A folder beside the repository with real photographs: two data sets, one in each layout."""
    folder = Path(__file__).parents[2] / "shared" / "data"
    if not folder.is_dir():
        pytest.skip(
            "needs real photographs in ../shared/data: their licences keep them out of here"
        )
    return folder


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
