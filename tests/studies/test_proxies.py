"""The study of proxies: what is recorded, and that ranks and picks are what they say."""

from __future__ import annotations

from functools import partial
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from typer.testing import CliRunner

from dfsc_tune.config import ObjectiveConfig
from dfsc_tune.errors import UserError
from dfsc_tune.metrics.image import judge
from dfsc_tune.training.objectives.synthetic import Synthetic
from tests.studies import proxies
from tests.studies.__main__ import app
from tests.studies.proxies import agreement, picks, record, settings_to_try
from tests.support.commands import assert_one_sentence
from tests.support.trays import CATEGORY, make_tray

REFERENCE = Path(__file__).parents[2] / "results" / "reference" / "proxy_study.parquet"


def made_up(noise: float, sign: float = 1.0) -> pd.DataFrame:
    """Trainings of five settings whose truth rises with the setting's number."""
    rng = np.random.default_rng(0)
    return pd.DataFrame(
        {
            "category": "tray",
            "config": config,
            "seed": seed,
            "ema_momentum": 0.99,
            "true_mean": 0.6 + 0.05 * config,
            "proxy_mean": 0.7 + sign * 0.05 * config + noise * rng.normal(),
        }
        for config in range(5)
        for seed in range(3)
    )


def test_a_faithful_proxy_agrees_and_picks_as_labels_do() -> None:
    table = made_up(noise=0.001)
    (row,) = agreement(table.assign(true_logical=None, true_structural=None)).to_dict("records")
    assert row["spearman"] == pytest.approx(1)
    assert row["kendall"] == pytest.approx(1)
    (chosen,) = picks(table).to_dict("records")
    assert chosen["synthetic"] == chosen["guarded"] == chosen["labels"] == pytest.approx(0.8)
    assert chosen["default"] == pytest.approx(0.6)
    assert chosen["random"] == pytest.approx(0.7)


def test_a_contrary_proxy_is_seen_through() -> None:
    table = made_up(noise=0.001, sign=-1)
    assert agreement(table.assign(true_logical=None, true_structural=None))["spearman"][0] < -0.99
    # Everything looks worse than the paper's settings, so these are kept.
    assert picks(table)["synthetic"][0] == pytest.approx(0.6)


def test_a_gain_within_noise_keeps_the_default() -> None:
    table = made_up(noise=0.3, sign=0.0)
    (chosen,) = picks(table).to_dict("records")
    assert chosen["guarded"] <= chosen["synthetic"]


def test_picks_are_judged_on_other_trainings() -> None:
    table = made_up(noise=0.001)
    # One training is much better than its setting: it must not be credited for itself.
    table.loc[(table["config"] == 1) & (table["seed"] == 0), ["true_mean", "proxy_mean"]] = 1.0
    (chosen,) = picks(table).to_dict("records")
    assert chosen["labels"] == pytest.approx((0.65 + 0.8 + 0.8) / 3)


def test_recipes_count_alike() -> None:
    kinds = ["good"] * 2 + ["logical"] * 4
    recipes = ["good"] * 2 + ["removed"] * 3 + ["moved"]
    scores = np.array([0.4, 0.5, 0.9, 0.9, 0.9, 0.1])
    found = Synthetic().judge(scores, kinds, recipes)
    assert found == {"auroc_logical": 0.5, "auroc_structural": None, "auroc_mean": 0.5}
    assert judge(scores, kinds)["auroc_logical"] == 0.75


def test_trainings_are_recorded_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    # A few settings, judged by two anomalies a structural recipe, are enough to see the rows.
    count, few = 2, settings_to_try()[:2]
    monkeypatch.setattr(proxies, "settings_to_try", lambda: few)
    monkeypatch.setattr(proxies, "ObjectiveConfig", partial(ObjectiveConfig, per_kind=14))
    data, table = make_tray(tmp_path / "data"), tmp_path / "table.parquet"
    told: list[tuple[int, int]] = []

    def update(done: int, total: int) -> None:
        told.append((done, total))

    first = record(data, [CATEGORY], [0], table, update, num_steps=2)
    assert told[-1] == (count, count)
    assert len(first) == 3 * count
    assert first[["config", "seed", "ema_momentum"]].drop_duplicates().shape[0] == len(first)
    for name in ("true_logical", "true_structural", "proxy_mean", "proxy_scar"):
        assert first[name].between(0, 1).all()
    again = record(data, [CATEGORY], [0], table, update, num_steps=2)
    assert len(again) == len(first)
    with pytest.raises(UserError, match="holds trainings of 2 steps, which 3 cannot"):
        record(data, [CATEGORY], [0], table, update, num_steps=3)


def test_the_recorded_study_is_shown() -> None:
    shown = CliRunner().invoke(app, ["proxy", str(REFERENCE)])
    assert shown.exit_code == 0, shown.output
    assert "splicing_connectors" in shown.stdout
    missing = CliRunner().invoke(app, ["proxy", "nowhere.parquet"])
    assert missing.exit_code == 2
    assert "--category" in missing.output
    for other in (__file__, REFERENCE.parent / "search_curves" / "trials.parquet"):
        refused = CliRunner().invoke(app, ["proxy", str(other)])
        assert_one_sentence(refused, "that `study proxy` wrote")
