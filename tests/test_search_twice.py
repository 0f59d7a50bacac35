"""The same seed gives the same search: twice through a real local Ray, one trial at a time."""

from __future__ import annotations

from pathlib import Path

import pytest

from dfsc_tune import results
from dfsc_tune.config import TrialConfig
from dfsc_tune.settings import load
from tests.support.processes import run
from tests.support.trays import CATEGORY, make_tray

SPACE = """\
fixed:
  model: {network: tiny, image_size: 128, teacher: random}
  train: {learning_rate: 1e-3}
parameters:
  margin: {type: float, low: 0.0, high: 2.0}
  optimizer: {type: categorical, choices: [adamw, adam]}
  weight_decay: {type: float, low: 1e-6, high: 1e-3, scale: log, when: {optimizer: adamw}}
  ema_momentum: {type: free, choices: [0.0, 0.5, 0.9]}
budget: {num_trials: 9, num_steps: 12, report_interval: 4, grace_period: 4, reduction_factor: 2}
"""


@pytest.mark.slow
def test_one_worker_and_one_seed_give_the_same_trials(tmp_path: Path) -> None:
    make_tray(tmp_path / "data")
    (tmp_path / "space.yaml").write_text(SPACE)
    tables = []
    for name in ("first", "second"):
        done = run(
            "search", "--data", "data", "--category", CATEGORY, "--space", "space.yaml",
            "--name", name, "--seed", "7",
            "--gpus", "1", "--gpus-per-trial", "1", "--device", "cpu", cwd=tmp_path,
        )  # fmt: skip
        assert done.returncode == 0, done.stderr
        tables.append(results.load(tmp_path / "results" / name).trials)
    own = ["trial", "seconds", "node"]
    first, second = (table.drop(columns=own) for table in tables)
    assert len(first) == 9
    assert first["ema_momentum"].nunique() > 1
    assert first.equals(second)
    best = load(tmp_path / "results" / "first" / "best" / f"{CATEGORY}.yaml", TrialConfig)
    assert not best.train.choose_ema_momentum
